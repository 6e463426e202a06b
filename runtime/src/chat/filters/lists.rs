//! Filters of lists and dictionaries.

use std::sync::Arc;

use minijinja::Error;
use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, Tuple, Value, ValueKind};

use super::super::arguments::{Arguments, error};
use super::super::limits::check_size;
use super::super::operators::{self, Number, is_dict, is_object, type_name};
use super::super::{keys, text};
use super::{elements, is_true, number};

pub(super) fn batch(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [count, fill] = args.bind(["linecount", "fill_with"])?;
    let count = count.filter(|count| !count.is_none());
    let count = operators::integer(&count.ok_or_else(|| error("expected a number of items"))?)?;
    let items = elements(value)?;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
        // Python begins a row when the one before has this length.
        let first = (count == 0 && !items.is_empty()).then(Vec::new);
        let rest = Some(items).filter(|items| !items.is_empty());
        return Ok(Value::from(
            first.into_iter().chain(rest).collect::<Vec<_>>(),
        ));
    };
    check_size(count)?;
    let mut rows: Vec<Vec<Value>> = items.chunks(count).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (fill.filter(|fill| !fill.is_none()), rows.last_mut()) {
        last.resize(count, fill);
    }
    Ok(Value::from(rows))
}

pub(super) fn slice(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [count, fill] = args.bind(["slices", "fill_with"])?;
    let count = usize::try_from(number(count.as_ref(), 0)?).unwrap_or(0);
    check_size(count)?;
    if count == 0 {
        return Err(error("expected a number of slices"));
    }
    let items = elements(value)?;
    let (each, more) = (items.len() / count, items.len() % count);
    let mut rest = items.into_iter();
    let mut columns = Vec::new();
    for i in 0..count {
        let mut column: Vec<Value> = rest.by_ref().take(each + usize::from(i < more)).collect();
        if let Some(fill) = fill.as_ref().filter(|fill| !fill.is_none() && i >= more) {
            column.push(fill.clone());
        }
        columns.push(column);
    }
    Ok(Value::from(columns))
}

pub(super) fn first(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    let first = operators::iter(value.clone())?.try_iter()?.next();
    Ok(first.unwrap_or(Value::UNDEFINED))
}

pub(super) fn last(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    Ok(elements(value)?.pop().unwrap_or(Value::UNDEFINED))
}

pub(super) fn items(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    if value.is_undefined() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    if !is_dict(value) {
        return Err(error("can only get the items of a mapping"));
    }
    let pair = |key: Value| -> Result<Value, Error> {
        let item = value.get_item(&key)?;
        Ok(Value::from(Tuple::from([key, item])))
    };
    value.try_iter()?.map(pair).collect()
}

/// The attribute `a.b.0` of a value; the value itself without a name. The default stands for each
/// part that is not there.
pub(super) fn attribute(
    value: &Value,
    name: Option<&Value>,
    default: Option<&Value>,
) -> Result<Value, Error> {
    let Some(name) = name.filter(|name| !name.is_none()) else {
        return Ok(value.clone());
    };
    let part_of = |value: &Value, key: &Value| -> Result<Value, Error> {
        let found = operators::item(value, key)?;
        Ok(match default.filter(|default| !default.is_none()) {
            Some(default) if found.is_undefined() => default.clone(),
            _ => found,
        })
    };
    let Some(path) = name.as_str() else {
        return part_of(value, name);
    };
    let mut value = value.clone();
    for part in path.split('.') {
        let key = part
            .parse::<i64>()
            .map_or_else(|_| Value::from(part), Value::from);
        value = part_of(&value, &key)?;
    }
    Ok(value)
}

pub(super) fn join(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [separator, name] = args.bind(["d", "attribute"])?;
    let separator = separator
        .as_ref()
        .map(text::plain)
        .transpose()?
        .unwrap_or_default();
    let mut joined = String::new();
    for (i, item) in operators::iter(value.clone())?.try_iter()?.enumerate() {
        joined += if i > 0 { &separator } else { "" };
        joined += &text::plain(&attribute(&item, name.as_ref(), None)?)?;
        check_size(joined.len())?;
    }
    Ok(Value::from(joined))
}

pub(super) fn length(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    match value.kind() {
        ValueKind::Undefined => Ok(Value::from(0)),
        ValueKind::String => Ok(Value::from(value.as_str().map_or(0, |t| t.chars().count()))),
        ValueKind::Map if is_object(value, "Loop") => value.get_attr("length"),
        ValueKind::Map if !is_dict(value) => Err(error("an object without a length")),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            Ok(Value::from(match value.len() {
                Some(length) => length,
                None => value.try_iter()?.count(),
            }))
        }
        _ => Err(error(format!(
            "object of type '{}' has no len()",
            type_name(value)
        ))),
    }
}

pub(super) fn list(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    let items = elements(value)?;
    check_size(items.len())?;
    Ok(Value::from(items))
}

pub(super) fn reverse(value: &Value, args: &Arguments) -> Result<Value, Error> {
    args.bind([])?;
    if let Some(text) = value.as_str() {
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut items = elements(value)?;
    items.reverse();
    Ok(Value::from(items))
}

/// The value by which an item is compared: an attribute, in small letters unless case counts.
fn key(item: &Value, name: Option<&Value>, case: bool) -> Result<Value, Error> {
    let key = attribute(item, name, None)?;
    Ok(match key.as_str() {
        Some(text) if !case => Value::from(text.to_lowercase()),
        _ => key,
    })
}

/// Sorts by keys, stably; an error if two keys have no order.
fn sort_by_keys(mut keyed: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<Value>, Error> {
    let mut failed = None;
    keyed.sort_by(|(a, _), (b, _)| {
        let order = operators::order(a, b).ok().flatten();
        if order.is_none() {
            failed.get_or_insert_with(|| [type_name(a), type_name(b)]);
        }
        let order = order.unwrap_or(std::cmp::Ordering::Equal);
        if reverse { order.reverse() } else { order }
    });
    match failed {
        Some([a, b]) => Err(error(format!("'<' not supported between '{a}' and '{b}'"))),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

pub(super) fn sort(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [reverse, case, name] = args.bind(["reverse", "case_sensitive", "attribute"])?;
    // Several attributes are compared one after the other.
    let names: Vec<Option<Value>> = match name.as_ref().and_then(Value::as_str) {
        Some(names) => names
            .split(',')
            .map(|name| Some(Value::from(name)))
            .collect(),
        None => vec![name],
    };
    let mut keyed = Vec::new();
    for item in elements(value)? {
        let mut keys = Vec::new();
        for name in &names {
            keys.push(key(&item, name.as_ref(), is_true(&case))?);
        }
        keyed.push((Value::from(keys), item));
    }
    sort_by_keys(keyed, is_true(&reverse)).map(Value::from)
}

/// The pairs of a dictionary in the order of their keys.
pub(super) fn by_keys(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    let keyed = value.try_iter()?.map(|key| (key.clone(), key)).collect();
    let keys = sort_by_keys(keyed, false)?.into_iter();
    keys.map(|key| Ok((key.clone(), value.get_item(&key)?)))
        .collect()
}

pub(super) fn dict_sort(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [case, by, reverse] = args.bind(["case_sensitive", "by", "reverse"])?;
    let by = by
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or("key")
        .to_owned();
    let at = match by.as_str() {
        "key" => 0,
        "value" => 1,
        _ => return Err(error("expected `by` to be key or value")),
    };
    if value.is_undefined() {
        return Err(operators::undefined());
    }
    let none = Arguments::of(Rest(Vec::new()))?;
    let pairs = elements(&items(value, &none)?)?;
    let keyed = pairs.into_iter().map(|pair| {
        let key = key(
            &operators::item(&pair, &Value::from(at))?,
            None,
            is_true(&case),
        )?;
        Ok((key, pair))
    });
    let keyed: Result<Vec<_>, Error> = keyed.collect();
    sort_by_keys(keyed?, is_true(&reverse)).map(Value::from)
}

/// Items with an equal attribute, a value of the filter `groupby`: a tuple whose parts have names.
#[derive(Debug)]
struct Group {
    grouper: Value,
    list: Value,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_usize(), key.as_str()) {
            (Some(0), _) | (_, Some("grouper")) => Some(self.grouper.clone()),
            (Some(1), _) | (_, Some("list")) => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

pub(super) fn group_by(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [name, default, case] = args.bind(["attribute", "default", "case_sensitive"])?;
    let name = name.ok_or_else(|| error("expected an attribute"))?;
    let grouper =
        |item: &Value| -> Result<Value, Error> { attribute(item, Some(&name), default.as_ref()) };
    let mut keyed = Vec::new();
    for item in elements(value)? {
        let by = key(&grouper(&item)?, None, is_true(&case))?;
        keyed.push((by.clone(), Value::from(vec![by, item])));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for pair in sort_by_keys(keyed, false)? {
        let (by, item) = (pair.get_item_by_index(0)?, pair.get_item_by_index(1)?);
        match groups.last_mut() {
            Some((last, items)) if operators::equal(last, &by)? => items.push(item),
            _ => groups.push((by, vec![item])),
        }
    }
    let group = |(_, items): (Value, Vec<Value>)| -> Result<Value, Error> {
        let grouper = grouper(&items[0])?;
        let list = Value::from(items);
        Ok(Value::from_object(Group { grouper, list }))
    };
    groups.into_iter().map(group).collect()
}

pub(super) fn extreme(
    value: &Value,
    args: &Arguments,
    wanted: std::cmp::Ordering,
) -> Result<Value, Error> {
    let [case, name] = args.bind(["case_sensitive", "attribute"])?;
    let mut best: Option<(Value, Value)> = None;
    for item in elements(value)? {
        let key = key(&item, name.as_ref(), is_true(&case))?;
        let is_better = match &best {
            None => true,
            Some((best, _)) => {
                let order = operators::order(&key, best)?;
                let types = (type_name(&key), type_name(best));
                order.ok_or_else(|| {
                    error(format!("no order between '{}' and '{}'", types.0, types.1))
                })? == wanted
            }
        };
        if is_better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

pub(super) fn sum(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [name, start] = args.bind(["attribute", "start"])?;
    let mut total = start.unwrap_or_else(|| Value::from(0));
    for item in elements(value)? {
        let item = attribute(&item, name.as_ref(), None)?;
        total = operators::arith(Rest(vec![total, Value::from("+"), item]))?;
    }
    Ok(total)
}

pub(super) fn unique(value: &Value, args: &Arguments) -> Result<Value, Error> {
    let [case, name] = args.bind(["case_sensitive", "attribute"])?;
    let (mut seen, mut kept) = (std::collections::HashSet::new(), Vec::new());
    for item in elements(value)? {
        let key = key(&item, name.as_ref(), is_true(&case))?;
        // Equal numbers are one value, whatever their type.
        let shown = match Number::of(&key) {
            Some(number) => text::shown(&Value::from(number.float()))?,
            None if keys::check(&key).is_err() => {
                return Err(error(format!("unhashable type: '{}'", type_name(&key))));
            }
            None => text::shown(&key)?,
        };
        if seen.insert((Number::of(&key).is_some(), shown)) {
            kept.push(item);
        }
    }
    Ok(Value::from(kept))
}

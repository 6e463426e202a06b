//! Python's two ways to put values into a text: `'%s' % value` and `'{}'.format(value)`, with the
//! mini-language of their fields. Widths and precisions are within the limits.

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::arguments::{Arguments, error};
use super::limits::check_size;
use super::operators::{self, Number, is_dict, is_sequence, type_name};
use super::text;

/// A field: `[[fill]align][sign][#][0][width][,][.precision][type]`.
#[derive(Debug, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

/// Digits after the point; Python has no limit, and nothing needs more.
const MOST_DIGITS: usize = 400;

impl Spec {
    fn parse(spec: &str) -> Result<Spec, Error> {
        let bad = || error(format!("invalid format {spec:?}"));
        let chars: Vec<char> = spec.chars().collect();
        let mut parsed = Spec::default();
        let is_align = |at: usize| chars.get(at).copied().filter(|c| "<>=^".contains(*c));
        let mut at = 0;
        if let Some(align) = is_align(1) {
            (parsed.fill, parsed.align, at) = (Some(chars[0]), Some(align), 2);
        } else if let Some(align) = is_align(0) {
            (parsed.align, at) = (Some(align), 1);
        }
        let next = |at: usize| chars.get(at).copied();
        if let Some(sign) = next(at).filter(|c| "+- ".contains(*c)) {
            (parsed.sign, at) = (Some(sign), at + 1);
        }
        if next(at) == Some('#') {
            (parsed.alternate, at) = (true, at + 1);
        }
        if next(at) == Some('0') {
            (parsed.zero, at) = (true, at + 1);
        }
        let number = |at: &mut usize| -> Result<Option<usize>, Error> {
            let start = *at;
            while next(*at).is_some_and(|c| c.is_ascii_digit()) {
                *at += 1;
            }
            let digits: String = chars[start..*at].iter().collect();
            match digits.is_empty() {
                true => Ok(None),
                false => digits.parse().map(Some).map_err(|_| bad()),
            }
        };
        parsed.width = number(&mut at)?.unwrap_or(0);
        if let Some(grouping) = next(at).filter(|c| ",_".contains(*c)) {
            (parsed.grouping, at) = (Some(grouping), at + 1);
        }
        if next(at) == Some('.') {
            at += 1;
            parsed.precision = Some(number(&mut at)?.ok_or_else(bad)?);
        }
        parsed.kind = next(at);
        check_size(parsed.width)?;
        match at + usize::from(parsed.kind.is_some()) == chars.len() {
            true => Ok(parsed),
            false => Err(bad()),
        }
    }

    /// Puts fill around a text; `sign` stays at the left if the alignment is `=`.
    fn pad(&self, sign: &str, body: &str, default: char) -> Result<String, Error> {
        let align = self.align.unwrap_or(if self.zero { '=' } else { default });
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        let length = sign.chars().count() + body.chars().count();
        let space = self.width.saturating_sub(length);
        check_size(
            space
                .saturating_mul(fill.len_utf8())
                .saturating_add(body.len()),
        )?;
        let pad = |count: usize| fill.to_string().repeat(count);
        Ok(match align {
            '<' => format!("{sign}{body}{}", pad(space)),
            '^' => format!("{}{sign}{body}{}", pad(space / 2), pad(space - space / 2)),
            '=' => format!("{sign}{}{body}", pad(space)),
            _ => format!("{}{sign}{body}", pad(space)),
        })
    }

    fn sign(&self, is_negative: bool) -> String {
        match (is_negative, self.sign) {
            (true, _) => "-".into(),
            (false, Some(sign @ ('+' | ' '))) => sign.to_string(),
            (false, _) => String::new(),
        }
    }

    fn value(&self, value: &Value) -> Result<String, Error> {
        let number = Number::of(value);
        let unknown = || {
            let kind = self.kind.unwrap_or_default();
            let name = type_name(value);
            error(format!(
                "unknown format code '{kind}' for an object of type '{name}'"
            ))
        };
        match (number, self.kind) {
            (Some(Number::Int(n)), Some('b' | 'c' | 'd' | 'o' | 'x' | 'X' | 'n')) => self.int(n),
            (Some(Number::Int(n)), None) if value.kind() != ValueKind::Bool => self.int(n),
            (Some(x), Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) => self.float(x.float()),
            (Some(Number::Float(x)), None) => self.float(x),
            (_, None | Some('s')) if number.is_none() || value.kind() == ValueKind::Bool => {
                let plain = text::plain(value)?;
                let shown: String = match self.precision {
                    Some(most) => plain.chars().take(most).collect(),
                    None => plain,
                };
                self.pad("", &shown, '<')
            }
            _ => Err(unknown()),
        }
    }

    fn int(&self, n: i128) -> Result<String, Error> {
        let size = n.unsigned_abs();
        let (prefix, digits) = match self.kind {
            Some('b') => ("0b", format!("{size:b}")),
            Some('o') => ("0o", format!("{size:o}")),
            Some('x') => ("0x", format!("{size:x}")),
            Some('X') => ("0X", format!("{size:X}")),
            Some('c') => {
                let c = u32::try_from(n).ok().and_then(char::from_u32);
                let c = c.ok_or_else(|| error("%c needs the number of a character"))?;
                return self.pad("", &c.to_string(), '<');
            }
            _ => ("", size.to_string()),
        };
        let prefix = if self.alternate { prefix } else { "" };
        let sign = self.sign(n < 0) + prefix;
        let group = if prefix.is_empty() && matches!(self.kind, None | Some('d' | 'n')) {
            3
        } else {
            4
        };
        self.pad(&sign, &self.grouped(&digits, group, sign.len()), '>')
    }

    fn float(&self, x: f64) -> Result<String, Error> {
        let kind = self.kind.unwrap_or('\0');
        let precision = self.precision.unwrap_or(6);
        if precision > MOST_DIGITS {
            return Err(error(format!(
                "precision {precision}: expected at most {MOST_DIGITS}"
            )));
        }
        let size = x.abs();
        let mut body = match kind {
            _ if !x.is_finite() => if x.is_nan() { "nan" } else { "inf" }.to_owned(),
            'f' | 'F' => format!("{size:.precision$}"),
            '%' => format!("{:.precision$}%", size * 100.0),
            'e' | 'E' => exponent(size, precision),
            'g' | 'G' => general(size, precision.max(1), self.alternate),
            _ => match self.precision {
                None => text::float(size),
                Some(precision) => {
                    let shown = general(size, precision.max(1), false);
                    let is_whole = shown.bytes().all(|b| b.is_ascii_digit());
                    if is_whole { shown + ".0" } else { shown }
                }
            },
        };
        if kind.is_ascii_uppercase() {
            body = body.to_uppercase();
        }
        let sign = self.sign(x.is_sign_negative() && !x.is_nan());
        let end = body.find(['.', 'e', 'E', '%']).unwrap_or(body.len());
        let whole = match body.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            true => self.grouped(&body[..end], 3, sign.len() + body.len() - end),
            false => body[..end].to_owned(),
        };
        self.pad(&sign, &format!("{whole}{}", &body[end..]), '>')
    }

    /// Digits in groups; zeros that fill the width are grouped too.
    fn grouped(&self, digits: &str, group: usize, others: usize) -> String {
        let Some(separator) = self.grouping else {
            return digits.to_owned();
        };
        let write = |digits: &str| {
            let mut out = String::new();
            for (i, digit) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i).is_multiple_of(group) {
                    out.push(separator);
                }
                out.push(digit);
            }
            out
        };
        let mut padded = digits.to_owned();
        let is_filled = self.zero && self.align.is_none_or(|align| align == '=');
        while is_filled && write(&padded).len() + others < self.width {
            padded.insert(0, '0');
        }
        write(&padded)
    }
}

/// `1.5e+03`, with at least two digits in the exponent.
fn exponent(x: f64, precision: usize) -> String {
    let text = format!("{x:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The shorter of both notations, with this number of significant digits.
fn general(x: f64, precision: usize, keep_zeros: bool) -> String {
    let scientific = exponent(x, precision - 1);
    let power: i32 = scientific
        .rsplit('e')
        .next()
        .and_then(|e| e.parse().ok())
        .unwrap_or(0);
    let text = match power < -4 || power >= precision as i32 {
        true => scientific,
        false => format!("{x:.*}", (precision as i32 - 1 - power).max(0) as usize),
    };
    if keep_zeros || !text.contains('.') {
        return text;
    }
    let (digits, exponent) = match text.split_once('e') {
        Some((digits, exponent)) => (digits, format!("e{exponent}")),
        None => (text.as_str(), String::new()),
    };
    format!(
        "{}{exponent}",
        digits.trim_end_matches('0').trim_end_matches('.')
    )
}

/// `format % values`.
pub(super) fn percent(format: &Value, values: &Value) -> Result<Value, Error> {
    let is_safe = format.is_safe();
    let format = format.as_str().unwrap_or_default();
    let list: Vec<Value> = match values.is_tuple() {
        true => values.try_iter()?.collect(),
        false => vec![values.clone()],
    };
    let (mut values_left, mut has_keys) = (list.into_iter(), false);
    let (mut out, mut rest) = (String::new(), format);
    while let Some(at) = rest.find('%') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        let mut key = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let end = inner
                .find(')')
                .ok_or_else(|| error("incomplete format key"))?;
            key = Some(&inner[..end]);
            rest = &inner[end + 1..];
        }
        let is_flag = |c: char| "#0- +".contains(c);
        let flags = &rest[..rest.find(|c| !is_flag(c)).unwrap_or(rest.len())];
        rest = &rest[flags.len()..];
        let mut next = || {
            values_left
                .next()
                .ok_or_else(|| error("not enough arguments for format"))
        };
        let mut width = star_or_number(&mut rest, &mut next)?;
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            precision = Some(star_or_number(&mut rest, &mut next)?.unwrap_or(0).max(0) as usize);
        }
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        let kind = rest
            .chars()
            .next()
            .ok_or_else(|| error("incomplete format"))?;
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match key {
            Some(key) => {
                has_keys = true;
                let found = values.get_attr(key).unwrap_or(Value::UNDEFINED);
                let is_there = is_dict(values) && !found.is_undefined();
                is_there
                    .then_some(found)
                    .ok_or_else(|| error(format!("no key {key:?}")))?
            }
            None => next()?,
        };
        let is_left = flags.contains('-') || width.is_some_and(|width| width < 0);
        width = width.map(i64::abs);
        let spec = Spec {
            align: is_left.then_some('<'),
            sign: ['+', ' '].into_iter().find(|sign| flags.contains(*sign)),
            alternate: flags.contains('#'),
            zero: flags.contains('0') && !is_left,
            width: width.unwrap_or(0) as usize,
            precision,
            ..Spec::default()
        };
        let text = converted(spec, kind, &value)?;
        out += &shown(text, is_safe && !value.is_safe());
        check_size(out.len())?;
    }
    // Python checks this only for a tuple or a value without items.
    let has_items = !values.is_tuple() && (is_sequence(values) || is_dict(values));
    let is_used = values_left.next().is_none() || has_keys || has_items || values.is_undefined();
    match is_used {
        true if is_safe => Ok(Value::from_safe_string(out + rest)),
        true => Ok(Value::from(out + rest)),
        false => Err(error("not all arguments were used by the format")),
    }
}

/// A text, escaped if it goes into one that is marked as safe.
fn shown(text: String, is_escaped: bool) -> String {
    match is_escaped {
        true => super::filters::escaped(&text),
        false => text,
    }
}

/// A width or precision: digits, or `*` for the next value.
fn star_or_number(
    rest: &mut &str,
    next: &mut impl FnMut() -> Result<Value, Error>,
) -> Result<Option<i64>, Error> {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        return operators::integer(&next()?).map(Some);
    }
    let digits = &rest[..rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len())];
    *rest = &rest[digits.len()..];
    match digits.is_empty() {
        true => Ok(None),
        false => digits
            .parse()
            .map(Some)
            .map_err(|_| error("the width is too large")),
    }
}

/// A value as `%d`, `%s` and so on write it.
fn converted(mut spec: Spec, kind: char, value: &Value) -> Result<String, Error> {
    check_size(spec.width)?;
    let number = Number::of(value);
    match kind {
        's' | 'r' | 'a' => {
            let shown = match kind {
                's' => text::plain(value)?,
                'r' => text::shown(value)?,
                _ => text::ascii(&text::shown(value)?),
            };
            let shown: String = match spec.precision {
                Some(most) => shown.chars().take(most).collect(),
                None => shown,
            };
            (spec.zero, spec.sign) = (false, None);
            spec.pad("", &shown, '>')
        }
        'c' if value.as_str().is_some_and(|text| text.chars().count() == 1) => {
            spec.zero = false;
            spec.pad("", value.as_str().unwrap_or_default(), '>')
        }
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'c' => {
            let n = match number {
                Some(Number::Int(n)) => n,
                Some(Number::Float(x)) if "diu".contains(kind) && x.is_finite() => x as i128,
                _ => {
                    let found = type_name(value);
                    return Err(error(format!(
                        "%{kind} format: a number is required, not {found}"
                    )));
                }
            };
            spec.kind = Some(if "iu".contains(kind) { 'd' } else { kind });
            let digits = spec.precision.take().unwrap_or(0);
            if digits > MOST_DIGITS {
                return Err(error(format!(
                    "precision {digits}: expected at most {MOST_DIGITS}"
                )));
            }
            let shown = spec.int(n)?;
            Ok(match shown.trim_start_matches('-').len() < digits {
                true => format!(
                    "{}{:0>digits$}",
                    if n < 0 { "-" } else { "" },
                    n.unsigned_abs()
                ),
                false => shown,
            })
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let found = type_name(value);
            let x = number.ok_or_else(|| error(format!("must be real number, not {found}")))?;
            spec.kind = Some(kind);
            spec.float(x.float())
        }
        kind => Err(error(format!("unsupported format character '{kind}'"))),
    }
}

/// `text.format(…)` and `text.format_map(…)`.
pub(super) fn method(text: &Value, name: &str, args: &Arguments) -> Result<Value, Error> {
    let map = match name {
        "format_map" => args.positional.first().cloned(),
        _ => None,
    };
    let is_safe = text.is_safe();
    let mut fields = Fields {
        args,
        map,
        next: Some(0),
        is_safe,
    };
    let written = fields.written(text.as_str().unwrap_or_default(), 0)?;
    Ok(operators::safe_like(text, written))
}

struct Fields<'a> {
    args: &'a Arguments,
    /// The dictionary of `format_map`.
    map: Option<Value>,
    /// The next field without a name; none after a field with a number.
    next: Option<usize>,
    /// Whether values are escaped, because the text is marked as safe.
    is_safe: bool,
}

impl Fields<'_> {
    /// The text with its fields filled in; fields in formats may nest once.
    fn written(&mut self, text: &str, depth: usize) -> Result<String, Error> {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            out += &rest[..at];
            let brace = &rest[at..at + 1];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out += brace;
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(error("single '}' encountered in format string"));
            }
            let end = field_end(rest).ok_or_else(|| error("expected '}' before end of string"))?;
            if depth > 1 {
                return Err(error("fields lie too deep in one another"));
            }
            out += &self.field(&rest[..end], depth)?;
            check_size(out.len())?;
            rest = &rest[end + 1..];
        }
        Ok(out + rest)
    }

    /// `name[.attribute][[key]][!conversion][:format]`
    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        let (name, spec) = match field.find([':', '!']) {
            Some(at) if field[at..].starts_with(':') => (&field[..at], &field[at + 1..]),
            Some(at) => (
                &field[..at],
                field[at..].split_once(':').map_or("", |(_, spec)| spec),
            ),
            None => (field, ""),
        };
        let conversion = field[name.len()..]
            .strip_prefix('!')
            .and_then(|c| c.chars().next());
        let value = self.value(name)?;
        let spec = self.written(spec, depth + 1)?;
        let value = match conversion {
            None => value,
            Some('s') => Value::from(text::plain(&value)?),
            Some('r') => Value::from(text::shown(&value)?),
            Some('a') => Value::from(text::ascii(&text::shown(&value)?)),
            Some(c) => return Err(error(format!("unknown conversion '{c}'"))),
        };
        let written = match spec.is_empty() {
            true => text::plain(&value)?,
            false => Spec::parse(&spec)?.value(&value)?,
        };
        Ok(shown(written, self.is_safe && !value.is_safe()))
    }

    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let mixed = || error("fields with and without numbers cannot be mixed");
        let position = match (name.is_empty(), first.parse::<usize>().ok()) {
            (true, _) => {
                let at = self.next.ok_or_else(mixed)?;
                self.next = Some(at + 1);
                Some(at)
            }
            (false, Some(_)) if self.next.is_some_and(|next| next > 0) => return Err(mixed()),
            (false, Some(at)) => {
                self.next = None;
                Some(at)
            }
            (false, None) => None,
        };
        let found = match (&self.map, position) {
            (Some(map), _) => Some(map.get_attr(first)?).filter(|value| !value.is_undefined()),
            (None, Some(at)) => self.args.positional.get(at).cloned(),
            (None, None) => self.args.named(first),
        };
        let mut value =
            found.ok_or_else(|| error(format!("no argument for the field {name:?}")))?;
        while !rest.is_empty() {
            let (key, after) = match rest.strip_prefix('[') {
                Some(inner) => inner.split_once(']').ok_or_else(|| error("missing ']'"))?,
                None => {
                    let inner = &rest[1..];
                    inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
                }
            };
            let is_index = rest.starts_with('[');
            value = match (is_index, key.parse::<i64>()) {
                (true, Ok(at)) => operators::item(&value, &Value::from(at))?,
                (true, Err(_)) => operators::item(&value, &Value::from(key))?,
                (false, _) => operators::attr(&value, key)?,
            };
            rest = after;
        }
        Ok(value)
    }
}

/// Length of a field, which may contain others.
fn field_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            '{' => depth += 1,
            _ => {}
        }
    }
    None
}

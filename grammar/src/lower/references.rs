//! What `$ref` names: places, anchors, and schemas with an id, all inside of one schema.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::place::Place;
use crate::Error;
use crate::schema::walk;

/// Most bytes of the pointer to a schema with an id or an anchor.
const LONGEST: usize = 1000;

/// The names in a schema.
pub(crate) struct References<'s> {
    whole: &'s Value,
    /// Ids, and the pointers of the schemas that have them.
    ids: Vec<(String, String)>,
    /// Pointers of schemas by the pointer of the schema with an id around them, and their anchor.
    anchors: HashMap<(String, String), String>,
}

impl<'s> References<'s> {
    /// # Errors
    /// An id or an anchor at a place with a long name, or one that occurs twice.
    pub(crate) fn of(whole: &'s Value) -> Result<References<'s>, Error> {
        let id_keyword = match draft(whole) {
            Some(4) => "id",
            _ => "$id",
        };
        let mut found = References {
            whole,
            ids: vec![(String::new(), "#".into())],
            anchors: HashMap::new(),
        };
        let mut anchors = Vec::new();
        let mut too_long = None;
        walk(&Place::of("#"), whole, &mut |at, keywords| {
            let names = [id_keyword, "$anchor", "$dynamicAnchor"];
            if too_long.is_some() || !names.iter().any(|name| keywords.contains_key(*name)) {
                return;
            }
            let pointer = at.pointer();
            if pointer.len() > LONGEST {
                let why = format!("its place has more than {LONGEST} bytes; use shorter names");
                too_long = Some(Place::of("#").refuse(format!("an id or an anchor: {why}")));
                return;
            }
            let text = |keyword: &str| keywords.get(keyword).and_then(Value::as_str);
            if let Some(id) = text(id_keyword) {
                let (uri, fragment) = id.split_once('#').unwrap_or((id, ""));
                match pointer.as_str() {
                    "#" => found.ids[0].0 = uri.to_owned(),
                    _ if !uri.is_empty() => found.ids.push((uri.to_owned(), pointer.to_owned())),
                    _ => {}
                }
                anchors.push((pointer.to_owned(), fragment.to_owned()));
            }
            for keyword in ["$anchor", "$dynamicAnchor"] {
                let anchor = text(keyword).map(|name| (pointer.to_owned(), name.to_owned()));
                anchors.extend(anchor);
            }
        });
        if let Some(error) = too_long {
            return Err(error);
        }
        // The ids of parts are relative to the id of the whole.
        let root = found.ids[0].0.clone();
        for (id, _) in &mut found.ids[1..] {
            *id = joined(&root, id);
        }
        // A reference would name only one of them.
        let mut known = HashSet::new();
        let mut ids = found.ids.iter();
        if let Some((id, pointer)) = ids.find(|(id, _)| !id.is_empty() && !known.insert(id)) {
            let why = format!("the id {id:?} occurs twice; give each schema its own");
            return Err(Place::of(pointer).refuse(why));
        }
        for (pointer, name) in anchors {
            let around = found.around(&pointer).1.clone();
            let other = found
                .anchors
                .insert((around, name.clone()), pointer.clone());
            if !name.is_empty() && other.is_some_and(|other| other != pointer) {
                let why = format!("the anchor {name:?} occurs twice; give each schema its own");
                return Err(Place::of(&pointer).refuse(why));
            }
        }
        Ok(found)
    }

    /// Whether references mean the same everywhere in the schema.
    pub(crate) fn has_one_id(&self) -> bool {
        self.ids.len() == 1
    }

    /// The schema with an id that a place is in.
    fn around(&self, pointer: &str) -> &(String, String) {
        let is_around = |(_, around): &&(String, String)| {
            let rest = pointer.strip_prefix(around.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let around = self.ids.iter().filter(is_around);
        around
            .max_by_key(|(_, around)| around.len())
            .unwrap_or(&self.ids[0])
    }

    /// The pointer and the schema that a reference at a place names.
    ///
    /// # Errors
    /// It names nothing in this schema.
    pub(crate) fn find(&self, at: &Place, reference: &Value) -> Result<(String, &'s Value), Error> {
        let Some(text) = reference.as_str() else {
            return Err(at.refuse(format!("{reference}: expected a string")));
        };
        let (uri, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (id, around) = match self.has_one_id() {
            true => &self.ids[0],
            false => self.around(&at.pointer()),
        };
        let mut resource = around;
        if !uri.is_empty() {
            let named = joined(id, uri);
            let named = self.ids.iter().find(|(id, _)| *id == named || *id == uri);
            let Some((_, pointer)) = named else {
                return Err(at.refuse(format!(
                    "{text:?} is not in this schema; copy what it names into $defs"
                )));
            };
            resource = pointer;
        }
        let fragment = decoded(fragment);
        let pointer = match fragment.as_str() {
            "" => Some(resource.clone()),
            path if path.starts_with('/') => Some(format!("{resource}{path}")),
            name => {
                let key = (resource.clone(), name.to_owned());
                self.anchors.get(&key).cloned()
            }
        };
        let found = pointer.and_then(|pointer| {
            let found = self.whole.pointer(&pointer[1..])?;
            Some((pointer, found))
        });
        found.ok_or_else(|| at.refuse(format!("{text:?} names nothing in this schema")))
    }
}

/// The number of the draft that `$schema` names, 4 to 7; later ones have no number.
pub(crate) fn draft(schema: &Value) -> Option<u32> {
    let name = schema.get("$schema")?.as_str()?;
    let number = name.split_once("json-schema.org/draft-0")?.1;
    number.chars().next()?.to_digit(10)
}

/// Whether what is beside `$ref` has no effect.
pub(crate) fn is_alone(keywords: &Map<String, Value>, draft: Option<u32>) -> bool {
    draft.is_some() && keywords.get("$ref").is_some_and(Value::is_string)
}

/// An address relative to another one.
fn joined(base: &str, uri: &str) -> String {
    if uri.contains("://") || uri.starts_with("urn:") {
        return uri.to_owned();
    }
    let host = base
        .find("://")
        .and_then(|i| base[i + 3..].find('/').map(|j| i + 3 + j));
    match (uri.starts_with('/'), host, base.rfind('/')) {
        (true, Some(host), _) => format!("{}{uri}", &base[..host]),
        (false, _, Some(last)) => format!("{}{uri}", &base[..=last]),
        _ => uri.to_owned(),
    }
}

/// A fragment without `%` and two digits in place of bytes.
fn decoded(fragment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = fragment.as_bytes();
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

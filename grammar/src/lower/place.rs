//! Where a part of a schema is.

use std::borrow::Cow;

use crate::Error;

/// A place in a schema, as a chain of keys.
pub(crate) struct Place<'p> {
    above: Option<&'p Place<'p>>,
    /// The key below `above`, or the whole JSON pointer.
    key: Cow<'p, str>,
}

impl<'p> Place<'p> {
    /// The place that a JSON pointer names, `#` in front.
    pub(crate) fn of(pointer: &'p str) -> Place<'p> {
        Place {
            above: None,
            key: Cow::Borrowed(pointer),
        }
    }

    /// The place of a keyword, or of a key of an object.
    pub(crate) fn key(&'p self, key: &'p str) -> Place<'p> {
        self.below(Cow::Borrowed(key))
    }

    /// The place of an item of a list.
    pub(crate) fn item(&'p self, index: usize) -> Place<'p> {
        self.below(Cow::Owned(index.to_string()))
    }

    fn below(&'p self, key: Cow<'p, str>) -> Place<'p> {
        Place {
            above: Some(self),
            key,
        }
    }

    /// The place above.
    pub(crate) fn above(&self) -> Option<&'p Place<'p>> {
        self.above
    }

    /// The JSON pointer, `#` in front.
    pub(crate) fn pointer(&self) -> String {
        let mut keys = Vec::new();
        let mut here = self;
        while let Some(above) = here.above {
            keys.push(escaped(&here.key));
            here = above;
        }
        keys.push(here.key.clone().into_owned());
        keys.reverse();
        keys.join("/")
    }

    /// An error at this place.
    pub(crate) fn refuse(&self, why: impl Into<String>) -> Error {
        Error::Schema {
            pointer: self.pointer(),
            why: why.into(),
        }
    }
}

/// A key in a JSON pointer.
pub(crate) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

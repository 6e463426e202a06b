//! The origins of the values of a recipe.

use std::collections::BTreeMap;

/// The origin of every value that was set: a preset, a file, a flag or a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origins(BTreeMap<String, String>);

impl Origins {
    /// The origin of a value by its key, like `train.steps`; "default" if nothing set it.
    pub fn of(&self, key: &str) -> &str {
        self.0.get(key).map_or("default", String::as_str)
    }

    /// Whether something set this value.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn set(&mut self, key: &str, origin: &str) {
        self.0.insert(key.to_owned(), origin.to_owned());
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }
}

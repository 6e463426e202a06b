//! Compiled rules that are likely to come again.

use std::sync::{Arc, Mutex, PoisonError};

use sterna_runtime::Constraint;

use crate::Follower;

/// Most compiled rules that are kept.
pub const KEPT: usize = 64;
/// Most bytes of their texts together. A compiled rule takes some hundred times its text, so this
/// bounds their memory to some 100 MB.
const TEXT: usize = 512 << 10;

/// The rules that were used last, the last one at the end.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Vec<(String, Arc<Follower>)>>);

impl Kept {
    /// The rule of a key. The lock is not held while it is copied.
    pub(crate) fn find(&self, key: &str) -> Option<Arc<Follower>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(other, _)| other == key)?;
        let found = kept.remove(place);
        let rule = Arc::clone(&found.1);
        kept.push(found);
        Some(rule)
    }

    /// Keeps a rule, and returns a copy of it.
    pub(crate) fn keep(&self, key: String, rule: Follower) -> Box<dyn Constraint> {
        let copy = rule.fork();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| *other != key);
        kept.push((key, Arc::new(rule)));
        let text = |kept: &[(String, Arc<Follower>)]| -> usize {
            kept.iter().map(|(key, _)| key.len()).sum()
        };
        while kept.len() > KEPT || text(&kept) > TEXT {
            kept.remove(0);
        }
        copy
    }
}

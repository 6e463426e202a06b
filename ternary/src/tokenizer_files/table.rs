//! The table of the added tokens, and how it differs from that of a tokenizer.json.

use std::collections::HashMap;

use serde_json::Value;

use super::added::Added;
use crate::json;

/// Added tokens with the ids that the crate `tokenizers` gives them.
pub(super) struct Table {
    pub vocabulary: HashMap<String, u64>,
    pub tokens: Vec<(u64, Added)>,
}

impl Table {
    pub fn new(vocabulary: HashMap<String, u64>) -> Table {
        let tokens = Vec::new();
        Table { vocabulary, tokens }
    }

    pub fn add(&mut self, (_, token): &(u64, Added)) {
        if token.content.is_empty() {
            return;
        }
        if let Some(known) = self
            .tokens
            .iter_mut()
            .find(|(_, t)| t.content == token.content)
        {
            known.1 = token.clone();
            return;
        }
        let size = self.vocabulary.len() as u64;
        let next = || {
            self.tokens
                .iter()
                .map(|(id, _)| id + 1)
                .max()
                .unwrap_or(0)
                .max(size)
        };
        let id = self
            .vocabulary
            .get(&token.content)
            .copied()
            .unwrap_or_else(next);
        self.tokens.push((id, token.clone()));
    }

    /// A sentence for each kind of difference to the tokens that tokenizer.json has.
    pub fn changes(
        &self,
        own: &[(u64, Added)],
        missing: &[(u64, Added)],
        stated: &HashMap<String, u64>,
    ) -> Vec<String> {
        let known = |token: &Added| own.iter().find(|(_, own)| own.content == token.content);
        let (mut new, mut other, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        for (id, token) in &self.tokens {
            let name = json::shown(&token.content);
            match known(token) {
                None => new.push(format!("{name} ({id})")),
                Some((_, own)) if own != token => other.push(name.clone()),
                Some(_) => {}
            }
            let is_new = missing.iter().any(|(_, new)| new.content == token.content);
            match stated.get(&token.content) {
                Some(stated) if is_new && stated != id => {
                    moved.push(format!("{name} ({id}, not {stated})"));
                }
                _ => {}
            }
        }
        let sentence = |what: &str, names: Vec<String>| {
            (!names.is_empty()).then(|| format!("{what}: {}", listed(&names)))
        };
        [
            sentence(
                "tokens that tokenizer.json lacks were added to it, with their ids",
                new,
            ),
            sentence(
                "tokens got the properties that tokenizer_config.json states",
                other,
            ),
            sentence(
                "tokens have other ids than their file states, as in transformers",
                moved,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    pub fn json(&self) -> Value {
        let mut tokens = self.tokens.clone();
        tokens.sort_by_key(|(id, _)| *id);
        tokens.iter().map(|(id, token)| token.json(*id)).collect()
    }
}

/// The first names of a list, and how many more there are.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let first = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

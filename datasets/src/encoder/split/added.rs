//! Added tokens that are written out in plain text.

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;

use super::normalizer::Normalizer;

/// The added tokens that are found in plain text: those that are not special. `tokenizers` looks
/// for some before the normalizer and for the others after it.
pub(super) struct Added {
    pub(super) passes: Vec<AddedPass>,
    pub(super) longest: usize,
}

/// Added tokens that are looked for at the same time.
pub(super) struct AddedPass {
    /// Ids of the tokens, and whether they are special.
    tokens: Vec<(u32, bool)>,
    finder: AhoCorasick,
}

/// An added token in a text.
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) id: u32,
}

impl Added {
    /// `None` if a token has rules about the text around it, or depends on the normalizer.
    pub(super) fn new(tokens: &Value, normalizer: Normalizer) -> Option<Added> {
        let mut longest = 0;
        let mut passes = Vec::new();
        let tokens = tokens.as_array().map(Vec::as_slice).unwrap_or_default();
        for is_normalized in [false, true] {
            let (mut names, mut ids) = (Vec::new(), Vec::new());
            for token in tokens
                .iter()
                .filter(|t| (t["normalized"] == true) == is_normalized)
            {
                let is_special = token["special"] == true;
                let has_rules = ["lstrip", "rstrip", "single_word"]
                    .iter()
                    .any(|r| token[r] == true);
                let content = token["content"].as_str()?;
                let is_plain = match normalizer {
                    Normalizer::None => true,
                    Normalizer::Canonical => content.is_ascii(),
                    Normalizer::Compatible => false,
                    Normalizer::Spaces => !is_normalized,
                };
                if !is_special && (has_rules || !is_plain) {
                    return None;
                }
                longest = longest.max(content.len());
                names.push(content);
                ids.push((token["id"].as_u64()? as u32, is_special));
            }
            if ids.iter().any(|(_, is_special)| !is_special) {
                let mut finder = AhoCorasick::builder();
                let finder = finder.match_kind(MatchKind::LeftmostLongest).build(names);
                let finder = finder.ok()?;
                passes.push(AddedPass {
                    tokens: ids,
                    finder,
                });
            }
        }
        Some(Added { passes, longest })
    }
}

impl AddedPass {
    /// The tokens in a text. A special token hides those inside of it and is text itself.
    pub(super) fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Found> + 'a {
        self.finder.find_iter(text).filter_map(|found| {
            let (id, is_special) = self.tokens[found.pattern().as_usize()];
            (!is_special).then_some(Found {
                start: found.start(),
                end: found.end(),
                id,
            })
        })
    }
}

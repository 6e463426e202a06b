//! The normalizer of a tokenizer, and the prefix that it writes before a text.

use serde_json::Value;

use super::list;

/// A character sequence that a tokenizer writes before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Whether a text that begins with a space gets none.
    pub(super) unless_space: bool,
    /// Whether only the first text of a document gets it, and not those after an added token.
    pub(super) first_only: bool,
}

/// What a normalizer does to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Normalizer {
    None,
    /// NFC or NFD.
    Canonical,
    /// NFKC or NFKD.
    Compatible,
    /// Writes `▁` for each space.
    Spaces,
}

/// The kind of a normalizer, and the prefix that it writes. `None` if it is not known here.
pub(super) fn normalizer(of: &Value) -> Option<(Normalizer, Option<Prefix>)> {
    let (mut kind, mut prefix) = (Normalizer::None, None);
    for step in list(of, "normalizers") {
        match (step["type"].as_str()?, kind) {
            ("NFC" | "NFD", Normalizer::None) if prefix.is_none() => kind = Normalizer::Canonical,
            ("NFKC" | "NFKD", Normalizer::None) if prefix.is_none() => {
                kind = Normalizer::Compatible;
            }
            ("Prepend", Normalizer::None) if step["prepend"] == "▁" => {
                prefix = Some(Prefix {
                    unless_space: false,
                    first_only: false,
                });
            }
            ("Replace", Normalizer::None)
                if step["pattern"]["String"] == " " && step["content"] == "▁" =>
            {
                kind = Normalizer::Spaces;
            }
            _ => return None,
        }
    }
    (prefix.is_none() || kind == Normalizer::Spaces).then_some((kind, prefix))
}

/// The prefix of the step `Metaspace`; `None` if it is not known here.
pub(super) fn metaspace_prefix(step: &Value) -> Option<Option<Prefix>> {
    if step["replacement"] != "▁" {
        return None;
    }
    let first_only = match step["prepend_scheme"].as_str()? {
        "always" => false,
        "first" => true,
        "never" => return Some(None),
        _ => return None,
    };
    Some(Some(Prefix {
        unless_space: true,
        first_only,
    }))
}

//! Chat templates for models that are trained from scratch, by name.
//!
//! A template is a Jinja file, as transformers reads it. The tokenizer that is trained with it has
//! a token for each of its special tokens. A message that spells one gets that token, here as in
//! transformers: a server must check the messages that it receives.

/// A chat template and the tokens that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The Jinja source.
    pub source: String,
    /// Tokens that it writes by name, beside those that begin and end a text.
    pub special_tokens: Vec<String>,
}

/// The template of a recipe that names none.
pub const DEFAULT: &str = "chatml";

/// The built-in templates: name, source and special tokens.
const NAMED: [(&str, &str, &[&str]); 1] = [(
    "chatml",
    include_str!("templates/chatml.jinja"),
    &["<|im_start|>", "<|im_end|>"],
)];

impl Template {
    /// The template of this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        let (_, source, special_tokens) = NAMED.into_iter().find(|(known, ..)| *known == name)?;
        Some(Self {
            source: source.to_owned(),
            special_tokens: special_tokens
                .iter()
                .map(|token| token.to_string())
                .collect(),
        })
    }

    /// The names that [`Template::named`] knows, for messages.
    pub fn names() -> String {
        NAMED.map(|(name, ..)| name).join(", ")
    }
}

/// The parts of a text between special tokens; a tokenizer is trained on them.
pub fn between<'a>(text: &'a str, special_tokens: &[&str]) -> Vec<&'a str> {
    let mut parts = vec![text];
    for token in special_tokens {
        parts = parts.iter().flat_map(|part| part.split(token)).collect();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_templates_write_the_tokens_that_they_declare() {
        for (name, ..) in NAMED {
            let template = Template::named(name).unwrap();
            for token in &template.special_tokens {
                assert!(template.source.contains(token), "{name}: {token}");
            }
        }
        assert!(Template::named(DEFAULT).is_some() && Template::named("llama9").is_none());
    }

    #[test]
    fn special_tokens_are_no_text() {
        let text = "<s><|a|>user\nHi<|b|>\n<|a|>";
        let parts = between(text, &["<|a|>", "<|b|>", "<s>"]);
        assert_eq!(parts, ["user\nHi", "\n"]);
    }
}

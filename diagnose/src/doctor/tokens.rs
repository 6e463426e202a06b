//! Checks of the tokenizer, the chat template and the tokens that end a turn.

use serde_json::Value;
use sterna_convert::{split_rule as rule_of, split_rule_named};
use sterna_runtime::{Error, Message, Tokenizer};

use super::finding::Finding;
use super::patient::{Origin, Patient};
use crate::Result;
use crate::template::format_of;

/// A well-known tokenizer: how to recognize it, and how it splits text.
struct Known {
    name: &'static str,
    /// A token that it has.
    token: &'static str,
    /// How many tokens it has. The range includes fine-tunes with a few more.
    tokens: std::ops::RangeInclusive<usize>,
    /// The name of the split rule in GGUF.
    rule: &'static str,
}

static KNOWN: [Known; 3] = [
    Known {
        name: "Llama 3, which BitNet b1.58 2B4T has too",
        token: "<|eot_id|>",
        tokens: 128_000..=129_000,
        rule: "llama-bpe",
    },
    Known {
        name: "Falcon3",
        token: ">>TITLE<<",
        tokens: 131_000..=131_200,
        rule: "llama-bpe",
    },
    Known {
        name: "Qwen2 and Qwen3",
        token: "<|im_end|>",
        tokens: 151_600..=152_100,
        rule: "qwen2",
    },
];

/// Whether text is cut into the pieces that the tokenizer was trained on.
pub fn split_rule(patient: &Patient) -> Result<Finding> {
    let tokenizer = match tokenizer(patient) {
        Ok(tokenizer) => tokenizer,
        Err(finding) => return Ok(finding),
    };
    let json = patient.json("tokenizer.json");
    let rule = rule_of(&json["pre_tokenizer"]);
    let known = KNOWN.iter().find(|known| {
        known.tokens.contains(&tokenizer.len()) && tokenizer.token_to_id(known.token).is_some()
    });
    if let Origin::Gguf { pre, .. } = &patient.origin
        && let Some(finding) = of_gguf(pre.as_deref(), rule, is_byte_level(&json))
    {
        return Ok(finding);
    }
    let shown = rule.unwrap_or("an unknown split rule");
    Ok(match known {
        Some(known) if rule.is_some_and(|rule| rule != known.rule) => Finding::broken(format!(
            "this is the tokenizer of {}, which splits text as {} does, but tokenizer.json says \
             {shown}",
            known.name, known.rule
        )),
        Some(known) => Finding::ok(format!("{shown}, the tokenizer of {}", known.name)),
        None => Finding::ok(format!("{shown}; {} tokens", tokenizer.len())),
    })
}

fn is_byte_level(tokenizer: &Value) -> bool {
    tokenizer["decoder"]["type"] == "ByteLevel"
}

/// The defect in the key `tokenizer.ggml.pre` of a GGUF file, if there is one.
fn of_gguf(pre: Option<&str>, rule: Option<&str>, is_byte_level: bool) -> Option<Finding> {
    match pre {
        None if is_byte_level => Some(Finding::suspect(format!(
            "there is no tokenizer.ggml.pre: Sterna splits as {} does, other programs as GPT-2, \
             and numbers then become other tokens",
            rule.unwrap_or("tokenizer.json")
        ))),
        Some(pre) if rule.is_some() && split_rule_named(pre) != rule => {
            Some(Finding::broken(format!(
                "tokenizer.ggml.pre is {pre}, but the tokenizer.json in the same file splits as \
                 {} does",
                rule.unwrap_or_default()
            )))
        }
        _ => None,
    }
}

/// Whether every token has a row in the embedding, and there are not far more rows than tokens.
pub fn vocabulary(patient: &Patient) -> Result<Finding> {
    if let (Err(error), Some(_)) = (&patient.tokenizer, patient.file("tokenizer.json")) {
        return Ok(Finding::broken(error.to_string()));
    }
    let tokenizer = match tokenizer(patient) {
        Ok(tokenizer) => tokenizer,
        Err(finding) => return Ok(finding),
    };
    let (tokens, rows) = (tokenizer.len(), patient.source.config().vocab_size);
    let mut shown = format!("{tokens} tokens, {rows} rows in the embedding");
    let beyond: Vec<String> = tokenizer.beyond().map(|(_, token)| token).collect();
    if !beyond.is_empty() {
        shown += &format!(
            "; text with {} is refused, it has no row",
            beyond.join(", ")
        );
    }
    let ends = tokenizer.eos().iter().find(|id| **id as usize >= rows);
    Ok(match ends {
        Some(id) => Finding::broken(format!(
            "{shown}; token {id} ends a text, but the embedding \
                                             has no row for it"
        )),
        // Models pad their vocabulary to a round number.
        None if tokens * 10 < rows * 9 => Finding::suspect(format!(
            "{shown}: the tokenizer belongs to a model with a smaller \
                                      vocabulary"
        )),
        None => Finding::ok(shown),
    })
}

/// Whether the template renders, and uses only tokens that the vocabulary has.
pub fn template(patient: &Patient) -> Result<Finding> {
    const MISTAKE: &str = "BITNETAssistant";
    if let Origin::Gguf { template, .. } = &patient.origin
        && template.as_deref().is_some_and(|t| t.contains(MISTAKE))
    {
        return Ok(Finding::broken(format!(
            "the file carries a template with {MISTAKE:?}, an early mistake; Sterna replaces it, \
             other programs do not"
        )));
    }
    let template = match patient.template() {
        Ok(template) => template,
        Err(Error::NoChatTemplate) => {
            return Ok(Finding::not_applicable(
                "there is none: this is a base model, which continues text",
            ));
        }
        Err(error) => return Ok(Finding::broken(error.to_string())),
    };
    let text = match template.render(&conversation(), true) {
        Ok(text) => text,
        Err(error) => return Ok(Finding::broken(error.to_string())),
    };
    let tokenizer = match tokenizer(patient) {
        Ok(tokenizer) => tokenizer,
        Err(finding) => return Ok(finding),
    };
    if !text.contains(QUESTION) {
        return Ok(Finding::broken(
            "the template drops the message of the user",
        ));
    }
    let unknown: Vec<&str> = marks(&text)
        .filter(|mark| tokenizer.token_to_id(mark).is_none())
        .collect();
    let format = format_of(template.original());
    Ok(match unknown.first() {
        Some(_) => Finding::broken(format!(
            "{format}; the vocabulary has no {}: the template belongs to another model",
            unknown.join(", no ")
        )),
        None => Finding::ok(format),
    })
}

/// Whether the token that the template writes after an answer is one that ends a text.
pub fn end_of_turn(patient: &Patient) -> Result<Finding> {
    let tokenizer = match tokenizer(patient) {
        Ok(tokenizer) => tokenizer,
        Err(finding) => return Ok(finding),
    };
    let ends = ids(&patient.json("generation_config.json")["eos_token_id"]);
    let template = patient.template().ok();
    let template = template.filter(|template| template.after_answer().is_ok());
    let Some(template) = template else {
        return Ok(match tokenizer.eos() {
            [] => Finding::suspect("no file says which token ends a text, so it never ends"),
            eos => Finding::ok(format!(
                "no template; {} ends a text",
                names(tokenizer, eos)
            )),
        });
    };
    let Some(end) = tokenizer.end_of_turn(&template) else {
        return Ok(Finding::ok("the template ends answers with plain text"));
    };
    let name = names(tokenizer, &[end]);
    Ok(if ends.contains(&end) {
        Finding::ok(format!("{name}, as generation_config.json says"))
    } else {
        Finding::suspect(format!(
            "the template ends an answer with {name}, which generation_config.json does not list: \
             Sterna stops there anyway, but other programs may run on"
        ))
    })
}

/// Tokens by name and id, for a message.
fn names(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let name = |id: &u32| match tokenizer.token(*id) {
        Some((name, _)) => format!("{name} ({id})"),
        None => id.to_string(),
    };
    let names: Vec<String> = ids.iter().map(name).collect();
    match names.is_empty() {
        true => "nothing".to_owned(),
        false => names.join(", "),
    }
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter()
        .filter_map(|v| u32::try_from(v.as_u64()?).ok())
        .collect()
}

const QUESTION: &str = "Which bird flies furthest?";
const ANSWER: &str = "The Arctic tern.";

fn conversation() -> [Message; 2] {
    [
        Message::new("user", QUESTION),
        Message::new("assistant", ANSWER),
    ]
}

/// Pieces of a text that look like a special token of the form `<|name|>`.
fn marks(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.match_indices("<|").map(|(at, _)| at);
    starts.filter_map(|at| {
        let end = text[at..].find("|>")?;
        let mark = &text[at..at + end + 2];
        (!mark.contains(char::is_whitespace)).then_some(mark)
    })
}

fn tokenizer(patient: &Patient) -> std::result::Result<&Tokenizer, Finding> {
    let tokenizer = patient.tokenizer.as_ref();
    tokenizer.map_err(|_| Finding::not_applicable(patient.no_text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_what_looks_like_a_special_token() {
        let text = "<|im_start|>user\na <| b |> c<|im_end|>\n<|open";
        assert_eq!(
            marks(text).collect::<Vec<_>>(),
            ["<|im_start|>", "<|im_end|>"]
        );
    }

    #[test]
    fn a_gguf_file_names_the_rule_of_its_tokenizer() {
        use super::super::finding::Verdict;
        let check = |pre, rule, expected: Option<Verdict>| {
            assert_eq!(of_gguf(pre, rule, true).map(|f| f.verdict), expected);
        };
        check(Some("llama3"), Some("llama-bpe"), None);
        check(Some("default"), Some("llama-bpe"), Some(Verdict::Broken));
        check(None, Some("llama-bpe"), Some(Verdict::Suspect));
        check(Some("llama3"), None, None);
        assert!(of_gguf(None, None, false).is_none());
    }
}

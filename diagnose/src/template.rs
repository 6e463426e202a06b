//! Chat templates: known formats, recognized by a piece of their text, and whether one can be used.

use sterna_convert::Source;
use sterna_runtime::{ChatTemplate, Error, Tokenizer};

/// Formats by a piece of their templates.
const FORMATS: [(&str, &str); 6] = [
    ("<|im_start|>", "ChatML"),
    ("<|start_header_id|>", "Llama 3"),
    ("[INST]", "Llama 2"),
    ("<start_of_turn>", "Gemma"),
    ("<|assistant|>", "Falcon3"),
    ("<|eot_id|>", "BitNet b1.58 2B4T"),
];

/// The name of the format that a template renders.
pub fn format_of(template: &str) -> String {
    match FORMATS.iter().find(|(piece, _)| template.contains(piece)) {
        Some((_, name)) => format!("the format of {name}"),
        None => "a format of its own".to_owned(),
    }
}

/// Why the chat template of a model cannot be used; None if it can, or if there is none.
pub fn trouble(source: &dyn Source) -> Option<String> {
    let file = |name: &str| {
        let found = source.files().iter().find(|(n, _)| n == name);
        found.map(|(_, bytes)| bytes.as_slice())
    };
    let template = ChatTemplate::of_files(file);
    match template.and_then(|template| template.trial()) {
        Ok(()) | Err(Error::NoChatTemplate) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// The id and name of the token that the chat template writes after an answer; none if the model
/// has no usable template or tokenizer, or if the template writes no token there.
pub fn end_of_turn(source: &dyn Source) -> Option<(u32, String)> {
    let (config, files) = (source.config(), source.files());
    let file = |name: &str| files.iter().find(|(n, _)| n == name).map(|(_, b)| &**b);
    let tokenizer = Tokenizer::of_files(config, file).ok()?;
    let template = ChatTemplate::of_files(file).ok()?;
    let id = tokenizer.end_of_turn(&template)?;
    let name = tokenizer.token(id).map_or(id.to_string(), |(name, _)| name);
    Some((id, name))
}

#[cfg(test)]
mod tests {
    use super::format_of;

    #[test]
    fn formats_are_told_by_their_tokens() {
        assert_eq!(
            format_of("{{ '<|im_start|>' + m.role }}"),
            "the format of ChatML"
        );
        assert_eq!(format_of("{{ m.content }}"), "a format of its own");
    }
}

//! The bytes of single tokens, and which of them are special.
//!
//! Text is decoded from many tokens at once, because a character may be spread over several of
//! them. What one token stands for is therefore bytes. The decoder in tokenizer.json says how they
//! are spelled: as the 256 characters of byte-level BPE, as `<0xE2>`, or with a character in place
//! of a space. Where the decoder drops a space at the start of a text, the bytes still have it.

use serde_json::Value;

/// What single tokens are, by id.
#[derive(Debug)]
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    /// Where the bytes of each token end.
    ends: Vec<u32>,
    /// Special tokens, ascending.
    special: Vec<u32>,
}

impl TokenBytes {
    pub fn new(tokenizer: &tokenizers::Tokenizer) -> TokenBytes {
        let decoder = serde_json::to_value(tokenizer.get_decoder()).unwrap_or_default();
        let spelling = Spelling::of(&decoder);
        let added = tokenizer.get_added_tokens_decoder();
        let vocab = tokenizer.get_vocab(true);
        let size = vocab.values().max().map_or(0, |id| *id as usize + 1);
        let mut tokens = vec![""; size];
        for (token, id) in &vocab {
            tokens[*id as usize] = token;
        }
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(size));
        for (token, id) in tokens.iter().zip(0..) {
            match added.get(&id) {
                Some(added) => bytes.extend_from_slice(added.content.as_bytes()),
                None => spelling.append(token, &mut bytes),
            }
            ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        let special = added.iter().filter(|(_, token)| token.special);
        let mut special: Vec<u32> = special.map(|(id, _)| *id).collect();
        special.sort_unstable();
        TokenBytes {
            bytes,
            ends,
            special,
        }
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_ok()
    }

    pub fn of(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(end) = self.ends.get(id) else {
            return &[];
        };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        self.bytes
            .get(start as usize..*end as usize)
            .unwrap_or_default()
    }
}

/// How bytes are spelled in a vocabulary.
#[derive(Debug, Default)]
struct Spelling {
    /// Byte-level BPE: each character is a byte.
    is_byte_level: bool,
    /// `<0x0A>` is a byte.
    has_byte_tokens: bool,
    /// Texts and what they stand for.
    replaced: Vec<(String, String)>,
}

impl Spelling {
    fn of(decoder: &Value) -> Spelling {
        let mut spelling = Spelling::default();
        let one = [decoder.clone()];
        let steps = decoder["decoders"].as_array();
        for step in steps.map_or(&one[..], Vec::as_slice) {
            let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
            match step["type"].as_str() {
                Some("ByteLevel") => spelling.is_byte_level = true,
                Some("ByteFallback") => spelling.has_byte_tokens = true,
                Some("Metaspace") => spelling.replaced.push((text("replacement"), " ".into())),
                Some("Replace") => {
                    let pattern = step["pattern"]["String"].as_str().unwrap_or_default();
                    spelling.replaced.push((pattern.into(), text("content")));
                }
                Some("BPEDecoder") => spelling.replaced.push((text("suffix"), " ".into())),
                Some("WordPiece") => spelling.replaced.push((text("prefix"), String::new())),
                _ => {}
            }
        }
        spelling.replaced.retain(|(from, _)| !from.is_empty());
        spelling
    }

    fn append(&self, token: &str, bytes: &mut Vec<u8>) {
        if self.is_byte_level {
            let spelled: Option<Vec<u8>> = token.chars().map(byte_of).collect();
            return bytes.extend(spelled.unwrap_or_else(|| token.into()));
        }
        if self.has_byte_tokens
            && let Some(byte) = byte_token(token)
        {
            return bytes.push(byte);
        }
        let mut text = token.to_owned();
        for (from, to) in &self.replaced {
            text = text.replace(from, to);
        }
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// The byte of a token like `<0x0A>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// The byte that a character of byte-level BPE stands for. Printable bytes are themselves; the
/// others, in ascending order, are the characters from 256 on.
fn byte_of(c: char) -> Option<u8> {
    let is_printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match u32::from(c) {
        code @ 0..256 => Some(code as u8).filter(is_printable),
        code => {
            let mut others = (0..=255).filter(|byte| !is_printable(byte));
            others.nth(code as usize - 256)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(decoder: Value, token: &str, expected: &[u8]) {
        let mut bytes = Vec::new();
        Spelling::of(&decoder).append(token, &mut bytes);
        assert_eq!(bytes, expected, "{decoder}: {token}");
    }

    #[test]
    fn each_spelling_is_read() {
        let byte_level = json!({"type": "ByteLevel"});
        check(byte_level.clone(), "Ġthe", b" the");
        check(byte_level.clone(), "Ċ", b"\n");
        check(byte_level.clone(), "âĤ", b"\xe2\x82");
        check(byte_level, "日", "日".as_bytes());
        let pieces = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        check(pieces.clone(), "▁the", b" the");
        check(pieces.clone(), "<0xE2>", b"\xe2");
        check(pieces, "<0xE>", b"<0xE>");
        check(
            json!({"type": "Metaspace", "replacement": "▁"}),
            "▁a▁b",
            b" a b",
        );
        check(Value::Null, "<0xE2>", b"<0xE2>");
    }

    #[test]
    fn all_bytes_have_a_character() {
        let mut bytes: Vec<u8> = (0..1000)
            .filter_map(char::from_u32)
            .filter_map(byte_of)
            .collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }
}

//! Log-probabilities in the form of OpenAI's completions: four lists, one entry for each token; and
//! those of a prompt in the form of vLLM.

use serde_json::{Map, Value, json};

use super::answers::{TokenTexts, logprob};
use crate::engine::Token;

/// Where the next token begins in a text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offsets {
    /// Characters before it.
    characters: usize,
}

/// The four lists.
pub struct Scores<'s> {
    texts: TokenTexts<'s>,
    /// Most probable tokens that are listed beside each one.
    most: usize,
    tokens: Vec<String>,
    logprobs: Vec<Option<f64>>,
    top: Vec<Value>,
    offsets: Vec<usize>,
}

impl<'s> Scores<'s> {
    /// Empty lists.
    pub fn new(texts: TokenTexts<'s>, most: usize) -> Scores<'s> {
        Scores {
            texts,
            most,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            top: Vec::new(),
            offsets: Vec::new(),
        }
    }

    /// Whether the lists are empty.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Adds tokens, whose text is `text`.
    pub fn add<'t>(
        &mut self,
        tokens: impl IntoIterator<Item = &'t Token>,
        text: &str,
        offsets: &mut Offsets,
    ) {
        let start = offsets.characters;
        let mut is_first = true;
        for token in tokens {
            self.tokens.push(self.texts.name(token.id));
            self.offsets.push(offsets.characters);
            let score = token.score.as_ref();
            self.logprobs
                .push(score.map(|score| logprob(score.logprob)));
            self.top.push(score.map_or(Value::Null, |score| {
                let entries = score.top.iter().take(self.most).copied();
                self.top(entries.chain([(token.id, score.logprob)]))
            }));
            if self.texts.is_special(token.id) {
                continue;
            }
            let bytes = self.texts.bytes(token.id);
            let mut starts = bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
            // Some tokenizers drop a space at the start of a text, which its first token has.
            if is_first && bytes.starts_with(b" ") && !text.starts_with(' ') {
                starts -= 1;
            }
            is_first = false;
            offsets.characters += starts;
        }
        // The text of an unfinished character at the end has one character of its own.
        let end = start + text.chars().count();
        offsets.characters = offsets.characters.clamp(start, end);
    }

    /// Tokens by their texts; the more probable one of two with one text.
    fn top(&self, entries: impl Iterator<Item = (u32, f64)>) -> Value {
        let mut top = Map::new();
        for (id, probability) in entries {
            let entry = top.entry(self.texts.name(id));
            entry.or_insert_with(|| logprob(probability).into());
        }
        Value::Object(top)
    }

    /// OpenAI's object.
    pub fn object(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        })
    }
}

/// vLLM's list for the tokens of a prompt: the token and the most probable ones by their ids, and
/// null for the first token.
pub fn of_prompt(texts: TokenTexts, prompt: &[Token], most: usize) -> Value {
    let entry = |(id, probability, rank): (u32, f64, usize)| {
        let text = texts.text(id);
        let entry = json!({"logprob": logprob(probability), "rank": rank, "decoded_token": text});
        (id.to_string(), entry)
    };
    let object = |token: &Token| {
        let Some(score) = &token.score else {
            return Value::Null;
        };
        let top = score.top.iter().take(most).enumerate();
        let top = top.map(|(index, (id, logprob))| (*id, *logprob, index + 1));
        let own = (token.id, score.logprob, score.rank);
        Value::Object([own].into_iter().chain(top).map(entry).collect())
    };
    prompt.iter().map(object).collect()
}

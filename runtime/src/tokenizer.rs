//! Text to token ids and back, with the tokenizer files inside a packed file.
//!
//! Ids are those of `transformers`, as tokenizer.json defines them, with the special tokens of its
//! post-processor. In addition: where tokenizer_config.json says `"add_bos_token": true` and the
//! ids do not begin with the beginning-of-sequence token, texts begin with it; with
//! `"add_eos_token": true` the end-of-sequence token ends them.

mod bytes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use serde_json::Value;
use sterna_ternary::{Config, PackedFile};

use crate::chat::ChatTemplate;
use crate::generation_config::GENERATION_CONFIG;
use crate::{Error, Result};
use bytes::TokenBytes;

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    /// Rows of the model's embedding.
    vocab_size: usize,
    /// Tokens that begin every text.
    bos: Option<u32>,
    /// Tokens that end every text.
    end: Option<u32>,
    eos: Vec<u32>,
    /// Made when it is first needed.
    bytes: OnceLock<TokenBytes>,
}

const TOKENIZER: &str = "tokenizer.json";
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Special tokens that end a turn and therefore an answer, also where no chat template says so.
const ENDS_OF_TURNS: [&str; 2] = ["<|eot_id|>", "<|im_end|>"];

impl Tokenizer {
    /// Reads tokenizer.json, tokenizer_config.json and generation_config.json of a packed file; the
    /// last two may be absent.
    ///
    /// # Errors
    /// [`Error::Tokenizer`]: a file is missing, malformed or has ids that the model does not have.
    pub fn open(file: &PackedFile) -> Result<Tokenizer> {
        Tokenizer::of_files(&file.config, |name| file.file(name))
    }

    /// [`Tokenizer::open`] for a model that is not packed; `file` gives the bytes of a file by its
    /// name.
    ///
    /// # Errors
    /// Those of [`Tokenizer::open`].
    pub fn of_files<'a>(
        config: &Config,
        file: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Tokenizer> {
        let bytes =
            file(TOKENIZER).ok_or_else(|| error(TOKENIZER, "expected, found nothing".into()))?;
        let settings = json(&file, TOKENIZER_CONFIG)?;
        let generation = json(&file, GENERATION_CONFIG)?;
        let tokenizer = parse(bytes, config.vocab_size)?;

        let named = |key: &str| token_name(&settings[key]).and_then(|t| tokenizer.token_to_id(t));
        let added = |add: &str, token: &str, otherwise: Option<u32>| {
            if settings[add] != Value::Bool(true) {
                return Ok(None);
            }
            let why = format!("`{add}` is true: expected a `{token}` that the tokenizer has");
            let id = named(token).or(otherwise);
            id.map(Some).ok_or_else(|| error(TOKENIZER_CONFIG, why))
        };
        let bos = added("add_bos_token", "bos_token", config.bos_token_id)?;
        let eos = config.eos_token_id.first().copied();
        let end = added("add_eos_token", "eos_token", eos)?;
        let mut eos = config.eos_token_id.clone();
        eos.extend(ids(&generation["eos_token_id"])?);
        eos.extend(named("eos_token"));
        let added = tokenizer.get_added_tokens_decoder();
        let ends_turn = |t: &tokenizers::AddedToken| ENDS_OF_TURNS.contains(&&*t.content);
        let ends = added.iter().filter(|(_, t)| t.special && ends_turn(t));
        eos.extend(ends.map(|(id, _)| *id));
        let mut tokenizer = Tokenizer {
            tokenizer,
            vocab_size: config.vocab_size,
            bos,
            end,
            eos,
            bytes: OnceLock::new(),
        };
        let template = ChatTemplate::of_files(&file).ok();
        let end_of_turn = template.and_then(|template| tokenizer.end_of_turn(&template));
        tokenizer.eos.extend(end_of_turn);
        tokenizer.eos.sort_unstable();
        tokenizer.eos.dedup();
        Ok(tokenizer)
    }

    /// Token ids of a text. `add_special_tokens` is true for plain text and false for a rendered
    /// chat template, which already has its special tokens.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encode = || self.tokenizer.encode(text, add_special_tokens);
        let mut ids = guarded(encode).map_err(Error::Encoding)?.get_ids().to_vec();
        if let Some(bos) = self
            .bos
            .filter(|bos| add_special_tokens && ids.first() != Some(bos))
        {
            ids.insert(0, bos);
        }
        if let Some(end) = self
            .end
            .filter(|end| add_special_tokens && ids.last() != Some(end))
        {
            ids.push(end);
        }
        match ids.iter().find(|id| **id as usize >= self.vocab_size) {
            None => Ok(ids),
            Some(id) => Err(Error::TokenWithoutRow {
                token: self.tokenizer.id_to_token(*id).unwrap_or_default(),
                id: *id,
                rows: self.vocab_size,
                without: self.ids_beyond(),
            }),
        }
    }

    /// The ids of [`Tokenizer::beyond`] in words: `300 to 302, 310`.
    fn ids_beyond(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for (id, _) in self.beyond() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == id => *last = id,
                _ => ranges.push((id, id)),
            }
        }
        let words = ranges.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first} to {last}"),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Added tokens without a row in the model's embedding, by id. transformers accepts them too,
    /// as long as no text contains them.
    pub fn beyond(&self) -> impl Iterator<Item = (u32, String)> {
        let mut tokens: Vec<_> = self
            .tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .collect();
        tokens.sort_by_key(|(id, _)| *id);
        let is_beyond = |(id, _): &(u32, _)| *id as usize >= self.vocab_size;
        tokens
            .into_iter()
            .filter(is_beyond)
            .map(|(id, token)| (id, token.content))
    }

    /// The text of token ids, special tokens left out. Bytes that are not valid UTF-8 become
    /// U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.tokenizer.decode(ids, true)).map_err(Error::Encoding)
    }

    /// The text of token ids with the names of special tokens.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.tokenizer.decode(ids, false)).map_err(Error::Encoding)
    }

    /// The text of a token as the vocabulary has it, and whether it is a special one.
    pub fn token(&self, id: u32) -> Option<(String, bool)> {
        let special = self.tokenizer.get_added_tokens_decoder();
        let is_special = special.get(&id).is_some_and(|token| token.special);
        Some((self.tokenizer.id_to_token(id)?, is_special))
    }

    /// The bytes that a token stands for; none for an id without a token. A special token stands
    /// for its name. [`Tokenizer::decode`] leaves special tokens out, and with some tokenizers the
    /// space at the start of a text.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.token_bytes().of(id)
    }

    /// Whether a token is a special one, which texts do not show.
    pub fn is_special(&self, id: u32) -> bool {
        self.token_bytes().is_special(id)
    }

    fn token_bytes(&self) -> &TokenBytes {
        let bytes = &self.bytes;
        bytes.get_or_init(|| TokenBytes::new(&self.tokenizer))
    }

    /// Tokens that end a text: those of config.json, generation_config.json and
    /// tokenizer_config.json, the one that the chat template writes after an answer, and the
    /// special tokens `<|eot_id|>` and `<|im_end|>`, ascending.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Number of tokens, special ones included.
    pub fn len(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Whether the vocabulary is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of a token by its name, such as `<|eot_id|>`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The id of the added token that a text begins with, after spaces and line breaks.
    pub(crate) fn first_added(&self, text: &str) -> Option<u32> {
        let ids = self.encode(text.trim_start(), false).ok()?;
        let first = ids.first()?;
        let added = self.tokenizer.get_added_tokens_decoder();
        added.contains_key(first).then_some(*first)
    }

    /// Special tokens and their names, by id.
    pub(crate) fn special_tokens(&self) -> Vec<(u32, String)> {
        let added = self.tokenizer.get_added_tokens_decoder().into_iter();
        let special = added.filter(|(_, token)| token.special);
        let mut special: Vec<_> = special.map(|(id, token)| (id, token.content)).collect();
        special.sort_unstable();
        special
    }

    /// Rows of the model's embedding.
    pub(crate) fn rows(&self) -> usize {
        self.vocab_size
    }

    /// The special token that a text is, or one that it contains.
    pub(crate) fn special_in(&self, text: &str) -> Option<(u32, String)> {
        let added = self.tokenizer.get_added_tokens_decoder().into_iter();
        let special = added.filter(|(_, token)| token.special && text.contains(&token.content));
        let longest = special.max_by_key(|(id, token)| (token.content.len(), *id));
        longest.map(|(id, token)| (id, token.content))
    }

    /// A decoder for ids that arrive one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream {
            tokenizer: self,
            ids: Vec::new(),
            emitted: 0,
            before: 0,
        }
    }

    /// A decoder for ids that continue the text of `prompt`: its pieces follow that text, so a
    /// space that decoders drop at the start of a text stays.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn stream_after(&self, prompt: &[u32]) -> Result<TextStream<'_>> {
        let ids = prompt[prompt.len().saturating_sub(LONGEST_WAIT)..].to_vec();
        let text = self.decode(&ids)?;
        // The rest of a character that the prompt cuts cannot be separated from it.
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(self.stream());
        }
        Ok(TextStream {
            tokenizer: self,
            emitted: ids.len(),
            ids,
            before: text.len(),
        })
    }
}

/// Turns ids into pieces of text that never end inside a character.
///
/// Decoders look at neighbours (a leading space is dropped at the start only), so ids are decoded
/// together with those of the piece before.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The ids of the last piece, then the ids that wait.
    ids: Vec<u32>,
    /// How many of `ids` belong to the last piece.
    emitted: usize,
    /// Length in bytes of the text that these decode to.
    before: usize,
}

/// Most tokens to wait for the rest of a character; a character has fewer bytes than this.
const LONGEST_WAIT: usize = 8;

impl TextStream<'_> {
    /// The text that is complete with this id; often empty.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        let waiting = self.ids.len() - self.emitted;
        if text.ends_with(char::REPLACEMENT_CHARACTER) && waiting <= LONGEST_WAIT {
            return Ok(String::new());
        }
        let piece = self.piece(&text);
        if !piece.is_empty() {
            self.ids.drain(..self.emitted);
            self.emitted = self.ids.len();
            self.before = self.tokenizer.decode(&self.ids)?.len();
        }
        Ok(piece)
    }

    /// The text that still waits when no id follows. Bytes of an unfinished character become
    /// U+FFFD.
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(self.piece(&text))
    }

    fn piece(&self, text: &str) -> String {
        text.get(self.before..).unwrap_or_default().to_owned()
    }
}

/// Reads tokenizer.json. Padding and truncation in it are for training; transformers ignores them
/// as well.
fn parse(bytes: &[u8], vocab_size: usize) -> Result<tokenizers::Tokenizer> {
    let parsed = guarded(|| tokenizers::Tokenizer::from_bytes(bytes));
    let mut tokenizer = parsed.map_err(|why| error(TOKENIZER, why))?;
    tokenizer.with_padding(None);
    let truncation = tokenizer.with_truncation(None).map(drop);
    truncation.map_err(|e| error(TOKENIZER, e.to_string()))?;
    let added = tokenizer.get_added_tokens_decoder();
    let vocab = tokenizer.get_vocab(false).into_iter();
    let largest = vocab.filter(|(_, id)| !added.contains_key(id));
    let largest = largest.max_by_key(|(_, id)| *id);
    match largest {
        Some((token, id)) if id as usize >= vocab_size => Err(error(
            TOKENIZER,
            format!("token {token:?} has id {id}: expected ids below vocab_size {vocab_size}"),
        )),
        _ => Ok(tokenizer),
    }
}

/// Runs code of the tokenizers crate, which panics on some malformed files; a panic becomes an
/// error.
fn guarded<T>(f: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            Err(text.unwrap_or("it panicked").to_owned())
        }
    }
}

/// An embedded JSON file; null where it is absent.
pub(crate) fn json<'a>(
    file: &impl Fn(&str) -> Option<&'a [u8]>,
    name: &'static str,
) -> Result<Value> {
    let Some(bytes) = file(name) else {
        return Ok(Value::Null);
    };
    sterna_ternary::json::parse(bytes).map_err(|e| error(name, format!("expected JSON: {e}")))
}

/// A token is given by its text or by an object with the text as `content`.
pub(crate) fn token_name(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// A token id, a list of them, or none.
fn ids(value: &Value) -> Result<Vec<u32>> {
    let list = match value {
        Value::Null => &[],
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = list.iter().map(id).collect();
    ids.ok_or_else(|| {
        let why = format!("`eos_token_id` is {value}: expected a token id or a list of them");
        error(GENERATION_CONFIG, why)
    })
}

fn error(file: &'static str, why: String) -> Error {
    Error::Tokenizer { file, why }
}

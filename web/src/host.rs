//! One model and what is asked of it, with texts instead of pointers.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sterna_runtime::{KvCache, Logits, Message};
use sterna_ternary::AlignedBytes;
use sterna_ternary::sha256::{Digest, Sha256, hex};

use crate::opened::Opened;
use crate::request::{Request, rendered};
use crate::writing::Writing;
use crate::{Error, Result};

/// One model and what is asked of it.
#[derive(Default)]
pub struct Host {
    /// The file, until it is opened.
    file: AlignedBytes,
    /// The sum of the first `summed` bytes of it.
    sum: Sha256,
    summed: usize,
    model: Option<Running>,
}

/// A model with its cache.
struct Running {
    opened: &'static Opened,
    cache: KvCache,
    writing: Option<Writing>,
}

/// What opens a file that has come.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    /// Its name in messages and answers.
    name: String,
    /// Its length.
    bytes: usize,
    /// The sum that it must have, if that is known.
    sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encode {
    text: String,
    add_special_tokens: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ids {
    ids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Render {
    messages: Vec<Message>,
    #[serde(default)]
    continue_final_message: bool,
}

fn read<T: DeserializeOwned>(input: &str) -> Result<T> {
    let read = serde_json::from_str(input);
    read.map_err(|error| Error::Call(format!("the fields of the call: {error}")))
}

impl Host {
    /// Room for a file of `len` bytes. What has come already stays.
    pub fn room(&mut self, len: usize) -> Result<&mut [u8]> {
        if self.model.is_some() {
            return Err(Error::Call("a model is open; start another worker".into()));
        }
        if len > self.file.len() {
            let larger = AlignedBytes::zeroed(len);
            let mut larger = larger.map_err(|_| Error::Memory { needed: len })?;
            larger[..self.file.len()].copy_from_slice(&self.file);
            self.file = larger;
        }
        Ok(&mut self.file)
    }

    /// The bytes before `end` have come. Their sum is computed meanwhile.
    pub fn arrived(&mut self, end: usize) {
        let end = end.min(self.file.len());
        if end > self.summed {
            self.sum.update(&self.file[self.summed..end]);
            self.summed = end;
        }
    }

    /// Opens the file and says what it is.
    pub fn open(&mut self, input: &str) -> Result<Value> {
        let Open {
            name,
            bytes,
            sha256,
        } = read(input)?;
        self.arrived(bytes);
        if self.model.is_some() || self.summed != bytes {
            let why = "a file is opened once, when all of its bytes have come";
            return Err(Error::Call(why.into()));
        }
        let found = hex(&std::mem::take(&mut self.sum).finalize());
        let mut file = std::mem::take(&mut self.file);
        file.truncate(bytes);
        self.summed = 0;
        if let Some(expected) = sha256
            .as_ref()
            .filter(|sum| !sum.eq_ignore_ascii_case(&found))
        {
            return Err(Error::Sum {
                name,
                expected: expected.clone(),
                found,
            });
        }
        let opened = Opened::new(&name, file, sha256.is_some())?;
        // It lives as long as the instance.
        let opened: &'static Opened = Box::leak(Box::new(opened));
        self.model = Some(Running {
            cache: opened.model.new_cache(opened.context)?,
            opened,
            writing: None,
        });
        Ok(opened.facts(&name, &found))
    }

    /// The ids of a text: `{"text", "add_special_tokens"}` → `{"ids"}`.
    pub fn encode(&mut self, input: &str) -> Result<Value> {
        let call: Encode = read(input)?;
        let tokenizer = &self.running()?.opened.tokenizer;
        Ok(json!({"ids": tokenizer.encode(&call.text, call.add_special_tokens)?}))
    }

    /// The text of ids: `{"ids"}` → `{"text"}`.
    pub fn decode(&mut self, input: &str) -> Result<Value> {
        let Ids { ids } = read(input)?;
        Ok(json!({"text": self.running()?.opened.tokenizer.decode(&ids)?}))
    }

    /// The text of a conversation: `{"messages", "continue_final_message"}` → `{"text"}`.
    pub fn render(&mut self, input: &str) -> Result<Value> {
        let call: Render = read(input)?;
        let opened = self.running()?.opened;
        let text = rendered(opened, &call.messages, call.continue_final_message)?;
        Ok(json!({"text": text}))
    }

    /// The logits after ids: `{"ids"}` → (vocab_size).
    pub fn logits(&mut self, input: &str) -> Result<Vec<f32>> {
        let Ids { ids } = read(input)?;
        let running = self.running()?;
        running.writing = None;
        let kept = running.cache.keep_prefix(&ids);
        let (model, cache) = (&running.opened.model, &mut running.cache);
        Ok(model.forward(cache, &ids[kept..], Logits::Last)?)
    }

    /// Begins an answer to a request, whose fields are those of the server that choose tokens. An
    /// answer that is in progress is given up.
    pub fn begin(&mut self, input: &str) -> Result<()> {
        let request: Request = read(input)?;
        let running = self.running()?;
        running.writing = None;
        running.writing = Some(Writing::new(running.opened, &mut running.cache, &request)?);
        Ok(())
    }

    /// The next event of the answer, and whether it is the last one.
    pub fn step(&mut self) -> Result<(Value, bool)> {
        let running = self.running()?;
        let Some(writing) = &mut running.writing else {
            return Err(Error::Call("no answer was begun".into()));
        };
        let stepped = writing.step(&mut running.cache);
        let is_last = writing.is_ended();
        if stepped.is_err() || is_last {
            running.writing = None;
        }
        let mut event = stepped?;
        event["system_fingerprint"] = running.opened.model.fingerprint().into();
        Ok((event, is_last))
    }

    fn running(&mut self) -> Result<&mut Running> {
        let model = self.model.as_mut();
        model.ok_or_else(|| Error::Call("no model is open; load one first".into()))
    }
}

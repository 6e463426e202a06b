//! What all answers and parts of streams of OpenAI's chat and completions have around the choices.

use serde_json::{Value, json};

use super::answers::Answers;
use super::clock;
use super::error::ApiResult;
use super::form::{DONE, event};
use super::job::unique;
use super::served::Served;

/// The members of a reply that say what it is.
pub struct Envelope {
    id: String,
    created: u64,
    /// Names of the whole answer and of a part of one.
    objects: (&'static str, &'static str),
    seed: i64,
    /// Whether a stream ends with counts of tokens.
    has_usage: bool,
}

impl Envelope {
    /// The envelope of a reply, with an id of its own that begins with `prefix`.
    ///
    /// # Errors
    /// A system without random numbers.
    pub fn new(
        prefix: &str,
        objects: (&'static str, &'static str),
        seed: i64,
        has_usage: bool,
    ) -> ApiResult<Envelope> {
        Ok(Envelope {
            id: format!("{prefix}-{}", unique()?),
            created: clock::unix(),
            objects,
            seed,
            has_usage,
        })
    }

    /// The seed, as replies show it.
    pub fn seed(&self) -> Value {
        json!({"seed": self.seed})
    }

    /// The whole answer.
    pub fn whole(&self, served: &Served, answers: &Answers, choices: Vec<Value>) -> Value {
        let mut whole = self.around(self.objects.0, served, choices.into());
        whole["usage"] = answers.usage();
        whole["sterna"] = self.seed();
        whole
    }

    /// A part of a stream.
    pub fn chunk(&self, served: &Served, choices: Value) -> Value {
        let mut chunk = self.around(self.objects.1, served, choices);
        if self.has_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The end of a stream.
    pub fn finish(&self, served: &Served, answers: &Answers, out: &mut String) {
        if self.has_usage {
            let mut chunk = self.chunk(served, json!([]));
            chunk["usage"] = answers.usage();
            event(out, &chunk);
        }
        out.push_str(DONE);
    }

    fn around(&self, object: &str, served: &Served, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": served.name,
            "system_fingerprint": served.fingerprint,
            "choices": choices,
        })
    }
}

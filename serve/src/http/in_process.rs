//! Requests of programs in this process: the fields of HTTP requests, without HTTP.

use serde_json::{Map, Value};

use super::conversation;
use super::error::ApiResult;
use super::generate::{MOST_LOGPROBS, Wish};
use super::read::Reader;
use super::served::Served;
use super::tools::{Called, Plan, Tools};
use crate::engine::Request;

/// A request, and how its answer is read.
pub struct Prepared {
    /// The request.
    pub request: Request,
    /// The seed of its random numbers.
    pub seed: i64,
    /// Keywords of schemas that have no effect.
    pub unknown: Vec<String>,
    /// How calls of tools are found in the answer.
    pub called: Called,
}

impl Served {
    /// The text of a conversation, from the fields `messages`, `tools` and those of templates, and
    /// whether an answer continues its last message.
    ///
    /// # Errors
    /// The field that is wrong, and what the template refuses.
    pub fn conversation(&self, fields: &Map<String, Value>) -> ApiResult<(String, bool)> {
        conversation::text(self, Reader(fields))
    }

    /// The request that continues a prompt, from the fields that `/v1/completions` and
    /// `/v1/chat/completions` share and those of tools. The text of the answer follows that of the
    /// prompt if it `continues` it. `logprobs` is a number.
    ///
    /// # Errors
    /// The field that is wrong, and a prompt that is empty or does not fit.
    pub fn request(
        &self,
        fields: &Map<String, Value>,
        prompt: Vec<u32>,
        continues: bool,
    ) -> ApiResult<Prepared> {
        let reader = Reader(fields);
        self.check("prompt", &prompt)?;
        let mut wish = Wish::read(reader, self)?;
        if let Some(top) = reader.integer("logprobs", 0..=MOST_LOGPROBS)? {
            wish.score_answer(top as usize);
        }
        wish.read_prompt_logprobs(reader, false)?;
        let plan = Tools::read(reader)?.plan(reader, self)?;
        if let Some(plan) = &plan {
            wish.plan_calls(plan);
        }
        if continues {
            wish.continue_text();
        }
        Ok(Prepared {
            seed: wish.seed,
            unknown: std::mem::take(&mut wish.unknown),
            called: Plan::called(plan, &prompt, wish.seed),
            request: wish.request(self, 0, prompt),
        })
    }
}

//! `/v1/embeddings`: the vector of the last token of each text, of length one.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::answers::Answers;
use super::error::ApiResult;
use super::fields::{self, Fields};
use super::form::{Form, Piece};
use super::job::Job;
use super::meaning::number;
use super::prompts::{Prompt, prompts};
use super::read::{Reader, wrong};
use super::served::Served;
use crate::engine::{End, Request, Work};

/// Most texts of a request, as OpenAI allows.
const MOST_TEXTS: usize = 2048;

/// Reads a request.
///
/// # Errors
/// 400 and the field that is wrong.
pub fn job(
    served: Arc<Served>,
    body: Map<String, Value>,
    key: usize,
    is_strict: bool,
) -> ApiResult<Job> {
    let ignored = fields::ignored(&body, Fields::Embeddings, is_strict)?;
    let reader = Reader(&body);
    let is_base64 = match reader.text("encoding_format")? {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            let value = &body["encoding_format"];
            return Err(wrong("encoding_format", value, "\"float\" or \"base64\""));
        }
    };
    Ok(Job {
        requests: requests(&served, reader, key)?,
        served,
        route: "/v1/embeddings",
        form: Box::new(Embeddings { is_base64 }),
        is_streamed: false,
        ignored,
        body,
    })
}

/// Work for the engine: one request for each text of `input`.
///
/// # Errors
/// 400.
pub fn requests(served: &Served, fields: Reader, key: usize) -> ApiResult<Vec<Request>> {
    let size = served.model.config().hidden_size as i64;
    if let Some(dimensions) = fields.integer("dimensions", 1..=i64::MAX)?
        && dimensions != size
    {
        let expected = format!("{size}, because the model was not trained for shorter vectors");
        return Err(wrong("dimensions", &fields.0["dimensions"], expected));
    }
    let special = fields.boolean("add_special_tokens")?.unwrap_or(true);
    let prompts = prompts(served, fields, "input", special, MOST_TEXTS)?;
    let request = |prompt: Prompt| Request {
        key,
        prompt: prompt.ids,
        work: Work::Embed,
        reads_cache: true,
    };
    Ok(prompts.into_iter().map(request).collect())
}

/// A vector as JSON, with the fewest digits that give the same numbers.
pub fn digits(vector: &[f32]) -> Value {
    vector.iter().map(|x| number(*x)).collect()
}

/// OpenAI's form of vectors.
struct Embeddings {
    is_base64: bool,
}

impl Embeddings {
    fn vector(&self, vector: &[f32]) -> Value {
        match self.is_base64 {
            false => digits(vector),
            true => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                STANDARD.encode(bytes).into()
            }
        }
    }
}

impl Form for Embeddings {
    fn whole(&self, served: &Served, answers: &Answers) -> Value {
        let data = answers.vectors.iter().enumerate().map(|(index, vector)| {
            json!({"object": "embedding", "index": index, "embedding": self.vector(vector)})
        });
        let tokens = answers.prompt_tokens();
        json!({
            "object": "list",
            "data": data.collect::<Vec<_>>(),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        })
    }

    // Vectors are not streamed.
    fn piece(&mut self, _: &Served, _: &Answers, _: Piece, _: &mut String) {}

    fn end(&mut self, _: &Served, _: &Answers, _: usize, _: &End, _: &mut String) {}

    fn finish(&mut self, _: &Served, _: &Answers, _: &mut String) {}
}

//! `/api/embed`: the vectors of texts, in Ollama's form.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::answers::Answers;
use super::super::embeddings::{digits, requests};
use super::super::error::ApiResult;
use super::super::fields::{self, Fields};
use super::super::form::{Form, Piece};
use super::super::job::Job;
use super::super::read::Reader;
use super::super::served::Served;
use super::form::nanos;
use crate::engine::End;

/// Reads a request.
///
/// # Errors
/// 400 and the field that is wrong.
pub fn embed(
    served: Arc<Served>,
    body: Map<String, Value>,
    key: usize,
    is_strict: bool,
) -> ApiResult<Job> {
    let ignored = fields::ignored(&body, Fields::OllamaEmbed, is_strict)?;
    Ok(Job {
        requests: requests(&served, Reader(&body), key)?,
        served,
        route: "/api/embed",
        form: Box::new(Vectors),
        is_streamed: false,
        ignored,
        body,
    })
}

/// Ollama's form of vectors.
struct Vectors;

impl Form for Vectors {
    fn whole(&self, served: &Served, answers: &Answers) -> Value {
        let (before, after) = answers.times();
        let vectors = answers.vectors.iter().map(|vector| digits(vector));
        json!({
            "model": served.name,
            "embeddings": vectors.collect::<Vec<_>>(),
            "total_duration": nanos(before + after),
            "load_duration": 0,
            "prompt_eval_count": answers.prompt_tokens(),
        })
    }

    // Vectors are not streamed.
    fn piece(&mut self, _: &Served, _: &Answers, _: Piece, _: &mut String) {}

    fn end(&mut self, _: &Served, _: &Answers, _: usize, _: &End, _: &mut String) {}

    fn finish(&mut self, _: &Served, _: &Answers, _: &mut String) {}
}

//! `/v1/chat/completions`: answers to conversations.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::answers::{Answers, Choice, TokenTexts, logprob};
use super::conversation;
use super::envelope::Envelope;
use super::error::{ApiError, ApiResult};
use super::fields::{self, Fields};
use super::form::{Form, Piece, event};
use super::generate::{MOST_LOGPROBS, Wish};
use super::job::Job;
use super::read::Reader;
use super::scores;
use super::served::Served;
use super::stream_options::StreamOptions;
use super::tools::{Call, Called, CalledAnswer, Part, Plan, Tools};
use crate::engine::{End, Token};

/// Reads a request.
///
/// # Errors
/// 400 and the field that is wrong.
pub fn job(
    served: Arc<Served>,
    mut body: Map<String, Value>,
    key: usize,
    is_strict: bool,
) -> ApiResult<Job> {
    let mut ignored = fields::ignored(&body, Fields::Chat, is_strict)?;
    let reader = Reader(&body);
    let options = StreamOptions::read(reader, &mut ignored, is_strict)?;
    let mut wish = Wish::read(reader, &served)?;
    wish.check_tokens()?;
    let has_logprobs = reader.flag("logprobs")?;
    let top = reader.integer("top_logprobs", 0..=MOST_LOGPROBS)?;
    match (has_logprobs, top) {
        (true, top) => wish.score_answer(top.unwrap_or(0) as usize),
        (false, Some(1..)) => {
            let message = "top_logprobs is there without logprobs; send \"logprobs\": true too";
            return Err(ApiError::invalid("top_logprobs", message));
        }
        _ => {}
    }
    let prompt_logprobs = wish.read_prompt_logprobs(reader, options.is_streamed)?;
    let plan = Tools::read(reader)?.plan(reader, &served)?;
    if let Some(plan) = &plan {
        wish.plan_calls(plan);
    }
    wish.name_ignored(&mut ignored, is_strict)?;
    let (prompt, is_continued) = conversation::tokens(&served, reader)?;
    if is_continued {
        wish.continue_text();
    }
    let called = Plan::called(plan, &prompt, wish.seed);
    let form = Chat {
        parts: (0..wish.choices())
            .map(|index| called.answer(index))
            .collect(),
        called,
        envelope: Envelope::new("chatcmpl", OBJECTS, wish.seed, options.has_usage)?,
        has_logprobs,
        prompt_logprobs,
        has_ids: reader.flag("return_token_ids")?,
    };
    let request = wish.request(&served, key, prompt);
    body.insert("seed".into(), wish.seed.into());
    Ok(Job {
        served,
        route: "/v1/chat/completions",
        requests: vec![request],
        form: Box::new(form),
        is_streamed: options.is_streamed,
        ignored,
        body,
    })
}

const OBJECTS: (&str, &str) = ("chat.completion", "chat.completion.chunk");

/// OpenAI's form of answers to conversations.
struct Chat {
    envelope: Envelope,
    has_logprobs: bool,
    /// Most probable tokens that are listed beside each token of the prompt, if any are.
    prompt_logprobs: Option<usize>,
    has_ids: bool,
    /// What the answers may call.
    called: Called,
    /// The answers of a stream so far.
    parts: Vec<CalledAnswer>,
}

impl Chat {
    fn choice(&self, served: &Served, index: usize, choice: &Choice) -> Value {
        let end = choice.end.as_ref();
        let answer = self.called.whole(served, index, choice);
        let mut object = json!({
            "index": index,
            "message": answer.message(),
            "logprobs": self.logprobs(served, &choice.tokens),
            "finish_reason": end.map(|end| answer.finish_reason(end)),
        });
        if self.has_ids {
            let last = end.and_then(|end| end.last.as_ref());
            object["token_ids"] = token_ids(choice.tokens.iter().chain(last));
        }
        object
    }

    /// Scores of tokens, or null where they were not asked for.
    fn logprobs(&self, served: &Served, tokens: &[Token]) -> Value {
        if !self.has_logprobs {
            return Value::Null;
        }
        let content: Vec<Value> = tokens.iter().map(|token| scored(served, token)).collect();
        json!({"content": content, "refusal": null})
    }

    /// The deltas of new parts of an answer.
    fn deltas(&self, index: usize, parts: &[Part]) -> Vec<Value> {
        let calls = &self.parts[index].calls;
        let deltas = parts.iter().filter_map(|part| match part {
            Part::Content(text) => Some(json!({"content": text})),
            Part::Call(index) => {
                let empty = Call {
                    arguments: String::new(),
                    ..calls[*index].clone()
                };
                let mut call = json!({"index": index});
                for (name, value) in empty.json().as_object().into_iter().flatten() {
                    call[name] = value.clone();
                }
                Some(json!({"tool_calls": [call]}))
            }
            Part::Arguments(index, text) => {
                Some(json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}))
            }
            Part::Done(_) => None,
        });
        deltas.collect()
    }

    fn delta(&self, served: &Served, index: usize, delta: Value, rest: Value) -> Value {
        let mut choice = json!({
            "index": index, "delta": delta, "logprobs": null, "finish_reason": null,
        });
        for (name, value) in rest.as_object().into_iter().flatten() {
            choice[name] = value.clone();
        }
        self.envelope.chunk(served, json!([choice]))
    }
}

impl Form for Chat {
    fn whole(&self, served: &Served, answers: &Answers) -> Value {
        let choices = answers.choices.iter().enumerate();
        let choices = choices.map(|(index, choice)| self.choice(served, index, choice));
        let mut object = self.envelope.whole(served, answers, choices.collect());
        if self.has_ids {
            object["prompt_token_ids"] = json!(answers.prompts[0]);
        }
        if let Some(most) = self.prompt_logprobs {
            let prompt = answers.prompt(0);
            object["prompt_logprobs"] = scores::of_prompt(TokenTexts(served), prompt, most);
        }
        object
    }

    fn begin(&mut self, served: &Served, answers: &Answers, out: &mut String) {
        for index in 0..answers.choices.len() {
            // A message with calls may have no content.
            let content = (!self.called.may_call()).then_some("");
            let delta = json!({"role": "assistant", "content": content});
            let mut chunk = self.delta(served, index, delta, Value::Null);
            chunk["sterna"] = self.envelope.seed();
            if self.has_ids && index == 0 {
                chunk["prompt_token_ids"] = json!(answers.prompts[0]);
            }
            event(out, &chunk);
        }
    }

    fn piece(&mut self, served: &Served, _: &Answers, piece: Piece, out: &mut String) {
        let is_needed = (self.has_logprobs || self.has_ids) && !piece.tokens.is_empty();
        let parts = self.parts[piece.index].push(served, piece.text, piece.tokens);
        let mut deltas = self.deltas(piece.index, &parts);
        if deltas.is_empty() && is_needed {
            // Tokens without a text of their own, or of what stands around a call.
            deltas.push(json!({"content": ""}));
        }
        // Scores and ids come with the first of the deltas of their tokens.
        let mut rest = json!({"logprobs": self.logprobs(served, piece.tokens)});
        if self.has_ids {
            rest["token_ids"] = token_ids(piece.tokens);
        }
        for delta in deltas {
            event(out, &self.delta(served, piece.index, delta, rest.take()));
        }
    }

    fn end(&mut self, served: &Served, _: &Answers, index: usize, end: &End, out: &mut String) {
        let parts = self.parts[index].finish();
        for delta in self.deltas(index, &parts) {
            event(out, &self.delta(served, index, delta, Value::Null));
        }
        let reason = self.parts[index].finish_reason(end);
        let mut rest = json!({"finish_reason": reason});
        if self.has_ids {
            rest["token_ids"] = token_ids(&end.last);
        }
        event(out, &self.delta(served, index, json!({}), rest));
    }

    fn finish(&mut self, served: &Served, answers: &Answers, out: &mut String) {
        self.envelope.finish(served, answers, out);
    }
}

/// The ids of tokens.
pub fn token_ids<'t>(tokens: impl IntoIterator<Item = &'t Token>) -> Value {
    tokens.into_iter().map(|token| token.id).collect()
}

/// A token with its score.
pub fn scored(served: &Served, token: &Token) -> Value {
    let texts = TokenTexts(served);
    let entry = |id: u32, probability: f64| {
        json!({
            "token": texts.text(id),
            "logprob": logprob(probability),
            "bytes": texts.bytes(id),
        })
    };
    let score = token.score.as_ref().expect("scores were asked for");
    let mut object = entry(token.id, score.logprob);
    let top = score.top.iter().map(|(id, logprob)| entry(*id, *logprob));
    object["top_logprobs"] = top.collect();
    object
}

//! `/v1/completions`: continuations of texts and of token ids, and scores of both.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::answers::{Answers, Choice, TokenTexts, finish_reason};
use super::chat::token_ids;
use super::envelope::Envelope;
use super::error::ApiResult;
use super::fields::{self, Fields};
use super::form::{Form, Piece, event};
use super::generate::{MOST_LOGPROBS, Wish};
use super::job::Job;
use super::prompts::prompts;
use super::read::{Reader, wrong};
use super::scores::{self, Offsets, Scores};
use super::served::Served;
use super::stream_options::StreamOptions;
use crate::engine::{End, Token};

/// Most prompts of a request.
const MOST_PROMPTS: usize = 256;

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
    let mut ignored = fields::ignored(&body, Fields::Completions, is_strict)?;
    let reader = Reader(&body);
    let options = StreamOptions::read(reader, &mut ignored, is_strict)?;
    let mut wish = Wish::read(reader, &served)?;
    wish.name_ignored(&mut ignored, is_strict)?;
    wish.continue_text();
    let has_echo = reader.flag("echo")?;
    let logprobs = logprobs(reader)?;
    if let Some(top) = logprobs {
        wish.score_answer(top);
        if has_echo {
            wish.score_prompt(top);
        }
    }
    let prompt_logprobs = wish.read_prompt_logprobs(reader, options.is_streamed)?;
    let special = reader.boolean("add_special_tokens")?.unwrap_or(true);
    let prompts = prompts(&served, reader, "prompt", special, MOST_PROMPTS)?;
    let mut texts = Vec::new();
    if has_echo {
        let text = prompts.iter().map(|prompt| prompt.text(&served));
        texts = text.collect::<ApiResult<_>>()?;
    }
    let form = Completions {
        envelope: Envelope::new("cmpl", OBJECTS, wish.seed, options.has_usage)?,
        logprobs,
        prompt_logprobs,
        has_ids: reader.flag("return_token_ids")?,
        echo: has_echo.then_some(texts),
        offsets: vec![None; prompts.len() * wish.choices()],
    };
    let request = |prompt: super::prompts::Prompt| wish.request(&served, key, prompt.ids);
    let requests = prompts.into_iter().map(request).collect();
    body.insert("seed".into(), wish.seed.into());
    Ok(Job {
        served,
        route: "/v1/completions",
        requests,
        form: Box::new(form),
        is_streamed: options.is_streamed,
        ignored,
        body,
    })
}

/// The number of most probable tokens beside each token. Chat's `false` is none, too.
fn logprobs(fields: Reader) -> ApiResult<Option<usize>> {
    match fields.value("logprobs") {
        None | Some(Value::Bool(false)) => Ok(None),
        Some(value @ Value::Bool(true)) => {
            let expected = format!("a whole number from 0 to {MOST_LOGPROBS}");
            Err(wrong("logprobs", value, expected))
        }
        Some(_) => {
            let top = fields.integer("logprobs", 0..=MOST_LOGPROBS)?;
            Ok(top.map(|top| top as usize))
        }
    }
}

const OBJECTS: (&str, &str) = ("text_completion", "text_completion");

/// OpenAI's form of continuations.
struct Completions {
    envelope: Envelope,
    /// Most probable tokens that are listed beside each token, if any are.
    logprobs: Option<usize>,
    /// The same for each token of the prompt, in vLLM's form.
    prompt_logprobs: Option<usize>,
    has_ids: bool,
    /// The texts of the prompts, if answers begin with them.
    echo: Option<Vec<String>>,
    /// Where the next token of each answer of a stream begins, once its first part was sent.
    offsets: Vec<Option<Offsets>>,
}

impl Completions {
    /// Empty lists of scores.
    fn scores<'s>(&self, served: &'s Served) -> Scores<'s> {
        Scores::new(TokenTexts(served), self.logprobs.unwrap_or(0))
    }

    /// The text that an answer begins with.
    fn echoed(&self, request: usize) -> &str {
        self.echo.as_ref().map_or("", |texts| &texts[request])
    }

    fn choice(&self, served: &Served, answers: &Answers, index: usize, choice: &Choice) -> Value {
        let request = answers.request(index);
        let text = format!("{}{}", self.echoed(request), choice.text);
        let end = choice.end.as_ref();
        let last = end.and_then(|end| end.last.as_ref());
        let mut scores = self.scores(served);
        if self.logprobs.is_some() {
            let mut offsets = Offsets::default();
            if self.echo.is_some() {
                scores.add(answers.prompt(request), self.echoed(request), &mut offsets);
            }
            scores.add(choice.tokens.iter().chain(last), &choice.text, &mut offsets);
        }
        let mut object = json!({
            "index": index,
            "text": text,
            "logprobs": self.logprobs.map(|_| scores.object()),
            "finish_reason": end.map(|end| finish_reason(end.reason)),
        });
        if self.has_ids {
            object["token_ids"] = token_ids(choice.tokens.iter().chain(last));
            object["prompt_token_ids"] = json!(answers.prompts[request]);
        }
        if let Some(most) = self.prompt_logprobs {
            let prompt = answers.prompt(request);
            object["prompt_logprobs"] = scores::of_prompt(TokenTexts(served), prompt, most);
        }
        object
    }

    fn part(&self, served: &Served, index: usize, text: &str, scores: &Scores) -> Value {
        let part = json!({
            "index": index,
            "text": text,
            "logprobs": (self.logprobs.is_some() && !scores.is_empty()).then(|| scores.object()),
            "finish_reason": null,
        });
        self.envelope.chunk(served, json!([part]))
    }

    /// Sends the first part of an answer before the second one: the prompt, if it is asked for.
    fn first(&mut self, served: &Served, answers: &Answers, index: usize, out: &mut String) {
        if self.offsets[index].is_some() {
            return;
        }
        let request = answers.request(index);
        let (mut offsets, mut scores) = (Offsets::default(), self.scores(served));
        if self.logprobs.is_some() && self.echo.is_some() {
            scores.add(answers.prompt(request), self.echoed(request), &mut offsets);
        }
        let mut chunk = self.part(served, index, self.echoed(request), &scores);
        chunk["sterna"] = self.envelope.seed();
        if self.has_ids {
            chunk["choices"][0]["prompt_token_ids"] = json!(answers.prompts[request]);
        }
        event(out, &chunk);
        self.offsets[index] = Some(offsets);
    }

    /// Scores of tokens that come with a part of an answer.
    fn next<'s, 't>(
        &mut self,
        served: &'s Served,
        index: usize,
        tokens: impl IntoIterator<Item = &'t Token>,
        text: &str,
    ) -> Scores<'s> {
        let mut scores = self.scores(served);
        if self.logprobs.is_some() {
            let offsets = self.offsets[index].get_or_insert_default();
            scores.add(tokens, text, offsets);
        }
        scores
    }
}

impl Form for Completions {
    fn whole(&self, served: &Served, answers: &Answers) -> Value {
        let choices = answers.choices.iter().enumerate();
        let choices = choices.map(|(index, choice)| self.choice(served, answers, index, choice));
        self.envelope.whole(served, answers, choices.collect())
    }

    fn piece(&mut self, served: &Served, answers: &Answers, piece: Piece, out: &mut String) {
        self.first(served, answers, piece.index, out);
        let is_needed = self.logprobs.is_some() || self.has_ids;
        if piece.text.is_empty() && (!is_needed || piece.tokens.is_empty()) {
            return;
        }
        let scores = self.next(served, piece.index, piece.tokens, piece.text);
        let mut chunk = self.part(served, piece.index, piece.text, &scores);
        if self.has_ids {
            chunk["choices"][0]["token_ids"] = token_ids(piece.tokens);
        }
        event(out, &chunk);
    }

    fn end(
        &mut self,
        served: &Served,
        answers: &Answers,
        index: usize,
        end: &End,
        out: &mut String,
    ) {
        self.first(served, answers, index, out);
        let scores = self.next(served, index, &end.last, "");
        let mut chunk = self.part(served, index, "", &scores);
        chunk["choices"][0]["finish_reason"] = finish_reason(end.reason).into();
        if self.has_ids {
            chunk["choices"][0]["token_ids"] = token_ids(&end.last);
        }
        event(out, &chunk);
    }

    fn finish(&mut self, served: &Served, answers: &Answers, out: &mut String) {
        self.envelope.finish(served, answers, out);
    }
}

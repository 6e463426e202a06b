//! The fields that say how an answer is generated, which chat and completions share.

use std::sync::Arc;

use serde_json::Value;
use sterna_runtime::{Answer, Constraint, Sampler, Sampling};

use super::error::{ApiError, ApiResult};
use super::read::{Reader, ids, wrong};
use super::rule;
use super::served::Served;
use super::tools::Plan;
use crate::engine::{Generate, Request, Work};

/// Most answers to one prompt.
const MOST_CHOICES: i64 = 8;
/// Most tokens that are listed beside one token.
pub const MOST_LOGPROBS: i64 = 20;
/// Most stop texts, and the most bytes of one.
const MOST_STOPS: (usize, usize) = (16, 256);
/// Most tokens with a bias.
const MOST_BIASES: usize = 1024;
/// Bits of a seed that is drawn. JavaScript's numbers hold them.
const SEED_BITS: u32 = 53;

/// How answers are generated, before the prompt is known.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What the engine gets; `max_tokens` is filled in by [`Wish::request`].
    generate: Generate,
    /// Most tokens of an answer; as many as fit without it.
    max_tokens: Option<usize>,
    /// Whether keys and values of earlier requests may be used.
    reads_cache: bool,
    /// The seed, as it is returned.
    pub seed: i64,
    /// Keywords of a schema that have no effect.
    pub unknown: Vec<String>,
}

impl Wish {
    /// Reads the fields.
    ///
    /// # Errors
    /// 400 with the name of the field.
    pub fn read(fields: Reader, served: &Served) -> ApiResult<Wish> {
        let seed = match fields.integer("seed", i64::MIN..=i64::MAX)? {
            Some(seed) => seed,
            None => drawn()?,
        };
        let rule = rule::read(fields, served)?;
        let (constraint, unknown) = match rule {
            Some(rule) => (Some(Arc::from(rule.constraint)), rule.unknown),
            None => (None, Vec::new()),
        };
        let limits = ["max_tokens", "max_completion_tokens", "n_predict"];
        let mut max_tokens = None;
        for name in limits {
            let limit = fields.count(name)?;
            max_tokens = max_tokens.into_iter().chain(limit).min();
        }
        Ok(Wish {
            generate: Generate {
                choices: fields.integer("n", 1..=MOST_CHOICES)?.unwrap_or(1) as usize,
                max_tokens: 0,
                sampling: sampling(fields, served.sampling, seed as u64)?,
                constraint,
                bias: bias(fields, served.vocab_size())?,
                stop: stop(fields, served)?,
                stop_tokens: stop_tokens(fields, served.vocab_size())?,
                keeps_stop: fields.flag("include_stop_str_in_output")?,
                continues_text: false,
                ignores_eos: fields.flag("ignore_eos")?,
                logprobs: None,
                prompt_logprobs: None,
                scored_from: 1,
                prediction: prediction(fields, served)?,
            },
            max_tokens,
            reads_cache: fields.boolean("cache_prompt")?.unwrap_or(true),
            seed,
            unknown,
        })
    }

    /// Adds keywords of a schema without effect to `ignored`.
    ///
    /// # Errors
    /// 400 with `is_strict`.
    pub fn name_ignored(&mut self, ignored: &mut Vec<String>, is_strict: bool) -> ApiResult<()> {
        if let (true, Some(name)) = (is_strict, self.unknown.first()) {
            let message = format!("{name} has no effect by JSON Schema; the server is strict");
            return Err(ApiError::unsupported(name, message));
        }
        ignored.append(&mut self.unknown);
        Ok(())
    }

    /// How tokens are chosen.
    pub fn sampling(&self) -> &Sampling {
        &self.generate.sampling
    }

    /// Answers to a prompt.
    pub fn choices(&self) -> usize {
        self.generate.choices
    }

    /// Scores the tokens of answers, beside this number of the most probable ones.
    pub fn score_answer(&mut self, top: usize) {
        self.generate.logprobs = Some(top);
    }

    /// Answers keep to this.
    pub fn constrain(&mut self, constraint: Arc<dyn Constraint>) {
        self.generate.constraint = Some(constraint);
    }

    /// Answers keep to the grammar of calls.
    pub fn plan_calls(&mut self, plan: &Plan) {
        self.constrain(Arc::clone(&plan.constraint));
        self.unknown.extend_from_slice(&plan.unknown);
    }

    /// The text of an answer follows that of the prompt, as its next part.
    pub fn continue_text(&mut self) {
        self.generate.continues_text = true;
    }

    /// Scores the tokens of the prompt as well, beside at least this number of the most probable
    /// ones.
    pub fn score_prompt(&mut self, top: usize) {
        self.generate.prompt_logprobs = self.generate.prompt_logprobs.max(Some(top));
    }

    /// Reads vLLM's `prompt_logprobs`: the number of the most probable tokens beside each one.
    ///
    /// # Errors
    /// 400, also for a stream, in which these scores have no place.
    pub fn read_prompt_logprobs(
        &mut self,
        fields: Reader,
        is_streamed: bool,
    ) -> ApiResult<Option<usize>> {
        let top = fields.integer("prompt_logprobs", 0..=MOST_LOGPROBS)?;
        let Some(top) = top.map(|top| top as usize) else {
            return Ok(None);
        };
        if is_streamed {
            let message = "prompt_logprobs is there, and the reply is a stream; send it with \
                           \"stream\": false";
            return Err(ApiError::invalid("prompt_logprobs", message));
        }
        self.score_prompt(top);
        Ok(Some(top))
    }

    /// The request for a prompt that was checked. The answer is at most as long as the context
    /// allows; it then ends with `length`.
    pub fn request(&self, served: &Served, key: usize, prompt: Vec<u32>) -> Request {
        // The last token is not computed, so it needs no room.
        let room = served.context + 1 - prompt.len();
        let generate = Generate {
            max_tokens: self.max_tokens.unwrap_or(room).min(room),
            ..self.generate.clone()
        };
        Request {
            key,
            prompt,
            work: Work::Generate(Box::new(generate)),
            reads_cache: self.reads_cache,
        }
    }

    /// Refuses an answer without tokens.
    ///
    /// # Errors
    /// 400.
    pub fn check_tokens(&self) -> ApiResult<()> {
        match self.max_tokens {
            Some(0) => {
                let message = "max_tokens is 0, expected at least 1";
                Err(ApiError::invalid("max_tokens", message))
            }
            _ => Ok(()),
        }
    }
}

fn sampling(fields: Reader, default: Sampling, seed: u64) -> ApiResult<Sampling> {
    let penalty = fields.number("repetition_penalty", 0.0..=100.0)?;
    let penalty = match penalty {
        Some(penalty) => Some(penalty),
        None => fields.number("repeat_penalty", 0.0..=100.0)?,
    };
    // -1 is every token in vLLM and SGLang.
    let top_k = fields.integer("top_k", -1..=i64::from(u32::MAX))?;
    let sampling = Sampling {
        temperature: fields
            .number("temperature", 0.0..=100.0)?
            .unwrap_or(default.temperature),
        top_k: top_k.map_or(default.top_k, |k| k.max(0) as usize),
        top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(default.top_p),
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(default.min_p),
        repetition_penalty: penalty.unwrap_or(default.repetition_penalty),
        frequency_penalty: fields
            .number("frequency_penalty", -2.0..=2.0)?
            .unwrap_or(0.0),
        presence_penalty: fields
            .number("presence_penalty", -2.0..=2.0)?
            .unwrap_or(0.0),
        seed,
        stream: 0,
    };
    let checked = Sampler::new(sampling);
    checked.map_err(|error| ApiError::runtime("temperature", &error))?;
    Ok(sampling)
}

/// The tokens of OpenAI's `prediction`, a text that the answer is expected to repeat.
fn prediction(fields: Reader, served: &Served) -> ApiResult<Vec<u32>> {
    const EXPECTED: &str = "an object with \"type\": \"content\" and a text as `content`";
    let Some(prediction) = fields.object("prediction")? else {
        return Ok(Vec::new());
    };
    let wrong = || {
        let value = Value::Object(prediction.clone());
        wrong("prediction", &value, EXPECTED)
    };
    if prediction.get("type").and_then(Value::as_str) != Some("content") {
        return Err(wrong());
    }
    let text = match prediction.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| match part["type"] == "text" {
                true => part["text"].as_str().map(str::to_owned),
                false => None,
            };
            parts
                .iter()
                .map(text)
                .collect::<Option<String>>()
                .ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    served.encode("prediction", &text, false)
}

/// A random seed.
fn drawn() -> ApiResult<i64> {
    let random = getrandom::u64();
    let random = random.map_err(|error| ApiError::internal(format!("no random seed: {error}")))?;
    Ok((random >> (u64::BITS - SEED_BITS)) as i64)
}

fn bias(fields: Reader, vocab_size: usize) -> ApiResult<Vec<(u32, f32)>> {
    let Some(entries) = fields.object("logit_bias")? else {
        return Ok(Vec::new());
    };
    if entries.len() > MOST_BIASES {
        let message = format!(
            "logit_bias has {} entries, expected at most {MOST_BIASES}",
            entries.len()
        );
        return Err(ApiError::invalid("logit_bias", message));
    }
    let one = |(id, value): (&String, &Value)| {
        let name = format!("logit_bias.{}", sterna_ternary::json::shown(id));
        let key = Value::String(id.clone());
        // "007" and "7" would be the same token twice.
        let plain = id
            .parse::<u32>()
            .ok()
            .filter(|parsed| parsed.to_string() == *id);
        let id = plain
            .filter(|id| (*id as usize) < vocab_size)
            .ok_or_else(|| {
                let last = vocab_size - 1;
                wrong(
                    "logit_bias",
                    &key,
                    format!("token ids from 0 to {last} as names"),
                )
            })?;
        let bias = value
            .as_f64()
            .filter(|bias| (-100.0..=100.0).contains(bias));
        match bias.ok_or_else(|| wrong(name, value, "a number from -100 to 100"))? {
            -100.0 => Ok((id, f32::NEG_INFINITY)),
            bias => Ok((id, bias as f32)),
        }
    };
    let biases: Vec<(u32, f32)> = entries.iter().map(one).collect::<ApiResult<_>>()?;
    let forbidden = biases.iter().filter(|(_, bias)| *bias == f32::NEG_INFINITY);
    if forbidden.count() == vocab_size {
        let message = "logit_bias forbids every token, expected at least one that is allowed";
        return Err(ApiError::invalid("logit_bias", message));
    }
    Ok(biases)
}

fn stop(fields: Reader, served: &Served) -> ApiResult<Vec<String>> {
    let (most, longest) = MOST_STOPS;
    let expected = format!("a string or at most {most} strings of 1 to {longest} bytes");
    let Some(value) = fields.value("stop") else {
        return Ok(Vec::new());
    };
    let list = match value {
        Value::String(_) => std::slice::from_ref(value),
        Value::Array(list) if list.len() <= most => list,
        _ => return Err(wrong("stop", value, expected)),
    };
    let text = |value: &Value| {
        let text = value
            .as_str()
            .filter(|text| (1..=longest).contains(&text.len()));
        text.map(str::to_owned)
            .ok_or_else(|| wrong("stop", value, &expected))
    };
    let list: Vec<String> = list.iter().map(text).collect::<ApiResult<_>>()?;
    let checked = Answer::new(&served.tokenizer, list.clone());
    checked.map_err(|error| ApiError::runtime("stop", &error))?;
    Ok(list)
}

fn stop_tokens(fields: Reader, vocab_size: usize) -> ApiResult<Vec<u32>> {
    const MOST: usize = 128;
    match fields.value("stop_token_ids") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MOST => ids("stop_token_ids", list, vocab_size),
        Some(value) => {
            let expected = format!("a list of at most {MOST} token ids");
            Err(wrong("stop_token_ids", value, expected))
        }
    }
}

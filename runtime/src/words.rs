//! What a generation did and how it samples, in words and in JSON, as the command line prints them.

use std::time::Duration;

use serde_json::Value;

use crate::{Sampling, StopReason, Summary};

impl Summary {
    /// Adds counts and speed to a JSON object.
    pub fn add_to(&self, object: &mut Value) {
        object["stop"] = self.stop.map_or("an interruption", reason).into();
        object["cached_tokens"] = self.cached_tokens.into();
        object["prompt_tokens"] = self.prompt_tokens.into();
        object["generated_tokens"] = self.generated_tokens.into();
        object["prompt_tokens_per_second"] = prompt_rate(self).into();
        object["decode_tokens_per_second"] = decode_rate(self).into();
        object["drafted_tokens"] = self.drafted_tokens.into();
        object["accepted_tokens"] = self.accepted_tokens.into();
    }

    /// Counts, speed and the reason of the end in words.
    pub fn describe(&self) -> String {
        let cached = match self.cached_tokens {
            0 => String::new(),
            n => format!("{n} tokens were in the cache, "),
        };
        let prompt =
            prompt_rate(self).map_or(String::new(), |rate| format!(" at {rate:.0} tokens/s"));
        let decode =
            decode_rate(self).map_or(String::new(), |rate| format!(" at {rate:.1} tokens/s"));
        let guessed = match self.drafted_tokens {
            0 => String::new(),
            n => format!(", {} of {n} guesses were right", self.accepted_tokens),
        };
        format!(
            "{cached}{} prompt tokens{prompt}, {} new ones{decode}{guessed}; ended by {}",
            self.prompt_tokens,
            self.generated_tokens,
            self.stop.map_or("an interruption", reason),
        )
    }
}

impl Sampling {
    /// The settings in words, as `sampling with temperature 0.6, top-p 0.9`.
    pub fn describe(&self) -> String {
        let penalty = ("repetition penalty", self.repetition_penalty, 1.0);
        let mut parts = vec![
            ("temperature", self.temperature, 0.0),
            ("top-k", self.top_k as f32, 0.0),
            ("top-p", self.top_p, 1.0),
            ("min-p", self.min_p, 0.0),
            penalty,
        ];
        let mut text = "sampling with ".to_owned();
        if self.temperature == 0.0 {
            parts = vec![penalty]; // nothing else changes which token is the most probable
            text = "the most probable tokens with ".to_owned();
        }
        parts.retain(|(_, value, neutral)| value != neutral);
        let parts: Vec<String> = parts
            .iter()
            .map(|(name, value, _)| format!("{name} {value}"))
            .collect();
        text + &parts.join(", ")
    }
}

/// Tokens per second of the prompt; none if it was not computed.
fn prompt_rate(s: &Summary) -> Option<f64> {
    (s.generated_tokens > 0).then(|| rate(s.prompt_tokens, s.prompt_time))
}

/// Tokens per second after the first, which comes with the prompt; none without a second one.
fn decode_rate(s: &Summary) -> Option<f64> {
    (s.generated_tokens > 1).then(|| rate(s.generated_tokens - 1, s.generated_time))
}

fn reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::Eos => "the model",
        StopReason::StopText => "a stop text",
        StopReason::Length => "length",
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64().max(1e-9)
}

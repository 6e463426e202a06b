//! The settings in a checkpoint's generation_config.json, which say how its makers sample.
//!
//! They mean what they mean in transformers: without `"do_sample": true` the most probable token is
//! taken. A setting that is absent cuts nothing: transformers would keep the 50 most probable
//! tokens then, vLLM all of them.

use serde_json::{Map, Value};

use crate::sampler::Sampling;
use crate::{Error, Result};

/// File name of the settings.
pub(crate) const GENERATION_CONFIG: &str = "generation_config.json";

/// What generation_config.json says about sampling.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// How tokens are chosen; the most probable ones without a file.
    pub sampling: Sampling,
    /// Keys of settings that change a text in transformers and that are not applied here,
    /// ascending.
    pub ignored: Vec<String>,
}

/// Keys that do not change which token follows, or that other code reads.
const OTHER: [&str; 22] = [
    "_from_model_config",
    "assistant_early_exit",
    "bos_token_id",
    "cache_implementation",
    "chat_format",
    "decoder_start_token_id",
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "return_dict_in_generate",
    "return_legacy_cache",
    "transformers_version",
    "trust_remote_code",
    "use_cache",
    "_name_or_path",
    "max_window_size",
];

impl GenerationConfig {
    /// Reads the content of generation_config.json.
    ///
    /// # Errors
    /// [`Error::Tokenizer`]: a setting has another type than expected.
    pub(crate) fn read(json: &Value) -> Result<GenerationConfig> {
        let nothing = Map::new();
        let settings = json.as_object().unwrap_or(&nothing);
        let wrong = |key: &str, expected: &str| {
            let why = format!("`{key}` is {}, expected {expected}", settings[key]);
            Error::Tokenizer {
                file: GENERATION_CONFIG,
                why,
            }
        };
        let there = |key: &str| settings.get(key).filter(|value| !value.is_null());
        let number = |key: &str, absent: f32| match there(key) {
            None => Ok::<_, Error>(absent),
            Some(value) => {
                let value = value.as_f64().ok_or_else(|| wrong(key, "a number"))?;
                Ok(value as f32)
            }
        };
        let do_sample = match there("do_sample") {
            None => false,
            Some(value) => value
                .as_bool()
                .ok_or_else(|| wrong("do_sample", "true or false"))?,
        };
        let mut sampling = Sampling {
            repetition_penalty: number("repetition_penalty", 1.0)?,
            ..Sampling::default()
        };
        let cuts = Sampling {
            temperature: number("temperature", 1.0)?,
            top_p: number("top_p", 1.0)?,
            min_p: number("min_p", 0.0)?,
            top_k: match there("top_k") {
                None => 0,
                Some(value) => {
                    let value = value.as_u64().and_then(|k| usize::try_from(k).ok());
                    value.ok_or_else(|| wrong("top_k", "a number of tokens"))?
                }
            },
            ..sampling
        };
        if do_sample {
            sampling = cuts;
        }
        let read = [
            "repetition_penalty",
            "temperature",
            "top_k",
            "top_p",
            "min_p",
        ];
        let is_ignored = |(key, value): &(&String, &Value)| {
            !OTHER.contains(&&***key) && !read.contains(&&***key) && !is_neutral(key, value)
        };
        let ignored = settings.iter().filter(is_ignored);
        let mut ignored: Vec<String> = ignored.map(|(key, _)| key.clone()).collect();
        ignored.sort_unstable();
        Ok(GenerationConfig { sampling, ignored })
    }
}

/// Whether a setting has the value at which it changes nothing. Most are null, false, 0 or empty.
fn is_neutral(key: &str, value: &Value) -> bool {
    let one = [
        "diversity_penalty",
        "encoder_repetition_penalty",
        "guidance_scale",
        "length_penalty",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "typical_p",
    ];
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(x) => {
            let neutral = if one.contains(&key) { 1.0 } else { 0.0 };
            x.as_f64() == Some(neutral) || (key == "diversity_penalty" && x.as_f64() == Some(0.0))
        }
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::Bool(true) => key == "remove_invalid_values" || key == "renormalize_logits",
        // The name of a file of code that replaces the loop of transformers is not neutral.
        Value::String(text) => text.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Value) -> GenerationConfig {
        GenerationConfig::read(&json).unwrap()
    }

    #[test]
    fn sampling_is_what_transformers_does_with_the_file() {
        let greedy = Sampling::default();
        assert_eq!(read(Value::Null).sampling, greedy);
        // transformers samples only where the file says so.
        assert_eq!(
            read(json!({"temperature": 0.6, "top_p": 0.9})).sampling,
            greedy
        );
        let found = read(json!({
            "do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0,
            "repetition_penalty": 1.05,
        }));
        let expected = Sampling {
            temperature: 0.6,
            top_k: 20,
            top_p: 0.95,
            min_p: 0.0,
            repetition_penalty: 1.05,
            ..Sampling::default()
        };
        assert_eq!((found.sampling, found.ignored.len()), (expected, 0));
        let plain = read(json!({"do_sample": true, "top_k": null}));
        assert_eq!((plain.sampling.temperature, plain.sampling.top_k), (1.0, 0));
        // The penalty also counts for the most probable token.
        let penalty = read(json!({"repetition_penalty": 1.3})).sampling;
        assert_eq!(
            (penalty.temperature, penalty.repetition_penalty),
            (0.0, 1.3)
        );
    }

    #[test]
    fn what_is_not_applied_is_named() {
        let found = read(json!({
            "bos_token_id": 1, "eos_token_id": [2, 3], "transformers_version": "4.53.0",
            "num_beams": 4, "no_repeat_ngram_size": 3, "typical_p": 1.0, "bad_words_ids": null,
            "suppress_tokens": [], "use_cache": true, "length_penalty": 1, "my_own": "x",
        }));
        assert_eq!(
            found.ignored,
            ["my_own", "no_repeat_ngram_size", "num_beams"]
        );
    }

    #[test]
    fn other_types_are_refused_by_name() {
        for (key, value) in [
            ("temperature", json!("0.6")),
            ("top_k", json!(2.5)),
            ("top_k", json!(-1)),
            ("do_sample", json!("yes")),
        ] {
            let error = GenerationConfig::read(&json!({key: value})).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains(key) && error.contains(GENERATION_CONFIG),
                "{error}"
            );
        }
    }
}

//! The keyword arguments of generations, as the fields of requests, which check them.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::{Map, Value, json};

use crate::errors::Fault;
use crate::values::{self, json, text_of};

/// Which options there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Options {
    Completion,
    Chat,
}

pub const COMPLETION: Options = Options::Completion;
pub const CHAT: Options = Options::Chat;

/// Options and the fields that they are.
const BOTH: [(&str, &str); 22] = [
    ("cache_prompt", "cache_prompt"),
    ("choice", "guided_choice"),
    ("frequency_penalty", "frequency_penalty"),
    ("grammar", "grammar"),
    ("ignore_eos", "ignore_eos"),
    ("include_stop_str_in_output", "include_stop_str_in_output"),
    ("logit_bias", "logit_bias"),
    ("logprobs", "logprobs"),
    ("max_tokens", "max_tokens"),
    ("min_p", "min_p"),
    ("prediction", "prediction"),
    ("presence_penalty", "presence_penalty"),
    ("prompt_logprobs", "prompt_logprobs"),
    ("regex", "regex"),
    ("repetition_penalty", "repetition_penalty"),
    ("schema", "json_schema"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("stop_token_ids", "stop_token_ids"),
    ("temperature", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
];

/// Those of conversations.
const OF_CHAT: [(&str, &str); 6] = [
    ("add_generation_prompt", "add_generation_prompt"),
    ("chat_template_kwargs", "chat_template_kwargs"),
    ("continue_final_message", "continue_final_message"),
    ("parallel_tool_calls", "parallel_tool_calls"),
    ("tool_choice", "tool_choice"),
    ("tools", "tools"),
];

/// What `sterna generate` does where nothing is said: the most probable token.
const GREEDY: [(&str, f64); 4] = [
    ("temperature", 0.0),
    ("top_p", 1.0),
    ("min_p", 0.0),
    ("repetition_penalty", 1.0),
];

/// The fields of a request. None is the same as an option that is not given.
pub fn read(options: Option<&Bound<'_, PyDict>>, which: Options) -> PyResult<Map<String, Value>> {
    let mut fields = Map::new();
    for (name, value) in options.into_iter().flatten() {
        let name = text_of("the name of an option", name.cast::<PyString>()?)?;
        let extra: &[_] = match which {
            Options::Completion => &[],
            Options::Chat => &OF_CHAT,
        };
        let known = BOTH.iter().chain(extra).find(|(known, _)| *known == name);
        let Some((_, field)) = known else {
            let why = format!("there is no option {name:?}");
            return Err(PyTypeError::new_err(why));
        };
        if value.is_none() {
            continue;
        }
        let value = match *field {
            "prediction" => {
                let text = values::text(&name, &value)?;
                json!({"type": "content", "content": text})
            }
            _ => json(&name, &value)?,
        };
        // Requests over HTTP may have these below 0, the command line may not.
        if ["seed", "top_k"].contains(field) && value.as_i64().is_some_and(|n| n < 0) {
            let why = format!("{name} is {value}, expected a whole number from 0");
            return Err(Fault::usage(why).into());
        }
        fields.insert((*field).to_owned(), value);
    }
    let mut default = |name: &str, value: Value| {
        fields.entry(name).or_insert(value);
    };
    default("seed", 0.into());
    if which == Options::Completion {
        default("top_k", 0.into());
        GREEDY
            .iter()
            .for_each(|(name, value)| default(name, (*value).into()));
    }
    Ok(fields)
}

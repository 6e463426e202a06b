//! The fields of requests, as data: which have an effect, which have none, and which are refused.
//!
//! Clients and routers send fields of other servers with every request, so most unknown names must
//! not be an error. A field that would change the answer is different: without its effect the
//! client would get what it did not ask for, so it is refused unless its value asks for nothing.

use serde_json::{Map, Value};

use super::error::{ApiError, ApiResult};
use super::read::brief;

/// Requests by their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Fields {
    /// `/v1/chat/completions`.
    Chat = 1,
    /// `/v1/completions`.
    Completions = 2,
    /// `/v1/embeddings`.
    Embeddings = 4,
    /// `/tokenize`.
    Tokenize = 8,
    /// `/detokenize`.
    Detokenize = 16,
    /// `/apply-template`.
    Template = 32,
    /// `/v1/responses` and `/v1/responses/input_tokens`.
    Responses = 64,
    /// `/v1/messages` and `/v1/messages/count_tokens`.
    Messages = 128,
    /// `/api/chat`.
    OllamaChat = 256,
    /// `/api/generate`.
    OllamaGenerate = 512,
    /// The `options` of both.
    OllamaOptions = 1024,
    /// `/api/show`.
    OllamaShow = 2048,
    /// `/api/embed`.
    OllamaEmbed = 4096,
}

const CHAT: u16 = Fields::Chat as u16;
const COMPLETIONS: u16 = Fields::Completions as u16;
const EMBEDDINGS: u16 = Fields::Embeddings as u16;
const TOKENIZE: u16 = Fields::Tokenize as u16;
const DETOKENIZE: u16 = Fields::Detokenize as u16;
const TEMPLATE: u16 = Fields::Template as u16;
const RESPONSES: u16 = Fields::Responses as u16;
const MESSAGES: u16 = Fields::Messages as u16;
const OLLAMA_CHAT: u16 = Fields::OllamaChat as u16;
const OLLAMA_GENERATE: u16 = Fields::OllamaGenerate as u16;
const OPTIONS: u16 = Fields::OllamaOptions as u16;
const SHOW: u16 = Fields::OllamaShow as u16;
const EMBED: u16 = Fields::OllamaEmbed as u16;
const GENERATE: u16 = CHAT | COMPLETIONS;
const RENDER: u16 = CHAT | TEMPLATE | TOKENIZE;
const FORMS: u16 = RESPONSES | MESSAGES;
const OLLAMA: u16 = OLLAMA_CHAT | OLLAMA_GENERATE;
const SAMPLED: u16 = GENERATE | FORMS | OPTIONS;
const RULED: u16 = GENERATE | FORMS | OLLAMA;
const TOOLED: u16 = RENDER | FORMS;
const ALL: u16 = !OPTIONS;

/// Fields that have an effect, and the routes where they do.
const DONE: &[(&str, u16)] = &[
    ("add_generation_prompt", RENDER),
    ("add_special", TOKENIZE),
    (
        "add_special_tokens",
        GENERATE | EMBEDDINGS | EMBED | TOKENIZE | TEMPLATE,
    ),
    ("cache_prompt", GENERATE | FORMS),
    ("chat_template_kwargs", RENDER | FORMS),
    ("content", TOKENIZE),
    ("continue_final_message", RENDER | FORMS),
    ("dimensions", EMBEDDINGS | EMBED),
    ("echo", COMPLETIONS),
    ("encoding_format", EMBEDDINGS),
    ("format", OLLAMA),
    ("frequency_penalty", SAMPLED),
    ("grammar", RULED),
    ("guided_choice", RULED),
    ("guided_grammar", RULED),
    ("guided_json", RULED),
    ("guided_regex", RULED),
    ("ignore_eos", GENERATE | FORMS),
    ("include", RESPONSES),
    ("include_stop_str_in_output", GENERATE | FORMS),
    ("input", EMBEDDINGS | RESPONSES | EMBED),
    ("instructions", RESPONSES),
    ("json_schema", RULED),
    ("logit_bias", GENERATE | FORMS),
    ("logprobs", GENERATE | OLLAMA),
    ("max_completion_tokens", GENERATE),
    ("max_output_tokens", RESPONSES),
    ("max_tokens", GENERATE | MESSAGES),
    ("messages", RENDER | MESSAGES | OLLAMA_CHAT),
    ("metadata", RESPONSES),
    ("min_p", SAMPLED),
    ("model", ALL),
    ("n", GENERATE),
    ("n_predict", GENERATE),
    ("name", SHOW),
    ("num_predict", OPTIONS),
    ("options", OLLAMA),
    ("output_config", MESSAGES),
    ("parallel_tool_calls", RENDER | RESPONSES),
    ("prediction", GENERATE),
    ("presence_penalty", SAMPLED),
    ("prompt", COMPLETIONS | TOKENIZE | OLLAMA_GENERATE),
    ("prompt_logprobs", GENERATE),
    ("raw", OLLAMA_GENERATE),
    ("reasoning", RESPONSES),
    ("reasoning_effort", RENDER | FORMS),
    ("regex", RULED),
    ("repeat_penalty", SAMPLED),
    ("repetition_penalty", GENERATE | FORMS),
    ("response_format", RULED),
    ("return_token_ids", GENERATE),
    ("return_token_strs", TOKENIZE),
    ("seed", SAMPLED),
    ("stop", GENERATE | RESPONSES | OPTIONS),
    ("stop_sequences", MESSAGES),
    ("stop_token_ids", GENERATE | FORMS),
    ("stream", GENERATE | FORMS | OLLAMA),
    ("stream_options", GENERATE),
    ("structured_outputs", RULED),
    ("system", MESSAGES | OLLAMA_GENERATE),
    ("temperature", SAMPLED),
    ("text", RESPONSES),
    ("think", OLLAMA),
    ("thinking", MESSAGES),
    ("tokens", DETOKENIZE),
    ("tool_choice", TOOLED),
    ("tools", TOOLED | OLLAMA_CHAT),
    ("top_k", SAMPLED),
    ("top_logprobs", CHAT | RESPONSES | OLLAMA),
    ("top_p", SAMPLED),
    ("with_pieces", TOKENIZE),
];

/// Fields that are known and do not change an answer.
const NEUTRAL: &[&str] = &[
    "context_management",
    "id_slot",
    "keep_alive",
    "low_vram",
    "main_gpu",
    "max_tool_calls",
    "mirostat_eta",
    "mirostat_tau",
    "n_cache_reuse",
    "num_batch",
    "num_ctx",
    "num_gpu",
    "num_keep",
    "num_thread",
    "numa",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "separate_reasoning",
    "service_tier",
    "shift",
    "spaces_between_special_tokens",
    "store",
    "stream_reasoning",
    "timings_per_token",
    "truncate",
    "truncation",
    "use_mlock",
    "use_mmap",
    "user",
    "verbosity",
];

/// Fields that would change an answer and are not supported, and the values, as JSON, at which they
/// would not. At null, "" and at an empty list or object none of them does; at false none either,
/// unless true is one of those values.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("allowed_token_ids", &[]),
    ("audio", &[]),
    ("background", &[]),
    ("bad_words", &[]),
    ("best_of", &["1"]),
    ("chat_template", &[]),
    ("container", &[]),
    ("context", &[]),
    ("conversation", &[]),
    ("documents", &[]),
    ("dry_multiplier", &["0"]),
    ("dynatemp_range", &["0"]),
    ("function_call", &["\"none\""]),
    ("functions", &[]),
    ("images", &[]),
    ("length_penalty", &["1"]),
    ("logits_processors", &[]),
    ("logprob_token_ids", &[]),
    ("lora", &[]),
    ("mcp_servers", &[]),
    ("min_tokens", &["0"]),
    ("mirostat", &["0"]),
    ("modalities", &["[\"text\"]"]),
    ("moderation", &[]),
    ("n_probs", &["0"]),
    ("no_stop_trim", &[]),
    ("output_format", &[]),
    ("penalize_newline", &["true"]),
    ("previous_response_id", &[]),
    ("prompt_embeds", &[]),
    ("repeat_last_n", &["-1"]),
    ("return_hidden_states", &[]),
    ("samplers", &[]),
    ("skip_special_tokens", &["true"]),
    ("suffix", &[]),
    ("template", &[]),
    ("tfs_z", &["1"]),
    ("thinking_token_budget", &[]),
    // On the routes where they have no effect.
    (
        "tool_choice",
        &[
            "\"none\"",
            "\"auto\"",
            "{\"type\":\"auto\"}",
            "{\"type\":\"none\"}",
        ],
    ),
    ("tools", &[]),
    ("top_n_sigma", &["-1", "0"]),
    ("truncate_prompt_tokens", &[]),
    ("typical_p", &["1"]),
    ("use_beam_search", &[]),
    ("web_search_options", &[]),
    ("xtc_probability", &["0"]),
];

/// Unsupported fields without which others mean nothing. A refusal names them first.
const FIRST: [&str; 2] = ["functions", "tools"];

/// The fields of a request that have no effect, in the order of the body.
///
/// # Errors
/// 400 for a field that would change the answer, and with `is_strict` for an unknown one.
pub fn ignored(
    body: &Map<String, Value>,
    route: Fields,
    is_strict: bool,
) -> ApiResult<Vec<String>> {
    let (mut ignored, mut refused) = (Vec::new(), Vec::new());
    for (name, value) in body {
        let done = DONE.iter().find(|(done, _)| done == name);
        if done.is_some_and(|(_, routes)| routes & route as u16 != 0) {
            continue;
        }
        if let Some((_, neutral)) = UNSUPPORTED.iter().find(|(known, _)| known == name) {
            if asks_for_something(value, neutral) {
                refused.push((name.as_str(), value));
            }
        } else if is_strict && done.is_none() && !NEUTRAL.contains(&name.as_str()) {
            return Err(ApiError::unknown(name));
        }
        ignored.push(name.clone());
    }
    refused.sort_by_key(|(name, _)| !FIRST.contains(name));
    match refused.first() {
        None => Ok(ignored),
        Some((name, value)) => {
            let names: Vec<&str> = refused.iter().map(|(name, _)| *name).collect();
            let (value, names) = (brief(value), names.join(", "));
            let what = match *name {
                "functions" => "; send tools instead".to_owned(),
                "function_call" => "; send tools and tool_choice instead".to_owned(),
                _ => format!("; leave {names} out"),
            };
            let message = format!("{name} is {value}, which this server does not support{what}");
            Err(ApiError::unsupported(*name, message))
        }
    }
}

/// The fields that have an effect on a route.
#[cfg(test)]
pub fn done(route: Fields) -> Vec<&'static str> {
    let has_effect = |(_, routes): &&(&str, u16)| routes & route as u16 != 0;
    DONE.iter()
        .filter(has_effect)
        .map(|(name, _)| *name)
        .collect()
}

fn asks_for_something(value: &Value, neutral: &[&str]) -> bool {
    let is_empty = match value {
        Value::Null => true,
        Value::Bool(false) => !neutral.contains(&"true"),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    let is_neutral = |neutral: &&str| {
        let neutral: Value = serde_json::from_str(neutral).expect("the table holds JSON");
        match (neutral.as_f64(), value.as_f64()) {
            (Some(neutral), Some(value)) => neutral == value,
            _ => neutral == *value,
        }
    };
    !is_empty && !neutral.iter().any(is_neutral)
}

#[cfg(test)]
mod tests {
    use super::super::docs;
    use super::*;
    use serde_json::json;

    fn check(body: Value, route: Fields, is_strict: bool) -> ApiResult<Vec<String>> {
        ignored(body.as_object().unwrap(), route, is_strict)
    }

    #[test]
    fn the_tables_are_sorted_and_apart() {
        let done: Vec<&str> = DONE.iter().map(|(name, _)| *name).collect();
        let unsupported: Vec<&str> = UNSUPPORTED.iter().map(|(name, _)| *name).collect();
        for table in [&done, &unsupported, &NEUTRAL.to_vec()] {
            assert!(table.is_sorted(), "{table:?}");
        }
        let both = |name: &&&str| unsupported.contains(*name) || NEUTRAL.contains(*name);
        let both: Vec<&&str> = done.iter().filter(both).collect();
        assert_eq!(both, [&"tool_choice", &"tools"]);
        assert!(!NEUTRAL.iter().any(|name| unsupported.contains(name)));
        for (_, neutral) in UNSUPPORTED {
            for value in *neutral {
                serde_json::from_str::<Value>(value).unwrap();
            }
        }
    }

    #[test]
    fn fields_without_effect_are_named() {
        let body = json!({"model": "m", "user": "u", "messages": [], "n": 1, "mine": 3,
            "functions": [], "tool_choice": null, "typical_p": 1.0, "echo": true});
        let found = check(body, Fields::Chat, false).unwrap();
        assert_eq!(found, ["user", "mine", "functions", "typical_p", "echo"]);
        let error = check(json!({"user": "u", "mine": 3}), Fields::Chat, true).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("mine"));
    }

    #[test]
    fn fields_that_would_change_the_answer_are_refused() {
        for body in [
            json!({"tools": [{"type": "function"}]}),
            json!({"best_of": 2}),
            json!({"suffix": "x"}),
            json!({"include_stop_str_in_output": true, "skip_special_tokens": false}),
            json!({"mirostat": 2}),
            json!({"skip_special_tokens": false}),
            json!({"tool_choice": "required"}),
        ] {
            let (name, _) = body.as_object().unwrap().iter().next_back().unwrap();
            let (name, body) = (name.clone(), body);
            let error = check(body, Fields::Completions, false).unwrap_err();
            assert_eq!(error.code, Some("unsupported_parameter"));
            assert_eq!(error.param, Some(name));
        }
        // A choice among tools is only there because of the tools.
        let body =
            json!({"tool_choice": {"type": "function"}, "n": 1, "tools": [1], "suffix": "x"});
        let error = check(body, Fields::Completions, false).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("tools"));
        let says = "tools is [1], which this server does not support; leave tools, tool_choice, \
                    suffix out";
        assert_eq!(error.message, says);
        let body = json!({"functions": [{"name": "f"}], "function_call": "auto"});
        let error = check(body, Fields::Chat, false).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("functions"));
        assert!(
            error.message.ends_with("send tools instead"),
            "{}",
            error.message
        );
        // What sglang-router adds to each request asks for nothing.
        let added = json!({"logprobs": false, "stream": false, "no_stop_trim": false,
            "ignore_eos": false, "continue_final_message": false, "skip_special_tokens": true,
            "separate_reasoning": true, "stream_reasoning": true, "return_hidden_states": false});
        assert!(check(added, Fields::Chat, false).is_ok());
    }

    #[test]
    fn the_page_has_every_field_in_its_class() {
        let page = docs::page();
        let rows = docs::table(&page, "| class | what happens | fields |");
        let done = DONE.iter().map(|(name, _)| *name);
        let unsupported = UNSUPPORTED.iter().map(|(name, _)| *name);
        let tables: [Vec<&str>; 3] = [done.collect(), NEUTRAL.to_vec(), unsupported.collect()];
        assert_eq!(rows.len(), tables.len());
        for (row, table) in rows.iter().zip(tables) {
            let fields = row[2].replace("`--strict`", "");
            let table = table.into_iter().map(str::to_owned).collect();
            assert_eq!(docs::quoted(&fields), table, "{}", row[0]);
        }
    }
}

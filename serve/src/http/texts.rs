//! Texts to tokens and back, without the engine: `/tokenize`, `/detokenize`, `/apply-template`,
//! `/tokenizer_info`.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::answers::TokenTexts;
use super::app::App;
use super::conversation;
use super::error::{ApiError, ApiResult};
use super::read::{Reader, ids, wrong};
use super::reply;
use super::served::Served;

/// Longest text in bytes. Encoding takes two hundred times its memory.
const LONGEST: usize = 1 << 20;

/// Token ids of a text: of `prompt`, as vLLM names it, or of `content`, as llama.cpp does, or of
/// `messages`.
///
/// # Errors
/// 400.
pub fn tokenize(served: &Served, body: &Map<String, Value>) -> ApiResult<Value> {
    let fields = Reader(body);
    let special = match fields.boolean("add_special_tokens")? {
        Some(special) => Some(special),
        None => fields.boolean("add_special")?,
    };
    conversation::check_types(fields)?;
    let has_messages = fields.value("messages").is_some();
    let tokens = match (fields.text("prompt")?, fields.text("content")?) {
        (Some(_), _) | (_, Some(_)) if has_messages => return Err(not_one()),
        (Some(text), None) => encode(served, "prompt", text, special.unwrap_or(true))?,
        (None, Some(text)) => encode(served, "content", text, special.unwrap_or(false))?,
        (None, None) if body.contains_key("messages") => {
            let (text, _) = conversation::text(served, fields)?;
            encode(served, "messages", &text, special.unwrap_or(false))?
        }
        _ => return Err(not_one()),
    };
    let texts = TokenTexts(served);
    let mut object = json!({
        "tokens": tokens,
        "count": tokens.len(),
        "max_model_len": served.context,
    });
    if fields.flag("return_token_strs")? {
        let names = tokens.iter().map(|id| served.tokenizer.token(*id));
        object["token_strs"] = names.map(|token| token.map(|(name, _)| name)).collect();
    }
    if fields.flag("with_pieces")? {
        // llama.cpp writes the bytes of a part of a character as a list.
        let piece = |id: &u32| match std::str::from_utf8(texts.bytes(*id)) {
            Ok(text) => json!({"id": id, "piece": text}),
            Err(_) => json!({"id": id, "piece": texts.bytes(*id)}),
        };
        object["tokens"] = tokens.iter().map(piece).collect();
    }
    Ok(object)
}

fn not_one() -> ApiError {
    ApiError::invalid("prompt", "expected one of prompt, content and messages")
}

/// Token ids of a text, which may be longer than the context.
fn encode(served: &Served, param: &str, text: &str, special: bool) -> ApiResult<Vec<u32>> {
    if text.len() > LONGEST {
        let message = format!(
            "{param} has {} bytes, expected at most {LONGEST}; divide it",
            text.len()
        );
        return Err(ApiError::invalid(param, message));
    }
    served.encode_all(param, text, special)
}

/// The text of token ids, special tokens by their names.
///
/// # Errors
/// 400.
pub fn detokenize(served: &Served, body: &Map<String, Value>) -> ApiResult<Value> {
    let value = body.get("tokens").unwrap_or(&Value::Null);
    let list = value.as_array();
    let list = list.ok_or_else(|| wrong("tokens", value, "a list of token ids"))?;
    let tokens = ids("tokens", list, served.vocab_size())?;
    let text = served.tokenizer.decode_with_special(&tokens);
    let text = text.map_err(|error| ApiError::runtime("tokens", &error))?;
    Ok(json!({"content": text, "prompt": text}))
}

/// The text of a conversation and its token ids.
///
/// # Errors
/// 400.
pub fn apply_template(served: &Served, body: &Map<String, Value>) -> ApiResult<Value> {
    let fields = Reader(body);
    let (text, _) = conversation::text(served, fields)?;
    let special = fields.flag("add_special_tokens")?;
    let tokens = encode(served, "messages", &text, special)?;
    Ok(json!({"prompt": text, "token_ids": tokens, "count": tokens.len()}))
}

/// The settings of the tokenizer, for clients that render templates themselves.
///
/// # Errors
/// 503 while the model is loaded.
pub fn tokenizer_info(app: &App) -> ApiResult<Response> {
    let served = &app.models()?[0];
    let mut info = served.embedded("tokenizer_config.json");
    if !info.is_object() {
        info = json!({});
    }
    info["vocab_size"] = served.vocab_size().into();
    info["model_max_length"] = served.context.into();
    if let Ok(template) = &served.template {
        info["chat_template"] = template.original().into();
    }
    Ok(reply::json(StatusCode::OK, &info))
}

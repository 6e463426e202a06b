//! What Ollama's clients ask about a server and its models.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::super::app::App;
use super::super::error::{ApiError, ApiResult};
use super::super::meaning::number;
use super::super::read::Reader;
use super::super::served::Served;
use super::super::{clock, reply, status};

/// The version of Ollama whose API this is. Clients refuse servers with an older one.
const VERSION: &str = "0.12.11";
/// A time that does not come: models stay in memory.
const NEVER: &str = "9999-12-31T23:59:59Z";

fn ok(body: &Value) -> ApiResult<Response> {
    Ok(reply::json(StatusCode::OK, body))
}

/// The version.
///
/// # Errors
/// None.
pub fn version(_: &App) -> ApiResult<Response> {
    ok(&json!({"version": VERSION, "sterna": env!("CARGO_PKG_VERSION")}))
}

/// All models.
///
/// # Errors
/// 503.
pub fn tags(app: &App) -> ApiResult<Response> {
    let models = app.models()?.iter().map(|served| card(app, served));
    ok(&json!({"models": models.collect::<Vec<_>>()}))
}

/// The models in memory, which are all.
///
/// # Errors
/// 503.
pub fn running(app: &App) -> ApiResult<Response> {
    let models = app.models()?.iter().map(|served| {
        let mut card = card(app, served);
        card["expires_at"] = NEVER.into();
        card["size_vram"] = 0.into();
        card["context_length"] = served.context.into();
        card
    });
    ok(&json!({"models": models.collect::<Vec<_>>()}))
}

fn card(app: &App, served: &Served) -> Value {
    json!({
        "name": served.name,
        "model": served.name,
        "modified_at": clock::rfc3339(std::time::Duration::from_secs(app.started)),
        "size": served.model.file().len(),
        "digest": served.model.file().sum(),
        "details": details(served),
    })
}

fn details(served: &Served) -> Value {
    let family = architecture(served);
    json!({
        "parent_model": "",
        "format": "sterna",
        "family": family,
        "families": [family],
        "parameter_size": size(status::parameters(served)),
        "quantization_level": served.model.file().packing.name(),
    })
}

/// The name of the architecture, as `model_type` of the checkpoint has it.
fn architecture(served: &Served) -> String {
    let config = served.embedded("config.json");
    config["model_type"]
        .as_str()
        .unwrap_or("unknown")
        .to_owned()
}

/// A number of weights with its unit.
fn size(parameters: usize) -> String {
    let count = parameters as f64;
    match parameters {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.1}K", count / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", count / 1e6),
        _ => format!("{:.1}B", count / 1e9),
    }
}

/// One model.
///
/// # Errors
/// 400, and 404 for a name that is not the model's.
pub fn show(served: &Served, body: &Map<String, Value>) -> ApiResult<Value> {
    // The name of the field in older versions.
    let fields = Reader(body);
    if fields.value("model").is_none()
        && let Some(name) = fields.text("name")?
        && name.strip_suffix(":latest").unwrap_or(name) != served.name
    {
        return Err(ApiError::model(name, &[&served.name]));
    }
    let config = served.model.config();
    let family = architecture(served);
    let mut info = json!({
        "general.architecture": family,
        "general.basename": served.name,
        "general.parameter_count": status::parameters(served),
    });
    let sizes = [
        ("context_length", served.context),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("vocab_size", config.vocab_size),
    ];
    for (name, size) in sizes {
        info[format!("{family}.{name}")] = size.into();
    }
    let template = served.template.as_ref().map(|t| t.original());
    Ok(json!({
        "modelfile": "",
        "parameters": parameters(served),
        "template": template.unwrap_or_default(),
        "details": details(served),
        "model_info": info,
        "capabilities": capabilities(served),
        "digest": served.model.file().sum(),
        "system_fingerprint": served.fingerprint,
    }))
}

/// What the model can do. Tools belong to it if calls can be told from text.
fn capabilities(served: &Served) -> Vec<&'static str> {
    match served.calls_anywhere() {
        true => vec!["completion", "tools"],
        false => vec!["completion"],
    }
}

/// Defaults of sampling, one per line.
fn parameters(served: &Served) -> String {
    let sampling = &served.sampling;
    let lines = [
        format!("temperature {}", number(sampling.temperature)),
        format!("top_k {}", sampling.top_k),
        format!("top_p {}", number(sampling.top_p)),
        format!("min_p {}", number(sampling.min_p)),
        format!("repeat_penalty {}", number(sampling.repetition_penalty)),
    ];
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = [7, 1_500, 15_300_000, 2_412_820_480].map(size);
        assert_eq!(sizes, ["7", "1.5K", "15.3M", "2.4B"]);
    }
}

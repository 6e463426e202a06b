//! Replies about the server and its models. None of them has anything of a request.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use sterna_ternary::layout;

use super::app::App;
use super::error::ApiResult;
use super::reply;
use super::served::Served;
use crate::page::{self, Page};

/// Name of this program in answers that ask who made a model.
const OWNER: &str = "sterna";

fn ok(body: &Value) -> ApiResult<Response> {
    Ok(reply::json(StatusCode::OK, body))
}

/// The page.
///
/// # Errors
/// None.
pub fn page(_: &App) -> ApiResult<Response> {
    Ok(document(page::page()))
}

/// A page with its policy.
pub fn document(page: &'static Page) -> Response {
    let html = page.html.as_str();
    let mut response = reply::of_type(StatusCode::OK, "text/html; charset=utf-8", html);
    let headers = response.headers_mut();
    let policy = HeaderValue::from_str(&page.policy).expect("a policy is plain ASCII");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

/// Whether the process works, also while a model is loaded and while the server drains.
///
/// # Errors
/// 503 where an engine has stopped.
pub fn health(app: &App) -> ApiResult<Response> {
    app.check_alive()?;
    ok(&json!({"status": "ok"}))
}

/// Whether requests are answered.
///
/// # Errors
/// 503 while a model is loaded and while the server drains.
pub fn ready(app: &App) -> ApiResult<Response> {
    app.check_open()?;
    app.models()?;
    app.check_alive()?;
    ok(&json!({"status": "ready"}))
}

/// The version of the program.
///
/// # Errors
/// None.
pub fn version(_: &App) -> ApiResult<Response> {
    ok(&json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// All models.
///
/// # Errors
/// 503.
pub fn models(app: &App) -> ApiResult<Response> {
    let models = app.models()?.iter().map(|served| card(app, served));
    ok(&json!({"object": "list", "data": models.collect::<Vec<_>>()}))
}

/// One model.
///
/// # Errors
/// 404.
pub fn model(app: &App, name: &str) -> ApiResult<Response> {
    ok(&card(app, app.named(name)?))
}

fn card(app: &App, served: &Served) -> Value {
    let config = served.model.config();
    json!({
        "id": served.name,
        "object": "model",
        "created": app.started,
        "owned_by": OWNER,
        "max_model_len": served.context,
        "system_fingerprint": served.fingerprint,
        "capabilities": capabilities(served),
        "meta": {
            "n_vocab": config.vocab_size,
            "n_ctx_train": config.max_position_embeddings,
            "n_embd": config.hidden_size,
            "n_params": parameters(served),
            "size": served.model.file().len(),
        },
    })
}

/// Weights of a model.
pub fn parameters(served: &Served) -> usize {
    let weights = layout::weights(served.model.config());
    let sizes = weights.iter().map(|weight| weight.rows * weight.columns);
    sizes.sum()
}

/// What a model can be asked for.
pub fn capabilities(served: &Served) -> Vec<&'static str> {
    let chat = served.template.is_ok().then_some("chat");
    let tools = served.calls_anywhere().then_some("tools");
    let always = ["completion", "embedding"].into_iter();
    always.chain(chat).chain(tools).collect()
}

/// How the models are run, in the form of llama.cpp for the first one.
///
/// # Errors
/// 503.
pub fn props(app: &App) -> ApiResult<Response> {
    let models: Vec<Value> = app
        .models()?
        .iter()
        .map(|served| properties(served))
        .collect();
    let mut props = models[0].clone();
    if models.len() > 1 {
        props["models"] = models.into();
    }
    ok(&props)
}

fn properties(served: &Served) -> Value {
    let (model, sampling) = (&served.model, &served.sampling);
    let template = served.template.as_ref().ok();
    let token = |id: Option<u32>| id.and_then(|id| served.tokenizer.token(id)).map(|t| t.0);
    json!({
        "default_generation_settings": {
            "n_ctx": served.context,
            "params": {
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "repeat_penalty": sampling.repetition_penalty,
                "frequency_penalty": sampling.frequency_penalty,
                "presence_penalty": sampling.presence_penalty,
            },
        },
        "total_slots": served.limits.parallel,
        "model_alias": served.name,
        "model_path": file_name(served),
        "model_sum": model.file().sum(),
        "system_fingerprint": served.fingerprint,
        "chat_template": template.map(|template| template.original()),
        "bos_token": token(model.config().bos_token_id),
        "eos_token": token(served.tokenizer.eos().first().copied()),
        "eos_tokens": served.tokenizer.eos().iter().map(|id| token(Some(*id))).collect::<Vec<_>>(),
        "build_info": format!("sterna {}", env!("CARGO_PKG_VERSION")),
        "kernels": model.kernels().name,
        "threads": model.threads(),
        "packing": model.file().packing.name(),
        "kv_type": model.kv_type().name(),
        "kv_pages": served.limits.pages,
    })
}

/// The name of a model's file, without its folder.
fn file_name(served: &Served) -> String {
    let name = served.model.file().path().file_name();
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// How much waits and runs.
///
/// # Errors
/// 503.
pub fn slots(app: &App) -> ApiResult<Response> {
    let models = app.models()?.iter().map(|served| {
        let load = served.engine.load();
        let waiting = load.waiting();
        json!({
            "model": served.name,
            "total": served.limits.parallel,
            "running": load.running(),
            "waiting": waiting.choices,
            "waiting_tokens": waiting.tokens,
        })
    });
    ok(&models.collect())
}

/// The form in which SGLang's router asks for a server.
///
/// # Errors
/// 503.
pub fn server_info(app: &App) -> ApiResult<Response> {
    let served = &app.models()?[0];
    ok(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "served_model_name": served.name,
        "model_path": served.name,
        "tokenizer_path": served.name,
        "max_running_requests": served.limits.parallel,
        "context_length": served.context,
        "system_fingerprint": served.fingerprint,
        "tp_size": 1,
        "dp_size": 1,
    }))
}

/// The form in which SGLang's router asks for a model.
///
/// # Errors
/// 503.
pub fn model_info(app: &App) -> ApiResult<Response> {
    let served = &app.models()?[0];
    let config = served.embedded("config.json");
    ok(&json!({
        "model_path": served.name,
        "tokenizer_path": served.name,
        "served_model_name": served.name,
        "is_generation": true,
        "model_type": config["model_type"],
        "architectures": config["architectures"],
        "max_context_length": served.context,
        "vocab_size": served.vocab_size(),
    }))
}

/// The form in which SGLang's router asks how busy a server is.
///
/// # Errors
/// 503.
pub fn loads(app: &App) -> ApiResult<Response> {
    let loads = app.models()?.iter().zip(0..).map(|(served, rank)| {
        let load = served.engine.load();
        let waiting = load.waiting();
        let pages = served.limits.pages as f64;
        json!({
            "dp_rank": rank,
            "num_running_reqs": load.running(),
            "num_waiting_reqs": waiting.choices,
            "num_total_reqs": load.running() + waiting.choices as u64,
            "token_usage": served.engine.metrics().pages.get() as f64 / pages,
        })
    });
    ok(&json!({
        "timestamp": super::clock::unix(),
        "version": env!("CARGO_PKG_VERSION"),
        "dp_rank_count": app.models()?.len(),
        "loads": loads.collect::<Vec<_>>(),
    }))
}

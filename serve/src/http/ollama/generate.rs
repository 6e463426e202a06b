//! `/api/chat` and `/api/generate`.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sterna_runtime::Error as RuntimeError;

use super::super::error::{ApiError, ApiResult};
use super::super::fields::{self, Fields};
use super::super::job::Job;
use super::super::meaning::{Meaning, score};
use super::super::read::{Reader, wrong};
use super::super::served::Served;
use super::super::tools::Plan;
use super::form::{Kind, Ollama};

/// Options that mean the same in chat; `num_predict` is the other one that has an effect.
const OPTIONS: [&str; 9] = [
    "frequency_penalty",
    "min_p",
    "presence_penalty",
    "repeat_penalty",
    "seed",
    "stop",
    "temperature",
    "top_k",
    "top_p",
];

/// Reads a conversation.
///
/// # Errors
/// 400 and the field that is wrong.
pub fn chat(
    served: Arc<Served>,
    body: Map<String, Value>,
    key: usize,
    is_strict: bool,
) -> ApiResult<Job> {
    let ignored = fields::ignored(&body, Fields::OllamaChat, is_strict)?;
    let mut meaning = Meaning::default();
    let fields = Reader(&body);
    let list = match fields.value("messages") {
        None => &[],
        Some(Value::Array(list)) => &list[..],
        Some(other) => return Err(wrong("messages", other, "a list of messages")),
    };
    for (index, message) in list.iter().enumerate() {
        let at = format!("messages[{index}]");
        if message["images"]
            .as_array()
            .is_some_and(|images| !images.is_empty())
        {
            let at = format!("{at}.images");
            let message = format!("{at} is there, and the model reads text only");
            return Err(ApiError::unsupported(at, message));
        }
        let mut message = message.clone();
        match &message["tool_name"] {
            Value::Null | Value::String(_) => {}
            other => return Err(wrong(format!("{at}.tool_name"), other, "a string")),
        }
        if let (Some(name), Value::Null) = (message.get("tool_name").cloned(), &message["name"]) {
            message["name"] = name;
        }
        meaning.say_all(at, message);
    }
    meaning.copy("tools", "tools", &body);
    let prompt = match list {
        [] => Prompt::None,
        _ => Prompt::Conversation,
    };
    let read = Read {
        served,
        body,
        key,
        is_strict,
        ignored,
    };
    read.job(meaning, prompt, Kind::Chat)
}

/// Reads a prompt.
///
/// # Errors
/// 400 and the field that is wrong.
pub fn generate(
    served: Arc<Served>,
    body: Map<String, Value>,
    key: usize,
    is_strict: bool,
) -> ApiResult<Job> {
    let ignored = fields::ignored(&body, Fields::OllamaGenerate, is_strict)?;
    let mut meaning = Meaning::default();
    let fields = Reader(&body);
    let text = fields.text("prompt")?.unwrap_or_default();
    let system = fields.text("system")?.filter(|system| !system.is_empty());
    // A model without a template continues texts.
    let is_plain = matches!(&served.template, Err(RuntimeError::NoChatTemplate));
    let is_raw = fields.flag("raw")? || (is_plain && system.is_none());
    if let Some(system) = system {
        if is_raw {
            let message = "system is there, and raw is true; put its text into the prompt";
            return Err(ApiError::invalid("system", message));
        }
        meaning.say("system", "system", &system.into());
    }
    let prompt = match (text, is_raw) {
        ("", _) => Prompt::None,
        (text, true) => Prompt::Text(text.to_owned()),
        (text, false) => {
            meaning.say("prompt", "user", &text.into());
            Prompt::Conversation
        }
    };
    let read = Read {
        served,
        body,
        key,
        is_strict,
        ignored,
    };
    read.job(meaning, prompt, Kind::Generate)
}

/// What is continued.
enum Prompt {
    /// Nothing: the client asks whether the model is there.
    None,
    /// The conversation.
    Conversation,
    /// A text.
    Text(String),
}

/// A request whose prompt was read.
struct Read {
    served: Arc<Served>,
    body: Map<String, Value>,
    key: usize,
    is_strict: bool,
    ignored: Vec<String>,
}

impl Read {
    fn job(mut self, mut meaning: Meaning, prompt: Prompt, kind: Kind) -> ApiResult<Job> {
        let fields = Reader(&self.body);
        let mut options = fields.object("options")?.cloned().unwrap_or_default();
        let ignored = fields::ignored(&options, Fields::OllamaOptions, self.is_strict)?;
        self.ignored.extend(ignored);
        set_options(&mut meaning, &options)?;
        meaning.copy_rules(&self.body);
        format(fields, &mut meaning)?;
        think(fields, &self.served, &mut meaning)?;
        let mut wish = meaning.wish(&self.served)?;
        let has_logprobs = score(&mut wish, fields, fields.flag("logprobs")?)?;
        let plan = meaning.plan(&self.served, &mut wish)?;
        wish.name_ignored(&mut self.ignored, self.is_strict)?;
        let is_streamed = fields.boolean("stream")?.unwrap_or(true);
        let tokens = match prompt {
            Prompt::None => None,
            Prompt::Conversation => Some(meaning.prompt(&self.served, "messages", &mut wish)?),
            Prompt::Text(text) => {
                wish.continue_text();
                let tokens = self.served.encode("prompt", &text, true)?;
                self.served.check("prompt", &tokens)?;
                Some(tokens)
            }
        };
        let prompt = tokens.as_deref().unwrap_or_default();
        let called = Plan::called(plan, prompt, wish.seed);
        let requests = tokens.map(|tokens| wish.request(&self.served, self.key, tokens));
        options.insert("seed".into(), wish.seed.into());
        self.body.insert("options".into(), options.into());
        let form = Ollama {
            kind,
            has_logprobs,
            seed: wish.seed,
            answer: called.answer(0),
            called,
        };
        Ok(Job {
            served: self.served,
            route: kind.route(),
            requests: requests.into_iter().collect(),
            form: Box::new(form),
            is_streamed,
            ignored: self.ignored,
            body: self.body,
        })
    }
}

fn set_options(meaning: &mut Meaning, options: &Map<String, Value>) -> ApiResult<()> {
    for name in OPTIONS {
        // A seed of -1 is drawn, as without one.
        let is_drawn = name == "seed" && options.get(name) == Some(&json!(-1));
        if let Some(value) = options.get(name).filter(|_| !is_drawn) {
            meaning.set(name, format!("options.{name}"), value.clone());
        }
    }
    // Below zero is as much as fits.
    let limit = Reader(options).integer("num_predict", i64::MIN..=i64::MAX);
    let limit = limit.map_err(|error| ApiError {
        param: Some("options.num_predict".into()),
        ..error
    })?;
    if let Some(limit) = limit.filter(|limit| *limit >= 0) {
        meaning.set("max_tokens", "options.num_predict", limit.into());
    }
    Ok(())
}

/// What the answer keeps to: any JSON object, or a schema.
fn format(fields: Reader, meaning: &mut Meaning) -> ApiResult<()> {
    let format = match fields.value("format") {
        None => return Ok(()),
        Some(Value::String(text)) if text.is_empty() => return Ok(()),
        Some(Value::String(text)) if text == "json" => json!({"type": "json_object"}),
        Some(schema @ Value::Object(_)) => json!({"type": "json_schema", "schema": schema}),
        Some(other) => return Err(wrong("format", other, "\"json\" or a JSON schema")),
    };
    meaning.set_format("format", format)
}

/// Tells a template that knows thoughts whether they are wanted.
fn think(fields: Reader, served: &Served, meaning: &mut Meaning) -> ApiResult<()> {
    let template = served.template.as_ref();
    let knows = template.is_ok_and(|template| template.names("enable_thinking"));
    match (fields.boolean("think")?, knows) {
        (None, _) | (Some(false), false) => Ok(()),
        (Some(think), true) => {
            let kwargs = json!({"enable_thinking": think});
            meaning.set("chat_template_kwargs", "think", kwargs);
            Ok(())
        }
        (Some(true), false) => {
            let message = "think is true, and the model's template knows no thoughts; leave it out";
            Err(ApiError::unsupported("think", message))
        }
    }
}

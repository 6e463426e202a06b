//! Requests of other APIs as requests for chat: what they mean is said in the fields of chat, and
//! errors name the fields that the client sent.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::conversation;
use super::error::{ApiError, ApiResult};
use super::generate::{MOST_LOGPROBS, Wish};
use super::read::Reader;
use super::rule;
use super::served::Served;
use super::tools::{Plan, Tools};

/// Fields that mean the same in chat and in every API that has them.
const SAME: [&str; 17] = [
    "cache_prompt",
    "chat_template_kwargs",
    "continue_final_message",
    "frequency_penalty",
    "ignore_eos",
    "include_stop_str_in_output",
    "logit_bias",
    "min_p",
    "presence_penalty",
    "reasoning_effort",
    "repeat_penalty",
    "repetition_penalty",
    "seed",
    "stop_token_ids",
    "temperature",
    "top_k",
    "top_p",
];

/// A request in the fields of chat.
#[derive(Debug, Default)]
pub struct Meaning {
    fields: Map<String, Value>,
    messages: Vec<Value>,
    /// Names of chat, and those that the client knows.
    names: Vec<(String, String)>,
}

impl Meaning {
    /// The fields of a body that mean the same in chat.
    pub fn of(body: &Map<String, Value>) -> Meaning {
        let is_same = |name: &str| SAME.contains(&name) || rule::FIELDS.contains(&name);
        let same = body.iter().filter(|(name, _)| is_same(name));
        Meaning {
            fields: same.map(|(n, v)| (n.clone(), v.clone())).collect(),
            ..Meaning::default()
        }
    }

    /// Sets a field of chat from the client's field `own`.
    pub fn set(&mut self, name: &str, own: impl Into<String>, value: Value) {
        self.fields.insert(name.to_owned(), value);
        self.names.push((name.to_owned(), own.into()));
    }

    /// Copies a field of chat from the client's field `own`, if it is there.
    pub fn copy(&mut self, name: &str, own: &str, body: &Map<String, Value>) {
        if let Some(value) = body.get(own) {
            self.set(name, own, value.clone());
        }
    }

    /// Sets chat's `response_format` from the client's field `own`.
    ///
    /// # Errors
    /// 400: the client has set both.
    pub fn set_format(&mut self, own: &str, format: Value) -> ApiResult<()> {
        if self.fields.contains_key("response_format") {
            let message = format!(
                "{own} and response_format both say what the answer keeps to; leave one of them out"
            );
            return Err(ApiError::invalid(own, message));
        }
        self.set("response_format", own, format);
        Ok(())
    }

    /// Copies the fields that ask for a rule.
    pub fn copy_rules(&mut self, body: &Map<String, Value>) {
        for name in rule::FIELDS {
            self.copy(name, name, body);
        }
    }

    /// Sets a field of chat that the client may have set by the same name.
    pub fn set_absent(&mut self, name: &str, value: Value) {
        self.fields.entry(name).or_insert(value);
    }

    /// Adds a message from the client's field `own`.
    pub fn say(&mut self, own: impl Into<String>, role: &str, content: &Value) {
        self.say_all(own, json!({"role": role, "content": content}));
    }

    /// Adds a message with all of its members.
    pub fn say_all(&mut self, own: impl Into<String>, message: Value) {
        let name = format!("messages[{}]", self.messages.len());
        self.names.push((name, own.into()));
        self.messages.push(message);
    }

    /// Names a part of chat's request by the client's field `own`.
    pub fn name(&mut self, name: impl Into<String>, own: impl Into<String>) {
        self.names.push((name.into(), own.into()));
    }

    /// The number of messages so far.
    pub fn said(&self) -> usize {
        self.messages.len()
    }

    /// Adds a call of the assistant from the client's field `own`, to the last message if that is
    /// the assistant's.
    pub fn say_call(&mut self, own: impl Into<String>, call: Value) {
        let own = own.into();
        if self
            .messages
            .last()
            .is_none_or(|last| last["role"] != "assistant")
        {
            let message = json!({"role": "assistant", "content": null, "tool_calls": []});
            self.messages.push(message);
        }
        let last = self.messages.len() - 1;
        let calls = &mut self.messages[last]["tool_calls"];
        let count = calls.as_array().map_or(0, Vec::len);
        match calls.as_array_mut() {
            Some(calls) => calls.push(call),
            None => *calls = json!([call]),
        }
        let name = format!("messages[{last}].tool_calls[{count}]");
        self.name(format!("{name}.function"), own.clone());
        self.name(name, own);
    }

    /// Sets chat's `tools` from tools without the object in the middle, whose schemas the client
    /// calls `schema`.
    pub fn set_tools(&mut self, tools: Vec<Value>, schema: &str) {
        for index in 0..tools.len() {
            let (name, own) = (
                format!("tools[{index}].function"),
                format!("tools[{index}]"),
            );
            self.name(format!("{name}.parameters"), format!("{own}.{schema}"));
            self.name(name, own);
        }
        self.set("tools", "tools", tools.into());
    }

    /// What answers may call.
    ///
    /// # Errors
    /// 400 with the client's name of the field.
    pub fn tools(&self) -> ApiResult<Tools> {
        Tools::read(Reader(&self.fields)).map_err(|error| self.explained(error))
    }

    /// The grammar of answers that may have calls, which `wish` then keeps to.
    ///
    /// # Errors
    /// 400 with the client's name of the field.
    pub fn plan(&self, served: &Served, wish: &mut Wish) -> ApiResult<Option<Plan>> {
        let plan = self.tools()?.plan(Reader(&self.fields), served);
        let plan = plan.map_err(|error| self.explained(error))?;
        if let Some(plan) = &plan {
            wish.constrain(Arc::clone(&plan.constraint));
            let unknown = plan.unknown.iter().map(|name| self.own(name));
            wish.unknown.extend(unknown);
        }
        Ok(plan)
    }

    /// How an answer is generated.
    ///
    /// # Errors
    /// 400 with the client's name of the field.
    pub fn wish(&self, served: &Served) -> ApiResult<Wish> {
        let wish = Wish::read(Reader(&self.fields), served);
        let wish = wish.and_then(|wish| wish.check_tokens().map(|()| wish));
        let mut wish = wish.map_err(|error| self.explained(error))?;
        for name in &mut wish.unknown {
            *name = self.own(name);
        }
        Ok(wish)
    }

    /// The tokens of the conversation, which fit into the context. `own` is the client's field with
    /// the conversation.
    ///
    /// # Errors
    /// 400 with the client's name of the field.
    pub fn prompt(mut self, served: &Served, own: &str, wish: &mut Wish) -> ApiResult<Vec<u32>> {
        self.converse(own);
        let tokens = conversation::tokens(served, Reader(&self.fields));
        let (tokens, is_continued) = tokens.map_err(|error| self.explained(error))?;
        if is_continued {
            wish.continue_text();
        }
        Ok(tokens)
    }

    /// The number of its tokens, also where they do not fit, unless they are very many.
    ///
    /// # Errors
    /// 400 with the client's name of the field.
    pub fn count(mut self, served: &Served, own: &str) -> ApiResult<usize> {
        // Also the fields that only an answer needs may not be wrong.
        self.wish(served)?;
        self.converse(own);
        let text = conversation::text(served, Reader(&self.fields));
        let tokens = text.and_then(|(text, _)| served.encode("messages", &text, false));
        let tokens = tokens.map_err(|error| self.explained(error))?;
        Ok(tokens.len())
    }

    fn converse(&mut self, own: &str) {
        let messages = std::mem::take(&mut self.messages);
        self.set("messages", own, Value::Array(messages));
    }

    /// The error with the client's names of fields.
    fn explained(&self, error: ApiError) -> ApiError {
        let Some(param) = &error.param else {
            return error;
        };
        let message = match error.message.strip_prefix(param.as_str()) {
            Some(rest) => format!("{}{rest}", self.own(param)),
            None => error.message.clone(),
        };
        ApiError {
            param: Some(self.own(param)),
            message,
            ..error
        }
    }

    /// The client's name of a field of chat, or of a part of one.
    fn own(&self, name: &str) -> String {
        let known = self.names.iter().filter_map(|(chat, own)| {
            let rest = name.strip_prefix(chat.as_str())?;
            let is_part = rest.is_empty() || rest.starts_with(['.', '[', '/']);
            is_part.then_some((own, rest))
        });
        let closest = known.min_by_key(|(_, rest)| rest.len());
        closest.map_or_else(|| name.to_owned(), |(own, rest)| format!("{own}{rest}"))
    }
}

/// Scores tokens of the answer where `wanted` or a number of tokens beside each one asks for it.
///
/// # Errors
/// 400.
pub fn score(wish: &mut Wish, fields: Reader, wanted: bool) -> ApiResult<bool> {
    let top = fields.integer("top_logprobs", 0..=MOST_LOGPROBS)?;
    let is_scored = wanted || top.is_some_and(|top| top > 0);
    if is_scored {
        wish.score_answer(top.unwrap_or(0) as usize);
    }
    Ok(is_scored)
}

/// A number as JSON, with the fewest digits that give the same one in single precision.
pub fn number(value: f32) -> f64 {
    let digits = value.to_string();
    digits.parse().expect("a number was printed")
}

#[cfg(test)]
mod tests {
    use super::super::fields::{self, Fields};
    use super::*;

    #[test]
    fn errors_name_what_the_client_sent() {
        let body = json!({"temperature": 1, "other": 2});
        let mut meaning = Meaning::of(body.as_object().unwrap());
        assert_eq!(meaning.fields.len(), 1);
        meaning.set("max_tokens", "max_output_tokens", json!(-1));
        meaning.say("instructions", "system", &json!("x"));
        meaning.say("input[0]", "user", &json!(3));
        meaning.converse("input");
        for (name, own) in [
            ("messages[0].content", "instructions.content"),
            ("messages[1].content[2]", "input[0].content[2]"),
            ("messages", "input"),
            ("max_tokens", "max_output_tokens"),
            ("max_tokens_else", "max_tokens_else"),
            ("temperature", "temperature"),
        ] {
            assert_eq!(meaning.own(name), own);
        }
        let error = ApiError::invalid("max_tokens", "max_tokens is -1, expected more");
        let error = meaning.explained(error);
        assert_eq!(error.param.as_deref(), Some("max_output_tokens"));
        assert_eq!(error.message, "max_output_tokens is -1, expected more");
    }

    #[test]
    fn fields_that_mean_the_same_are_those_of_the_table() {
        for route in [Fields::Responses, Fields::Messages] {
            let done = fields::done(route);
            for name in SAME {
                assert!(done.contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn numbers_have_few_digits() {
        assert_eq!(json!(number(0.7)).to_string(), "0.7");
        assert_eq!(json!(number(1.0)).to_string(), "1.0");
    }
}

//! Tools: what an answer may call, and the calls in it.
//!
//! The fields are those of OpenAI's chat. The grammar of an answer is made of the schemas of the
//! tools and of the syntax in which the model's template writes calls
//! (`sterna_runtime::calls`), and is enforced like every rule, so that names and arguments are
//! always valid. `parser.rs` finds them in the text, `answer.rs` puts them together.

mod answer;
mod messages;
mod parser;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sterna_runtime::Constraint;
use sterna_runtime::calls::{CallSyntax, Part as Fixed, Place};
use sterna_ternary::json::shown;

use super::error::{ApiError, ApiResult};
use super::read::{Reader, brief, under, wrong};
use super::rule;
use super::served::Served;

pub use answer::{Call, Called, CalledAnswer, Part};
pub use messages::{calls_of, describe, shorten_ids};
use parser::Format;

/// Most tools of a request, and the most characters of a name.
const MOST: (usize, usize) = (128, 64);

/// The tools of a request and what may be done with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Tools {
    list: Vec<Tool>,
    choice: Choice,
    /// Whether an answer may have several calls.
    are_several: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Tool {
    name: String,
    /// What the template sees.
    shown: Value,
    /// What arguments keep to.
    schema: Value,
}

/// What an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Text.
    Text,
    /// Text, calls, or both.
    Any,
    /// Calls.
    Calls,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice {
    mode: Mode,
    /// Indices of the tools that may be called.
    of: Vec<usize>,
}

/// A request whose answers may have calls.
pub struct Plan {
    /// The grammar.
    pub constraint: Arc<dyn Constraint>,
    /// The keywords of schemas that have no effect, below the names of their fields.
    pub unknown: Vec<String>,
    /// How calls are found.
    format: Format,
    special: Vec<u32>,
}

impl Plan {
    /// How the calls of answers to a prompt are found.
    pub fn called(plan: Option<Plan>, prompt: &[u32], seed: i64) -> Called {
        Called::new(plan.map(|plan| (plan.format, plan.special)), prompt, seed)
    }
}

impl Tools {
    /// Reads `tools`, `tool_choice` and `parallel_tool_calls`.
    ///
    /// # Errors
    /// 400 and the field that is wrong.
    pub fn read(fields: Reader) -> ApiResult<Tools> {
        let expected = format!("a list of at most {} tools", MOST.0);
        let list: Vec<Tool> = match fields.value("tools") {
            None => Vec::new(),
            Some(Value::Array(list)) if list.len() <= MOST.0 => {
                let tools = list.iter().enumerate();
                tools
                    .map(|(index, tool)| Tool::read(index, tool))
                    .collect::<ApiResult<_>>()?
            }
            Some(Value::Array(list)) => {
                let message = format!("tools has {} items, expected {expected}", list.len());
                return Err(ApiError::invalid("tools", message));
            }
            Some(other) => return Err(wrong("tools", other, expected)),
        };
        for (index, tool) in list.iter().enumerate() {
            if list[..index].iter().any(|other| other.name == tool.name) {
                let param = format!("tools[{index}].function.name");
                let message = format!("{param} is {:?}, which another tool has", tool.name);
                return Err(ApiError::invalid(param, message));
            }
        }
        let mut tools = Tools {
            choice: Choice {
                mode: Mode::Any,
                of: (0..list.len()).collect(),
            },
            list,
            are_several: fields.boolean("parallel_tool_calls")?.unwrap_or(true),
        };
        if let Some(choice) = fields.value("tool_choice") {
            tools.choose(choice)?;
        }
        Ok(tools)
    }

    /// Reads `tool_choice`.
    fn choose(&mut self, choice: &Value) -> ApiResult<()> {
        const EXPECTED: &str = "\"none\", \"auto\", \"required\", \
            {\"type\": \"function\", \"function\": {\"name\": NAME}}, or \
            {\"type\": \"allowed_tools\", \"allowed_tools\": {\"mode\", \"tools\"}}";
        let kind = choice.as_str().or_else(|| choice["type"].as_str());
        let is_text = choice.is_string();
        self.choice.mode = match kind {
            Some("none") if is_text => Mode::Text,
            Some("auto") if is_text => Mode::Any,
            Some("required") if is_text => Mode::Calls,
            Some("function") if !is_text => {
                let index = self.find("tool_choice.function.name", &choice["function"]["name"])?;
                // A tool that is named is called once.
                (self.choice.of, self.are_several) = (vec![index], false);
                Mode::Calls
            }
            Some("allowed_tools") if !is_text => self.allow(&choice["allowed_tools"])?,
            _ => return Err(wrong("tool_choice", choice, EXPECTED)),
        };
        if self.choice.mode == Mode::Calls && self.list.is_empty() {
            let choice = brief(choice);
            let message = format!("tool_choice is {choice}, and there are no tools; send tools");
            return Err(ApiError::invalid("tool_choice", message));
        }
        Ok(())
    }

    /// Reads the tools that may be called of all that the model sees.
    fn allow(&mut self, allowed: &Value) -> ApiResult<Mode> {
        const PARAM: &str = "tool_choice.allowed_tools";
        let mode = match allowed["mode"].as_str() {
            Some("auto") => Mode::Any,
            Some("required") => Mode::Calls,
            _ => {
                let param = format!("{PARAM}.mode");
                return Err(wrong(param, &allowed["mode"], "\"auto\" or \"required\""));
            }
        };
        let list = allowed["tools"].as_array().filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| {
            wrong(
                format!("{PARAM}.tools"),
                &allowed["tools"],
                "a list of at least one tool",
            )
        })?;
        let mut of = Vec::new();
        for (index, tool) in list.iter().enumerate() {
            let at = format!("{PARAM}.tools[{index}]");
            if tool["type"] != "function" {
                return Err(wrong(format!("{at}.type"), &tool["type"], "\"function\""));
            }
            let param = format!("{at}.function.name");
            of.push(self.find(&param, &tool["function"]["name"])?);
        }
        of.sort_unstable();
        of.dedup();
        self.choice.of = of;
        Ok(mode)
    }

    /// The index of a tool.
    fn find(&self, param: &str, name: &Value) -> ApiResult<usize> {
        let index = self
            .list
            .iter()
            .position(|tool| *name == tool.name.as_str());
        index.ok_or_else(|| wrong(param, name, "the name of one of the tools"))
    }

    /// Whether an answer may have calls.
    pub fn may_call(&self) -> bool {
        !self.list.is_empty() && self.choice.mode != Mode::Text
    }

    /// Whether there are tools, and an answer may call several at once.
    pub fn are_several(&self) -> bool {
        !self.list.is_empty() && self.are_several
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The tools as templates see them; none where the model is not to know of them.
    pub fn shown(&self) -> Option<Value> {
        let shown = self.list.iter().map(|tool| tool.shown.clone());
        self.may_call().then(|| shown.collect())
    }

    /// The grammar of answers that may have calls; `None` where they may not.
    ///
    /// # Errors
    /// 400: another field asks for something else, a schema cannot be enforced in full, or the
    /// template does not show how the model calls tools.
    pub fn plan(&self, fields: Reader, served: &Served) -> ApiResult<Option<Plan>> {
        if !self.may_call() {
            return Ok(None);
        }
        if let Some(param) = rule::asked_by(fields)? {
            let message = format!(
                "{param} says what the answer keeps to, and tools say that it may be a call; \
                 leave {param} out, or send \"tool_choice\": \"none\""
            );
            return Err(ApiError::invalid(param, message));
        }
        if fields.flag("ignore_eos")? {
            let message = "ignore_eos is true, but an answer that may call tools has an end";
            return Err(ApiError::invalid("ignore_eos", message));
        }
        let known = served.call_syntax().filter(|_| served.knows_tools());
        let (syntax, place) = match (self.choice.mode, known) {
            (Mode::Calls, known) => {
                let syntax = known.cloned().unwrap_or_else(CallSyntax::plain);
                (syntax, Some(Place::First))
            }
            (_, None) => (CallSyntax::plain(), None),
            (_, Some(known)) => {
                let syntax = known.clone().trimmed();
                let place = syntax.place(&served.tokenizer);
                (syntax, place)
            }
        };
        let Some(place) = place else {
            let param = fields
                .value("tool_choice")
                .map_or("tools", |_| "tool_choice");
            let message = format!(
                "{param} leaves it to the model whether it calls a tool, and its chat template \
                 does not show how it would, so calls could not be told from text; send \
                 \"required\", a function or \"none\" as tool_choice"
            );
            return Err(ApiError::unsupported(param, message));
        };
        let of = self.choice.of.iter();
        let tools: Vec<(String, Value)> = of
            .map(|index| {
                (
                    self.list[*index].name.clone(),
                    self.list[*index].schema.clone(),
                )
            })
            .collect();
        self.check_stop(fields, &syntax)?;
        let constraint = served.calls(&syntax, &tools, &place, self.are_several);
        let constraint = constraint.map_err(|(index, error)| self.refused(index, &error))?;
        Ok(Some(Plan {
            constraint: constraint.into(),
            unknown: self.unknown(),
            format: Format::new(&syntax, &place, tools.iter().map(|(name, _)| name.as_str())),
            special: syntax.special(),
        }))
    }

    /// Refuses stop texts that end every call before it is complete.
    fn check_stop(&self, fields: Reader, syntax: &CallSyntax) -> ApiResult<()> {
        // Special tokens are not in texts.
        let text = |parts: &[Fixed]| -> String {
            let of = |part: &Fixed| match part {
                Fixed::Text(text) => text.clone(),
                Fixed::Special(_) => String::new(),
            };
            parts.iter().map(of).collect()
        };
        let separator = syntax.separator.as_ref().filter(|_| self.are_several);
        let mut fixed = vec![text(&syntax.close)];
        for before in [Some(&syntax.open), separator].into_iter().flatten() {
            let (before, after) = (text(before), text(&syntax.middle));
            let names = self.choice.of.iter().map(|index| &self.list[*index].name);
            fixed.extend(names.map(|name| format!("{before}{name}{after}")));
        }
        let stop = match fields.value("stop") {
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        for stop in stop.iter().filter_map(Value::as_str) {
            if let Some(text) = fixed.iter().find(|text| text.contains(stop)) {
                let message = format!(
                    "stop has {stop:?}, which is part of how calls are written, {text:?}, so no \
                     call could be complete; leave it out, or send \"tool_choice\": \"none\""
                );
                return Err(ApiError::invalid("stop", message));
            }
        }
        Ok(())
    }

    /// The keywords without effect in schemas of tools that may be called, as `field/place`.
    #[cfg(feature = "grammar")]
    fn unknown(&self) -> Vec<String> {
        let of = |index: &usize| {
            let places = sterna_grammar::unknown_keywords(&self.list[*index].schema);
            let param = format!("tools[{index}].function.parameters");
            let named = places.into_iter();
            named.map(move |place| format!("{param}{}", &place[1..]))
        };
        self.choice.of.iter().flat_map(of).collect()
    }

    #[cfg(not(feature = "grammar"))]
    fn unknown(&self) -> Vec<String> {
        Vec::new()
    }

    /// The error of the tool with this index among those that may be called.
    fn refused(&self, index: Option<usize>, error: &str) -> ApiError {
        let Some(index) = index else {
            return ApiError::invalid("tools", format!("tools: {error}"));
        };
        let param = format!("tools[{}].function.parameters", self.choice.of[index]);
        ApiError::invalid(&param, format!("{param}: {error}"))
    }
}

impl Tool {
    fn read(index: usize, tool: &Value) -> ApiResult<Tool> {
        let at = format!("tools[{index}]");
        let expected = "{\"type\": \"function\", \"function\": {\"name\": NAME, ..}}";
        let object = tool.as_object().ok_or_else(|| wrong(&at, tool, expected))?;
        match &tool["type"] {
            Value::String(kind) if kind == "function" => {}
            Value::String(kind) => {
                let kind = shown(kind);
                let message = format!(
                    "{at}.type is {kind:?}, and this server has no tools of its own; send tools \
                     of type function, which the client calls"
                );
                return Err(ApiError::unsupported(format!("{at}.type"), message));
            }
            other => return Err(wrong(format!("{at}.type"), other, "\"function\"")),
        }
        let function = &tool["function"];
        let at = format!("{at}.function");
        let members = function.as_object();
        let members = members.ok_or_else(|| wrong(&at, function, "an object with name"))?;
        let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let is_name = |name: &&str| (1..=MOST.1).contains(&name.len()) && name.chars().all(is_fine);
        let name = function["name"].as_str().filter(is_name).ok_or_else(|| {
            let expected = format!("1 to {} letters, digits, _ and -", MOST.1);
            wrong(format!("{at}.name"), &function["name"], expected)
        })?;
        let fields = Reader(members);
        let named = |error: ApiError| under(&at, error);
        let description = fields
            .text("description")
            .map_err(named)?
            .unwrap_or_default();
        fields.boolean("strict").map_err(named)?;
        let parameters = fields.object("parameters").map_err(named)?;
        let schema = schema(&format!("{at}.parameters"), parameters)?;
        // Templates write these members without a look.
        let mut function = members.clone();
        function.insert("description".into(), description.into());
        let none = || json!({"type": "object", "properties": {}});
        let parameters = parameters.map_or_else(none, |object| object.clone().into());
        function.insert("parameters".into(), parameters);
        let mut shown = object.clone();
        shown.insert("function".into(), function.into());
        Ok(Tool {
            name: name.to_owned(),
            shown: shown.into(),
            schema,
        })
    }
}

/// What arguments keep to: an object of this schema, which has no members if the schema names none.
fn schema(param: &str, parameters: Option<&Map<String, Value>>) -> ApiResult<Value> {
    /// Keywords that say nothing about members beside the ones that are named.
    const SILENT: [&str; 7] = [
        "type",
        "properties",
        "required",
        "title",
        "description",
        "$schema",
        "strict",
    ];
    let mut schema = parameters.cloned().unwrap_or_default();
    match schema.get("type") {
        None => {
            schema.insert("type".into(), "object".into());
        }
        Some(kind) if kind == "object" => {}
        Some(other) => return Err(wrong(format!("{param}.type"), other, "\"object\"")),
    }
    let has_none = schema
        .get("properties")
        .is_none_or(|p| p.as_object().is_some_and(Map::is_empty));
    if has_none
        && schema
            .keys()
            .all(|keyword| SILENT.contains(&keyword.as_str()))
    {
        schema.insert("additionalProperties".into(), false.into());
    }
    Ok(schema.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> ApiResult<Tools> {
        Tools::read(Reader(body.as_object().unwrap()))
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    #[test]
    fn choices_are_read() {
        let list = json!([tool("a"), tool("b-2"), tool("C_")]);
        let named = json!({"type": "function", "function": {"name": "b-2"}});
        let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required",
            "tools": [tool("C_"), tool("a"), tool("a")]}});
        for (choice, mode, of, are_several) in [
            (Value::Null, Mode::Any, vec![0, 1, 2], true),
            (json!("auto"), Mode::Any, vec![0, 1, 2], true),
            (json!("none"), Mode::Text, vec![0, 1, 2], true),
            (json!("required"), Mode::Calls, vec![0, 1, 2], true),
            (named, Mode::Calls, vec![1], false),
            (allowed, Mode::Calls, vec![0, 2], true),
        ] {
            let tools = read(json!({"tools": list, "tool_choice": choice})).unwrap();
            assert_eq!(tools.choice, Choice { mode, of }, "{choice}");
            assert_eq!(tools.are_several, are_several, "{choice}");
            assert_eq!(tools.may_call(), mode != Mode::Text);
            assert_eq!(tools.shown().is_some(), mode != Mode::Text);
        }
        for body in [
            json!({}),
            json!({"tools": [], "tool_choice": "auto"}),
            json!({"tools": null}),
        ] {
            assert!(!read(body).unwrap().may_call());
        }
        let one = json!({"tools": list, "parallel_tool_calls": false});
        assert!(!read(one).unwrap().are_several());
    }

    #[test]
    fn wrong_tools_are_refused_by_place() {
        let function = |function: Value| {
            json!({"tools": [{"type": "function",
            "function": function}]})
        };
        let many: Vec<Value> = (0..129).map(|index| tool(&format!("f{index}"))).collect();
        let chosen = |choice: Value| json!({"tools": [tool("a")], "tool_choice": choice});
        for (body, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": many}), "tools"),
            (json!({"tools": ["a"]}), "tools[0]"),
            (
                json!({"tools": [{"function": {"name": "a"}}]}),
                "tools[0].type",
            ),
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
            (
                json!({"tools": [{"type": "function", "name": "a"}]}),
                "tools[0].function",
            ),
            (
                json!({"tools": [tool("a"), tool("a")]}),
                "tools[1].function.name",
            ),
            (function(json!({})), "tools[0].function.name"),
            (function(json!({"name": ""})), "tools[0].function.name"),
            (function(json!({"name": "a.b"})), "tools[0].function.name"),
            (function(json!({"name": "é"})), "tools[0].function.name"),
            (
                function(json!({"name": "a".repeat(65)})),
                "tools[0].function.name",
            ),
            (
                function(json!({"name": "a", "description": 3})),
                "tools[0].function.description",
            ),
            (
                function(json!({"name": "a", "strict": 3})),
                "tools[0].function.strict",
            ),
            (
                function(json!({"name": "a", "parameters": []})),
                "tools[0].function.parameters",
            ),
            (
                function(json!({"name": "a", "parameters": {"type": "array"}})),
                "tools[0].function.parameters.type",
            ),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (chosen(json!("any")), "tool_choice"),
            (chosen(json!({"type": "auto"})), "tool_choice"),
            (chosen(json!(3)), "tool_choice"),
            (chosen(tool("b")), "tool_choice.function.name"),
            (
                chosen(json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto"}})),
                "tool_choice.allowed_tools.tools",
            ),
            (
                chosen(json!({"type": "allowed_tools", "allowed_tools": {"mode": "none"}})),
                "tool_choice.allowed_tools.mode",
            ),
            (
                json!({"tools": [tool("a")], "parallel_tool_calls": "no"}),
                "parallel_tool_calls",
            ),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
            assert!(error.message.starts_with(param), "{}", error.message);
        }
    }

    #[test]
    fn a_tool_without_parameters_takes_none() {
        let of = |parameters: Value| {
            let function = json!({"name": "a", "parameters": parameters});
            let tools = read(json!({"tools": [{"type": "function", "function": function}]}));
            tools.unwrap().list[0].schema.clone()
        };
        let none = json!({"type": "object", "additionalProperties": false});
        assert_eq!(of(Value::Null), none);
        assert_eq!(of(json!({})), none);
        let empty = json!({"type": "object", "properties": {}});
        let closed = json!({"type": "object", "properties": {}, "additionalProperties": false});
        assert_eq!(of(empty), closed);
        // Other keywords say what members there may be.
        for schema in [
            json!({"type": "object", "properties": {}, "additionalProperties": true}),
            json!({"type": "object", "patternProperties": {"a": {}}}),
            json!({"type": "object", "properties": {"a": {}}}),
        ] {
            assert_eq!(of(schema.clone()), schema);
        }
        let reference = json!({"$ref": "#/$defs/a", "$defs": {"a": {}}});
        assert_eq!(of(reference)["type"], "object");
    }

    #[test]
    fn templates_see_what_they_write_without_a_look() {
        let tools = read(json!({"tools": [tool("a")]})).unwrap();
        let function = json!({"name": "a", "description": "",
            "parameters": {"type": "object", "properties": {}}});
        let expected = json!([{"type": "function", "function": function}]);
        assert_eq!(tools.shown(), Some(expected));
    }
}

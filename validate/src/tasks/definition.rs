//! Tasks written in TOML: templates over the fields of records instead of code.
//!
//! ```toml
//! data = "capitals.jsonl"                        # beside this file; or the data that are named with it
//! kind = "choice"                                # or "continuation", or "generation"
//! text = "Question: {{ question }}\nAnswer:"     # the text before the answer
//! choices = ["{{ a }}", "{{ b }}"]               # templates; or one expression that gives a list
//! answer = "label"                               # an expression: the number of the right choice, or its text
//! ```
//!
//! Templates are those of Jinja, with a limit on the steps one may take; a field that a record does
//! not have is an error. Instead of `kind` a `layout` may be named, to give a known data set other
//! examples or delimiters.

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use regex::RegexBuilder;
use serde::Deserialize;
use serde_json::Value;

use super::error::{Error, Result};
use super::generation::{Filter, Writing};
use super::layout::{Reason, TaskLayout};
use super::sample::{Delimiters, Query, Sample};

/// A task file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Definition {
    name: Option<String>,
    data: Option<PathBuf>,
    layout: Option<String>,
    kind: Option<TaskKind>,
    text: Option<String>,
    choices: Option<ChoiceList>,
    answer: Option<String>,
    description: Option<String>,
    target_delimiter: Option<String>,
    example_delimiter: Option<String>,
    normalized: Option<bool>,
    #[serde(default)]
    fewshot: Fewshot,
    generation: Option<GenerationTable>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum TaskKind {
    Choice,
    Continuation,
    Generation,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ChoiceList {
    Expression(String),
    Templates(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fewshot {
    count: Option<usize>,
    from: Option<PathBuf>,
    first: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerationTable {
    stop: Option<Vec<String>>,
    max_tokens: Option<usize>,
    ignore: Option<Vec<String>>,
    ignore_case: Option<bool>,
    ignore_punctuation: Option<bool>,
    filters: Option<Vec<NamedFilter>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedFilter {
    name: String,
    regex: String,
    #[serde(default)]
    last: bool,
}

/// What a task file says, checked.
pub(super) struct CheckedTask {
    pub(super) name: String,
    pub(super) data: Option<PathBuf>,
    pub(super) maker: Maker,
    pub(super) delimiters: Delimiters,
    pub(super) writing: Option<Writing>,
    pub(super) fewshot: Option<usize>,
    pub(super) fewshot_from: Option<PathBuf>,
    pub(super) first: Option<bool>,
}

/// Makes samples of records.
pub(super) enum Maker {
    Layout(TaskLayout),
    Templates(Box<Templates>),
}

/// Bytes of a task file, at most.
const MAX_BYTES: u64 = 1 << 20;

/// Steps of a template, at most.
const FUEL: u64 = 1_000_000;

/// Bytes that an expression may be compiled to.
const REGEX_SIZE: usize = 1 << 20;

impl Definition {
    pub(super) fn read(path: &Path) -> Result<CheckedTask> {
        let refused = |reason: Reason| Error::Definition {
            path: path.to_owned(),
            reason,
        };
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let length = std::fs::metadata(path).map_err(io)?.len();
        if length > MAX_BYTES {
            return Err(refused(format!(
                "it has {length} bytes, expected at most {MAX_BYTES}"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        let definition: Self = toml::from_str(&text).map_err(|error| refused(error.to_string()))?;
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or("task");
        let folder = path.parent().unwrap_or(Path::new(""));
        definition.checked(stem, folder).map_err(refused)
    }

    fn checked(self, stem: &str, folder: &Path) -> Result<CheckedTask, Reason> {
        let standard = Delimiters::default();
        let templates = (self.kind, self.layout.as_deref());
        let maker = match templates {
            (None, Some(name)) => {
                let extra = self.text.is_some() || self.choices.is_some() || self.answer.is_some();
                if extra || self.description.is_some() || self.normalized.is_some() {
                    return Err(
                        "`layout` says what `text`, `choices`, `answer`, `description` and \
                                `normalized` are; leave them out or give `kind`"
                            .into(),
                    );
                }
                let layout = TaskLayout::named(name);
                Maker::Layout(layout.ok_or_else(|| {
                    let names: Vec<_> = TaskLayout::names().collect();
                    format!(
                        "unknown `layout` {name:?}, expected one of {}",
                        names.join(", ")
                    )
                })?)
            }
            (Some(kind), None) => Maker::Templates(Box::new(Templates::checked(
                kind,
                self.text,
                self.choices,
                self.answer,
                self.description,
                self.normalized,
            )?)),
            _ => return Err("expected either `kind` or `layout`".into()),
        };
        // Only tasks in which the model writes text have settings of generation.
        let usual = match &maker {
            Maker::Layout(layout) => layout.writing(),
            Maker::Templates(templates) => {
                (templates.kind == TaskKind::Generation).then(Writing::default)
            }
        };
        let writing = match (self.generation, usual) {
            (None, usual) => usual,
            (Some(table), Some(usual)) => Some(table.checked(usual)?),
            (Some(_), None) => {
                return Err(
                    "[generation] is for tasks in which a model writes text: the kind \
                            `generation`, the layouts gsm8k and mmlu_pro"
                        .into(),
                );
            }
        };
        Ok(CheckedTask {
            name: self.name.unwrap_or_else(|| stem.to_owned()),
            data: self.data.map(|data| folder.join(data)),
            maker,
            delimiters: Delimiters {
                target: self.target_delimiter.unwrap_or(standard.target),
                example: self.example_delimiter.unwrap_or(standard.example),
            },
            writing,
            fewshot: self.fewshot.count,
            fewshot_from: self.fewshot.from.map(|from| folder.join(from)),
            first: self.fewshot.first,
        })
    }
}

impl GenerationTable {
    /// The usual settings, but those that the table has.
    fn checked(self, usual: Writing) -> Result<Writing, Reason> {
        let regex = |text: &String| {
            let regex = RegexBuilder::new(text).size_limit(REGEX_SIZE).build();
            regex.map_err(|error| format!("`{text}` is not a regular expression: {error}"))
        };
        let filter = |filter: &NamedFilter| -> Result<Filter, Reason> {
            Ok(Filter {
                name: filter.name.clone(),
                regex: Some(regex(&filter.regex)?),
                last: filter.last,
            })
        };
        let filters = self.filters.filter(|filters| !filters.is_empty());
        let filters = filters.map(|filters| filters.iter().map(filter).collect());
        let ignore = self.ignore.map(|all| all.iter().map(regex).collect());
        let max_tokens = self.max_tokens.unwrap_or(usual.max_tokens);
        if max_tokens == 0 {
            return Err("`max_tokens` is 0, expected at least 1".into());
        }
        Ok(Writing {
            stop: self.stop.unwrap_or(usual.stop),
            max_tokens,
            filters: filters.unwrap_or(Ok(usual.filters))?,
            ignore: ignore.unwrap_or(Ok(usual.ignore))?,
            ignore_case: self.ignore_case.unwrap_or(usual.ignore_case),
            ignore_punctuation: self.ignore_punctuation.unwrap_or(usual.ignore_punctuation),
        })
    }
}

impl Maker {
    pub(super) fn sample(&self, record: &Value) -> Result<Sample, Reason> {
        match self {
            Self::Layout(layout) => layout.sample(record),
            Self::Templates(templates) => templates.sample(record),
        }
    }
}

/// Templates over the fields of a record.
pub(super) struct Templates {
    environment: Environment<'static>,
    kind: TaskKind,
    text: String,
    choices: Option<ChoiceList>,
    answer: String,
    description: String,
    normalized: bool,
}

impl Templates {
    fn checked(
        kind: TaskKind,
        text: Option<String>,
        choices: Option<ChoiceList>,
        answer: Option<String>,
        description: Option<String>,
        normalized: Option<bool>,
    ) -> Result<Self, Reason> {
        let text = text.ok_or("there is no `text`")?;
        let answer = answer.ok_or("there is no `answer`")?;
        if choices.is_some() != (kind == TaskKind::Choice) {
            return Err("`choices` belong to the kind `choice` and to no other".into());
        }
        if normalized.is_some() && kind != TaskKind::Choice {
            return Err("`normalized` belongs to the kind `choice`".into());
        }
        let mut syntax = SyntaxConfig::builder();
        syntax.keep_trailing_newline(true);
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(syntax.build().expect("the delimiters are Jinja's own"));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        let templates = Self {
            environment,
            kind,
            text,
            choices,
            answer,
            description: description.unwrap_or_default(),
            normalized: normalized.unwrap_or(true),
        };
        templates.compile()?;
        Ok(templates)
    }

    /// Finds mistakes of syntax before any record is read.
    fn compile(&self) -> Result<(), Reason> {
        let template = |text: &str| self.environment.template_from_str(text).map(drop);
        let expression = |text: &str| self.environment.compile_expression(text).map(drop);
        let check = |key: &str, outcome: Result<(), minijinja::Error>| {
            outcome.map_err(|error| format!("`{key}`: {error}"))
        };
        check("text", template(&self.text))?;
        check("description", template(&self.description))?;
        check("answer", expression(&self.answer))?;
        match &self.choices {
            Some(ChoiceList::Expression(text)) => check("choices", expression(text)),
            Some(ChoiceList::Templates(texts)) => texts
                .iter()
                .try_for_each(|text| check("choices", template(text))),
            None => Ok(()),
        }
    }

    fn render(&self, key: &str, template: &str, record: &Value) -> Result<String, Reason> {
        let text = self
            .environment
            .render_str(template, minijinja::Value::from(Serde(record)));
        text.map_err(|error| format!("`{key}`: {error}"))
    }

    fn evaluate(&self, key: &str, expression: &str, record: &Value) -> Result<Value, Reason> {
        let value = self.environment.compile_expression(expression);
        let value =
            value.and_then(|expression| expression.eval(minijinja::Value::from(Serde(record))));
        let value = value.map_err(|error| format!("`{key}`: {error}"))?;
        serde_json::to_value(&value).map_err(|error| format!("`{key}`: {error}"))
    }

    fn choices(&self, record: &Value) -> Result<Vec<String>, Reason> {
        match self.choices.as_ref().expect("a task of choices has some") {
            ChoiceList::Templates(texts) => {
                let choices = texts
                    .iter()
                    .map(|text| self.render("choices", text, record));
                choices.collect()
            }
            ChoiceList::Expression(expression) => {
                let value = self.evaluate("choices", expression, record)?;
                let list = value.as_array().ok_or("`choices` gives no list")?;
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let list: Option<Vec<_>> = list.iter().map(text).collect();
                list.ok_or_else(|| "`choices` gives something that is not text".to_owned())
            }
        }
    }

    fn sample(&self, record: &Value) -> Result<Sample, Reason> {
        let text = self.render("text", &self.text, record)?;
        let description = self.render("description", &self.description, record)?;
        let value = self.evaluate("answer", &self.answer, record)?;
        let (example, query) = match self.kind {
            TaskKind::Choice => {
                let choices = self.choices(record)?;
                let gold = gold(&value, &choices)?;
                let query = Query::Choices {
                    gold,
                    normalized: self.normalized,
                    choices: choices.clone(),
                };
                (choices[gold].clone(), query)
            }
            TaskKind::Continuation => {
                let text = written(&value)?;
                (text.clone(), Query::Continuation { text })
            }
            TaskKind::Generation => {
                let reference = written(&value)?;
                (reference.clone(), Query::Generation { reference })
            }
        };
        Ok(Sample {
            text,
            example: Some(example),
            description,
            query,
        })
    }
}

/// An answer as text.
fn written(value: &Value) -> Result<String, Reason> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("`answer` gives {other}, expected text")),
    }
}

/// The right choice, by its number, also written as text, or by its text.
fn gold(value: &Value, choices: &[String]) -> Result<usize, Reason> {
    let by_text = |text: &str| choices.iter().position(|choice| choice == text);
    let found = match value {
        Value::Number(number) => number.as_u64().map(|number| number as usize),
        Value::String(text) => by_text(text).or_else(|| text.parse().ok()),
        _ => None,
    };
    found.filter(|found| *found < choices.len()).ok_or_else(|| {
        format!("`answer` gives {value}, expected one of {choices:?} or its number from 0")
    })
}

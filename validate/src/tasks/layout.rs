//! Items of known data sets, as their files on the hub have them.
//!
//! A layout is recognized by the fields of its records and says what lm-evaluation-harness asks for
//! them: the question, the choices and the delimiters are part of what a score means.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::sample::{Query, Sample, is_space};

/// How the records of a file become items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskLayout {
    /// ARC, easy and challenge: `question`, `choices` of `text` and `label`, `answerKey`.
    Arc,
    /// HellaSwag: `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`.
    HellaSwag,
    /// PIQA: `goal`, `sol1`, `sol2`, `label`.
    Piqa,
    /// WinoGrande: `sentence` with a `_`, `option1`, `option2`, `answer`; the text after the blank
    /// is scored after either option.
    WinoGrande,
    /// BoolQ: `passage`, `question`, and `label` (SuperGLUE) or `answer`.
    BoolQ,
    /// OpenBookQA: `question_stem`, `choices` of `text` and `label`, `answerKey`.
    OpenBookQa,
    /// MMLU: `question`, four `choices`, `answer`, `subject`; the letters are scored.
    Mmlu,
    /// GSM8K: `question`, `answer` with the number after `####`; text is generated.
    Gsm8k,
    /// LAMBADA: `text`, whose last word is scored.
    Lambada,
}

/// What is wrong with a record, in words.
pub(super) type Reason = String;

/// A layout, its name, and the fields that tell it; the first row whose fields are there decides.
const LAYOUTS: [(TaskLayout, &str, &[&str]); 9] = [
    (
        TaskLayout::OpenBookQa,
        "openbookqa",
        &["question_stem", "choices", "answerKey"],
    ),
    (
        TaskLayout::Arc,
        "arc",
        &["question", "choices", "answerKey"],
    ),
    (
        TaskLayout::HellaSwag,
        "hellaswag",
        &["activity_label", "ctx_a", "ctx_b", "endings"],
    ),
    (TaskLayout::Piqa, "piqa", &["goal", "sol1", "sol2"]),
    (
        TaskLayout::WinoGrande,
        "winogrande",
        &["sentence", "option1", "option2"],
    ),
    (TaskLayout::BoolQ, "boolq", &["passage", "question"]),
    (TaskLayout::Mmlu, "mmlu", &["question", "choices", "answer"]),
    (TaskLayout::Gsm8k, "gsm8k", &["question", "answer"]),
    (TaskLayout::Lambada, "lambada", &["text"]),
];

impl TaskLayout {
    /// Names of all layouts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        LAYOUTS.iter().map(|(_, name, _)| *name)
    }

    /// The layout of this name.
    pub fn named(name: &str) -> Option<Self> {
        let row = LAYOUTS.iter().find(|(_, found, _)| *found == name);
        row.map(|(layout, ..)| *layout)
    }

    /// The layout whose fields a record has.
    pub fn of(record: &Value) -> Option<Self> {
        let has = |fields: &[&str]| fields.iter().all(|field| record.get(field).is_some());
        let row = LAYOUTS.iter().find(|(.., fields)| has(fields));
        row.map(|(layout, ..)| *layout)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let row = LAYOUTS.iter().find(|(layout, ..)| *layout == self);
        row.map(|(_, name, _)| *name)
            .expect("every layout has a row")
    }

    pub(super) fn sample(self, record: &Value) -> Result<Sample, Reason> {
        match self {
            Self::Arc => labelled(
                record,
                format!("Question: {}\nAnswer:", text(record, "question")?),
            ),
            Self::OpenBookQa => labelled(record, text(record, "question_stem")?.to_owned()),
            Self::HellaSwag => hellaswag(record),
            Self::Piqa => piqa(record),
            Self::WinoGrande => winogrande(record),
            Self::BoolQ => boolq(record),
            Self::Mmlu => mmlu(record),
            Self::Gsm8k => gsm8k(record),
            Self::Lambada => lambada(record),
        }
    }
}

fn text<'a>(record: &'a Value, field: &str) -> Result<&'a str, Reason> {
    match record.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("`{field}` is not a string")),
        None => Err(format!("there is no `{field}`")),
    }
}

fn texts(record: &Value, field: &str) -> Result<Vec<String>, Reason> {
    let list = record.get(field).and_then(Value::as_array);
    let list = list.ok_or_else(|| format!("`{field}` is not a list"))?;
    let string = |value: &Value| value.as_str().map(str::to_owned);
    let texts: Option<Vec<_>> = list.iter().map(string).collect();
    texts.ok_or_else(|| format!("`{field}` has an entry that is not a string"))
}

/// A number, or a string of one.
fn number(record: &Value, field: &str) -> Result<usize, Reason> {
    let value = record
        .get(field)
        .ok_or_else(|| format!("there is no `{field}`"))?;
    let number = match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64().map(|number| number as usize),
    };
    number.ok_or_else(|| format!("`{field}` is {value}, expected the number of the right choice"))
}

fn choice(
    text: String,
    choices: Vec<String>,
    gold: usize,
    normalized: bool,
) -> Result<Sample, Reason> {
    let answer = choices.get(gold).cloned();
    let answer = answer.ok_or_else(|| {
        format!(
            "choice {gold} is said to be right, expected one of {}, from 0",
            choices.len()
        )
    })?;
    Ok(Sample {
        text,
        answer,
        description: String::new(),
        query: Query::Choices {
            choices,
            gold,
            normalized,
        },
    })
}

/// Choices with labels, one of which is the answer's.
fn labelled(record: &Value, question: String) -> Result<Sample, Reason> {
    let choices = record.get("choices").ok_or("there is no `choices`")?;
    let labels = texts(choices, "label")?;
    let key = text(record, "answerKey")?.trim_start();
    let gold = labels.iter().position(|label| label == key);
    let gold = gold.ok_or_else(|| format!("`answerKey` is {key:?}, expected one of {labels:?}"))?;
    choice(question, texts(choices, "text")?, gold, true)
}

fn hellaswag(record: &Value) -> Result<Sample, Reason> {
    let context = format!(
        "{} {}",
        text(record, "ctx_a")?,
        capitalized(text(record, "ctx_b")?)
    );
    let question = format!("{}: {context}", text(record, "activity_label")?);
    let endings = texts(record, "endings")?;
    let endings = endings.iter().map(|ending| cleaned(ending)).collect();
    choice(cleaned(&question), endings, number(record, "label")?, true)
}

/// Without the marks that WikiHow's pages left in brackets.
fn cleaned(text: &str) -> String {
    static BRACKETS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\[.*?\]").expect("it is well formed"));
    let text = text.trim_matches(is_space).replace(" [title]", ". ");
    BRACKETS.replace_all(&text, "").replace("  ", " ")
}

/// Python's `str.capitalize`.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else {
        return String::new();
    };
    let mut upper = first.to_uppercase();
    let mut capitalized = String::from_iter(upper.next());
    capitalized.extend(upper.flat_map(char::to_lowercase));
    capitalized + &letters.as_str().to_lowercase()
}

fn piqa(record: &Value) -> Result<Sample, Reason> {
    let question = format!("Question: {}\nAnswer:", text(record, "goal")?);
    let solutions = [text(record, "sol1")?, text(record, "sol2")?].map(str::to_owned);
    choice(question, solutions.to_vec(), number(record, "label")?, true)
}

fn winogrande(record: &Value) -> Result<Sample, Reason> {
    let (before, after) = text(record, "sentence")?
        .split_once('_')
        .ok_or("`sentence` has no `_` to fill in")?;
    let gold = match text(record, "answer")? {
        "1" => 0,
        "2" => 1,
        other => return Err(format!("`answer` is {other:?}, expected \"1\" or \"2\"")),
    };
    let options = [text(record, "option1")?, text(record, "option2")?];
    let contexts = options.map(|option| format!("{before}{option}"));
    let after = after.trim_matches(is_space).to_owned();
    Ok(Sample {
        text: contexts[gold].clone(),
        answer: after.clone(),
        description: String::new(),
        query: Query::Contexts {
            contexts: contexts.to_vec(),
            continuation: after,
            gold,
        },
    })
}

fn boolq(record: &Value) -> Result<Sample, Reason> {
    let (passage, question) = (text(record, "passage")?, text(record, "question")?);
    let gold = match record.get("answer") {
        Some(Value::Bool(answer)) => usize::from(*answer),
        _ => number(record, "label")?,
    };
    let choices = ["no", "yes"].map(str::to_owned).to_vec();
    choice(
        format!("{passage}\nQuestion: {question}?\nAnswer:"),
        choices,
        gold,
        false,
    )
}

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

fn mmlu(record: &Value) -> Result<Sample, Reason> {
    let choices = texts(record, "choices")?;
    if choices.len() != LETTERS.len() {
        return Err(format!(
            "`choices` has {} entries, expected 4",
            choices.len()
        ));
    }
    let mut question = text(record, "question")?.trim_matches(is_space).to_owned();
    for (letter, choice) in LETTERS.iter().zip(&choices) {
        question += &format!("\n{letter}. {choice}");
    }
    question += "\nAnswer:";
    let gold = number(record, "answer")?;
    let letters = LETTERS.map(str::to_owned).to_vec();
    let mut sample = choice(question, letters, gold, false)?;
    if let Some(Value::String(subject)) = record.get("subject") {
        let subject = subject.replace('_', " ");
        sample.description = format!(
            "The following are multiple choice questions (with answers) about {subject}.\n\n"
        );
    }
    Ok(sample)
}

fn gsm8k(record: &Value) -> Result<Sample, Reason> {
    Ok(Sample {
        text: format!("Question: {}\nAnswer:", text(record, "question")?),
        answer: text(record, "answer")?.to_owned(),
        description: String::new(),
        query: Query::Generation,
    })
}

fn lambada(record: &Value) -> Result<Sample, Reason> {
    let (before, word) = text(record, "text")?
        .rsplit_once(' ')
        .ok_or("`text` has no space, so no last word")?;
    Ok(Sample {
        text: before.to_owned(),
        answer: word.to_owned(),
        description: String::new(),
        query: Query::Continuation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_layout_is_known_by_its_fields() {
        let check = |record: Value, expected| {
            assert_eq!(TaskLayout::of(&record), Some(expected), "{record}")
        };
        check(
            json!({"question": "", "choices": {}, "answerKey": "A", "id": "1"}),
            TaskLayout::Arc,
        );
        check(
            json!({"question_stem": "", "choices": {}, "answerKey": "A"}),
            TaskLayout::OpenBookQa,
        );
        check(
            json!({"question": "", "choices": [], "answer": 1, "subject": ""}),
            TaskLayout::Mmlu,
        );
        check(json!({"question": "", "answer": ""}), TaskLayout::Gsm8k);
        check(
            json!({"question": "", "answer": true, "passage": ""}),
            TaskLayout::BoolQ,
        );
        check(json!({"text": ""}), TaskLayout::Lambada);
        assert_eq!(TaskLayout::of(&json!({"prompt": ""})), None);
        assert!(TaskLayout::names().all(|name| TaskLayout::named(name).unwrap().name() == name));
    }

    #[test]
    fn python_capitalizes_like_this() {
        let check = |text: &str, expected: &str| assert_eq!(capitalized(text), expected);
        check("éLAN Vital", "Élan vital");
        check("ßX", "Ssx");
        check("", "");
        check("9 Lives", "9 lives");
    }

    #[test]
    fn brackets_are_removed_as_they_stand() {
        let check = |text: &str, expected: &str| assert_eq!(cleaned(text), expected);
        check(" a [title] b ", "a.  b".replace("  ", " ").as_str());
        check("a [header] b", "a b");
        check("[a\n] b", "[a\n] b");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |layout: TaskLayout, record: Value, expected: &str| {
            let reason = layout.sample(&record).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        };
        check(
            TaskLayout::Arc,
            json!({"question": 3}),
            "`question` is not a string",
        );
        let arc =
            json!({"question": "", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"});
        check(TaskLayout::Arc, arc, "expected one of [\"A\"]");
        check(
            TaskLayout::Piqa,
            json!({"goal": "", "sol1": "", "sol2": "", "label": 2}),
            "choice 2 is said",
        );
        check(
            TaskLayout::Piqa,
            json!({"goal": "", "sol1": "", "sol2": "", "label": ""}),
            "`label` is \"\"",
        );
        check(TaskLayout::WinoGrande, json!({"sentence": "x"}), "no `_`");
        check(
            TaskLayout::Mmlu,
            json!({"question": "", "choices": ["a"], "answer": 0}),
            "1 entries",
        );
        check(TaskLayout::Lambada, json!({"text": "word"}), "no last word");
    }
}

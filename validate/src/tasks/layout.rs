//! Known data sets, as their files on the hub have them.
//!
//! A layout is recognized by the fields of its records, all of them: records that have the fields
//! of a layout and others besides are of another data set, and what is asked for them would be
//! wrong. What lm-evaluation-harness asks is in [`super::prompts`].

use serde_json::{Map, Value};

use super::generation::Writing;
use super::prompts;
use super::sample::Sample;

/// How the records of a file become items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskLayout {
    /// ARC, easy and challenge: `question`, `choices` of `text` and `label`, `answerKey`.
    Arc,
    /// ASDiv: `body`, `question`, `answer` with the unit in brackets; the number is scored.
    Asdiv,
    /// BLiMP: `sentence_good`, `sentence_bad`; the likelier one counts.
    Blimp,
    /// BoolQ: `passage`, `question`, and `label` (SuperGLUE) or `answer`.
    BoolQ,
    /// CommonsenseQA: `question`, `question_concept`, five `choices`, `answerKey`; the letters are
    /// scored.
    CommonsenseQa,
    /// GSM8K: `question`, `answer` with the number after `####`; text is generated.
    Gsm8k,
    /// HellaSwag: `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`.
    HellaSwag,
    /// LAMBADA: `text`, whose last word is scored.
    Lambada,
    /// MMLU: `question`, four `choices`, `answer`, `subject`; the letters are scored.
    Mmlu,
    /// MMLU-Pro: `question`, up to ten `options`, `answer`, `category`; text is generated.
    MmluPro,
    /// OpenBookQA: `question_stem`, `choices` of `text` and `label`, `answerKey`.
    OpenBookQa,
    /// PIQA: `goal`, `sol1`, `sol2`, `label`.
    Piqa,
    /// RACE, grouped by article: `article`, `problems` as a Python literal; the last problem is
    /// scored after the solved others.
    Race,
    /// SciQ: `question`, `support`, `correct_answer` and three distractors.
    SciQ,
    /// SocialIQA: `context`, `question`, `answerA` to `answerC`, `label`.
    SocialIqa,
    /// TruthfulQA, one right answer: `question`, `mc1_targets` of `choices` and `labels`.
    TruthfulQaMc1,
    /// TruthfulQA, several right answers: `mc2_targets`; their share of the probability is scored.
    TruthfulQaMc2,
    /// WinoGrande: `sentence` with a `_`, `option1`, `option2`, `answer`; the text after the blank
    /// is scored after either option.
    WinoGrande,
}

/// What is wrong with a record, in words.
pub(super) type Reason = String;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    List,
    Table,
    /// Text with the answer of GSM8K in it.
    Solution,
    Any,
}

impl Kind {
    fn is_kind_of(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::List => value.is_array(),
            Self::Table => value.is_object(),
            Self::Solution => value.as_str().is_some_and(|text| text.contains("#### ")),
            Self::Any => true,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::List => "a list",
            Self::Table => "an object",
            Self::Solution => "text with `#### ` and a number",
            Self::Any => "a value",
        }
    }
}

/// Few-shot examples of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Examples {
    /// Drawn from the split for examples.
    Drawn,
    /// The first ones of the split for examples that have the item's description.
    First,
    /// The question has examples in it, or can have none.
    None,
}

/// What is known of a layout.
struct Row {
    layout: TaskLayout,
    name: &'static str,
    /// Fields that a record must have.
    needed: &'static [(&'static str, Kind)],
    /// Fields that a record may have, separated by spaces.
    known: &'static str,
    /// The split that is scored; the labels of others may be hidden.
    scored: &'static str,
    /// The split that examples come from, if there is one.
    shown: &'static str,
    examples: Examples,
    /// The number of examples that lm-evaluation-harness takes by default.
    usual_examples: usize,
}

const STANDARD: Row = Row {
    layout: TaskLayout::Arc,
    name: "",
    needed: &[],
    known: "",
    scored: "test",
    shown: "train",
    examples: Examples::Drawn,
    usual_examples: 0,
};

use Kind::{Any, List, Solution, Table, Text};

const LAYOUTS: [Row; 18] = [
    Row {
        layout: TaskLayout::Arc,
        name: "arc",
        needed: &[("question", Text), ("choices", Table), ("answerKey", Text)],
        known: "id",
        ..STANDARD
    },
    Row {
        layout: TaskLayout::Asdiv,
        name: "asdiv",
        needed: &[("body", Text), ("question", Text), ("answer", Text)],
        known: "solution_type formula",
        scored: "validation",
        ..STANDARD
    },
    Row {
        layout: TaskLayout::Blimp,
        name: "blimp",
        needed: &[("sentence_good", Text), ("sentence_bad", Text)],
        known: "field linguistics_term UID simple_LM_method one_prefix_method two_prefix_method \
                lexically_identical pair_id pairID",
        scored: "train",
        examples: Examples::None,
        ..STANDARD
    },
    Row {
        layout: TaskLayout::BoolQ,
        name: "boolq",
        needed: &[("passage", Text), ("question", Text)],
        known: "answer label idx title",
        scored: "validation",
        ..STANDARD
    },
    Row {
        layout: TaskLayout::CommonsenseQa,
        name: "commonsense_qa",
        needed: &[
            ("question", Text),
            ("question_concept", Text),
            ("choices", Table),
            ("answerKey", Text),
        ],
        known: "id",
        scored: "validation",
        ..STANDARD
    },
    Row {
        layout: TaskLayout::Gsm8k,
        name: "gsm8k",
        needed: &[("question", Text), ("answer", Solution)],
        usual_examples: 5,
        ..STANDARD
    },
    Row {
        layout: TaskLayout::HellaSwag,
        name: "hellaswag",
        needed: &[
            ("activity_label", Text),
            ("ctx_a", Text),
            ("ctx_b", Text),
            ("endings", List),
            ("label", Any),
        ],
        known: "ind ctx source_id split split_type",
        scored: "validation",
        ..STANDARD
    },
    Row {
        layout: TaskLayout::Lambada,
        name: "lambada",
        needed: &[("text", Text)],
        known: "domain",
        ..STANDARD
    },
    Row {
        layout: TaskLayout::Mmlu,
        name: "mmlu",
        needed: &[("question", Text), ("choices", List), ("answer", Any)],
        known: "subject",
        shown: "dev",
        examples: Examples::First,
        ..STANDARD
    },
    Row {
        layout: TaskLayout::MmluPro,
        name: "mmlu_pro",
        needed: &[
            ("question", Text),
            ("options", List),
            ("answer", Text),
            ("category", Text),
        ],
        known: "question_id answer_index cot_content src",
        shown: "validation",
        examples: Examples::First,
        usual_examples: 5,
        ..STANDARD
    },
    Row {
        layout: TaskLayout::OpenBookQa,
        name: "openbookqa",
        needed: &[
            ("question_stem", Text),
            ("choices", Table),
            ("answerKey", Text),
        ],
        known: "id fact1 humanScore clarity turkIdAnonymized",
        ..STANDARD
    },
    Row {
        layout: TaskLayout::Piqa,
        name: "piqa",
        needed: &[
            ("goal", Text),
            ("sol1", Text),
            ("sol2", Text),
            ("label", Any),
        ],
        scored: "validation",
        ..STANDARD
    },
    Row {
        layout: TaskLayout::Race,
        name: "race",
        needed: &[("article", Text), ("problems", Any)],
        ..STANDARD
    },
    Row {
        layout: TaskLayout::SciQ,
        name: "sciq",
        needed: &[
            ("question", Text),
            ("support", Text),
            ("correct_answer", Text),
            ("distractor1", Text),
            ("distractor2", Text),
            ("distractor3", Text),
        ],
        ..STANDARD
    },
    Row {
        layout: TaskLayout::SocialIqa,
        name: "social_iqa",
        needed: &[
            ("context", Text),
            ("question", Text),
            ("answerA", Text),
            ("answerB", Text),
            ("answerC", Text),
            ("label", Any),
        ],
        scored: "validation",
        ..STANDARD
    },
    Row {
        layout: TaskLayout::TruthfulQaMc1,
        name: "truthfulqa_mc1",
        needed: TRUTHFUL_QA,
        scored: "validation",
        examples: Examples::None,
        ..STANDARD
    },
    Row {
        layout: TaskLayout::TruthfulQaMc2,
        name: "truthfulqa_mc2",
        needed: TRUTHFUL_QA,
        scored: "validation",
        examples: Examples::None,
        ..STANDARD
    },
    Row {
        layout: TaskLayout::WinoGrande,
        name: "winogrande",
        needed: &[
            ("sentence", Text),
            ("option1", Text),
            ("option2", Text),
            ("answer", Any),
        ],
        known: "qID",
        scored: "validation",
        ..STANDARD
    },
];

const TRUTHFUL_QA: &[(&str, Kind)] = &[
    ("question", Text),
    ("mc1_targets", Table),
    ("mc2_targets", Table),
];

impl Row {
    fn has(&self, field: &str) -> bool {
        self.needed.iter().any(|(needed, _)| *needed == field)
            || self.known.split(' ').any(|known| known == field)
    }

    /// Why a record is not in this layout, in parts of a sentence; none if it is.
    fn lacks(&self, record: &Map<String, Value>) -> Vec<String> {
        let other: Vec<&str> = fields(record).filter(|field| !self.has(field)).collect();
        let missing = self.needed.iter().filter(|(field, _)| lacks(record, field));
        let missing: Vec<&str> = missing.map(|(field, _)| *field).collect();
        let mut reasons = Vec::new();
        if !other.is_empty() {
            reasons.push(format!("it does not have {}", other.join(", ")));
        }
        if !missing.is_empty() {
            reasons.push(format!("it needs {}", missing.join(", ")));
        }
        let wrong = self.needed.iter().filter(|(field, kind)| {
            let value = record.get(*field).filter(|value| !value.is_null());
            value.is_some_and(|value| !kind.is_kind_of(value))
        });
        reasons.extend(wrong.map(|(field, kind)| format!("its {field} is {}", kind.name())));
        reasons
    }
}

/// Fields that hold something: merged files fill the others with null.
fn fields(record: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let fields = record.iter().filter(|(_, value)| !value.is_null());
    fields.map(|(field, _)| field.as_str())
}

fn lacks(record: &Map<String, Value>, field: &str) -> bool {
    record.get(field).is_none_or(Value::is_null)
}

impl TaskLayout {
    /// Names of all layouts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        LAYOUTS.iter().map(|row| row.name)
    }

    /// The layout of this name.
    pub fn named(name: &str) -> Option<Self> {
        let row = LAYOUTS.iter().find(|row| row.name == name);
        row.map(|row| row.layout)
    }

    /// The layouts whose fields a record has, no field more and none less. Those of one data set
    /// that is scored in two ways are several.
    ///
    /// # Errors
    /// None has these fields: the fields, and how the nearest layout differs, in words.
    pub fn of(record: &Value) -> Result<Vec<Self>, String> {
        let Value::Object(record) = record else {
            return Err("it is not an object with fields".to_owned());
        };
        let rows = LAYOUTS.iter().filter(|row| row.lacks(record).is_empty());
        let found: Vec<Self> = rows.map(|row| row.layout).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let own: Vec<&str> = fields(record).collect();
        let mut reason = format!(
            "its fields are {}, which are not those of a known layout",
            own.join(", ")
        );
        let near = |row: &&Row| {
            let shared = own.iter().filter(|field| row.has(field)).count();
            let missing = row.needed.iter().filter(|(field, _)| lacks(record, field));
            shared as isize - missing.count() as isize
        };
        let nearest = LAYOUTS.iter().max_by_key(near);
        if let Some(row) = nearest.filter(|row| near(row) > 0) {
            let lacks = row.lacks(record).join(", and ");
            reason += &format!("; the nearest is {}, but {lacks}", row.name);
        }
        Err(reason)
    }

    /// Refuses a record with other fields.
    pub(super) fn check(self, record: &Value) -> Result<(), Reason> {
        let record = record
            .as_object()
            .ok_or("it is not an object with fields")?;
        match &self.row().lacks(record)[..] {
            [] => Ok(()),
            lacks => Err(format!(
                "the records before are in the layout {}, but {}",
                self.name(),
                lacks.join(", and ")
            )),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The fields of a record that it has no use for.
    pub fn unread(self, record: &Value) -> Vec<String> {
        let record = record.as_object().into_iter();
        let other = record
            .flat_map(fields)
            .filter(|field| !self.row().has(field));
        other.map(str::to_owned).collect()
    }

    fn row(self) -> &'static Row {
        let row = LAYOUTS.iter().find(|row| row.layout == self);
        row.expect("every layout has a row")
    }

    /// The split that lm-evaluation-harness scores.
    pub(super) fn scored(self) -> &'static str {
        self.row().scored
    }

    /// The split that its examples come from.
    pub(super) fn shown(self) -> &'static str {
        self.row().shown
    }

    /// Whether lm-evaluation-harness draws one example more than it shows, in case the item itself
    /// is among them: it does where a task has no split `test`.
    pub(super) fn draws_a_spare_example(self) -> bool {
        self.scored() != STANDARD.scored
    }

    pub(super) fn examples(self) -> Examples {
        self.row().examples
    }

    /// The number of examples that lm-evaluation-harness takes by default.
    pub fn usual_examples(self) -> usize {
        self.row().usual_examples
    }

    /// How text is generated and judged; none where it is not.
    pub(super) fn writing(self) -> Option<Writing> {
        match self {
            Self::Gsm8k => Some(Writing::gsm8k()),
            Self::MmluPro => Some(Writing::mmlu_pro()),
            _ => None,
        }
    }

    pub(super) fn sample(self, record: &Value) -> Result<Sample, Reason> {
        match self {
            Self::Arc => prompts::arc(record),
            Self::Asdiv => prompts::asdiv(record),
            Self::Blimp => prompts::blimp(record),
            Self::BoolQ => prompts::boolq(record),
            Self::CommonsenseQa => prompts::commonsense_qa(record),
            Self::Gsm8k => prompts::gsm8k(record),
            Self::HellaSwag => prompts::hellaswag(record),
            Self::Lambada => prompts::lambada(record),
            Self::Mmlu => prompts::mmlu(record),
            Self::MmluPro => prompts::mmlu_pro(record),
            Self::OpenBookQa => prompts::openbookqa(record),
            Self::Piqa => prompts::piqa(record),
            Self::Race => prompts::race(record),
            Self::SciQ => prompts::sciq(record),
            Self::SocialIqa => prompts::social_iqa(record),
            Self::TruthfulQaMc1 => prompts::truthfulqa_mc1(record),
            Self::TruthfulQaMc2 => prompts::truthfulqa_mc2(record),
            Self::WinoGrande => prompts::winogrande(record),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_layout_is_known_by_its_fields() {
        let check = |record: Value, expected: &[TaskLayout]| {
            assert_eq!(TaskLayout::of(&record).unwrap(), expected, "{record}");
        };
        let choices = json!({"text": [], "label": []});
        check(
            json!({"question": "", "choices": choices, "answerKey": "A", "id": "1"}),
            &[TaskLayout::Arc],
        );
        check(
            json!({"question": "", "choices": choices, "answerKey": "A", "question_concept": ""}),
            &[TaskLayout::CommonsenseQa],
        );
        check(
            json!({"question_stem": "", "choices": choices, "answerKey": "A", "fact1": ""}),
            &[TaskLayout::OpenBookQa],
        );
        check(
            json!({"question": "", "choices": [], "answer": 1, "subject": ""}),
            &[TaskLayout::Mmlu],
        );
        check(
            json!({"question": "", "options": [], "answer": "A", "category": "", "src": ""}),
            &[TaskLayout::MmluPro],
        );
        check(
            json!({"question": "", "answer": "So.\n#### 3"}),
            &[TaskLayout::Gsm8k],
        );
        check(
            json!({"question": "", "answer": "3 (tern)", "body": "", "formula": "1+2=3"}),
            &[TaskLayout::Asdiv],
        );
        check(
            json!({"question": "", "answer": true, "passage": ""}),
            &[TaskLayout::BoolQ],
        );
        check(
            json!({"question": "", "mc1_targets": {}, "mc2_targets": {}}),
            &[TaskLayout::TruthfulQaMc1, TaskLayout::TruthfulQaMc2],
        );
        check(json!({"text": "", "title": null}), &[TaskLayout::Lambada]);
        assert!(TaskLayout::names().all(|name| TaskLayout::named(name).unwrap().name() == name));
    }

    #[test]
    fn fields_of_a_layout_and_others_are_another_data_set() {
        let check = |record: Value, expected: &str| {
            let reason = TaskLayout::of(&record).unwrap_err();
            assert!(reason.contains(expected), "{record}: {reason}");
        };
        let solved = "Yes.\n#### 1";
        check(
            json!({"question": "", "answer": solved, "rationale": "", "level": 1}),
            "the nearest is gsm8k, but it does not have rationale, level",
        );
        check(
            json!({"question": "", "answer": ["a", "b"]}),
            "the nearest is gsm8k, but its answer is text with `#### ` and a number",
        );
        check(
            json!({"question": "", "answer": "Paris"}),
            "its answer is text with `#### `",
        );
        check(
            json!({"article": "", "question": "", "options": [], "answer": "A", "example_id": ""}),
            "nearest is mmlu_pro, but it does not have article, example_id, and it needs category",
        );
        check(
            json!({"question": {"stem": ""}, "answerKey": "A", "id": ""}),
            "its question is text",
        );
        check(
            json!({"text": "", "label": 1}),
            "the nearest is lambada, but it does not have label",
        );
        check(
            json!({"colour": 1}),
            "its fields are colour, which are not those of a known layout",
        );
        check(json!([1]), "not an object");
    }

    #[test]
    fn what_is_not_read_is_named() {
        let record = json!({"question": "", "answer": "", "level": 3, "id": null});
        assert_eq!(TaskLayout::Gsm8k.unread(&record), ["level"]);
    }
}

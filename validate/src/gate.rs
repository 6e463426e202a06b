//! Conditions that a model must meet, for scripts that decide: `kl<1e-3,top1>=0.99,decode>20`.

use std::str::FromStr;

use crate::accuracy::Divergence;
use crate::report::{GateOutcome, ModelReport};
use crate::{Error, Result};

/// A figure with a bound.
#[derive(Debug, Clone)]
pub struct Gate {
    text: String,
    figure: Bounded,
    relation: Relation,
    bound: f64,
}

/// What is bounded.
#[derive(Debug, Clone)]
enum Bounded {
    Known(&'static Figure),
    /// A task and its metric.
    Task(String, String),
}

impl Bounded {
    fn of(&self, model: &ModelReport) -> Option<f64> {
        match self {
            Bounded::Known(figure) => (figure.of)(model),
            Bounded::Task(task, metric) => {
                let exam = model.tasks.iter().find(|exam| exam.task == *task)?;
                let score = exam.scores.iter().find(|score| score.metric == *metric)?;
                Some(score.value)
            }
        }
    }

    /// Why a measurement will not have it; `None` if it will.
    fn lacks(&self, scope: &Scope) -> Option<String> {
        let needs = match self {
            Bounded::Task(task, _) if scope.tasks.iter().any(|name| name == task) => return None,
            Bounded::Task(task, _) => {
                let tasks = scope.tasks.join(", ");
                return Some(format!("--tasks has no {task}; it has: {tasks}"));
            }
            Bounded::Known(figure) => figure.needs,
        };
        let (is_there, why) = match needs {
            Needs::Nothing => (true, ""),
            Needs::Reference => (
                scope.models > 1,
                "it compares a model with the first one: expected at least two models",
            ),
            Needs::Speed => (scope.has_speed, "speed is left out; remove --no-speed"),
            Needs::Rolling => (
                scope.is_rolling,
                "only the convention `rolling` counts bytes; put it first",
            ),
        };
        (!is_there).then(|| why.to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Relation {
    Less,
    AtMost,
    More,
    AtLeast,
}

/// A figure that can have a bound.
#[derive(Debug)]
struct Figure {
    name: &'static str,
    meaning: &'static str,
    needs: Needs,
    of: Of,
}

/// What a figure requires.
#[derive(Debug, Clone, Copy)]
enum Needs {
    Nothing,
    /// A model to compare with.
    Reference,
    Speed,
    /// Perplexity of the convention `rolling`.
    Rolling,
}

/// What is going to be measured.
#[derive(Debug, Clone)]
pub struct Scope {
    /// How many models.
    pub models: usize,
    /// Whether speed is.
    pub has_speed: bool,
    /// Whether the first convention is `rolling`.
    pub is_rolling: bool,
    /// Names of the tasks.
    pub tasks: Vec<String>,
}

type Of = fn(&ModelReport) -> Option<f64>;

/// A row of the table.
const fn figure(name: &'static str, meaning: &'static str, needs: Needs, of: Of) -> Figure {
    Figure {
        name,
        meaning,
        needs,
        of,
    }
}

fn beside(model: &ModelReport) -> Option<&Divergence> {
    model.main()?.divergence.as_ref()
}

fn speed(model: &ModelReport) -> Option<&crate::speed::WithThreads> {
    model.speed.as_ref()?.main()
}

const FIGURES: [Figure; 18] = [
    figure("kl", "mean KL divergence, nats", Needs::Reference, |m| {
        Some(beside(m)?.kl.mean)
    }),
    figure("kl_median", "its median", Needs::Reference, |m| {
        Some(beside(m)?.kl_median)
    }),
    figure("kl_p90", "its 90th percentile", Needs::Reference, |m| {
        Some(beside(m)?.kl_p90)
    }),
    figure("kl_p99", "its 99th percentile", Needs::Reference, |m| {
        Some(beside(m)?.kl_p99)
    }),
    figure("kl_p999", "its 99.9th percentile", Needs::Reference, |m| {
        Some(beside(m)?.kl_p999)
    }),
    figure(
        "top1",
        "share of equal first choices",
        Needs::Reference,
        |m| Some(beside(m)?.top1.mean),
    ),
    figure(
        "top5",
        "mean share of equal five choices",
        Needs::Reference,
        |m| Some(beside(m)?.top5.mean),
    ),
    figure(
        "ppl_ratio",
        "perplexity by that of the reference",
        Needs::Reference,
        |m| Some(beside(m)?.perplexity_ratio),
    ),
    figure(
        "p_value",
        "probability of such a difference by chance",
        Needs::Reference,
        |m| beside(m)?.p_value,
    ),
    figure("ppl", "perplexity", Needs::Nothing, |m| {
        Some(m.main()?.perplexity.perplexity.mean)
    }),
    figure(
        "bits_per_byte",
        "of the convention rolling",
        Needs::Rolling,
        |m| {
            let lengths = m.main()?.perplexity.by_length.as_ref();
            Some(lengths?.bits_per_byte.mean)
        },
    ),
    figure("decode", "tokens written per second", Needs::Speed, |m| {
        Some(speed(m)?.generate.tokens_per_second)
    }),
    figure(
        "prefill",
        "tokens of a prompt per second",
        Needs::Speed,
        |m| Some(speed(m)?.prompt.tokens_per_second),
    ),
    figure(
        "first_token",
        "seconds to the first token",
        Needs::Speed,
        |m| Some(m.speed.as_ref()?.first_token_seconds),
    ),
    figure(
        "latency_p99",
        "seconds, 99 of 100 tokens take less",
        Needs::Speed,
        |m| Some(m.speed.as_ref()?.token_seconds.2),
    ),
    figure("memory", "bytes at most in use", Needs::Speed, |m| {
        speed(m)?.peak_bytes.map(|n| n as f64)
    }),
    figure("bytes", "of the file", Needs::Nothing, |m| {
        Some(m.bytes as f64)
    }),
    figure("bits_per_weight", "of the file", Needs::Nothing, |m| {
        Some(m.bits_per_weight)
    }),
];

impl FromStr for Gate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Gate> {
        let refuse = |why: String| Error::Gate {
            condition: text.to_owned(),
            why,
        };
        let at = text.find(['<', '>']).ok_or_else(|| {
            refuse("expected a figure, one of < <= > >=, and a number, like kl<1e-3".into())
        })?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let relations = [
            ("<=", Relation::AtMost),
            (">=", Relation::AtLeast),
            ("<", Relation::Less),
            (">", Relation::More),
        ];
        let found = relations
            .into_iter()
            .find_map(|(sign, relation)| Some((relation, rest.strip_prefix(sign)?.trim())));
        let (relation, number) = found.expect("it begins with < or >");
        let bound = number.parse::<f64>().ok().filter(|bound| bound.is_finite());
        let known_figure = FIGURES.iter().find(|figure| figure.name == name);
        let of_task = name
            .rsplit_once(':')
            .map(|(task, metric)| (task.to_owned(), metric.to_owned()));
        let figure = known_figure
            .map(Bounded::Known)
            .or(of_task.map(|(task, metric)| Bounded::Task(task, metric)));
        Ok(Gate {
            text: text.trim().to_owned(),
            figure: figure
                .ok_or_else(|| refuse(format!("no figure `{name}`; there are {}", known())))?,
            relation,
            bound: bound.ok_or_else(|| refuse(format!("`{number}` is not a number")))?,
        })
    }
}

/// All figures with their meanings.
fn known() -> String {
    let figures = FIGURES
        .iter()
        .map(|f| format!("{} ({})", f.name, f.meaning));
    figures.collect::<Vec<_>>().join(", ") + ", and TASK:METRIC"
}

impl Gate {
    /// Refuses a condition on what is not going to be measured.
    ///
    /// # Errors
    /// [`Error::Gate`].
    pub fn check_scope(&self, scope: &Scope) -> Result<()> {
        match self.figure.lacks(scope) {
            Some(why) => Err(Error::Gate {
                condition: self.text.clone(),
                why,
            }),
            None => Ok(()),
        }
    }

    /// Whether the condition holds for each model but the first, or for the only model.
    pub fn check(&self, models: &[ModelReport]) -> Vec<GateOutcome> {
        let judged = &models[usize::from(models.len() > 1)..];
        judged.iter().map(|model| self.of(model)).collect()
    }

    fn of(&self, model: &ModelReport) -> GateOutcome {
        let value = self.figure.of(model);
        let holds = value.is_some_and(|value| match self.relation {
            Relation::Less => value < self.bound,
            Relation::AtMost => value <= self.bound,
            Relation::More => value > self.bound,
            Relation::AtLeast => value >= self.bound,
        });
        GateOutcome {
            condition: self.text.clone(),
            model: model.name.clone(),
            value,
            holds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(bytes: u64) -> ModelReport {
        ModelReport {
            name: format!("m{bytes}"),
            path: String::new(),
            sha256: String::new(),
            bytes,
            packing: String::new(),
            has_masters: false,
            parameters: 1,
            bits_per_weight: 2.5,
            bits_per_layer_weight: 2.0,
            accuracy: Vec::new(),
            tasks: Vec::new(),
            speed: None,
        }
    }

    #[test]
    fn each_later_model_is_judged() {
        let models = [model(1), model(10), model(20)];
        let check = |text: &str, expected: &[bool]| {
            let outcomes = text.parse::<Gate>().unwrap().check(&models);
            let holds: Vec<bool> = outcomes.iter().map(|o| o.holds).collect();
            assert_eq!(holds, expected, "{text}");
        };
        check("bytes<20", &[true, false]);
        check("bytes<=20", &[true, true]);
        check("bytes > 10", &[false, true]);
        check("bits_per_weight>=2.5", &[true, true]);
        check("kl<1", &[false, false]); // not measured
        check("sums:acc>0", &[false, false]);
    }

    #[test]
    fn what_cannot_be_judged_is_refused_with_a_reason() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<Gate>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check("klx<1", "no figure `klx`; there are kl (mean KL");
        check("kl=1", "expected a figure, one of");
        check("kl<much", "`much` is not a number");
        check("kl<nan", "`nan` is not a number");
        let absolute = "bytes<2".parse::<Gate>().unwrap().check(&[model(1)]);
        assert!(absolute[0].holds);
    }

    #[test]
    fn what_will_not_be_measured_is_refused_before() {
        let scope = Scope {
            models: 1,
            has_speed: false,
            is_rolling: false,
            tasks: vec!["sums".into(), "facts".into()],
        };
        let check = |text: &str, part: &str| {
            let error = text
                .parse::<Gate>()
                .unwrap()
                .check_scope(&scope)
                .unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        };
        check("kl<1", "two models");
        check("decode>1", "remove --no-speed");
        check("bits_per_byte<1", "put it first");
        check("arc:acc>0.5", "no arc; it has: sums, facts");
        for text in ["ppl<9", "bytes<1", "sums:acc>0"] {
            assert!(text.parse::<Gate>().unwrap().check_scope(&scope).is_ok());
        }
    }
}

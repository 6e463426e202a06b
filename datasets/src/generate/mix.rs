//! A mixture of tasks, drawn per document, and the endless corpus that it describes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Document, Split, Task, document};
use crate::random::Draws;
use crate::{Error, Result};

/// Shares of documents by task, adding up to 1.
///
/// Read from text, `"addition2=0.6,stories=0.4"`, or from a table, `{ addition2 = 0.6, stories =
/// 0.4 }`; weights may have any sum. A bare name weighs 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "MixForm", into = "String")]
pub struct Mix {
    shares: Vec<(Task, f64)>,
}

/// The two ways to write a mix in a configuration file.
#[derive(Deserialize)]
#[serde(untagged)]
enum MixForm {
    Text(String),
    Table(BTreeMap<String, f64>),
}

impl Mix {
    /// A mix of these tasks, sorted, with weights scaled to add up to 1.
    ///
    /// Errors if there is no task, a task occurs twice, or a weight is not positive and finite.
    pub fn new(weights: impl IntoIterator<Item = (Task, f64)>) -> Result<Self> {
        let mut shares: Vec<(Task, f64)> = weights.into_iter().collect();
        shares.sort_by_key(|&(task, _)| task);
        let invalid = |reason: String| Err(Error::Mix { reason });
        if shares.is_empty() {
            return invalid("it names no task".to_owned());
        }
        if let Some(twice) = shares.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return invalid(format!("{} occurs twice", twice[0].0));
        }
        if let Some((task, weight)) = shares.iter().find(|(_, w)| !(*w > 0.0 && w.is_finite())) {
            return invalid(format!(
                "{task} has weight {weight}, expected a positive number"
            ));
        }
        let sum: f64 = shares.iter().map(|(_, weight)| weight).sum();
        shares.iter_mut().for_each(|(_, weight)| *weight /= sum);
        Ok(Self { shares })
    }

    /// The tasks with their shares of the documents.
    pub fn shares(&self) -> &[(Task, f64)] {
        &self.shares
    }

    /// The share of a task.
    pub fn share(&self, task: Task) -> f64 {
        let shares = self.shares.iter().filter(|(of, _)| *of == task);
        shares.map(|(_, share)| share).sum()
    }

    /// The task at a point of [0, 1) on which the shares lie end to end.
    fn at(&self, mut point: f64) -> Task {
        for &(task, share) in &self.shares[..self.shares.len() - 1] {
            if point < share {
                return task;
            }
            point -= share;
        }
        self.shares[self.shares.len() - 1].0
    }
}

impl FromStr for Mix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let weights = parts.map(|part| {
            let Some((name, weight)) = part.split_once('=') else {
                return Ok((part.parse()?, 1.0));
            };
            let weight = weight.trim();
            let number = weight.parse().map_err(|_| Error::Mix {
                reason: format!("the weight {weight:?} in {part:?} is not a number"),
            })?;
            Ok((name.trim().parse()?, number))
        });
        Self::new(weights.collect::<Result<Vec<_>>>()?)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (task, share)) in self.shares.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{task}={share}")?;
        }
        Ok(())
    }
}

impl From<Mix> for String {
    fn from(mix: Mix) -> Self {
        mix.to_string()
    }
}

impl TryFrom<MixForm> for Mix {
    type Error = Error;

    fn try_from(written: MixForm) -> Result<Self> {
        match written {
            MixForm::Text(text) => text.parse(),
            MixForm::Table(table) => {
                let weights = table
                    .into_iter()
                    .map(|(name, weight)| Ok((name.parse()?, weight)));
                Self::new(weights.collect::<Result<Vec<_>>>()?)
            }
        }
    }
}

/// An endless sequence of generated documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Corpus {
    /// How often each task occurs.
    pub mix: Mix,
    /// The seed of all draws.
    pub seed: u64,
    /// Which side the documents are on.
    pub split: Split,
}

impl Corpus {
    /// Document `index` and its task: a pure function of `index` and the fields.
    ///
    /// [`Document::entropy`] is given the task; −log p of the text under the whole mix is greater
    /// by −ln of the task's share.
    pub fn document(&self, index: u64) -> (Task, Document) {
        let mut draws = Draws::new(0, self.seed, index, self.split as u64);
        let task = self.mix.at(draws.unit());
        (task, document(task, self.seed, index, self.split))
    }

    /// Document `index` as a record: task, text or messages, entropy.
    pub fn record(&self, index: u64) -> Value {
        let (task, document) = self.document(index);
        let mut record = json!({"task": task});
        match task.is_conversation() {
            true => {
                let messages = document.messages.iter();
                record["messages"] = messages.map(|m| json!(m.fields)).collect();
            }
            false => record["text"] = document.text.into(),
        }
        record["entropy"] = document.entropy.into();
        record
    }

    /// The texts of documents 0, 1, 2 and so on, without end.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        (0..).map(|index| self.document(index).1.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        text.parse::<Mix>().unwrap_err().to_string()
    }

    #[test]
    fn text_and_tables_read_alike_and_weights_are_scaled() {
        #[derive(Deserialize)]
        struct Recipe {
            mix: Mix,
        }
        let from_text: Mix = " stories=1, addition2 = 3 ".parse().unwrap();
        assert_eq!(
            from_text.shares(),
            [(Task::Stories, 0.25), (Task::Addition2, 0.75)]
        );
        for toml in [
            "mix = { addition2 = 3.0, stories = 1 }",
            "mix = 'addition2=3,stories'",
        ] {
            assert_eq!(toml::from_str::<Recipe>(toml).unwrap().mix, from_text);
        }
        assert_eq!(from_text.to_string().parse::<Mix>().unwrap(), from_text);
        let json = serde_json::to_string(&from_text).unwrap();
        assert_eq!(serde_json::from_str::<Mix>(&json).unwrap(), from_text);
    }

    #[test]
    fn wrong_mixes_are_refused_with_the_reason() {
        assert!(reason("").contains("no task"));
        assert!(reason("copy=1,copy=2").contains("copy occurs twice"));
        assert!(reason("copy=0").contains("weight 0"));
        assert!(reason("copy=-1").contains("weight -1"));
        assert!(reason("copy=NaN").contains("weight NaN"));
        assert!(reason("copy=inf").contains("weight inf"));
        assert!(reason("copy=much").contains("\"much\""));
        assert!(reason("copies=1").contains("copies"));
    }

    #[test]
    fn a_corpus_keeps_its_shares_and_is_pure_in_the_index() {
        let mix: Mix = "addition2=0.45,addition3=0.15,stories=0.25,facts=0.15"
            .parse()
            .unwrap();
        let corpus = Corpus {
            mix: mix.clone(),
            seed: 4,
            split: Split::Train,
        };
        let mut counts = BTreeMap::new();
        for index in 0..8000 {
            *counts.entry(corpus.document(index).0).or_insert(0.0) += 1.0 / 8000.0;
        }
        for &(task, share) in mix.shares() {
            assert!((counts[&task] - share).abs() < 0.02, "{task}: {counts:?}");
        }
        assert_eq!(counts.len(), 4);
        assert_eq!(corpus.document(17), corpus.document(17));
        assert_eq!(corpus.texts().nth(17).unwrap(), corpus.document(17).1.text);
        let held_out = Corpus {
            split: Split::HeldOut,
            ..corpus.clone()
        };
        assert_ne!(corpus.document(17), held_out.document(17));
    }
}

//! Text that a model writes, and whether the answer in it is right.
//!
//! Text is written greedily and cut at the first stop text. Each [`Filter`] takes an answer out of
//! it, which is compared with the reference after both have lost what is ignored, as
//! lm-evaluation-harness does for `exact_match`.

use std::collections::BTreeMap;

use regex::Regex;
use sterna_runtime::{Generation, Model, Settings, StopReason, Tokenizer};

use super::error::{Error, Result};
use super::likelihood::Scorer;
use super::sample::{Request, is_space};

/// How text is written and judged.
#[derive(Clone, Debug)]
pub(super) struct Writing {
    /// Texts that end it.
    pub(super) stop: Vec<String>,
    /// Tokens, at most.
    pub(super) max_tokens: usize,
    /// Ways to find the answer, each with a score of its own.
    pub(super) filters: Vec<Filter>,
    /// Removed from answer and reference.
    pub(super) ignore: Vec<Regex>,
    pub(super) ignore_case: bool,
    pub(super) ignore_punctuation: bool,
}

/// Takes the answer out of a text: a match of an expression, of its first group that took part if
/// it has groups.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) name: String,
    pub(super) regex: Option<Regex>,
    /// The last match instead of the first.
    pub(super) last: bool,
}

/// What is compared where a filter finds nothing.
const INVALID: &str = "[invalid]";

/// The name of the filter that takes the whole text.
const UNFILTERED: &str = "none";

/// Python's `string.punctuation`.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

impl Default for Writing {
    /// Text until an empty line, compared whole.
    fn default() -> Self {
        Self {
            stop: vec!["\n\n".into()],
            max_tokens: 256,
            filters: vec![Filter {
                name: UNFILTERED.into(),
                regex: None,
                last: false,
            }],
            ignore: Vec::new(),
            ignore_case: false,
            ignore_punctuation: false,
        }
    }
}

impl Writing {
    /// That of GSM8K.
    pub(super) fn gsm8k() -> Self {
        let regex = |text: &str| Regex::new(text).expect("it is well formed");
        let filter = |name: &str, text: &str, last| Filter {
            name: name.into(),
            regex: Some(regex(text)),
            last,
        };
        Self {
            stop: ["Question:", "</s>", "<|im_end|>"]
                .map(str::to_owned)
                .to_vec(),
            filters: vec![
                filter("strict-match", r"#### (\-?[0-9\.\,]+)", false),
                filter("flexible-extract", r"(-?[$0-9.,]{2,})|(-?[0-9]+)", true),
            ],
            ignore: [",", r"\$", "(?s).*#### ", r"\.$"].map(regex).to_vec(),
            ignore_case: true,
            ..Self::default()
        }
    }

    /// That of MMLU-Pro.
    pub(super) fn mmlu_pro() -> Self {
        let regex = Regex::new(r"answer is \(?([ABCDEFGHIJ])\)?").expect("it is well formed");
        Self {
            stop: vec!["Question:".into()],
            max_tokens: 2048,
            filters: vec![Filter {
                name: "custom-extract".into(),
                regex: Some(regex),
                last: false,
            }],
            ignore_case: true,
            ignore_punctuation: true,
            ..Self::default()
        }
    }

    /// Generates after a context. Where both do not fit, the left part of the context is cut off.
    pub(super) fn write(
        &self,
        model: &Model,
        tokenizer: &Tokenizer,
        scorer: &mut Scorer<'_>,
        request: &Request,
    ) -> Result<String> {
        let max_length = scorer.max_length();
        let room = self.room(max_length)?;
        let mut prompt = scorer.encode(&request.context)?;
        prompt.drain(..prompt.len().saturating_sub(room));
        let settings = Settings {
            max_tokens: Some(self.max_tokens),
            stop: self.stop.clone(),
            ..Settings::default()
        };
        let cache = scorer.cache();
        let mut generation = Generation::resume(model, tokenizer, cache, &prompt, settings)?;
        for piece in &mut generation {
            piece?;
        }
        let mut ids = generation.generated().to_vec();
        if generation.summary().stop == Some(StopReason::Eos) {
            ids.pop();
        }
        let text = tokenizer.decode(&ids)?;
        let cut = |text: String, stop: &String| match text.split_once(stop.as_str()) {
            Some((before, _)) if !stop.is_empty() => before.to_owned(),
            _ => text,
        };
        Ok(self.stop.iter().fold(text, cut))
    }

    /// Tokens of a context that leave room for the text.
    pub(super) fn room(&self, max_length: usize) -> Result<usize> {
        let room = max_length.checked_sub(self.max_tokens);
        room.filter(|room| *room > 0).ok_or(Error::Room {
            tokens: self.max_tokens,
            max_length,
        })
    }

    /// Whether each filter finds the right answer.
    pub(super) fn judge(&self, text: &str, reference: &str) -> BTreeMap<String, f64> {
        let expected = self.normalized(reference);
        let score = |filter: &Filter| {
            let is_right = self.normalized(&filter.answer(text)) == expected;
            (self.metric(filter), f64::from(u8::from(is_right)))
        };
        self.filters.iter().map(score).collect()
    }

    /// The name of a filter's score.
    fn metric(&self, filter: &Filter) -> String {
        match filter.name.as_str() {
            UNFILTERED => "exact_match".to_owned(),
            name => format!("exact_match,{name}"),
        }
    }

    /// The names of all scores.
    pub(super) fn metrics(&self) -> Vec<String> {
        self.filters
            .iter()
            .map(|filter| self.metric(filter))
            .collect()
    }

    fn normalized(&self, text: &str) -> String {
        let without = |text: String, regex: &Regex| regex.replace_all(&text, "").into_owned();
        let mut text = self.ignore.iter().fold(text.to_owned(), without);
        if self.ignore_case {
            text = text.to_lowercase();
        }
        if self.ignore_punctuation {
            text.retain(|c| !PUNCTUATION.contains(c));
        }
        text
    }
}

impl Filter {
    fn answer(&self, text: &str) -> String {
        let Some(regex) = &self.regex else {
            return text.to_owned();
        };
        let mut found = regex.captures_iter(text);
        let found = match self.last {
            true => found.last(),
            false => found.next(),
        };
        let part = found.and_then(|found| {
            let mut groups = found.iter().skip(usize::from(found.len() > 1)).flatten();
            groups.find(|group| !group.is_empty() || found.len() == 2)
        });
        match part {
            Some(part) => part.as_str().trim_matches(is_space).to_owned(),
            None => INVALID.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_gsm8k_are_found_and_compared() {
        let writing = Writing::gsm8k();
        let check = |text: &str, strict: f64, flexible: f64| {
            let found = writing.judge(text, "Some steps.\n#### 1,234");
            assert_eq!(found["exact_match,strict-match"], strict, "{text}");
            assert_eq!(found["exact_match,flexible-extract"], flexible, "{text}");
        };
        check(" so\n#### 1234", 1.0, 1.0);
        check(" it is $1,234.", 0.0, 1.0);
        check(" 1,234 then 5", 0.0, 0.0);
        check("#### 1234 #### 7", 1.0, 0.0);
        check("nothing", 0.0, 0.0);
        check("#### 1,234.", 1.0, 1.0);
    }

    /// Each as the filter and `exact_match` of lm-evaluation-harness judge it.
    #[test]
    fn answers_of_mmlu_pro_are_found_and_compared() {
        let check = |text: &str, reference: &str, expected: f64| {
            let found = Writing::mmlu_pro().judge(text, reference);
            assert_eq!(found["exact_match,custom-extract"], expected, "{text}");
        };
        check("so the answer is (B).", "B", 1.0);
        check("the answer is B", "B", 1.0);
        check("the answer is (b)", "B", 0.0);
        check("answer is (K)", "B", 0.0);
        check("answer is (A) no, the answer is (B)", "B", 0.0);
        check("answer is (A) no, the answer is (B)", "A", 1.0);
        check("answer is ((C))", "C", 0.0);
        check("answer is: (C)", "C", 0.0);
        check("answer is J)", "j", 1.0);
        check("nothing", "A", 0.0);
    }

    #[test]
    fn case_and_punctuation_are_ignored_where_asked() {
        let mut writing = Writing::default();
        assert_eq!(writing.judge("Paris.", "paris")["exact_match"], 0.0);
        (writing.ignore_case, writing.ignore_punctuation) = (true, true);
        assert_eq!(writing.judge("Paris.", "paris")["exact_match"], 1.0);
    }
}

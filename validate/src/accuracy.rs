//! From positions to figures: perplexity, distance from a reference, and whether a model is worse.

use serde::{Deserialize, Serialize};

use crate::pass::{Apart, Position, TOP};
use crate::statistics::{Estimate, TokenBlock, quantile};
use crate::text::{Text, words};
use crate::windows::{Convention, Window};

/// How well a model predicts a text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Perplexity {
    /// Tokens that were scored.
    pub tokens: usize,
    /// −ln p, in nats per token, with the error over blocks.
    pub loss: Estimate,
    /// exp of the loss, with exp(loss) · error.
    pub perplexity: Estimate,
    /// The error of the perplexity as llama.cpp prints it, which assumes independent tokens.
    pub error_of_llama_cpp: f64,
    /// Figures that do not depend on the tokenizer. They need whole documents, so only the
    /// convention `rolling` has them.
    pub by_length: Option<ByLength>,
    /// Mean loss by the number of tokens before, in at most 32 bins: (middle of the bin, nats).
    pub by_position: Vec<(f64, f64)>,
}

/// Loss per word and per byte, not per token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ByLength {
    /// As lm-evaluation-harness: exp(nats / words).
    pub word_perplexity: f64,
    /// As lm-evaluation-harness: exp(nats / bytes).
    pub byte_perplexity: f64,
    /// As lm-evaluation-harness: nats / bytes / ln 2, with the error over blocks.
    pub bits_per_byte: Estimate,
}

/// How far the predictions of a model are from those of the reference on the same tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Divergence {
    /// KL divergence of the reference from the model, nats per token.
    pub kl: Estimate,
    /// p-value for the hypothesis that the true mean is 0.
    pub kl_p_value: Option<f64>,
    /// The median.
    pub kl_median: f64,
    /// The 90th percentile.
    pub kl_p90: f64,
    /// The 99th percentile.
    pub kl_p99: f64,
    /// The 99.9th percentile.
    pub kl_p999: f64,
    /// The largest.
    pub kl_max: f64,
    /// Share of tokens where both find the same next token most probable.
    pub top1: Estimate,
    /// Mean share of the reference's five most probable tokens that are among the model's five.
    pub top5: Estimate,
    /// Change of the probability of the right token: (percentile, change).
    pub delta_p: Vec<(f64, f64)>,
    /// Root of the mean square of that change.
    pub delta_p_rms: f64,
    /// Perplexity divided by that of the reference.
    pub perplexity_ratio: f64,
    /// 95 % confidence interval of the ratio; `None` for fewer than two blocks.
    pub ratio_range: Option<(f64, f64)>,
    /// Loss minus that of the reference, in nats per token, paired.
    pub loss_difference: Estimate,
    /// p-value of the difference, two-sided.
    pub p_value: Option<f64>,
    /// Whether chance explains the difference.
    pub significance: Significance,
    /// How large the difference is.
    pub effect: Effect,
    /// The conclusion.
    pub verdict: AccuracyVerdict,
    /// Tokens by their KL divergence: 32 bins between powers of ten, see [`kl_bins`]; the first bin
    /// also counts smaller values.
    pub histogram: Vec<u64>,
}

/// Whether a model predicts as well as the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccuracyVerdict {
    /// Every token has the same probability to the last digit.
    Identical,
    /// The difference is smaller than what matters.
    NoPracticalDifference,
    /// The difference is not significant.
    NotSignificant,
    /// Its loss on the text is significantly higher.
    Worse,
    /// Its loss on this text is not significantly higher, but its KL divergence is significantly
    /// above 0, so its loss on text that the reference would write is higher.
    WorseByKl,
    /// As good on this text, but a different model: its KL divergence is [`GAIN`] or more while its
    /// loss rose by less than half of that. A damaged copy of the reference would lose at least
    /// that much.
    Different,
    /// Its loss on the text is significantly lower, by at least [`GAIN`].
    Better,
    /// Too little text to tell.
    Unknown,
}

/// Whether a difference is more than chance explains: that of losses, or the KL divergence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Significance {
    /// Its p-value is below [`SIGNIFICANT`].
    Significant,
    /// It is not.
    NotSignificant,
    /// Too little text to tell.
    Unknown,
}

impl Significance {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Significant => "significant",
            Self::NotSignificant => "not significant",
            Self::Unknown => "unknown",
        }
    }
}

/// How large a difference is, by the nats per token that a model adds: the KL divergence or, if it
/// is significant, the difference of losses, whichever is more. A drop of the loss by less than
/// [`GAIN`] does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// There is no difference.
    None,
    /// Less than what matters.
    Negligible,
    /// Less than ten times that.
    Small,
    /// Less than a hundred times that.
    Clear,
    /// More.
    Large,
}

impl Effect {
    /// Of a difference in nats per token, where less than `negligible` does not matter.
    pub fn of(nats: f64, negligible: f64) -> Effect {
        match nats {
            0.0 => Self::None,
            nats if nats < negligible => Self::Negligible,
            nats if nats < 10.0 * negligible => Self::Small,
            nats if nats < 100.0 * negligible => Self::Clear,
            _ => Self::Large,
        }
    }

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Negligible => "negligible",
            Self::Small => "small",
            Self::Clear => "clear",
            Self::Large => "large",
        }
    }
}

/// A difference below this, in nats per token, does not matter unless a user says otherwise: use
/// would not show it.
pub const NEGLIGIBLE: f64 = 1e-3;
/// p-value below which a difference counts.
pub const SIGNIFICANT: f64 = 0.01;
/// Smallest drop of the loss, in nats per token, that counts as a gain. Weights that are off by a
/// percent or two move the loss on one text by a tenth of this, down as often as up: a significant
/// drop of that size is still damage.
pub const GAIN: f64 = 0.01;
/// With at least this many documents, each one is a block.
const DOCUMENTS: usize = 30;
/// Most tokens of a block where there are fewer documents.
const BLOCK: usize = 128;
const BINS: usize = 32;
const PERCENTILES: [f64; 9] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0];

/// Scored windows of one model under one convention.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    /// How the text was cut.
    pub convention: Convention,
    /// The text.
    pub text: &'a Text,
    /// The windows.
    pub windows: &'a [Window],
    /// For each window its positions.
    pub positions: &'a [Vec<Position>],
}

impl Scored<'_> {
    /// How well the model predicts.
    pub fn perplexity(&self) -> Perplexity {
        let loss = Estimate::of(&self.blocks(|p| p.nll));
        let nats = || self.positions.iter().flatten().map(|p| p.nll);
        let (n, perplexity) = (nats().count() as f64, loss.mean.exp());
        let variance = nats().map(|x| x * x).sum::<f64>() / n - loss.mean.powi(2);
        Perplexity {
            tokens: n as usize,
            loss,
            perplexity: Estimate {
                mean: perplexity,
                error: loss.error.map(|error| perplexity * error),
                ..loss
            },
            error_of_llama_cpp: perplexity * (variance.max(0.0) / (n - 1.0)).sqrt(),
            by_length: matches!(self.convention, Convention::Rolling { .. })
                .then(|| self.by_length()),
            by_position: self.by_position(),
        }
    }

    fn by_length(&self) -> ByLength {
        let documents = self
            .windows
            .iter()
            .map(|w| w.document + 1)
            .max()
            .unwrap_or(0);
        let documents = &self.text.documents[..documents];
        let nats: f64 = self.positions.iter().flatten().map(|p| p.nll).sum();
        let bytes = documents.iter().map(String::len).sum::<usize>() as f64;
        let words = documents.iter().map(|text| words(text)).sum::<usize>() as f64;
        let mut by_document = vec![TokenBlock::default(); documents.len()];
        for (window, positions) in self.windows.iter().zip(self.positions) {
            let block = &mut by_document[window.document];
            block.sum += positions.iter().map(|p| p.nll).sum::<f64>();
            block.count = documents[window.document].len();
        }
        let tokens = self.positions.iter().map(Vec::len).sum::<usize>() as f64;
        let per_byte = match documents.len() >= DOCUMENTS {
            true => Estimate::of(&by_document),
            false => Estimate::of(&self.blocks(|p| p.nll)).times(tokens / bytes),
        };
        let ln2 = std::f64::consts::LN_2;
        ByLength {
            word_perplexity: (nats / words).exp(),
            byte_perplexity: (nats / bytes).exp(),
            bits_per_byte: per_byte.times(1.0 / ln2),
        }
    }

    fn by_position(&self) -> Vec<(f64, f64)> {
        let width = self.convention.context().div_ceil(BINS).max(1);
        let mut bins = vec![TokenBlock::default(); self.convention.context().div_ceil(width)];
        for (window, positions) in self.windows.iter().zip(self.positions) {
            let first = window.ids.len() - 1 - window.scored;
            for (i, position) in positions.iter().enumerate() {
                let bin = &mut bins[(first + i) / width];
                bin.sum += position.nll;
                bin.count += 1;
            }
        }
        let bins = bins.iter().enumerate().filter(|(_, bin)| bin.count > 0);
        bins.map(|(i, bin)| {
            let middle = (i * width) as f64 + (width as f64 + 1.0) / 2.0;
            (middle, bin.sum / bin.count as f64)
        })
        .collect()
    }

    /// How far the model is from `reference`, whose windows are the same; `None` where that was not
    /// measured. A difference below `negligible`, in nats per token, does not matter.
    pub fn divergence(&self, reference: &[Vec<Position>], negligible: f64) -> Option<Divergence> {
        let apart: Option<Vec<Apart>> = self.positions.iter().flatten().map(|p| p.apart).collect();
        let apart = apart?;
        let of = |f: fn(&Apart) -> f64| self.blocks(|p| p.apart.as_ref().map_or(0.0, f));
        let sorted = |f: fn(&Apart) -> f64| {
            let mut values: Vec<f64> = apart.iter().map(f).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (kl, delta_p) = (sorted(|a| a.kl), sorted(|a| a.delta_p));
        let mean_kl = Estimate::of(&of(|a| a.kl));
        let loss_difference = Estimate::of(&self.differences(reference));
        let range = loss_difference.range();
        let p_value = loss_difference.p_value();
        let squares = delta_p.iter().map(|d| d * d);
        let (significance, effect) = (
            significance(&loss_difference, &mean_kl),
            Effect::of(size(&loss_difference, &mean_kl), negligible),
        );
        Some(Divergence {
            kl: mean_kl,
            kl_p_value: mean_kl.p_value(),
            kl_median: quantile(&kl, 0.5),
            kl_p90: quantile(&kl, 0.9),
            kl_p99: quantile(&kl, 0.99),
            kl_p999: quantile(&kl, 0.999),
            kl_max: quantile(&kl, 1.0),
            top1: Estimate::of(&of(|a| f64::from(u8::from(a.same_top)))),
            top5: Estimate::of(&of(|a| f64::from(a.top5) / TOP as f64)),
            delta_p: PERCENTILES
                .map(|percent| (percent, quantile(&delta_p, percent / 100.0)))
                .to_vec(),
            delta_p_rms: (squares.sum::<f64>() / delta_p.len() as f64).sqrt(),
            perplexity_ratio: loss_difference.mean.exp(),
            ratio_range: range.map(|(low, high)| (low.exp(), high.exp())),
            loss_difference,
            p_value,
            significance,
            effect,
            verdict: verdict(&loss_difference, &mean_kl, effect),
            histogram: histogram(&kl),
        })
    }

    /// Loss minus that of the reference, by block.
    fn differences(&self, reference: &[Vec<Position>]) -> Vec<TokenBlock> {
        let mut others = reference.iter().flatten();
        self.blocks(|p| p.nll - others.next().map_or(f64::NAN, |other| other.nll))
    }

    /// Sums over blocks of a value of each position: documents, if there are enough of them, else
    /// stretches of windows.
    fn blocks(&self, mut value: impl FnMut(&Position) -> f64) -> Vec<TokenBlock> {
        let documents = self
            .windows
            .iter()
            .map(|w| w.document + 1)
            .max()
            .unwrap_or(0);
        let mut blocks: Vec<TokenBlock> = Vec::new();
        let mut last = None;
        for (window, positions) in self.windows.iter().zip(self.positions) {
            for stretch in positions.chunks(BLOCK) {
                let goes_on = documents >= DOCUMENTS && last == Some(window.document);
                if !goes_on {
                    blocks.push(TokenBlock::default());
                }
                last = Some(window.document);
                let block = blocks.last_mut().expect("one was pushed");
                for position in stretch {
                    block.sum += value(position);
                    block.count += 1;
                }
            }
        }
        blocks
    }
}

fn is_significant(of: &Estimate) -> Option<bool> {
    of.p_value().map(|p| p < SIGNIFICANT)
}

fn significance(difference: &Estimate, kl: &Estimate) -> Significance {
    match (is_significant(difference), is_significant(kl)) {
        (None, _) | (_, None) => Significance::Unknown,
        (Some(false), Some(false)) => Significance::NotSignificant,
        _ => Significance::Significant,
    }
}

/// The nats per token that a model adds.
fn size(difference: &Estimate, kl: &Estimate) -> f64 {
    let counts = difference.mean > 0.0 || difference.mean <= -GAIN;
    match is_significant(difference) {
        Some(true) if counts => kl.mean.max(difference.mean.abs()),
        _ => kl.mean,
    }
}

/// The KL divergence from the reference is the loss that a model adds on text that the reference
/// would write. It is the same comparison as that of losses on a text, without the chance of which
/// text it was.
fn verdict(difference: &Estimate, kl: &Estimate, effect: Effect) -> AccuracyVerdict {
    let at_most = difference.range().map_or(f64::INFINITY, |(_, high)| high);
    match (is_significant(difference), is_significant(kl)) {
        _ if kl.mean == 0.0 && difference.mean == 0.0 => AccuracyVerdict::Identical,
        (None, _) | (_, None) => AccuracyVerdict::Unknown,
        _ if effect <= Effect::Negligible => AccuracyVerdict::NoPracticalDifference,
        (Some(true), _) if difference.mean > 0.0 => AccuracyVerdict::Worse,
        (Some(true), _) if difference.mean <= -GAIN => AccuracyVerdict::Better,
        (_, Some(true)) if kl.mean >= GAIN && at_most < kl.mean / 2.0 => AccuracyVerdict::Different,
        (_, Some(true)) => AccuracyVerdict::WorseByKl,
        (_, Some(false)) => AccuracyVerdict::NotSignificant,
    }
}

/// The lower and the upper end of the histogram's bins, as powers of ten.
const KL_RANGE: (f64, f64) = (-8.0, 2.0);

/// Lower ends of the bins of [`Divergence::histogram`], and the upper end of the last, in nats.
pub fn kl_bins() -> Vec<f64> {
    let (low, high) = KL_RANGE;
    let end = |i: usize| 10f64.powf(low + (high - low) * i as f64 / BINS as f64);
    (0..=BINS).map(end).collect()
}

fn histogram(kl: &[f64]) -> Vec<u64> {
    let mut bins = vec![0; BINS];
    let (low, high) = KL_RANGE;
    for value in kl {
        let at = (value.log10() - low) / (high - low) * BINS as f64;
        bins[(at.max(0.0) as usize).min(BINS - 1)] += 1;
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(nll: f64, kl: f64) -> Position {
        let apart = Apart {
            kl,
            delta_p: -kl,
            same_top: kl < 0.5,
            top5: 5,
        };
        Position {
            nll,
            apart: Some(apart),
        }
    }

    /// `count` documents of two tokens; losses 1 and 3 plus what `more` adds to each document.
    fn scored(
        count: usize,
        more: impl Fn(usize) -> f64,
    ) -> (Text, Vec<Window>, Vec<Vec<Position>>) {
        let text = Text {
            name: "test".into(),
            documents: vec!["ab cd".into(); count],
        };
        let window = |document| Window {
            ids: vec![0; 3],
            scored: 2,
            document,
        };
        let positions = |i| {
            let more: f64 = more(i);
            vec![
                position(1.0 + more, more.abs()),
                position(3.0 + more, more.abs()),
            ]
        };
        let windows = (0..count).map(window).collect();
        (text, windows, (0..count).map(positions).collect())
    }

    fn of<'a>(parts: &'a (Text, Vec<Window>, Vec<Vec<Position>>)) -> Scored<'a> {
        Scored {
            convention: Convention::Rolling { context: 8 },
            text: &parts.0,
            windows: &parts.1,
            positions: &parts.2,
        }
    }

    #[test]
    fn figures_by_token_word_and_byte() {
        let parts = scored(40, |_| 0.0);
        let found = of(&parts).perplexity();
        assert_eq!((found.tokens, found.loss.mean), (80, 2.0));
        assert_eq!(found.loss.error, Some(0.0)); // all documents are alike
        // exp(2) * sqrt((5 - 4) / 79)
        let expected = 2f64.exp() / 79f64.sqrt();
        assert!((found.error_of_llama_cpp - expected).abs() < 1e-9);
        let lengths = found.by_length.unwrap();
        assert!((lengths.word_perplexity - 2f64.exp()).abs() < 1e-9);
        assert!((lengths.byte_perplexity - 0.8f64.exp()).abs() < 1e-9);
        assert!((lengths.bits_per_byte.mean - 0.8 / 2f64.ln()).abs() < 1e-9);
        assert_eq!(found.by_position, [(1.0, 1.0), (2.0, 3.0)]);
    }

    #[test]
    fn verdicts_follow_from_paired_differences() {
        let reference = scored(40, |_| 0.0);
        let check = |more: fn(usize) -> f64, expected| {
            let found = of(&scored(40, more)).divergence(&reference.2, NEGLIGIBLE);
            let found = found.unwrap();
            assert_eq!(found.verdict, expected, "{found:?}");
            found
        };
        let same = check(|_| 0.0, AccuracyVerdict::Identical);
        assert_eq!((same.perplexity_ratio, same.p_value), (1.0, Some(1.0)));
        let noise = |i: usize| [0.1, -0.1][i % 2];
        check(noise, AccuracyVerdict::Different);
        check(|i| [0.009, -0.009][i % 2], AccuracyVerdict::WorseByKl);
        // A loss of half of that cannot be excluded.
        check(|i| [0.35, -0.2][i % 2], AccuracyVerdict::WorseByKl);
        check(
            |i| if i == 7 { 0.1 } else { 0.0 },
            AccuracyVerdict::NotSignificant,
        );
        let worse = check(|i| 0.05 + 0.1 * (i % 2) as f64, AccuracyVerdict::Worse);
        assert!((worse.perplexity_ratio - 0.1f64.exp()).abs() < 1e-9);
        let (low, high) = worse.ratio_range.unwrap();
        assert!(low > 1.0 && high > worse.perplexity_ratio);
        check(|i| -0.05 - 0.1 * (i % 2) as f64, AccuracyVerdict::Better);
        // Surely lower, but by no more than damage moves it.
        let lower = check(
            |i| -0.002 - 0.001 * (i % 2) as f64,
            AccuracyVerdict::WorseByKl,
        );
        assert!(lower.p_value < Some(SIGNIFICANT), "{lower:?}");
    }

    #[test]
    fn significance_and_size_are_two_words() {
        let reference = scored(40, |_| 0.0);
        let check = |more: fn(usize) -> f64, negligible, expected: (_, _, _)| {
            let found = of(&scored(40, more)).divergence(&reference.2, negligible);
            let found = found.unwrap();
            let words = (
                found.significance.name(),
                found.effect.name(),
                found.verdict,
            );
            assert_eq!(words, expected);
        };
        let little = |i: usize| 1e-5 + 1e-6 * (i % 2) as f64;
        let none = AccuracyVerdict::NoPracticalDifference;
        check(little, 1e-3, ("significant", "negligible", none));
        let worse = AccuracyVerdict::Worse;
        check(little, 1e-5, ("significant", "small", worse));
        check(little, 1e-6, ("significant", "clear", worse));
        check(little, 1e-8, ("significant", "large", worse));
        let rare = |i: usize| if i == 7 { 0.01 } else { 0.0 };
        check(rare, 1e-3, ("not significant", "negligible", none));
        check(
            |_| 0.0,
            1e-3,
            ("not significant", "none", AccuracyVerdict::Identical),
        );
    }

    #[test]
    fn a_small_drop_of_the_loss_is_no_difference_where_predictions_are_alike() {
        let reference = scored(40, |_| 0.0);
        let check = |more: fn(usize) -> f64, expected| {
            let mut parts = scored(40, more);
            let all = parts.2.iter_mut().flatten();
            all.for_each(|p| p.apart.as_mut().unwrap().kl = 1e-5);
            let found = of(&parts).divergence(&reference.2, NEGLIGIBLE).unwrap();
            assert!(found.p_value < Some(SIGNIFICANT), "{found:?}");
            assert_eq!((found.effect.name(), found.verdict), expected);
        };
        let none = AccuracyVerdict::NoPracticalDifference;
        check(|i| -0.002 - 1e-4 * (i % 2) as f64, ("negligible", none));
        let worse = ("small", AccuracyVerdict::Worse);
        check(|i| 0.002 + 1e-4 * (i % 2) as f64, worse);
        let better = ("clear", AccuracyVerdict::Better);
        check(|i| -0.02 - 1e-4 * (i % 2) as f64, better);
    }

    #[test]
    fn few_documents_are_cut_into_stretches() {
        let parts = (
            Text {
                name: String::new(),
                documents: vec!["a".repeat(300)],
            },
            vec![Window {
                ids: vec![0; 301],
                scored: 300,
                document: 0,
            }],
            vec![vec![position(1.0, 0.0); 300]],
        );
        let blocks = Scored {
            convention: Convention::Rolling { context: 300 },
            ..of(&parts)
        }
        .blocks(|p| p.nll);
        let counts: Vec<usize> = blocks.iter().map(|b| b.count).collect();
        assert_eq!(counts, [128, 128, 44]);
    }

    #[test]
    fn bins_hold_every_token() {
        let bins = histogram(&[0.0, 1e-9, 1.5e-8, 1.0, 1e9]);
        assert_eq!(bins.iter().sum::<u64>(), 5);
        assert_eq!((bins[0], bins[BINS - 1]), (3, 1));
        let ends = kl_bins();
        assert!((ends[0] - 1e-8).abs() < 1e-15 && (ends[BINS] - 100.0).abs() < 1e-9);
    }
}

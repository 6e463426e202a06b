//! The answer in a few sentences: what is lost, what is gained, and whether that matters. The first
//! line is the verdict on accuracy, the second one has the rest. Names of files are between
//! backticks; statistics are in the tables.

use super::{ModelReport, Report};
use crate::accuracy::{AccuracyVerdict, Divergence, Effect, SIGNIFICANT};
use crate::exam::Exam;
use crate::speed::Rate;

/// For each later model one answer; for a model alone what it is.
pub fn of(report: &Report) -> Vec<String> {
    let Some((first, others)) = report.models.split_first() else {
        return Vec::new();
    };
    match others.is_empty() {
        true => vec![alone(first)],
        false => {
            let answer = |other| {
                let more = solved(first, other) + &gained(first, other);
                format!("{}\n{}", lost(first, other), more.trim_start())
            };
            others.iter().map(answer).collect()
        }
    }
}

/// What a reader must know before the answer counts.
pub fn notes(report: &Report) -> Vec<String> {
    let masters = report.models.iter().filter(|model| model.has_masters);
    let note = |model: &ModelReport| {
        format!(
            "{} has the master weights of a model that was trained with rounded weights. They are \
             evaluated here in full precision, which training never did. That is not an upper \
             bound of what the model can reach: the rounded model can be the better one.",
            named(&model.name)
        )
    };
    masters.map(note).collect()
}

/// A name, set apart from prose.
pub fn named(name: &str) -> String {
    format!("`{}`", name.replace('`', "'"))
}

/// What the model solves of each task, beside the first.
fn solved(first: &ModelReport, other: &ModelReport) -> String {
    let sentence = |(a, b): (&Exam, &Exam)| {
        let (before, now, test) = (a.main()?, b.main()?, b.beside_first.as_ref()?);
        let (items, task) = (now.items, named(&b.task));
        let (share, before) = (100.0 * now.value, 100.0 * before.value);
        Some(match test.is_same() {
            true if now.value == 0.0 => {
                format!(" Neither gets any of {items} items of {task} right.")
            }
            true => format!(" Both get the same of {items} items of {task} right ({share:.1} %)."),
            false => {
                let verdict = match test.p().is_some_and(|p| p < SIGNIFICANT) {
                    true => "more than chance explains",
                    false => "which chance explains",
                };
                format!(
                    " It gets {share:.1} % of {items} items of {task} right, against \
                     {before:.1} %, {verdict}."
                )
            }
        })
    };
    first
        .tasks
        .iter()
        .zip(&other.tasks)
        .filter_map(sentence)
        .collect()
}

fn alone(model: &ModelReport) -> String {
    let mut text = format!("{} takes {}", named(&model.name), bytes(model.bytes));
    if let Some(accuracy) = model.main() {
        let perplexity = accuracy.perplexity.perplexity.mean;
        text += &format!(
            " and predicts the text with a perplexity of {}",
            five(perplexity)
        );
    }
    text += ".\n";
    if let Some(speed) = model.speed.as_ref().and_then(|speed| speed.main()) {
        text += &format!(
            "It writes {} tokens per second on this machine.",
            figures(speed.generate.tokens_per_second)
        );
    }
    text.trim_end().to_owned()
}

fn lost(first: &ModelReport, other: &ModelReport) -> String {
    let (reference, name) = (named(&first.name), named(&other.name));
    let Some(divergence) = other.divergence() else {
        let bits = |model: &ModelReport| {
            let lengths = model.main()?.perplexity.by_length.as_ref()?;
            Some(lengths.bits_per_byte.mean)
        };
        let beside = bits(first).zip(bits(other));
        let beside = beside.map_or(String::new(), |(a, b)| {
            format!(": {b:.4} bits per byte of text against {a:.4}")
        });
        return format!(
            "{name} cuts text into other tokens than {reference}, so the two are not compared \
             token by token{beside}."
        );
    };
    let perplexity = |model: &ModelReport| model.main().map(|a| a.perplexity.perplexity.mean);
    let perplexities = perplexity(other).zip(perplexity(first));
    let perplexities = perplexities.map_or(String::new(), |(now, before)| {
        format!(", perplexity {} against {}", five(now), five(before))
    });
    let facts = format!(
        "the predictions of {name} differ from {reference} by {} nats per token (KL)\
         {perplexities}",
        figures(divergence.kl.mean)
    );
    verdict(&reference, &name, divergence, &facts)
}

fn verdict(reference: &str, name: &str, d: &Divergence, facts: &str) -> String {
    let degree = degree(d.effect);
    match d.verdict {
        AccuracyVerdict::Identical => format!(
            "No difference: {name} gives every token exactly the probability that {reference} \
             gives it."
        ),
        AccuracyVerdict::NoPracticalDifference => format!("No practical difference: {facts}."),
        AccuracyVerdict::Worse => {
            format!("{name} is significantly worse, {degree}: {facts}.")
        }
        AccuracyVerdict::Better => {
            format!("{name} is significantly better, {degree}: {facts}.")
        }
        AccuracyVerdict::WorseByKl => format!(
            "{name} is significantly worse on text that {reference} would write, {degree}: \
             {facts}."
        ),
        AccuracyVerdict::Different => format!(
            "{name} is as good on this text, in another way: {facts}. Models that are trained \
             apart differ like this."
        ),
        AccuracyVerdict::NotSignificant => {
            format!("{name} is not measurably worse: {facts}, which chance explains.")
        }
        AccuracyVerdict::Unknown => {
            format!("{name} cannot be judged on so little text: {facts}.")
        }
    }
}

/// A size in words, after a verdict.
fn degree(effect: Effect) -> &'static str {
    match effect {
        Effect::None | Effect::Negligible => "by less than matters",
        Effect::Small => "by a little",
        Effect::Clear => "by an amount that careful use shows",
        Effect::Large => "by much",
    }
}

fn gained(first: &ModelReport, other: &ModelReport) -> String {
    let ratio = other.bytes as f64 / first.bytes as f64;
    let sizes = format!("{} against {}", bytes(other.bytes), bytes(first.bytes));
    let size = match ratio {
        ratio if (ratio - 1.0).abs() < 0.005 => {
            format!(" Its file is as large ({}).", bytes(other.bytes))
        }
        ratio if ratio < 1.0 => {
            format!(
                " Its file has {} % of the size ({sizes}).",
                figures(100.0 * ratio)
            )
        }
        ratio => format!(" Its file is {} times as large ({sizes}).", figures(ratio)),
    };
    speed(first, other) + &size
}

fn speed(first: &ModelReport, other: &ModelReport) -> String {
    let rate = |model: &ModelReport| Some(model.speed.as_ref()?.main()?.generate.clone());
    let Some((a, b)) = rate(first).zip(rate(other)) else {
        return String::new();
    };
    let (slow, fast) = (figures(a.tokens_per_second), figures(b.tokens_per_second));
    let is_single = |rate: &Rate| rate.range.0 == rate.range.1;
    if is_single(&a) && is_single(&b) {
        return format!(
            " It wrote {fast} tokens per second against {slow} in the only round, which one round \
             does not prove."
        );
    }
    if a.range.0 <= b.range.1 && b.range.0 <= a.range.1 {
        return format!(
            " Whether it is faster cannot be told: {fast} and {slow} tokens per second vary by \
             more than they differ."
        );
    }
    format!(
        " It writes {} times as fast ({fast} tokens per second against {slow}).",
        figures(b.tokens_per_second / a.tokens_per_second)
    )
}

/// Five digits that count, which perplexities need to show that they differ.
fn five(value: f64) -> String {
    let before = value.abs().max(1.0).log10().floor() as usize;
    format!("{value:.0$}", 4usize.saturating_sub(before))
}

/// Three digits that count.
pub fn figures(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        x if x < 1e-4 => return format!("{value:.1e}"),
        x => (2 - x.log10().floor() as i32).max(0) as usize,
    };
    format!("{value:.digits$}")
}

/// 1234567 bytes as `1.23 MB`.
pub fn bytes(n: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let unit = units.into_iter().find(|(size, _)| n as f64 >= *size);
    unit.map_or(format!("{n} B"), |(size, name)| {
        format!("{} {name}", figures(n as f64 / size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (1234.5, "1234"),
            (12.345, "12.3"),
            (0.012345, "0.0123"),
            (1.5e-6, "1.5e-6"),
        ] {
            assert_eq!(figures(value), expected);
        }
        assert_eq!(bytes(143_890), "144 kB");
        assert_eq!(bytes(17), "17 B");
        assert_eq!(five(2.75884), "2.7588");
        assert_eq!(five(17.1094), "17.109");
        assert_eq!(five(123456.7), "123457");
        assert_eq!(named("a`b"), "`a'b`");
    }
}

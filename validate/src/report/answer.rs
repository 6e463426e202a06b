//! The answer in two sentences: what is lost, what is gained, and whether that is more than chance.

use super::{ModelReport, Report};
use crate::accuracy::{AccuracyVerdict, Divergence, GAIN, SIGNIFICANT};
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
                [
                    lost(first, other),
                    solved(first, other),
                    gained(first, other),
                ]
            };
            others.iter().map(|other| answer(other).concat()).collect()
        }
    }
}

/// What the model solves of each task, beside the first.
fn solved(first: &ModelReport, other: &ModelReport) -> String {
    let sentence = |(a, b): (&Exam, &Exam)| {
        let (before, now, test) = (a.main()?, b.main()?, b.beside_first.as_ref()?);
        if test.is_same() {
            let (items, task, share) = (now.items, &b.task, 100.0 * now.value);
            if now.value == 0.0 {
                return Some(format!(
                    " Of {items} items of {task} neither gets one right."
                ));
            }
            return Some(format!(
                " Of {items} items of {task} it gets the same ones right ({share:.1} %)."
            ));
        }
        let verdict = match test.p().is_some_and(|p| p < SIGNIFICANT) {
            true => "more than chance explains",
            false => "which chance explains",
        };
        Some(format!(
            " Of {} items of {} it has {:.1} % right instead of {:.1} %, {verdict} ({}).",
            now.items,
            b.task,
            100.0 * now.value,
            100.0 * before.value,
            chance(test.p())
        ))
    };
    first
        .tasks
        .iter()
        .zip(&other.tasks)
        .filter_map(sentence)
        .collect()
}

fn alone(model: &ModelReport) -> String {
    let mut text = format!("{} takes {}", model.name, bytes(model.bytes));
    if let Some(accuracy) = model.main() {
        let perplexity = &accuracy.perplexity;
        text += &format!(
            " and predicts the text with a perplexity of {:.4}",
            perplexity.perplexity.mean
        );
        if let Some(error) = perplexity.perplexity.error {
            text += &format!(" ± {error:.4}");
        }
    }
    text += ".";
    if let Some(speed) = model.speed.as_ref().and_then(|speed| speed.main()) {
        text += &format!(
            " It writes {} tokens per second on this machine.",
            figures(speed.generate.tokens_per_second)
        );
    }
    text
}

fn lost(first: &ModelReport, other: &ModelReport) -> String {
    let name = &other.name;
    match other.divergence() {
        Some(divergence) => with_divergence(first, name, divergence),
        None => {
            let bits = |model: &ModelReport| {
                let lengths = model.main()?.perplexity.by_length.as_ref()?;
                Some(lengths.bits_per_byte.mean)
            };
            let beside = bits(first)
                .zip(bits(other))
                .map_or(String::new(), |(a, b)| {
                    format!(": {b:.4} bits per byte of text instead of {a:.4}")
                });
            format!(
                "{name} cuts text into other tokens than {}, so the two are not compared token by \
                 token{beside}.",
                first.name
            )
        }
    }
}

fn with_divergence(first: &ModelReport, name: &str, d: &Divergence) -> String {
    let percent = 100.0 * (d.perplexity_ratio - 1.0);
    let range = d.ratio_range.map_or(String::new(), |(low, high)| {
        let percent = |ratio: f64| signed(100.0 * (ratio - 1.0));
        format!(
            " (95 % confidence: {} to {} %)",
            percent(low),
            percent(high)
        )
    });
    let first = &first.name;
    let change = format!(
        "its perplexity on this text is {} % {} than that of {first}",
        figures(percent.abs()),
        if percent > 0.0 { "higher" } else { "lower" }
    );
    match d.verdict {
        AccuracyVerdict::Identical => format!(
            "{name} loses nothing: it gives every token exactly the probability that {first} \
             gives it."
        ),
        AccuracyVerdict::Worse => format!(
            "{name} is significantly worse: {change}{range}, more than chance explains ({}).",
            chance(d.p_value)
        ),
        AccuracyVerdict::Better => format!(
            "{name} is significantly better: {change}{range}, more than chance explains ({}).",
            chance(d.p_value)
        ),
        AccuracyVerdict::WorseByKl => format!(
            "{name} is significantly worse at what {first} would write, {}: its predictions are \
             off by {} nats per token (KL divergence, {}), while {change}{range}, {}.",
            degree(d.kl.mean),
            figures(d.kl.mean),
            chance(d.kl_p_value),
            by_chance(d)
        ),
        AccuracyVerdict::Different => format!(
            "{name} is as good on this text, in another way: {change}{range}, {}, but its \
             predictions are {} nats per token from those of {first} (KL divergence), like those \
             of a model that was trained apart from it.",
            by_chance(d),
            figures(d.kl.mean)
        ),
        AccuracyVerdict::NotSignificant => format!(
            "{name} is not measurably worse: {change}{range}, {} ({}, significant below \
             {SIGNIFICANT}), and both find the same next token most probable in {:.2} % of \
             places.",
            by_chance(d),
            chance(d.p_value),
            100.0 * d.top1.mean
        ),
        AccuracyVerdict::Unknown => format!(
            "{name} cannot be judged on so little text: {change}, and there is no telling whether \
             by chance."
        ),
    }
}

/// Whether a difference of perplexities that decides nothing is chance.
fn by_chance(d: &Divergence) -> String {
    match d.p_value {
        Some(p) if p < SIGNIFICANT => format!(
            "more than chance explains, but less than the {} % that count as a gain",
            figures(100.0 * (1.0 - (-GAIN).exp()))
        ),
        _ => "which chance explains".to_owned(),
    }
}

/// A difference in words, by the KL divergence.
fn degree(kl: f64) -> &'static str {
    match kl {
        kl if kl < 1e-3 => "by less than use would show",
        kl if kl < 1e-2 => "by a little",
        kl if kl < 1e-1 => "by an amount that careful use shows",
        _ => "by much",
    }
}

pub fn chance(p_value: Option<f64>) -> String {
    match p_value {
        None => "p unknown".to_owned(),
        Some(p) if p < 1e-4 => "p < 0.0001".to_owned(),
        Some(p) => format!("p = {p:.4}"),
    }
}

fn gained(first: &ModelReport, other: &ModelReport) -> String {
    let size = other.bytes as f64 / first.bytes as f64;
    let size = match (size - 1.0).abs() < 0.005 {
        true => format!("its file is as large ({})", bytes(other.bytes)),
        false => format!(
            "its file is {} times as large ({} instead of {})",
            figures(size),
            bytes(other.bytes),
            bytes(first.bytes)
        ),
    };
    let rate = |model: &ModelReport| Some(model.speed.as_ref()?.main()?.generate.clone());
    let Some((a, b)) = rate(first).zip(rate(other)) else {
        return format!(" {}.", capital(&size));
    };
    let (slow, fast) = (figures(a.tokens_per_second), figures(b.tokens_per_second));
    let is_single = |rate: &Rate| rate.range.0 == rate.range.1;
    if is_single(&a) && is_single(&b) {
        return format!(
            " In the only round it wrote {fast} instead of {slow} tokens per second, which one \
             round does not prove, and {size}."
        );
    }
    if a.range.0 <= b.range.1 && b.range.0 <= a.range.1 {
        return format!(
            " Whether it is faster cannot be told ({fast} and {slow} tokens per second, which vary \
             by more than they differ), and {size}."
        );
    }
    format!(
        " It writes {} times as fast ({fast} instead of {slow} tokens per second), and {size}.",
        figures(b.tokens_per_second / a.tokens_per_second)
    )
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

fn signed(percent: f64) -> String {
    let sign = if percent < 0.0 { "−" } else { "+" };
    format!("{sign}{}", figures(percent.abs()))
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
        assert_eq!(signed(-0.5), "−0.500");
        assert_eq!(capital("its file"), "Its file");
    }
}

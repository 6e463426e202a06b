//! The plots of a report.

use super::{ModelReport, Report};
use crate::accuracy::{Divergence, kl_bins};
use crate::plot::{Chart, Curve, LEGEND_ROW, Picture, Reach, SMALL, Scale};

/// A picture, the name of its files and what it shows.
pub struct Plot {
    pub name: &'static str,
    pub caption: &'static str,
    pub picture: Picture,
}

/// Lines of a legend that a small chart has room for; with more it becomes higher.
const LEGEND_ROWS: usize = 3;

pub fn of(report: &Report) -> Vec<Plot> {
    let plots = [
        against_speed(report),
        against_size(report),
        histogram(report),
        by_position(report),
        by_threads(report),
        by_batch(report),
    ];
    plots.into_iter().flatten().collect()
}

/// A chart, unless nothing would be on it.
fn plot(
    name: &'static str,
    caption: &'static str,
    curves: Vec<Curve>,
    x: Scale,
    y: Scale,
) -> Option<Plot> {
    let named = curves.iter().filter(|curve| !curve.name.is_empty()).count();
    let more = named.saturating_sub(LEGEND_ROWS) as f64;
    let chart = Chart {
        size: (SMALL.0, SMALL.1 + LEGEND_ROW * more),
        curves,
        x,
        y,
    };
    (!chart.curves.is_empty()).then(|| Plot {
        name,
        caption,
        picture: chart.draw(),
    })
}

fn against_speed(report: &Report) -> Option<Plot> {
    let rate = |m: &ModelReport| Some(m.speed.as_ref()?.main()?.generate.tokens_per_second);
    plot(
        "accuracy-speed",
        "Accuracy against speed: right is faster, down is more accurate. A filled dot is beaten by \
         no other model in both; the line joins them.",
        front(report, rate, |a, b| a > b),
        Scale::linear("tokens written per second", Reach::Values),
        Scale::linear("perplexity", Reach::Values),
    )
}

fn against_size(report: &Report) -> Option<Plot> {
    plot(
        "accuracy-size",
        "Accuracy against size: left is smaller, down is more accurate. A filled dot is beaten by \
         no other model in both; the line joins them.",
        front(report, |m| Some(m.bytes as f64 / 1e6), |a, b| a < b),
        Scale::linear("megabytes of the file", Reach::Values),
        Scale::linear("perplexity", Reach::Values),
    )
}

/// Perplexity against a cost, with the Pareto front: models that no other beats in one and equals
/// in the other.
fn front(
    report: &Report,
    cost: impl Fn(&ModelReport) -> Option<f64>,
    is_better: fn(f64, f64) -> bool,
) -> Vec<Curve> {
    let point = |m: &ModelReport| Some((cost(m)?, m.main()?.perplexity.perplexity.mean));
    let points: Vec<_> = report.models.iter().map(point).collect();
    let known: Vec<(f64, f64)> = points.iter().flatten().copied().collect();
    if known.len() < 2 {
        return Vec::new();
    }
    let beats = |a: &(f64, f64), b: &(f64, f64)| {
        let no_worse = !is_better(b.0, a.0) && a.1 <= b.1;
        no_worse && (is_better(a.0, b.0) || a.1 < b.1)
    };
    let is_front = |at: &(f64, f64)| !known.iter().any(|other| beats(other, at));
    let mut line: Vec<(f64, f64)> = known.iter().copied().filter(is_front).collect();
    line.sort_by(|a, b| a.0.total_cmp(&b.0));
    let dot = |(model, at): (&ModelReport, &Option<(f64, f64)>)| {
        at.map(|at| Curve {
            name: model.name.clone(),
            labels: vec![(at, String::new(), is_front(&at))],
            ..Curve::default()
        })
    };
    let dots = report.models.iter().zip(&points).filter_map(dot);
    let mut curves: Vec<Curve> = dots.collect();
    curves.push(Curve {
        line,
        ..Curve::default()
    });
    curves
}

fn histogram(report: &Report) -> Option<Plot> {
    let ends = kl_bins();
    let models = report.models.iter().enumerate();
    let compared = models.filter_map(|(i, m)| Some((i, m, m.divergence()?)));
    let is_apart = |(.., d): &(usize, &ModelReport, &Divergence)| d.kl_max > 0.0;
    let compared: Vec<_> = compared.filter(is_apart).collect();
    let heights = |bins: &[u64]| -> Vec<f64> {
        let all = bins.iter().sum::<u64>().max(1) as f64;
        bins.iter().map(|n| 100.0 * *n as f64 / all).collect()
    };
    let last =
        |(.., d): &(usize, &ModelReport, &Divergence)| d.histogram.iter().rposition(|n| *n > 0);
    let shown = compared
        .iter()
        .filter_map(last)
        .max()
        .map_or(0, |last| last + 1);
    let curves = compared.iter().map(|(i, model, d)| {
        let heights = heights(&d.histogram);
        let mut curve = Curve {
            name: model.name.clone(),
            color: Some(*i),
            ..Curve::default()
        };
        for (i, height) in heights.into_iter().enumerate().take(shown) {
            match compared.len() {
                1 => curve.bars.push((ends[i], ends[i + 1], height)),
                _ => curve.line.push(((ends[i] * ends[i + 1]).sqrt(), height)),
            }
        }
        curve
    });
    plot(
        "kl-histogram",
        "How far predictions are from the reference, token by token: the further left, the nearer. \
         The first bar also holds tokens that are nearer still.",
        curves.collect(),
        Scale::log("KL divergence, nats"),
        Scale::linear("percent of tokens", Reach::Zero),
    )
}

fn by_position(report: &Report) -> Option<Plot> {
    let curve = |m: &ModelReport| {
        Some(Curve {
            name: m.name.clone(),
            line: m.main()?.perplexity.by_position.clone(),
            ..Curve::default()
        })
    };
    plot(
        "loss-by-position",
        "Loss by the number of tokens that a model has seen before: it falls where a model uses \
         what it read.",
        report.models.iter().filter_map(curve).collect(),
        Scale::linear("tokens before", Reach::Zero),
        Scale::linear("nats per token", Reach::Values),
    )
}

fn by_threads(report: &Report) -> Option<Plot> {
    let curve = |m: &ModelReport| {
        let speeds = m.speed.as_ref()?.by_threads.iter();
        let dots = speeds.map(|s| (s.threads as f64, s.generate.tokens_per_second));
        Some(Curve {
            name: m.name.clone(),
            dots: dots.collect(),
            ..Curve::default()
        })
    };
    plot(
        "speed-by-threads",
        "Tokens written per second, by the number of threads.",
        report.models.iter().filter_map(curve).collect(),
        Scale::linear("threads", Reach::Values),
        Scale::linear("tokens per second", Reach::Zero),
    )
}

fn by_batch(report: &Report) -> Option<Plot> {
    let curve = |m: &ModelReport| {
        let speeds = m.speed.as_ref()?.by_batch.iter();
        Some(Curve {
            name: m.name.clone(),
            dots: speeds.map(|(n, speed)| (*n as f64, *speed)).collect(),
            ..Curve::default()
        })
    };
    plot(
        "speed-by-batch",
        "Tokens written per second of all conversations together, by how many are served at once.",
        report.models.iter().filter_map(curve).collect(),
        Scale::linear("conversations at once", Reach::Zero),
        Scale::linear("tokens per second", Reach::Zero),
    )
}

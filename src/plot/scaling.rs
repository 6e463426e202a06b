//! Held-out losses of runs against the sizes of their models: what ternary costs at equal
//! parameters and at equal bytes, with errors over seeds and a power law.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sterna_ternary::layout::{self, Role, Weight};
use sterna_ternary::units;
use sterna_train::{Precision, Recipe};
use sterna_validate::plot::{Chart, Curve, LARGE, Reach, Scale};

use crate::exit::BadInput;

/// What is on the horizontal axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// The number of weights.
    Parameters,
    /// The bytes of the weights in a packed file.
    Bytes,
}

/// Values of `--scaling`.
pub const SIZES: [(Size, &str); 2] = [
    (Size::Parameters, "The number of weights"),
    (Size::Bytes, "The bytes of the weights in a packed file"),
];

impl Size {
    pub fn name(self) -> &'static str {
        match self {
            Size::Parameters => "parameters",
            Size::Bytes => "bytes",
        }
    }

    fn of(self, point: &Point) -> f64 {
        match self {
            Size::Parameters => point.parameters as f64,
            Size::Bytes => point.bytes as f64,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Size::Parameters => "parameters",
            Size::Bytes => "bytes of the weights, packed",
        }
    }
}

/// Runs that differ only in their seed.
#[derive(Debug, Clone)]
pub struct Point {
    precision: Precision,
    tokens: u64,
    parameters: usize,
    bytes: u64,
    /// The folder of the first run.
    name: String,
    /// Bits per byte of held-out text, one per seed.
    losses: Vec<f64>,
}

impl Point {
    fn mean(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }

    /// The standard error of the mean; none for a single seed.
    fn error(&self) -> Option<f64> {
        let (n, mean) = (self.losses.len() as f64, self.mean());
        let squares: f64 = self.losses.iter().map(|loss| (loss - mean).powi(2)).sum();
        (n > 1.0).then(|| (squares / (n - 1.0) / n).sqrt())
    }

    fn precision(&self) -> &'static str {
        match self.precision {
            Precision::Ternary => "ternary",
            Precision::Full => "full precision",
        }
    }
}

/// Reads finished runs and joins those that differ only in their seed.
///
/// # Errors
/// A folder that is not a finished run with a held-out loss, and a model that cannot be read.
pub fn points(runs: &[PathBuf]) -> anyhow::Result<Vec<Point>> {
    let mut found: BTreeMap<String, Point> = BTreeMap::new();
    for run in runs {
        let path = run.join("recipe.toml");
        let text = read(&path, "the recipe of a run")?;
        let mut recipe = Recipe::parse(&text, &path)?;
        let loss = bits_per_byte(run, recipe.train.steps)?;
        recipe.train.seed = 0;
        if let Some(point) = found.get_mut(&recipe.to_toml()) {
            point.losses.push(loss);
            continue;
        }
        let point = measured(run, &recipe, loss)?;
        found.insert(recipe.to_toml(), point);
    }
    let mut points: Vec<Point> = found.into_values().collect();
    let order = |p: &Point| (p.precision == Precision::Ternary, p.tokens, p.parameters);
    points.sort_by_key(order);
    Ok(points)
}

/// A point of one run, with the sizes of its model.
fn measured(run: &Path, recipe: &Recipe, loss: f64) -> anyhow::Result<Point> {
    let (train, model) = (&recipe.train, run.join("model"));
    let source = sterna_convert::open(&model, true)?;
    let weights = layout::weights(source.config());
    let bytes = |weight: &Weight| bytes_of(weight, train.precision);
    let name = run.file_name().unwrap_or(run.as_os_str());
    Ok(Point {
        precision: train.precision,
        tokens: train.steps * (train.batch * train.accumulate * train.context) as u64,
        parameters: layout::counts(source.config()).0,
        bytes: weights.iter().map(bytes).sum(),
        name: name.to_string_lossy().into_owned(),
        losses: vec![loss],
    })
}

/// Bytes of a weight in a packed file with the type i2 or f16 and a q8 head, without scales.
fn bytes_of(weight: &Weight, precision: Precision) -> u64 {
    let size = (weight.rows * weight.columns) as u64;
    match (weight.role, precision) {
        (Role::Linear, Precision::Ternary) => size / 4,
        (Role::Linear, Precision::Full) => size * 2,
        (Role::Table, _) => size,
        (Role::Norm, _) => size * 4,
    }
}

/// The bits per byte of the evaluation after the last step.
fn bits_per_byte(run: &Path, steps: u64) -> anyhow::Result<f64> {
    let path = run.join("metrics.jsonl");
    let text = read(&path, "the metrics of a run")?;
    // A run that goes on may be in the middle of its last line, which then is not JSON.
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = lines.filter(|line| line["step"] == steps);
    let loss = last
        .filter_map(|line| line["bits_per_byte"].as_f64())
        .next_back();
    let why = || {
        let path = path.display();
        BadInput(format!(
            "{path}: expected the held-out loss after step {steps}, the last one, found none; \
             let the run end, with text that is held out"
        ))
    };
    Ok(loss.ok_or_else(why)?)
}

fn read(path: &Path, expected: &str) -> anyhow::Result<String> {
    let why = |e: std::io::Error| BadInput(format!("{}: {e}; expected {expected}", path.display()));
    Ok(std::fs::read_to_string(path).map_err(why)?)
}

/// Every point as a line of text.
pub fn table(points: &[Point]) -> String {
    let mut text = format!(
        "{:<15} {:>10} {:>10} {:>10} {:>6} {:>14} {:>8}  first run\n",
        "precision", "parameters", "bytes", "tokens", "seeds", "bits per byte", "error"
    );
    for point in points {
        let error = point
            .error()
            .map_or("-".into(), |error| format!("{error:.4}"));
        writeln!(
            text,
            "{:<15} {:>10} {:>10} {:>10} {:>6} {:>14.4} {error:>8}  {}",
            point.precision(),
            millions(point.parameters as f64),
            units::bytes(point.bytes),
            millions(point.tokens as f64),
            point.losses.len(),
            point.mean(),
            point.name,
        )
        .expect("a string takes all");
    }
    text
}

/// The best point of every size, as one curve per precision and number of tokens.
pub fn chart(points: &[Point], size: Size) -> Chart {
    let mut curves: BTreeMap<(bool, u64), Vec<&Point>> = BTreeMap::new();
    for point in points {
        let key = (point.precision == Precision::Ternary, point.tokens);
        let curve = curves.entry(key).or_default();
        match curve
            .iter_mut()
            .find(|other| is_one_size(size.of(other), size.of(point)))
        {
            Some(other) if point.mean() < other.mean() => *other = point,
            Some(_) => {}
            None => curve.push(point),
        }
    }
    let mut drawn: Vec<Curve> = curves.values().map(|curve| named(curve, size)).collect();
    // An error bar is a grey line without a name.
    for point in curves.values().flatten() {
        let Some(error) = point.error() else { continue };
        let ends = [point.mean() - error, point.mean() + error];
        drawn.push(Curve {
            line: ends.map(|y| (size.of(point), y)).to_vec(),
            ..Curve::default()
        });
    }
    Chart {
        size: LARGE,
        curves: drawn,
        x: Scale::log(size.label()),
        y: Scale::linear("held-out loss, bits per byte", Reach::Values),
    }
}

/// Whether two sizes differ by less than a twentieth, as with and without sub-norms.
fn is_one_size(a: f64, b: f64) -> bool {
    (a / b).ln().abs() < 0.05
}

/// A curve with its law, if it has enough points for one.
fn named(points: &[&Point], size: Size) -> Curve {
    let mut dots: Vec<(f64, f64)> = points.iter().map(|p| (size.of(p), p.mean())).collect();
    dots.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut name = format!(
        "{}, {} tokens",
        points[0].precision(),
        millions(points[0].tokens as f64)
    );
    let mut line = Vec::new();
    if let Some((factor, exponent)) = power_law(&dots) {
        let letter = match size {
            Size::Parameters => "N",
            Size::Bytes => "B",
        };
        name += &format!(": {factor:.2} · {letter}^{exponent:.4}");
        line = dots
            .iter()
            .map(|(x, _)| (*x, factor * x.powf(exponent)))
            .collect();
    }
    Curve {
        name,
        line,
        dots,
        ..Curve::default()
    }
}

/// The factor and the exponent of the power law y = factor · x^exponent with the least squares of
/// logarithms; none for fewer than three points. With few points a floor that losses do not pass
/// can't be told from a smaller exponent, so the law has none.
fn power_law(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    if points.len() < 3 {
        return None;
    }
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x_mean, y_mean) = (mean(|p| p.0.ln()), mean(|p| p.1.ln()));
    let (mut products, mut squares) = (0.0, 0.0);
    for (x, y) in points {
        products += (x.ln() - x_mean) * (y.ln() - y_mean);
        squares += (x.ln() - x_mean).powi(2);
    }
    let exponent = products / squares;
    Some(((y_mean - exponent * x_mean).exp(), exponent))
}

/// 749568 as `0.75 M`.
fn millions(n: f64) -> String {
    format!("{:.2} M", n / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(precision: Precision, parameters: usize, losses: &[f64]) -> Point {
        Point {
            precision,
            tokens: 1_000_000,
            parameters,
            bytes: 2 * parameters as u64,
            name: format!("run-{parameters}"),
            losses: losses.to_vec(),
        }
    }

    #[test]
    fn a_power_law_is_found_again_and_two_points_have_none() {
        let exact: Vec<(f64, f64)> = [1e5, 1e6, 4e6].map(|n: f64| (n, 9.0 * n.powf(-0.1))).into();
        let (factor, exponent) = power_law(&exact).unwrap();
        assert!((factor - 9.0).abs() < 1e-9 && (exponent + 0.1).abs() < 1e-12);
        assert_eq!(power_law(&exact[..2]), None);
    }

    #[test]
    fn seeds_have_an_error_and_one_seed_has_none() {
        let seeds = point(Precision::Full, 1, &[1.0, 2.0, 3.0]);
        assert_eq!(seeds.mean(), 2.0);
        assert!((seeds.error().unwrap() - (1.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(point(Precision::Full, 1, &[1.0]).error(), None);
    }

    #[test]
    fn the_best_recipe_of_a_size_is_drawn_and_all_are_in_the_table() {
        let (full, ternary) = (Precision::Full, Precision::Ternary);
        let points = [
            point(full, 1_000_000, &[2.0, 2.2]),
            point(full, 1_010_000, &[1.9]),
            point(ternary, 1_000_000, &[2.3, 2.5]),
        ];
        let chart = chart(&points, Size::Bytes);
        let dots: Vec<_> = chart
            .curves
            .iter()
            .map(|curve| curve.dots.clone())
            .collect();
        // The last curve is the error bar of the ternary point.
        assert_eq!(dots, [vec![(2.02e6, 1.9)], vec![(2e6, 2.4)], vec![]]);
        let bar = &chart.curves[2].line;
        assert!((bar[0].1 - 2.3).abs() < 1e-12 && (bar[1].1 - 2.5).abs() < 1e-12);
        let table = table(&points);
        assert_eq!(table.lines().count(), 4);
        assert!(table.contains("2.1000   0.1000  run-1000000"), "{table}");
    }

    #[test]
    fn ternary_weights_have_an_eighth_of_the_bytes_and_tables_have_the_same() {
        let weight = |role| Weight {
            name: "w".into(),
            role,
            rows: 16,
            columns: 4,
        };
        let bytes =
            |role| [Precision::Full, Precision::Ternary].map(|p| bytes_of(&weight(role), p));
        assert_eq!(bytes(Role::Linear), [128, 16]);
        assert_eq!(bytes(Role::Table), [64, 64]);
    }
}

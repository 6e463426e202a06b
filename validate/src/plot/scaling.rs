//! Held-out losses of runs against the sizes of their models: what ternary costs at equal
//! parameters and at equal bytes, with errors over seeds and a power law.

use std::collections::BTreeMap;
use std::fmt::Write;

use sterna_ternary::layout::{Role, Weight};
use sterna_ternary::units;

use super::{Chart, Curve, LARGE, Reach, Scale};

/// What is on the horizontal axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// The number of weights.
    Parameters,
    /// The bytes of the weights in a packed file.
    Bytes,
}

impl Size {
    /// Its name on the command line.
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
    /// Whether the linear layers are ternary, and not in full precision.
    pub is_ternary: bool,
    /// Tokens that each run was trained on.
    pub tokens: u64,
    /// The number of weights.
    pub parameters: usize,
    /// The bytes of the weights in a packed file: [`bytes`].
    pub bytes: u64,
    /// The folder of the first run.
    pub name: String,
    /// Bits per byte of held-out text, one per seed; at least one.
    pub losses: Vec<f64>,
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
        match self.is_ternary {
            true => "ternary",
            false => "full precision",
        }
    }
}

/// Bytes of weights in a packed file with the type i2 or f16 and a q8 head, without scales.
pub fn bytes(weights: &[Weight], is_ternary: bool) -> u64 {
    weights
        .iter()
        .map(|weight| bytes_of(weight, is_ternary))
        .sum()
}

fn bytes_of(weight: &Weight, is_ternary: bool) -> u64 {
    let size = (weight.rows * weight.columns) as u64;
    match (weight.role, is_ternary) {
        (Role::Linear, true) => size / 4,
        (Role::Linear, false) => size * 2,
        (Role::Table, _) => size,
        (Role::Norm, _) => size * 4,
    }
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
        let key = (point.is_ternary, point.tokens);
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

    fn point(is_ternary: bool, parameters: usize, losses: &[f64]) -> Point {
        Point {
            is_ternary,
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
        let seeds = point(false, 1, &[1.0, 2.0, 3.0]);
        assert_eq!(seeds.mean(), 2.0);
        assert!((seeds.error().unwrap() - (1.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(point(false, 1, &[1.0]).error(), None);
    }

    #[test]
    fn the_best_recipe_of_a_size_is_drawn_and_all_are_in_the_table() {
        let (full, ternary) = (false, true);
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
        let bytes = |role| [false, true].map(|is_ternary| bytes(&[weight(role)], is_ternary));
        assert_eq!(bytes(Role::Linear), [128, 16]);
        assert_eq!(bytes(Role::Table), [64, 64]);
    }
}

//! Reports and comparisons in words, as the command line prints them.

use std::path::Path;

use sterna_ternary::units;

use crate::{Comparison, ConversionReport, MatrixComparison, MatrixReport, TableReport};

impl ConversionReport {
    /// The report in words: sizes, the proof, and the types and errors of tables. `out` is where the
    /// result is.
    pub fn describe(&self, out: &Path) -> String {
        let sum = |f: fn(&MatrixReport) -> u64| self.matrices.iter().map(f).sum::<u64>();
        let share = |n: u64| 100.0 * n as f64 / self.weights.max(1) as f64;
        let (minus, zero, plus) = (sum(|m| m.minus), sum(|m| m.zero), sum(|m| m.plus));
        let mut text = format!(
            "{}: {} from {}, packing {}\n\
             proof: {} weights, {} differ; {} scales, {} differ; {} other values, {} differ\n",
            out.display(),
            units::bytes(self.bytes_out),
            units::bytes(self.bytes_in),
            self.packing,
            self.weights,
            self.differ,
            self.scales,
            self.scales_differ,
            self.values,
            self.values_differ,
        );
        if !self.matrices.is_empty() {
            text += &format!(
                "trits: -1 {:.1} %, 0 {:.1} %, +1 {:.1} %\n",
                share(minus),
                share(zero),
                share(plus),
            );
        }
        text += &numbers(self);
        if let Some(activations) = self.activations {
            text += &format!("activations: {activations}\n");
        }
        if self.scale_rounding > 0.0 {
            text += &format!("scales: rounded by up to {:.1e}\n", self.scale_rounding);
        }
        for table in &self.tables {
            text += &format!(
                "{}: {} from {}, {}\n",
                table.name,
                table.dtype,
                table.source_dtype,
                error(table.mean_error, table.max_error)
            );
        }
        text + &format!("sha256 {}\n", self.sha256)
    }
}

impl Comparison {
    /// The comparison in words: the counts, and each tensor that differs.
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{} weights, {} differ; {} scales, {} differ; {} other values, {} differ\n\
             {}",
            self.weights,
            self.differ,
            self.scales,
            self.scales_differ,
            self.values,
            self.values_differ,
            trits(self),
        );
        for m in self
            .matrices
            .iter()
            .filter(|m| m.differ > 0 || m.scales[0] != m.scales[1])
        {
            text += &format!(
                "{}: {} trits differ, scales {} and {}\n",
                m.name, m.differ, m.scales[0], m.scales[1]
            );
        }
        let dense = self.dense.iter().filter(|t| t.differ > 0);
        for t in dense.chain(&self.tables) {
            let [a, b] = t.dtypes;
            text += &match t.differ {
                0 if a == b => format!("{}: {a}, equal\n", t.name),
                0 => format!(
                    "{}: {a} and {b}, equal except for the rounding of one type, largest {:.1e}\n",
                    t.name, t.max_error
                ),
                n => format!(
                    "{}: {a} and {b}, {n} values differ, largest {:.1e}\n",
                    t.name, t.max_error
                ),
            };
        }
        let [a, b] = self.activations;
        if a != b {
            text += &format!(
                "activations: {a} and {b}; this is how the models are run, not a part of them\n"
            );
        }
        for key in &self.config_differs {
            text += &format!("config: {key} differs\n");
        }
        text
    }
}

/// Linear layers of a baseline, one line per type.
fn numbers(report: &ConversionReport) -> String {
    let mut types: Vec<(&str, &str)> = Vec::new();
    for matrix in &report.dense {
        let of = (matrix.dtype, matrix.source_dtype);
        if !types.contains(&of) {
            types.push(of);
        }
    }
    let line = |(dtype, source_dtype): (&str, &str)| {
        let is_it = |m: &&TableReport| (m.dtype, m.source_dtype) == (dtype, source_dtype);
        let own: Vec<&TableReport> = report.dense.iter().filter(is_it).collect();
        let mean = own.iter().map(|m| m.mean_error).sum::<f64>() / own.len() as f64;
        let largest = own.iter().fold(0f32, |e, m| e.max(m.max_error));
        format!(
            "{} linear layers: {dtype} from {source_dtype}, {}\n",
            own.len(),
            error(mean, largest)
        )
    };
    types.into_iter().map(line).collect()
}

fn error(mean: f64, largest: f32) -> String {
    match largest {
        0.0 => "exact".to_owned(),
        largest => format!("mean error {mean:.1e}, largest {largest:.1e}"),
    }
}

/// The linear layers, in one line.
fn trits(found: &Comparison) -> String {
    let sum = |f: fn(&MatrixComparison) -> u64| -> u64 { found.matrices.iter().map(f).sum() };
    if let Some(first) = found.dense.first() {
        let [a, b] = first.dtypes;
        let largest = found.dense.iter().fold(0f32, |e, m| e.max(m.max_error));
        let count = found.dense.len();
        return format!(
            "{count} linear layers: numbers, the first {a} and {b}, \
             largest difference {largest:.1e}\n"
        );
    }
    format!(
        "trits: {} of -1, {} of 0, {} of +1\n",
        sum(|m| m.minus),
        sum(|m| m.zero),
        sum(|m| m.plus)
    )
}

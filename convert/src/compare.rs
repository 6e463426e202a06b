//! Compares two sources trit by trit: the proof after every conversion, and `sterna verify`.
//!
//! Both are read through [`Source`], so any two formats can be compared. Trits and scales must be
//! equal. Tables may have different types; then one must equal the other after rounding to its
//! type. The same holds for linear layers if one source is a baseline without trits: then values
//! are compared, and a ternary model is represented by its products trit × scale.

use serde::Serialize;
use sterna_ternary::Config;
use sterna_ternary::layout::{self, Role, Weight};

use crate::progress::ProgressCounter;
use crate::value_type::is_same;
use crate::{Error, Result, Scales, Source, ValueType, parallel};

/// The numbers of compared and of different values.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Weights of linear layers.
    pub weights: u64,
    /// Weights that differ.
    pub differ: u64,
    /// Scales, compared bit for bit.
    pub scales: u64,
    /// Scales that differ.
    pub scales_differ: u64,
    /// Values of norms and tables.
    pub values: u64,
    /// Values that differ by more than the rounding of a type.
    pub values_differ: u64,
    /// Rounding of activations in each source, int8 or int16. It concerns execution, so it does not
    /// count as a difference between the models.
    pub activations: [&'static str; 2],
    /// Constants of the config that differ.
    pub config_differs: Vec<&'static str>,
    /// The first tensor that differs.
    pub first: Option<String>,
    /// Every ternary linear layer.
    pub matrices: Vec<MatrixComparison>,
    /// Every dense linear layer.
    pub dense: Vec<TableComparison>,
    /// Embedding and head.
    pub tables: Vec<TableComparison>,
}

/// A linear layer of two sources. The counts of -1, 0 and +1 are those of the first source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixComparison {
    /// Hugging Face name.
    pub name: String,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// Trits that differ.
    pub differ: u64,
    /// Weights that are -1.
    pub minus: u64,
    /// Weights that are 0.
    pub zero: u64,
    /// Weights that are +1.
    pub plus: u64,
    /// The scales of both sources; the mean where there are several.
    pub scales: [f32; 2],
}

/// A table of two sources, or a dense linear layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableComparison {
    /// Hugging Face name.
    pub name: String,
    /// Types in both sources.
    pub dtypes: [&'static str; 2],
    /// Values that differ by more than the rounding of a type.
    pub differ: u64,
    /// Largest difference.
    pub max_error: f32,
}

/// The criterion of equality.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// Type to which scales of the first source are rounded before the comparison.
    pub scales: ValueType,
    /// Whether the second source was made from the first. Then only the types of the second may
    /// round.
    pub is_made: bool,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.differ + self.scales_differ + self.values_differ == 0 && self.config_differs.is_empty()
    }

    fn note(&mut self, name: &str, differ: u64) {
        if differ > 0 && self.first.is_none() {
            self.first = Some(name.to_owned());
        }
    }
}

/// Compares two sources of the same shape.
///
/// # Errors
/// [`Error::Shapes`] if the shapes differ.
pub(crate) fn compare(
    a: &dyn Source,
    b: &dyn Source,
    rule: Rule,
    progress: &mut ProgressCounter,
) -> Result<Comparison> {
    let weights = layout::weights(a.config());
    let mut found = Comparison {
        config_differs: compare_configs(a, b, &weights)?,
        activations: [a, b].map(|source| source.inputs_rounded_to()),
        ..Comparison::default()
    };
    for weight in &weights {
        match weight.role {
            Role::Linear if a.is_dense() || b.is_dense() => {
                compare_dense(a, b, weight, rule, &mut found)?;
            }
            Role::Linear => compare_matrix(a, b, weight, rule, &mut found)?,
            Role::Norm | Role::Table => compare_values(a, b, weight, rule, &mut found)?,
        }
        progress.add(weight.rows * weight.columns);
    }
    Ok(found)
}

fn compare_configs(
    a: &dyn Source,
    b: &dyn Source,
    weights: &[Weight],
) -> Result<Vec<&'static str>> {
    let shapes = |config: &Config| (config.family.architecture, config.num_hidden_layers);
    let (x, y) = (a.config(), b.config());
    let is_same_shape = shapes(x) == shapes(y) && layout::weights(y) == weights;
    if !is_same_shape {
        let describe = |c: &Config| {
            format!(
                "{} of {} layers, {} × {}, vocabulary {}",
                c.family.architecture,
                c.num_hidden_layers,
                c.hidden_size,
                c.intermediate_size,
                c.vocab_size
            )
        };
        return Err(Error::Shapes {
            path: b.path().to_owned(),
            expected: describe(x),
            found: describe(y),
        });
    }
    let same_theta = x.rope.theta as f32 == y.rope.theta as f32; // some formats hold it in f32
    let checks = [
        (
            "num_attention_heads",
            x.num_attention_heads == y.num_attention_heads,
        ),
        (
            "num_key_value_heads",
            x.num_key_value_heads == y.num_key_value_heads,
        ),
        ("rms_norm_eps", x.rms_norm_eps == y.rms_norm_eps),
        ("rope_theta", same_theta),
        ("rope_scaling", x.rope.scaling == y.rope.scaling),
        ("sliding_window", same_windows(x, y)),
        (
            "query_pre_attn_scalar",
            x.query_pre_attn_scalar == y.query_pre_attn_scalar,
        ),
        (
            "torch_dtype",
            x.embedding_multiplier == y.embedding_multiplier,
        ),
        ("use_rms_norm", x.linear_norm_eps == y.linear_norm_eps),
    ];
    Ok(checks.into_iter().filter(|c| !c.1).map(|c| c.0).collect())
}

fn same_windows(x: &Config, y: &Config) -> bool {
    let all = 0..x.num_hidden_layers;
    let theta = |c: &Config| c.sliding.as_ref().map(|s| s.rope.theta as f32);
    theta(x) == theta(y) && all.into_iter().all(|i| x.window(i) == y.window(i))
}

fn compare_matrix(
    a: &dyn Source,
    b: &dyn Source,
    weight: &Weight,
    rule: Rule,
    found: &mut Comparison,
) -> Result<()> {
    let (x, y) = (a.linear(weight)?, b.linear(weight)?);
    let mut rows = vec![[0u64; 4]; weight.rows];
    parallel::rows(x.trits.len(), &mut rows, 1, |first, rows| {
        let columns = weight.columns;
        let start = first * columns;
        let pairs = x.trits[start..]
            .chunks_exact(columns)
            .zip(y.trits[start..].chunks_exact(columns));
        for (counts, (x, y)) in rows.iter_mut().zip(pairs) {
            for (x, y) in x.iter().zip(y) {
                counts[(x + 1) as usize] += 1;
                counts[3] += u64::from(x != y);
            }
        }
        Ok(())
    })?;
    let sum = |i: usize| rows.iter().map(|counts| counts[i]).sum::<u64>();
    let scale_differs = compare_scales(&x.scales, &y.scales, rule.scales);
    found.weights += x.trits.len() as u64;
    found.differ += sum(3);
    found.scales += x.scales.values.len() as u64;
    found.scales_differ += scale_differs;
    found.note(&weight.name, sum(3) + scale_differs);
    found.matrices.push(MatrixComparison {
        name: weight.name.clone(),
        rows: weight.rows,
        columns: weight.columns,
        differ: sum(3),
        minus: sum(0),
        zero: sum(1),
        plus: sum(2),
        scales: [x.scales.mean(), y.scales.mean()],
    });
    Ok(())
}

/// Number of scales that differ after the scales of `a` are rounded to `precision`. If the scalings
/// differ, all scales differ.
fn compare_scales(a: &Scales, b: &Scales, precision: ValueType) -> u64 {
    if a.scaling != b.scaling {
        return a.values.len() as u64;
    }
    let mut expected = a.values.clone();
    precision.round(&mut expected);
    let pairs = expected.iter().zip(&b.values);
    pairs.filter(|(a, b)| !is_same(**a, **b)).count() as u64
}

/// Number of values read at once: a few MiB.
const CHUNK: usize = 1 << 20;

fn compare_values(
    a: &dyn Source,
    b: &dyn Source,
    weight: &Weight,
    rule: Rule,
    found: &mut Comparison,
) -> Result<()> {
    let columns = weight.columns;
    let precisions = [a, b].map(|source| source.precision(weight));
    let has_low_plane = |precision| match precision {
        ValueType::Coded(table) => table.has_low_plane(),
        _ => false,
    };
    let is_encoded =
        rule.is_made && (precisions[0] != precisions[1] || has_low_plane(precisions[1]));
    let step = (CHUNK / columns).max(1).min(weight.rows);
    let (mut x, mut y) = (vec![0.0; step * columns], vec![0.0; step * columns]);
    let (mut differ, mut max_error) = (0, 0f32);
    for first in (0..weight.rows).step_by(step) {
        let len = step.min(weight.rows - first) * columns;
        a.rows(weight, first, &mut x[..len])?;
        let coded = is_encoded.then(|| b.coded_differently(weight, first, &x[..len]));
        if let Some(n) = coded.flatten() {
            differ += n;
            continue;
        }
        b.rows(weight, first, &mut y[..len])?;
        let (n, error) = compare_rows(&x[..len], &y[..len], columns, precisions, rule.is_made)?;
        differ += n;
        max_error = max_error.max(error);
    }
    found.values += (weight.rows * columns) as u64;
    found.values_differ += differ;
    found.note(&weight.name, differ);
    if weight.role == Role::Table {
        found.tables.push(TableComparison {
            name: weight.name.clone(),
            dtypes: precisions.map(ValueType::name),
            differ,
            max_error,
        });
    }
    Ok(())
}

/// Compares a linear layer when at least one source has only numbers.
fn compare_dense(
    a: &dyn Source,
    b: &dyn Source,
    weight: &Weight,
    rule: Rule,
    found: &mut Comparison,
) -> Result<()> {
    let precisions = [a, b].map(|source| source.precision(weight));
    let (x, y) = (a.dense(weight)?, b.dense(weight)?);
    let (mut differ, max_error) = compare_rows(&x, &y, weight.columns, precisions, rule.is_made)?;
    if rule.is_made {
        differ = b.coded_differently(weight, 0, &x).unwrap_or(differ);
    }
    found.weights += x.len() as u64;
    found.differ += differ;
    found.note(&weight.name, differ);
    found.dense.push(TableComparison {
        name: weight.name.clone(),
        dtypes: precisions.map(ValueType::name),
        differ,
        max_error,
    });
    Ok(())
}

/// Compares whole rows: returns the number of values that differ and the largest difference.
fn compare_rows(
    x: &[f32],
    y: &[f32],
    columns: usize,
    precisions: [ValueType; 2],
    is_made: bool,
) -> Result<(u64, f32)> {
    let mut rows = vec![(0u64, 0f32); x.len() / columns];
    parallel::rows(x.len(), &mut rows, 1, |first, rows| {
        for (i, row) in (first..).zip(rows) {
            let part = i * columns..(i + 1) * columns;
            *row = compare_row(&x[part.clone()], &y[part], precisions, is_made);
        }
        Ok(())
    })?;
    let differ = rows.iter().map(|row| row.0).sum();
    let max_error = rows.iter().fold(0f32, |m, row| m.max(row.1));
    Ok((differ, max_error))
}

/// Compares one row: returns the number of values that differ and the largest difference.
fn compare_row(a: &[f32], b: &[f32], precisions: [ValueType; 2], is_made: bool) -> (u64, f32) {
    let error = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    let different = |from: &[f32], to: &[f32], precision: ValueType| {
        let mut rounded = from.to_vec();
        let is_known = precision.round(&mut rounded);
        let differ = rounded.iter().zip(to).filter(|(a, b)| !is_same(**a, **b));
        is_known.then(|| differ.count() as u64)
    };
    let is_copied = precisions[0] == precisions[1] && (!is_made || precisions[1].is_copied());
    if is_copied {
        return (different(a, b, ValueType::F32).unwrap_or(0), error);
    }
    let forth = different(a, b, precisions[1]);
    let back = || different(b, a, precisions[0]);
    let plain = || different(a, b, ValueType::F32);
    let fewest = match forth {
        Some(0) => Some(0),
        forth if is_made => forth,
        forth => [forth, back(), plain()].into_iter().flatten().min(),
    };
    (fewest.unwrap_or(a.len() as u64), error)
}

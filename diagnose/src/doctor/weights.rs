//! Checks that look at tensors and config without running the model.

use sterna_convert::StoredScale;
use sterna_ternary::layout::{self, EMBEDDING, HEAD, Role, Weight};

use super::both_ways;
use super::finding::Finding;
use super::patient::{Origin, Patient};
use super::trials::Trials;
use crate::Result;
use crate::trits::{self, TritCounts};

/// The number of rows that are read from a table or from master weights.
const SAMPLE: usize = 64;
/// A larger share of zero rows in one layer is suspect.
const MANY_ZERO_ROWS: f64 = 0.02;

/// How the checkpoint says that its layers are ternary. Readers refuse a checkpoint that does not
/// say it.
pub fn declaration(patient: &Patient) -> Result<Finding> {
    let stored = match patient.origin {
        Origin::Packed if patient.source.is_dense() => {
            let why = "a baseline, packed by Sterna: its layers are numbers";
            return Ok(Finding::ok(why));
        }
        Origin::Packed => return Ok(Finding::ok("packed by Sterna")),
        Origin::Gguf { .. } => return Ok(Finding::ok("GGUF with ternary tensors")),
        Origin::Folder => first_linear(patient)?,
    };
    Ok(Finding::ok(match stored {
        Some(StoredScale::Masters) => "master weights, ternarized with absmean",
        Some(StoredScale::Multiply(_)) => "packed, scales to multiply by",
        Some(StoredScale::Divide(_)) => "packed, scales to divide by",
        Some(StoredScale::Products(_)) => "products of trits and scales",
        None => "no layer is ternary",
    }))
}

/// Finds NaN and infinities, which readers refuse, and norms or tables of zeros.
pub fn values(patient: &Patient) -> Result<Finding> {
    let mut read = 0;
    for weight in layout::weights(patient.source.config()) {
        let (kind, values) = match weight.role {
            // Packing the model has read all ternary layers.
            Role::Linear if !patient.source.is_dense() => continue,
            Role::Linear => ("layer", patient.source.dense(&weight)),
            Role::Norm => ("norm", patient.source.vector(&weight)),
            Role::Table => ("table", sample(patient, &weight)),
        };
        let values = match values {
            Ok(values) => values,
            Err(error) => return Ok(Finding::broken(error.to_string())),
        };
        if values.iter().all(|x| *x == 0.0) {
            let why = format!(
                "{}: every value of this {kind} that was read is zero",
                weight.name
            );
            return Ok(Finding::broken(why));
        }
        read += 1;
    }
    Ok(match &patient.body {
        Ok(_) => {
            let what = match patient.source.is_dense() {
                true => "layers, norms and tables",
                false => "norms and tables",
            };
            Finding::ok(format!("finite; {read} {what} are not zero"))
        }
        Err(why) => Finding::not_applicable(why),
    })
}

/// Rows spread over a table.
fn sample(patient: &Patient, weight: &Weight) -> sterna_convert::Result<Vec<f32>> {
    let rows = weight.rows.min(SAMPLE);
    let mut values = vec![0.0; rows * weight.columns];
    for (i, row) in values.chunks_exact_mut(weight.columns).enumerate() {
        patient.source.rows(weight, i * weight.rows / rows, row)?;
    }
    Ok(values)
}

/// Finds layers and rows in which every trit is zero.
pub fn zeros(patient: &Patient) -> Result<Finding> {
    let counts = match &patient.body {
        Ok(_) if patient.source.is_dense() => return rows_of_zeros(patient),
        Ok(body) => &body.counts,
        Err(why) => return Ok(Finding::not_applicable(why)),
    };
    let empty: Vec<&TritCounts> = counts.iter().filter(|c| c.zero == c.all()).collect();
    if let Some(first) = empty.first() {
        let name = &first.weight.name;
        let why = match empty.len() {
            1 => format!("every weight of {name} is zero"),
            n => format!("every weight of {n} layers is zero, the first of them {name}"),
        };
        return Ok(Finding::broken(why));
    }
    let share = |c: &TritCounts| c.zero_rows as f64 / c.weight.rows as f64;
    let worst = counts.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
    let zeros = counts.iter().map(|c| c.zero).sum::<u64>() as f64;
    let all = counts.iter().map(TritCounts::all).sum::<u64>() as f64;
    let shown = format!("{:.1} % of the trits are zero", 100.0 * zeros / all);
    Ok(
        match worst.filter(|c| c.zero_rows > 1 && share(c) > MANY_ZERO_ROWS) {
            Some(c) => Finding::suspect(format!(
                "{} of {} rows of {} are zero; {shown}",
                c.zero_rows, c.weight.rows, c.weight.name
            )),
            None => Finding::ok(shown),
        },
    )
}

/// Finds rows of a baseline in which every number is zero. [`values`] finds layers of zeros.
fn rows_of_zeros(patient: &Patient) -> Result<Finding> {
    let mut zeros = (0, 0); // of all numbers
    let mut worst: Option<(f64, String)> = None;
    for weight in trits::linear(patient.source.config()) {
        let values = patient.source.dense(&weight)?;
        zeros.0 += values.iter().filter(|x| **x == 0.0).count();
        zeros.1 += values.len();
        let rows = values.chunks_exact(weight.columns);
        let empty = rows.filter(|row| row.iter().all(|x| *x == 0.0)).count();
        let share = empty as f64 / weight.rows as f64;
        if empty > 1 && share > worst.as_ref().map_or(MANY_ZERO_ROWS, |(worst, _)| *worst) {
            let why = format!(
                "{empty} of {} rows of {} are zero",
                weight.rows, weight.name
            );
            worst = Some((share, why));
        }
    }
    let shown = format!(
        "{:.1} % of the numbers are zero",
        100.0 * zeros.0 as f64 / zeros.1 as f64
    );
    Ok(match worst {
        Some((_, why)) => Finding::suspect(format!("{why}; {shown}")),
        None => Finding::ok(shown),
    })
}

/// Finds master weights that are ternary already, and scales that a second absmean made smaller.
pub fn double_quantization(patient: &Patient, trials: &Trials) -> Result<Finding> {
    if let (Origin::Folder, Some(StoredScale::Masters)) = (&patient.origin, first_linear(patient)?)
    {
        for weight in trits::linear(patient.source.config()) {
            if let Some(magnitude) = only_magnitude(&sample(patient, &weight)?) {
                return Ok(Finding::broken(format!(
                    "{}: the master weights are -s, 0 and +s already, s = {magnitude}; absmean \
                     makes the scale too small, s times the share of non-zeros. Remove \
                     `quantization_config`, so that they are read as products of trits and scales",
                    weight.name
                )));
            }
        }
    }
    both_ways::larger_scales(patient, trials)
}

/// The magnitude that all non-zero values share, if there is exactly one and there are zeros.
fn only_magnitude(values: &[f32]) -> Option<f32> {
    let magnitude = values.iter().fold(0f32, |m, x| m.max(x.abs()));
    // Exporters that multiply in bf16 are off by a step of it.
    let is_same = |x: &f32| *x == 0.0 || (x.abs() / magnitude - 1.0).abs() < 1.0 / 128.0;
    (values.contains(&0.0) && magnitude > 0.0 && values.iter().all(is_same)).then_some(magnitude)
}

/// Finds an untied head that equals the embedding. Readers refuse a tie flag that contradicts the
/// tensors.
pub fn tied_head(patient: &Patient) -> Result<Finding> {
    let config = patient.source.config();
    if config.tie_word_embeddings {
        return Ok(Finding::ok("the head is the embedding"));
    }
    let weights = layout::weights(config);
    let table = |name: &str| {
        let weight = weights.iter().find(|w| w.name == name);
        weight.map(|w| sample(patient, w)).transpose()
    };
    Ok(match table(HEAD)? == table(EMBEDDING)? {
        true => Finding::suspect(
            "the head repeats the embedding: either it should be tied, or the exporter lost the \
             head",
        ),
        false => Finding::ok("the head is a separate table"),
    })
}

/// Finds sub-norms that do nothing. Readers refuse a checkpoint with too few or too many of them.
pub fn sub_norms(patient: &Patient) -> Result<Finding> {
    let config = patient.source.config();
    let family = config.family;
    let norms: Vec<&str> = [family.attn_sub_norm, family.ffn_sub_norm]
        .into_iter()
        .flatten()
        .collect();
    if norms.is_empty() {
        let why = format!(
            "family {} has none, and the checkpoint has none",
            family.name
        );
        return Ok(Finding::ok(why));
    }
    let mut all_ones = true;
    for weight in layout::weights(config) {
        if norms.iter().any(|norm| weight.name.contains(norm)) {
            all_ones &= patient.source.vector(&weight)?.iter().all(|x| *x == 1.0);
        }
    }
    Ok(match all_ones {
        true => Finding::suspect(format!(
            "{} are there, but all their values are 1: they were never trained, or an exporter \
             invented them",
            norms.join(" and ")
        )),
        false => Finding::ok(format!("{} are present", norms.join(" and "))),
    })
}

/// Finds a GGUF file without the base of the rotary positions. Readers refuse a folder without it.
pub fn rope_theta(patient: &Patient) -> Result<Finding> {
    let theta = patient.source.config().rope.theta;
    Ok(match &patient.origin {
        Origin::Gguf {
            has_rope_theta: false,
            architecture,
            ..
        } => Finding::suspect(format!(
            "there is no {architecture}.rope.freq_base; Sterna assumes {theta}, as other programs \
             do"
        )),
        _ => Finding::ok(theta.to_string()),
    })
}

fn first_linear(patient: &Patient) -> Result<Option<StoredScale>> {
    let first = trits::linear(patient.source.config()).into_iter().next();
    Ok(match first.filter(|_| !patient.source.is_dense()) {
        Some(weight) => Some(patient.source.linear(&weight)?.stored),
        None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::only_magnitude;

    #[test]
    fn ternary_masters_have_one_magnitude() {
        assert_eq!(only_magnitude(&[0.5, 0.0, -0.5, 0.0]), Some(0.5));
        assert_eq!(only_magnitude(&[0.5, 0.0, -0.499, 0.5]), Some(0.5));
        assert_eq!(only_magnitude(&[0.5, 0.0, -0.25]), None);
        assert_eq!(only_magnitude(&[0.5, -0.5]), None);
        assert_eq!(only_magnitude(&[0.0, 0.0]), None);
    }
}

//! Writer of the packed file: plans the tables, writes tensor by tensor, proves the result, and
//! only then gives it its name.

use std::collections::HashMap;

use sterna_ternary::file::Description;
use sterna_ternary::layout::{self, EMBEDDING, Role, Weight};
use sterna_ternary::{
    Activations, Dense, Dtype, LinearType, Output, PackedWriter, Packing, Scaling, TableType,
};

use crate::progress::{ProgressCounter, total};
use crate::proof::{self, proven};
use crate::write::table::{self, Choice, Encoded, TablePlan};
use crate::write::{dense, ternary_table};
use crate::{
    ConversionReport, Error, HeadType, MatrixReport, Packed, PackedOptions, Result, Source,
    Ternary, ValueType, parallel,
};

/// Number of bytes packed at once.
const CHUNK: usize = 1 << 22;

pub(crate) fn write(
    source: &dyn Source,
    out: &Output,
    options: &PackedOptions,
    show: &mut dyn FnMut(u64, u64),
) -> Result<ConversionReport> {
    let weights = layout::weights(source.config());
    let mut progress = ProgressCounter::new(total(&weights), show);
    // Reads the tables once to choose their types: the header, which comes first, needs them.
    let tables = weights.iter().filter(|w| w.role == Role::Table);
    let plans = tables
        .map(|w| {
            let is_separate = w.name == EMBEDDING && !source.config().tie_word_embeddings;
            let mut advance = |n| progress.add(n);
            let head = options.head;
            let may_be_ternary = options.packing.ternary().is_some() || head == HeadType::Ternary;
            if may_be_ternary {
                let plan = ternary_table::plan(source, w, head, is_separate, &mut advance)?;
                if let Some(plan) = plan {
                    return Ok(plan);
                }
            }
            let choice = match (head, source.precision(w)) {
                (HeadType::Auto, held @ ValueType::Coded(table))
                    if [TableType::Q8, TableType::Q6, TableType::Q4].contains(&table) =>
                {
                    Choice::As(held)
                }
                // Linear layers that are not rounded have a head that is not rounded.
                (HeadType::Auto, _) if options.packing == Dense::F16.into() => Choice::Lossless,
                _ => head.choice(is_separate),
            };
            let plan = table::plan(source, w, choice, &mut advance)?;
            match choice == Choice::Lossless && !is_separate {
                true => table::in_planes(source, w, plan),
                false => Ok(plan),
            }
        })
        .collect::<Result<Vec<TablePlan>>>()?;
    // Reads the linear layers once, for the number of scales or the types of numbers.
    let (mut scaling, mut dense_plans) = (HashMap::new(), Vec::new());
    match options.packing {
        LinearType::Ternary(packing) => {
            scaling = plan_scales(source, &weights, packing, &mut progress)?;
        }
        LinearType::Dense(packing) => {
            dense_plans = dense::plan(source, &weights, packing, &mut progress)?;
        }
    }
    let group_scales = group_scales(source, &weights, &scaling, &plans)?;
    let description = Description {
        config: source.config().clone(),
        packing: options.packing,
        activations: options.activations.unwrap_or(source.activations()),
        embedding: table_type(plans.first().expect("every model has an embedding")),
        head: table_type(plans.last().expect("every model has an embedding")),
        exceptions: [
            0,
            plans
                .last()
                .expect("every model has an embedding")
                .exceptions,
        ],
        scaling,
        numbers: dense_plans.iter().filter_map(number).collect(),
        group_scales,
        files: source.files().to_vec(),
    };

    // Writes a temporary file, reads it back, and compares it with the source. `proven` gives it
    // its name only if both succeed.
    let ((proof, matrices), bytes_out, sha256) = proven(out, |unproven| {
        let mut matrices = Vec::new();
        PackedWriter::fill(unproven, &description, |writer| {
            for weight in &weights {
                let dense_plan = dense_plans.iter().find(|p| p.name == weight.name);
                if let Some(plan) = dense_plan {
                    dense::write(writer, source, weight, plan.precision)?;
                } else {
                    let packing = options.packing.ternary();
                    matrices.extend(write_tensor(writer, source, weight, packing, &plans)?);
                }
                progress.add(weight.rows * weight.columns);
            }
            Ok::<_, Error>(())
        })?;
        let packed = Packed::open(unproven, true)?;
        let proof = proof::prove(
            source,
            &packed,
            source.files(),
            out.path(),
            ValueType::F32,
            &mut progress,
        )?;
        Ok((proof, matrices))
    })?;
    // The plans and the proof become the report, with warnings about known losses.
    let mut report =
        ConversionReport::new(options.packing.name(), source, &proof, &plans, matrices);
    report.dense = dense_plans.iter().map(TablePlan::report).collect();
    report.activations = Some(match options.packing {
        LinearType::Ternary(_) => description.activations.name(),
        LinearType::Dense(packing) => packing.activations(),
    });
    if options.packing.ternary().is_some() {
        let trained = source.activations();
        let found = warnings(&report.matrices, trained, description.activations);
        report.warnings.extend(found);
    } else if source.has_masters() {
        report.warnings.push(MASTERS.into());
    }
    report.bytes_out = bytes_out;
    report.sha256 = sha256;
    Ok(report)
}

const MASTERS: &str = "\
    the numbers are master weights, but the model was trained with their trits: the trained model \
    is the products of trits and scales; convert with --packing i2 first, and the result with \
    --packing f16";

/// The type of the numbers of a matrix, if it is not F16.
fn number(plan: &TablePlan) -> Option<(String, Dtype)> {
    match plan.precision {
        ValueType::F32 => Some((plan.name.clone(), Dtype::F32)),
        ValueType::Bf16 => Some((plan.name.clone(), Dtype::Bf16)),
        _ => None,
    }
}

/// Determines which weights of every linear layer share a scale.
fn plan_scales(
    source: &dyn Source,
    weights: &[Weight],
    packing: Packing,
    progress: &mut ProgressCounter,
) -> Result<HashMap<String, Scaling>> {
    let mut found = HashMap::new();
    for weight in weights.iter().filter(|w| w.role == Role::Linear) {
        let scaling = source.scaling(weight)?;
        if !scaling.fits(packing) {
            return Err(Error::Packed(sterna_ternary::Error::Scaling {
                path: source.path().to_owned(),
                tensor: weight.name.clone(),
                packing: packing.name(),
            }));
        }
        found.insert(weight.name.clone(), scaling);
        progress.add(weight.rows * weight.columns);
    }
    Ok(found)
}

/// The type of the group scales: F16 if there are any and F16 represents them all exactly.
fn group_scales(
    source: &dyn Source,
    weights: &[Weight],
    scaling: &HashMap<String, Scaling>,
    plans: &[TablePlan],
) -> Result<Dtype> {
    let is_ternary = |plan: &TablePlan| table_type(plan) == TableType::Ternary;
    let mut any = plans.iter().any(is_ternary);
    if plans.iter().any(|plan| plan.has_wide_scales) {
        return Ok(Dtype::F32);
    }
    for weight in weights {
        if scaling.get(&weight.name) == Some(&Scaling::Group) {
            any = true;
            if !source.has_f16_scales(weight)? {
                return Ok(Dtype::F32);
            }
        }
    }
    Ok(if any { Dtype::F16 } else { Dtype::F32 })
}

/// Warnings if the result differs from the trained model.
fn warnings(
    matrices: &[MatrixReport],
    trained: Activations,
    activations: Activations,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if trained == Activations::Int16 && activations == Activations::Int8 {
        warnings.push(
            "the model was trained without quantized activations; with --activations int8 the \
             runtime will round them to int8, with one scale per token"
                .into(),
        );
    }
    let rounded: u64 = matrices.iter().map(|m| m.rounded).sum();
    if rounded > 0 {
        warnings.push(format!(
            "{rounded} weights were one step of f16 smaller than others of their group and were \
             set to the larger value"
        ));
    }
    warnings
}

fn table_type(plan: &TablePlan) -> TableType {
    let table = plan.precision.table();
    table.expect("a packed file is planned in its own types")
}

fn write_tensor(
    writer: &mut PackedWriter,
    source: &dyn Source,
    weight: &Weight,
    packing: Option<Packing>,
    plans: &[TablePlan],
) -> Result<Option<MatrixReport>> {
    let name = &weight.name;
    match weight.role {
        Role::Norm => writer.vector(name, &source.vector(weight)?)?,
        Role::Table => {
            let plan = plans.iter().find(|p| p.name == *name);
            let plan = plan.expect("every table has a plan");
            let is_copied = source.precision(weight) == plan.precision;
            table::for_each_chunk(source, weight, |first, values| {
                let count = values.len() / weight.columns;
                let copied = is_copied.then(|| source.coded_rows(weight, first, count));
                match copied.flatten() {
                    Some(rows) => Encoded::Rows(rows).write(writer, name),
                    None => {
                        table::encode(plan.precision, values, weight.columns)?.write(writer, name)
                    }
                }
            })?;
        }
        Role::Linear => {
            let ternary = source.linear(weight)?;
            let packing = packing.expect("dense layers have plans of their own");
            write_matrix(writer, weight, packing, &ternary)?;
            writer.vector(&layout::scale_name(name), &ternary.scales.values)?;
            return Ok(Some(MatrixReport::new(weight, &ternary)));
        }
    }
    Ok(None)
}

fn write_matrix(
    writer: &mut PackedWriter,
    weight: &Weight,
    packing: Packing,
    ternary: &Ternary,
) -> Result<()> {
    let (columns, row_bytes) = (weight.columns, packing.row_bytes(weight.columns));
    let step = (CHUNK / row_bytes).max(1);
    let mut bytes = vec![0; step.min(weight.rows) * row_bytes];
    for trits in ternary.trits.chunks(step * columns) {
        let bytes = &mut bytes[..trits.len() / columns * row_bytes];
        parallel::rows(trits.len(), bytes, row_bytes, |first, bytes| {
            let trits = trits[first * columns..].chunks_exact(columns);
            for (bytes, trits) in bytes.chunks_exact_mut(row_bytes).zip(trits) {
                packing.pack_row(trits, bytes);
            }
            Ok(())
        })?;
        writer.rows(&weight.name, bytes)?;
    }
    Ok(())
}

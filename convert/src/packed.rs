//! Writer of the packed file: plan the tables, write tensor by tensor, prove, and only then give it its name.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};
use sterna_ternary::file::Description;
use sterna_ternary::layout::{self, EMBEDDING, Role, Weight};
use sterna_ternary::{PackedFile, PackedWriter, Packing, durable};

use crate::table::{self, Plan};
use crate::{Error, MatrixReport, Options, Report, Result, Source, Ternary, parallel, proof};

/// Bytes that are packed at once.
const CHUNK: usize = 1 << 22;

/// Counts weights, for the caller's progress bar.
pub(crate) struct Progress<'a> {
    done: u64,
    total: u64,
    show: &'a mut dyn FnMut(u64, u64),
}

impl Progress<'_> {
    pub fn add(&mut self, weights: usize) {
        self.done += weights as u64;
        (self.show)(self.done, self.total);
    }
}

pub(crate) fn write(
    source: &dyn Source,
    out: &Path,
    options: &Options,
    show: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    let weights = layout::weights(source.config());
    let mut progress = Progress {
        done: 0,
        total: total(&weights),
        show,
    };
    let tables = weights.iter().filter(|w| w.role == Role::Table);
    let plans = tables
        .map(|w| table::plan(source, w, options.head, &mut |n| progress.add(n)))
        .collect::<Result<Vec<Plan>>>()?;
    let description = describe(source, options.packing, &plans);

    // The temporary name lies beside the final one and vanishes with `unproven`, whatever happens.
    let folder = durable::folder_of(out);
    let mut prefix = OsString::from(".");
    prefix.push(out.file_name().unwrap_or_default());
    let unproven = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".unproven")
        .tempfile_in(folder)
        .map_err(Error::io(out))?
        .into_temp_path();
    let mut matrices = Vec::new();
    PackedWriter::write(&unproven, &description, |writer| {
        for weight in &weights {
            matrices.extend(write_tensor(
                writer,
                source,
                weight,
                options.packing,
                &plans,
            )?);
            progress.add(weight.rows * weight.columns);
        }
        Ok::<_, Error>(())
    })?;
    let packed = PackedFile::open(&unproven)?;
    let proof = proof::prove(source, &packed, out, &plans, &mut progress)?;
    let bytes_out = packed.len() as u64;
    drop(packed);
    let sha256 = sha256(&unproven)?;
    unproven.persist(out).map_err(|e| Error::io(out)(e.error))?;
    durable::sync_folder(folder).map_err(Error::io(folder))?;
    Ok(Report {
        packing: options.packing.name(),
        weights: proof.weights,
        differ: 0,
        scales: proof.scales,
        scales_differ: 0,
        values: proof.values,
        values_differ: 0,
        bytes_in: source.bytes(),
        bytes_out,
        sha256,
        tables: plans.iter().map(Plan::report).collect(),
        matrices,
        warnings: source.warnings().to_vec(),
    })
}

/// Each tensor is written and proved, a table also planned.
fn total(weights: &[Weight]) -> u64 {
    let passes = |role| if role == Role::Table { 3 } else { 2 };
    weights
        .iter()
        .map(|w| passes(w.role) * (w.rows * w.columns) as u64)
        .sum()
}

fn describe(source: &dyn Source, packing: Packing, plans: &[Plan]) -> Description {
    let embedding = plans.iter().find(|p| p.name == EMBEDDING);
    let embedding = embedding.expect("every model has an embedding");
    let head = plans.last().expect("every model has an embedding");
    Description {
        config: source.config().clone(),
        packing,
        embedding: embedding.table,
        head: head.table,
        files: source.files().to_vec(),
    }
}

fn write_tensor(
    writer: &mut PackedWriter,
    source: &dyn Source,
    weight: &Weight,
    packing: Packing,
    plans: &[Plan],
) -> Result<Option<MatrixReport>> {
    let name = &weight.name;
    match weight.role {
        Role::Norm => writer.vector(name, &source.vector(weight)?)?,
        Role::Table => {
            let plan = plans.iter().find(|p| p.name == *name);
            let plan = plan.expect("every table has a plan");
            table::for_each_chunk(source, weight, |_, values| {
                table::encode(plan.table, values, weight.columns)?.write(writer, name)
            })?;
        }
        Role::Linear => {
            let ternary = source.linear(weight)?;
            write_matrix(writer, weight, packing, &ternary)?;
            writer.vector(&layout::scale_name(name), &[ternary.scale])?;
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

fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::io(path))? {
            0 => break,
            n => sum.update(&buffer[..n]),
        }
    }
    Ok(sum.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

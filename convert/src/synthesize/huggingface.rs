//! Writer of a Hugging Face folder with synthetic weights that `transformers` and [`crate::open`]
//! can read.
//!
//! model.safetensors holds tables, norms and scales as BF16, then the trits as U8. Byte (r, c) of a
//! matrix is Σᵢ (trit + 1) · 4ⁱ over the rows r, R + r, 2R + r and 3R + r, where R is a quarter of
//! the rows, rounded up.

use std::io::Write;

use half::bf16;
use serde_json::{Map, Value, json};
use sterna_ternary::layout::{self, Dtype, Role, Weight};
use sterna_ternary::{OutputFolder, durable};

use super::{Count, Synthetic, random};
use crate::read::safetensors;
use crate::write::{stream, table};
use crate::{Error, Result};

pub(super) fn write(model: &Synthetic, out: &OutputFolder, count: &mut Count) -> Result<()> {
    out.make(|folder| {
        let path = folder.join(safetensors::SINGLE);
        let wrap = |e| Error::io(&path)(e);
        durable::write_with(&path, wrap, |file| {
            let mut append = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(&path));
            write_weights(model, &mut append, count)
        })?;
        for (name, bytes) in &model.files {
            let path = folder.join(name);
            durable::write(&path, |file| file.write_all(bytes)).map_err(Error::io(&path))?;
        }
        Ok(())
    })
}

/// Writes the header with all offsets, then the tensors in the same order.
fn write_weights(
    model: &Synthetic,
    append: &mut dyn FnMut(&[u8]) -> Result<()>,
    count: &mut Count,
) -> Result<()> {
    let weights = layout::weights(model.config());
    append(&header(&weights))?;
    for weight in &weights {
        match weight.role {
            Role::Norm => append(&bf16::ONE.to_le_bytes().repeat(weight.columns))?,
            Role::Linear => append(&random::scale(weight.columns).to_le_bytes())?,
            Role::Table => model.for_each_chunk(weight, |values| {
                count.add(values.len());
                append(&table::bf16_bytes(values)?)
            })?,
        }
    }
    for weight in weights.iter().filter(|w| w.role == Role::Linear) {
        write_planes(model, weight, append, count)?;
    }
    Ok(())
}

fn header(weights: &[Weight]) -> Vec<u8> {
    let mut json = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut end = 0;
    let mut push = |name: &str, dtype: Dtype, shape: &[usize]| {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.bytes();
        let entry = json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [start, end] });
        json.insert(name.to_owned(), entry);
    };
    for w in weights {
        match w.role {
            Role::Norm => push(&w.name, Dtype::Bf16, &[w.columns]),
            Role::Linear => push(&layout::scale_name(&w.name), Dtype::Bf16, &[1]),
            Role::Table => push(&w.name, Dtype::Bf16, &[w.rows, w.columns]),
        }
    }
    for w in weights.iter().filter(|w| w.role == Role::Linear) {
        push(&w.name, Dtype::U8, &[w.rows.div_ceil(4), w.columns]);
    }
    let mut text = Value::Object(json).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    header
}

fn write_planes(
    model: &Synthetic,
    weight: &Weight,
    append: &mut dyn FnMut(&[u8]) -> Result<()>,
    count: &mut Count,
) -> Result<()> {
    let (columns, quarter) = (weight.columns, weight.rows.div_ceil(4));
    let fill = |r: usize, bytes: &mut [u8]| {
        let mut trits = vec![0; columns];
        bytes.fill(0);
        for (i, row) in (r..weight.rows).step_by(quarter).enumerate() {
            model.seed.trits(&weight.name, row, &mut trits);
            for (byte, trit) in bytes.iter_mut().zip(&trits) {
                *byte |= ((trit + 1) as u8) << (2 * i);
            }
        }
        Ok(())
    };
    stream::rows(quarter, columns, 4 * columns, fill, |bytes| {
        append(bytes)?;
        count.add(4 * bytes.len());
        Ok(())
    })
}

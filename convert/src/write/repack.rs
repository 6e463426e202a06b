//! Changes the packing of a packed file. Trits, scales, tables and files stay the same.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sterna_ternary::file::{Description, FILES};
use sterna_ternary::layout::{self, Role};
use sterna_ternary::{LinearType, Output, PackedFile, PackedWriter, Packing};

use crate::write::stream;
use crate::{Error, Result};

/// Writes a packed file in all other packings into a folder, and returns the paths.
///
/// # Errors
/// Those of [`repack`], and of opening the file.
pub fn repack_others(path: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let file = PackedFile::open(path)?;
    let others = Packing::ALL.into_iter();
    let others = others.filter(|p| LinearType::Ternary(*p) != file.packing);
    let others = others.map(|packing| {
        let out = folder.join(packing.name());
        repack(&file, packing, &Output::new(&out)?)?;
        Ok(out)
    });
    others.collect()
}

/// Writes the model of `file` to `out` with its trits in `packing`.
///
/// # Errors
/// [`Error::Tensor`] if the file has no trits.
pub fn repack(file: &PackedFile, packing: Packing, out: &Output) -> Result<()> {
    let weights = layout::weights(&file.config);
    let Some(held) = file.packing.ternary() else {
        return Err(Error::Tensor {
            path: file.path().to_owned(),
            tensor: weights
                .iter()
                .find(|w| w.role == Role::Linear)
                .map_or_else(String::new, |w| w.name.clone()),
            expected: "trits, to be packed as ".to_owned() + packing.name(),
            found: format!("numbers, packing {}", file.packing.name()),
            advice: "convert the checkpoint that the file was made from",
        });
    };
    let files = FILES.iter().filter_map(|name| {
        let bytes = file.file(name)?;
        Some((name.to_string(), bytes.to_vec()))
    });
    let linears = weights.iter().filter(|w| w.role == Role::Linear);
    let scaling = linears
        .map(|w| (w.name.clone(), file.matrix(&w.name).scaling))
        .collect();
    let description = Description {
        config: file.config.clone(),
        packing: packing.into(),
        activations: file.activations,
        embedding: file.embedding_type,
        head: file.head_type,
        exceptions: file.exceptions(),
        scaling,
        numbers: HashMap::new(),
        group_scales: file.group_scales,
        files: files.collect(),
    };
    // Only the trits change: rows are unpacked and packed again, everything else is copied.
    let fill = |writer: &mut PackedWriter| -> Result<()> {
        for weight in &weights {
            let name = &weight.name;
            match weight.role {
                Role::Linear => {
                    let matrix = file.matrix(name);
                    let row_bytes = held.row_bytes(matrix.columns);
                    let fill = |row: usize, trits: &mut [i8]| {
                        let bytes = &matrix.data[row * row_bytes..][..row_bytes];
                        Ok(held.unpack_row(bytes, trits)?)
                    };
                    stream::packed_rows(weight, packing, fill, |_, bytes| {
                        Ok(writer.rows(name, bytes)?)
                    })?;
                    writer.vector(&layout::scale_name(name), &matrix.scales.to_f32())?;
                }
                Role::Norm => writer.vector(name, file.vector(name))?,
                Role::Table => {
                    // A table has several tensors: codes, planes, multipliers, scales.
                    let parts = file.layout().entries.iter();
                    for part in parts.filter(|e| e.name.starts_with(name.as_str())) {
                        let bytes = &file.data()[part.offset..][..part.len];
                        match part.offset < file.layout().matrices_len {
                            true => writer.rows(&part.name, bytes)?,
                            false => writer.copied(&part.name, bytes)?,
                        }
                    }
                }
            }
        }
        Ok(())
    };
    out.make(|path| PackedWriter::fill(path, &description, fill))
}

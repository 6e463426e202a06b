//! A packed file in another packing: the same trits, scales, tables and files.

use std::path::Path;

use sterna_ternary::file::{Description, FILES};
use sterna_ternary::layout::{self, EMBEDDING, HEAD, Role};
use sterna_ternary::{Dtype, PackedFile, PackedWriter, Packing};

use crate::{Result, check_output, stream};

/// Writes the model of `file` to `out` with its trits in `packing`.
pub fn repack(file: &PackedFile, packing: Packing, out: &Path) -> Result<()> {
    check_output(out)?;
    let dtype = |name| file.layout().find(name).map(|e| e.dtype);
    let embedding = dtype(EMBEDDING).unwrap_or(Dtype::F16);
    let files = FILES.iter().filter_map(|name| {
        let bytes = file.file(name)?;
        Some((name.to_string(), bytes.to_vec()))
    });
    let description = Description {
        config: file.config.clone(),
        packing,
        embedding,
        table: dtype(HEAD).unwrap_or(embedding),
        files: files.collect(),
    };
    PackedWriter::write(out, &description, |writer| {
        for weight in layout::weights(&file.config) {
            let name = &weight.name;
            if weight.role == Role::Linear {
                let matrix = file.matrix(name);
                let row_bytes = file.packing.row_bytes(matrix.columns);
                let fill = |row: usize, trits: &mut [i8]| {
                    let bytes = &matrix.data[row * row_bytes..][..row_bytes];
                    Ok(file.packing.unpack_row(bytes, trits)?)
                };
                stream::packed_rows(&weight, packing, fill, |_, bytes| {
                    Ok(writer.rows(name, bytes)?)
                })?;
            } else if weight.role == Role::Table {
                let entry = file.layout().find(name).expect("an open file is complete");
                writer.rows(name, &file.data()[entry.offset..][..entry.len])?;
            } else {
                writer.vector(name, file.vector(name))?;
            }
            let scale = layout::scale_name(name);
            if file.layout().find(&scale).is_some() {
                writer.vector(&scale, file.vector(&scale))?;
            }
        }
        Ok(())
    })
}

//! A packed model with one property changed: the same bytes under another family, with other
//! scales, or with the rows of q and k in another order. The inverse of a mistake undoes it, and
//! the losses show whether it was there.

use std::collections::HashMap;
use std::path::Path;

use sterna_ternary::file::{Description, FILES};
use sterna_ternary::layout::{self, Entry, Role};
use sterna_ternary::{Dtype, Family, PackedFile, PackedWriter, Result, Scaling};

/// A change of one property.
pub enum Change<'a> {
    /// The family: another activation, the same tensors.
    Family(&'static Family),
    /// The scales: (matrix, scale) → scale.
    Scales(&'a dyn Fn(&str, f32) -> f32),
    /// The order of the rows of q and k.
    Rows(RowOrder),
}

/// A new order of the rows of a head.
#[derive(Debug, Clone, Copy)]
pub enum RowOrder {
    /// From rows whose halves rotate together to rows whose neighbours do, as converters to GGUF
    /// do.
    Interleave,
    /// The inverse.
    Deinterleave,
}

impl RowOrder {
    /// The old place of the row that moves to place `row`, in a head of `width` rows.
    fn from(self, row: usize, width: usize) -> usize {
        match self {
            RowOrder::Interleave => row % 2 * (width / 2) + row / 2,
            RowOrder::Deinterleave => row % (width / 2) * 2 + row / (width / 2),
        }
    }

    /// Puts rows of `len` elements each into this order, heads of `width` rows one by one.
    fn apply<T: Copy>(self, rows: &[T], len: usize, width: usize) -> Vec<T> {
        let heads = rows.chunks_exact(width * len);
        let ordered = heads.flat_map(|head| {
            (0..width).flat_map(move |row| &head[self.from(row, width) * len..][..len])
        });
        ordered.copied().collect()
    }
}

/// Writes the variant. It embeds only config.json.
pub fn write(base: &PackedFile, out: &Path, change: &Change) -> Result<()> {
    let mut config = base.config.clone();
    if let Change::Family(family) = change {
        config.family = family;
    }
    let (of_base, of_variant) = (layout::weights(&base.config), layout::weights(&config));
    let linear = of_base.iter().filter(|w| w.role == Role::Linear);
    let scaling = linear.map(|w| (w.name.clone(), base.matrix(&w.name).scaling));
    let description = Description {
        packing: base.packing,
        activations: base.activations,
        embedding: base.embedding_type,
        head: base.head_type,
        exceptions: base.exceptions(),
        scaling: scaling.filter(|(_, s)| *s != Scaling::Matrix).collect(),
        numbers: HashMap::new(),
        group_scales: Dtype::F32, // changed ones may have no place in F16
        files: vec![(
            "config.json".to_owned(),
            config.to_json().to_string().into_bytes(),
        )],
        config,
    };
    PackedWriter::write(out, &description, |writer| {
        let matrices_len = base.layout().matrices_len;
        for entry in &base.layout().entries {
            if entry.name.starts_with("padding.") {
                continue;
            }
            if entry.offset < matrices_len {
                let bytes = &base.data()[entry.offset..][..entry.len];
                writer.rows(&entry.name, &rows(base, &entry.name, bytes, change))?;
            } else if [Dtype::F32, Dtype::F16].contains(&entry.dtype) {
                let place = of_base.iter().position(|w| w.name == entry.name);
                let name = place.map_or(&entry.name, |i| &of_variant[i].name);
                writer.vector(name, &vector(base, entry, change))?;
            } else if !FILES.contains(&entry.name.as_str()) {
                writer.copied(&entry.name, &base.data()[entry.offset..][..entry.len])?;
            }
        }
        Ok(())
    })
}

/// The packed rows of a matrix, or the bytes of a table.
fn rows<'a>(
    base: &PackedFile,
    name: &str,
    bytes: &'a [u8],
    change: &Change,
) -> std::borrow::Cow<'a, [u8]> {
    match change {
        Change::Rows(order) if is_rotated(name) => {
            let row_bytes = bytes.len() / base.matrix(name).rows;
            order.apply(bytes, row_bytes, base.config.head_dim).into()
        }
        _ => bytes.into(),
    }
}

/// A norm, or the scales of a matrix or of a table.
fn vector(base: &PackedFile, entry: &Entry, change: &Change) -> Vec<f32> {
    let values = base.scale_values(entry).to_f32().into_owned();
    let matrix = entry.name.strip_suffix("_scale").filter(|m| is_linear(m));
    match (change, matrix) {
        (Change::Scales(scale), Some(matrix)) => values.iter().map(|s| scale(matrix, *s)).collect(),
        // One scale per row, or one per row for every group of columns.
        (Change::Rows(order), Some(matrix)) if is_rotated(matrix) && values.len() > 1 => {
            order.apply(&values, 1, base.config.head_dim)
        }
        _ => values,
    }
}

fn is_linear(name: &str) -> bool {
    name.ends_with("_proj.weight")
}

fn is_rotated(name: &str) -> bool {
    name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_inverse_to_each_other() {
        // Two heads of six rows of one column.
        let rows: Vec<u8> = (0..12).collect();
        let neighbours = RowOrder::Interleave.apply(&rows, 1, 6);
        assert_eq!(neighbours, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(RowOrder::Deinterleave.apply(&neighbours, 1, 6), rows);
    }
}

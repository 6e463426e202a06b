//! The types of tables and norms, and the rounding of each.

use half::{bf16, f16};
use sterna_ternary::table::CodedRow;
use sterna_ternary::{Dense, Dtype, TableType};

use crate::gguf::q6_k;
use crate::{blocks, trit_rows};

/// Storage type of the values of a table or norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueType {
    /// Single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// GGUF's eight bits per value, with one scale per 32 values.
    Q8_0,
    /// GGUF's four bits per value, with one scale per 32 values.
    Q4_0,
    /// GGUF's six bits per value, with a multiplier per 16 and a scale per 256 values.
    Q6K,
    /// A table of a packed file that is coded, ternary or in planes.
    Coded(TableType),
    /// A type that Sterna can read but not write.
    Other(&'static str),
}

impl ValueType {
    /// The value type of a safetensors type.
    pub fn of(dtype: Dtype) -> ValueType {
        match dtype {
            Dtype::F32 => ValueType::F32,
            Dtype::F16 => ValueType::F16,
            Dtype::Bf16 => ValueType::Bf16,
            Dtype::U8 => ValueType::Other("U8"),
        }
    }

    /// The value type of a table in a packed file.
    pub fn of_table(table: TableType) -> ValueType {
        match table {
            TableType::F32 => ValueType::F32,
            TableType::F16 => ValueType::F16,
            TableType::Bf16 => ValueType::Bf16,
            coded => ValueType::Coded(coded),
        }
    }

    /// The table type of a packed file, if this is one.
    pub(crate) fn table(self) -> Option<TableType> {
        match self {
            ValueType::F32 => Some(TableType::F32),
            ValueType::F16 => Some(TableType::F16),
            ValueType::Bf16 => Some(TableType::Bf16),
            ValueType::Coded(table) => Some(table),
            ValueType::Q8_0 | ValueType::Q4_0 | ValueType::Q6K | ValueType::Other(_) => None,
        }
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::F32 => "f32",
            ValueType::F16 => "f16",
            ValueType::Bf16 => "bf16",
            ValueType::Q8_0 => "q8_0",
            ValueType::Q4_0 => "q4_0",
            ValueType::Q6K => "q6_k",
            ValueType::Coded(table) => table.name(),
            ValueType::Other(name) => name,
        }
    }

    /// Whether a table of this type gets into another file of the type as a copy of its codes,
    /// because encoding its values again could give other codes.
    pub(crate) fn is_copied(self) -> bool {
        matches!(self, ValueType::Coded(_) | ValueType::Q6K)
    }

    /// Rounds a row of values to this type. Returns false if Sterna cannot write the type, or if
    /// the type is ternary and the row is not.
    pub(crate) fn round(self, row: &mut [f32]) -> bool {
        match self {
            ValueType::F32 => {}
            ValueType::F16 => row.iter_mut().for_each(|x| *x = f16::from_f32(*x).into()),
            ValueType::Bf16 => row.iter_mut().for_each(|x| *x = bf16::from_f32(*x).into()),
            ValueType::Q8_0 => blocks::round(Dense::Q8_0, row),
            ValueType::Q4_0 => blocks::round(Dense::Q4_0, row),
            ValueType::Q6K => q6_k::round(row),
            ValueType::Coded(TableType::Ternary) => return trit_rows::round(row),
            ValueType::Coded(table) if table.has_low_plane() => {
                return table
                    .numbers()
                    .is_some_and(|dtype| ValueType::of(dtype).round(row));
            }
            ValueType::Coded(table) => CodedRow::encode(row, table.planes()).decode(row),
            ValueType::Other(_) => return false,
        }
        true
    }
}

/// Whether the bits are equal. Minus zero differs from zero.
pub(crate) fn is_same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits()
}

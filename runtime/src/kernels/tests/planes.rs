//! The slot that decodes rows of tables in planes.

use sterna_ternary::TableType;
use sterna_ternary::planes::{Numbers, PlaneRow, Planes};
use sterna_ternary::table::Codes;

use super::super::{Kernels, scalar};
use super::{Noise, WIDTHS};

#[test]
fn rows_in_planes_equal_the_scalar_table() {
    let mut noise = Noise::new(10);
    for columns in WIDTHS {
        let mut x = noise.floats(columns);
        x[columns / 2] = 0.0;
        for table in [
            TableType::F32Planes,
            TableType::F16Planes,
            TableType::Bf16Planes,
        ] {
            let row = PlaneRow::encode(&x, table);
            let count = (row.exceptions.len() / table.numbers().unwrap().bytes()) as u32;
            let exceptions: Vec<f32> = bytemuck::pod_collect_to_vec(&row.exceptions);
            let halves: Vec<u16> = bytemuck::pod_collect_to_vec(&row.exceptions);
            // The rows of a damaged file may have too few exceptions.
            for there in [count, count / 2] {
                let planes = Planes {
                    codes: Codes {
                        planes: 3,
                        bits: [0, 1, 2].map(|plane| &row.code.planes[plane][..]),
                        multipliers: &row.code.multipliers,
                        scales: &[row.code.scale],
                        remainders: &[],
                    },
                    norms: &row.norms,
                    low: &row.low,
                    exceptions: match table {
                        TableType::F32Planes => Numbers::F32(&exceptions),
                        TableType::F16Planes => Numbers::F16(bytemuck::cast_slice(&halves)),
                        _ => Numbers::Bf16(bytemuck::cast_slice(&halves)),
                    },
                    ends: &[there],
                };
                let bits = |kernels: &Kernels| {
                    let mut values = vec![f32::NAN; columns];
                    (kernels.decode_planes)(&planes, 0, &mut values);
                    values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
                };
                let expected = bits(&scalar::KERNELS);
                for kernels in Kernels::available() {
                    assert_eq!(bits(kernels), expected, "{kernels:?} {columns} {table:?}");
                }
            }
        }
    }
}

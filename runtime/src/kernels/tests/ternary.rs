//! Products with trits, and the activations that they take.

use sterna_ternary::{Packing, quantize};

use super::super::{GroupProduct, Kernels, groups};
use super::{Noise, WIDTHS, bits};

/// Packs trits and pads activations, runs every table, compares with sums over the trits
/// themselves.
fn check_gemm(packing: Packing, columns: usize, trits: &[i8], q: &[i8]) {
    let (rows, tokens) = (trits.len() / columns, q.len() / columns);
    let mut packed = vec![0; rows * packing.row_bytes(columns)];
    let row_bytes = packing.row_bytes(columns);
    for (trits, bytes) in trits.chunks(columns).zip(packed.chunks_mut(row_bytes)) {
        packing.pack_row(trits, bytes);
    }
    let padded = packing.padded_columns(columns);
    let mut padded_q = vec![0; tokens * padded];
    for (q, to) in q.chunks(columns).zip(padded_q.chunks_mut(padded)) {
        to[..columns].copy_from_slice(q);
    }
    let dot = |a: &[i8], b: &[i8]| -> i32 {
        a.iter()
            .zip(b)
            .map(|(a, b)| i32::from(*a) * i32::from(*b))
            .sum()
    };
    let q_sums: Vec<i32> = q
        .chunks(columns)
        .map(|q| q.iter().map(|q| i32::from(*q)).sum())
        .collect();
    let expected: Vec<i32> = q
        .chunks(columns)
        .flat_map(|q| trits.chunks(columns).map(move |trits| dot(trits, q)))
        .collect();
    for table in Kernels::available() {
        let mut sums = vec![i32::MIN; tokens * rows];
        table.gemm(packing)(&packed, &padded_q, &q_sums, &mut sums);
        let name = packing.name();
        assert_eq!(sums, expected, "{table:?} {name} {tokens}x{columns}x{rows}");
    }
}

#[test]
fn gemm_of_random_input_in_all_shapes() {
    let mut noise = Noise::new(1);
    for packing in Packing::ALL {
        for columns in WIDTHS {
            for (rows, tokens) in [(1, 1), (9, 1), (4, 2), (5, 3), (3, 9), (8, 4), (7, 7)] {
                let trits = noise.trits(rows * columns);
                let q: Vec<i8> = (0..tokens * columns).map(|_| noise.next() as i8).collect();
                check_gemm(packing, columns, &trits, &q);
            }
        }
        for rows in 1..10 {
            for tokens in 1..18 {
                let trits = noise.trits(rows * 161);
                let q: Vec<i8> = (0..tokens * 161).map(|_| noise.next() as i8).collect();
                check_gemm(packing, 161, &trits, &q);
            }
        }
    }
}

/// Enough rows and tokens for tables of partial sums and for panels, with and without remainders,
/// and columns for two stretches of a panel.
#[test]
fn gemm_of_many_rows_and_tokens() {
    let mut noise = Noise::new(7);
    for packing in Packing::ALL {
        for (rows, tokens, columns) in [
            (192, 20, 1),
            (192, 11, 333),
            (205, 16, 1441),
            (250, 23, 161),
            (201, 57, 1441),
            (205, 32, 33),
            (208, 33, 2048),
            (250, 53, 333),
            (255, 96, 1441),
            (2049, 65, 161),
            (4100, 25, 130),
            (70, 40, 10400),
            (129, 39, 161),
            (67, 512, 321),
        ] {
            let trits = noise.trits(rows * columns);
            let q: Vec<i8> = (0..tokens * columns).map(|_| noise.next() as i8).collect();
            check_gemm(packing, columns, &trits, &q);
        }
        for tokens in 18..80 {
            let (rows, columns) = (70, 161);
            let trits = noise.trits(rows * columns);
            let q: Vec<i8> = (0..tokens * columns).map(|_| noise.next() as i8).collect();
            check_gemm(packing, columns, &trits, &q);
        }
        for (trit, q) in [(-1, -128), (1, -128), (-1, 127), (1, 127)] {
            let columns = 5460;
            for tokens in [6, 8, 16, 32] {
                check_gemm(
                    packing,
                    columns,
                    &vec![trit; 192 * columns],
                    &vec![q; tokens * columns],
                );
            }
        }
    }
}

#[test]
fn gemm_of_worst_cases() {
    for packing in Packing::ALL {
        for columns in WIDTHS.into_iter().chain([1 << 17]) {
            for trit in [-1, 0, 1] {
                for q in [-128, -127, 127] {
                    for tokens in [1, 3] {
                        check_gemm(
                            packing,
                            columns,
                            &vec![trit; 5 * columns],
                            &vec![q; tokens * columns],
                        );
                    }
                }
            }
        }
    }
}

/// Runs every table on rows with one scale per group and compares with the definition, bit for bit.
fn check_groups(groups: usize, rows: usize, trits: &[i8], q: &[i8], noise: &mut Noise) {
    let row_bytes = Packing::I2.row_bytes(groups * 128);
    let mut packed = vec![0; rows * row_bytes];
    let of_rows = trits.chunks(groups * 128);
    for (trits, bytes) in of_rows.zip(packed.chunks_mut(row_bytes)) {
        Packing::I2.pack_row(trits, bytes);
    }
    let scales: Vec<f32> = (0..groups * rows)
        .map(|_| 0.1 + noise.float().abs())
        .collect();
    let q_sums: Vec<i32> = q
        .chunks(128)
        .map(|q| q.iter().map(|q| i32::from(*q)).sum())
        .collect();
    let product = GroupProduct {
        groups,
        rows: &packed,
        scales: &scales,
        q,
        q_sums: &q_sums,
    };
    let mut expected = Vec::new();
    for q in q.chunks(groups * 128) {
        for (r, trits) in trits.chunks(groups * 128).enumerate() {
            let blocks = q.chunks(128).zip(trits.chunks(128)).enumerate();
            expected.push(blocks.fold(0f32, |y, (g, (q, trits))| {
                let products = q.iter().zip(trits);
                let sum: i32 = products.map(|(q, t)| i32::from(*q) * i32::from(*t)).sum();
                y + sum as f32 * scales[g * rows + r]
            }));
        }
    }
    for table in Kernels::available() {
        let mut y = vec![f32::NAN; expected.len()];
        (table.gemm_groups)(product, &mut y);
        let shape = (groups, rows, q_sums.len() / groups);
        assert_eq!(bits(&y), bits(&expected), "{table:?} {shape:?}");
        y.fill(f32::NAN);
        groups::by_groups(table.gemm_i2, product, &mut y);
        assert_eq!(bits(&y), bits(&expected), "{table:?} by groups {shape:?}");
    }
}

#[test]
fn products_with_a_scale_a_group() {
    let mut noise = Noise::new(11);
    let few = (1..10).flat_map(|rows| (1..6).map(move |tokens| (3, rows, tokens)));
    let many = [
        (1, 192, 20),
        (7, 200, 16),
        (3, 205, 23),
        (16, 33, 2),
        (9, 205, 33),
        (2, 250, 53),
        (8, 2049, 64),
        (7, 200, 150),
    ];
    for (groups, rows, tokens) in few.chain(many) {
        let trits = noise.trits(rows * groups * 128);
        let q: Vec<i8> = (0..tokens * groups * 128)
            .map(|_| noise.next() as i8)
            .collect();
        check_groups(groups, rows, &trits, &q, &mut noise);
    }
    for (trit, q) in [(-1, -128), (1, -128), (-1, 127), (1, 127)] {
        for (rows, tokens) in [(5, 2), (200, 32)] {
            let (trits, q) = (vec![trit; rows * 512], vec![q; tokens * 512]);
            check_groups(4, rows, &trits, &q, &mut noise);
        }
    }
}

#[test]
fn activations_of_sixteen_bits() {
    let mut noise = Noise::new(12);
    for width in WIDTHS {
        let x = noise.floats(width);
        let (mut high, mut low) = (vec![9; width], vec![9; width]);
        let scale = quantize::quantize_activations_int16(&x, &mut high, &mut low);
        for table in Kernels::available() {
            let (mut h, mut l) = (vec![9; width], vec![9; width]);
            let found = (table.quantize_int16)(&x, &mut h, &mut l);
            assert_eq!((found, &h, &l), (scale, &high, &low), "{table:?} {width}");
        }
        for (x, (h, l)) in x.iter().zip(high.iter().zip(&low)) {
            let q = f32::from(*h) * 256.0 + f32::from(*l);
            assert!((x * scale - q).abs() <= 0.51, "{x} {q}");
        }
    }
}

#[test]
#[cfg(panic = "unwind")]
fn gemm_refuses_lengths_that_disagree() {
    for table in Kernels::available() {
        for (rows, q, q_sums, sums) in [
            (31, 128, 1, 1),
            (32, 127, 1, 1),
            (32, 128, 2, 1),
            (64, 128, 1, 1),
            (32, 128, 0, 1),
        ] {
            let call = || {
                (table.gemm_i2)(
                    &vec![0; rows],
                    &vec![0; q],
                    &vec![0; q_sums],
                    &mut vec![0; sums],
                );
            };
            assert!(
                std::panic::catch_unwind(call).is_err(),
                "{table:?} {rows} {q} {q_sums} {sums}"
            );
        }
    }
}

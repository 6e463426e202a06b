//! Every table × every slot × odd shapes × random and worst-case input: equal to the scalar table,
//! bit for bit; and the scalar table against the definitions.

mod attention;
mod planes;
mod ternary;

use half::{bf16, f16};
use sterna_ternary::packing::DenseRows;
use sterna_ternary::random::SplitMix64;
use sterna_ternary::{Dense, quantize, table};

use super::codes::{CodeProduct, Int16, PlaneProduct};
use super::screen::{DROPPED, RowBounds, Threshold};
use super::{BlockProduct, Kernels, QuantizedBlock, float, scalar, widen};

/// Repeatable noise.
pub(crate) struct Noise(SplitMix64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Noise {
        Noise(SplitMix64(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next()
    }

    pub(crate) fn below(&mut self, n: u64) -> usize {
        (self.next() % n) as usize
    }

    /// Uniform in -1..1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub(crate) fn trits(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.below(3) as i8 - 1).collect()
    }
}

const WIDTHS: [usize; 21] = [
    1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 100, 127, 128, 129, 160, 161, 333, 2048, 2560, 5460, 6912,
];

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_table_is_found_by_its_name() {
    for table in Kernels::available() {
        println!("table: {}", table.name);
        let found = Kernels::find(table.name).expect("it is available");
        assert!(std::ptr::eq(found, *table));
    }
}

/// Runs `slot` on every table and compares what it returns with the scalar table, bit for bit.
fn check_float(what: &str, slot: impl Fn(&Kernels) -> Vec<f32>) {
    let expected = bits(&slot(&scalar::KERNELS));
    for table in Kernels::available() {
        assert_eq!(bits(&slot(table)), expected, "{table:?} {what}");
    }
}

#[test]
fn float_slots_equal_the_scalar_table() {
    let mut noise = Noise::new(2);
    for n in WIDTHS {
        for scale in [1.0, 1e-30, 1e4] {
            let x: Vec<f32> = noise.floats(n).iter().map(|x| x * scale).collect();
            let w = noise.floats(n);
            check_float(&format!("quantize {n}"), |k| {
                let mut q = vec![0; n];
                let s = (k.quantize)(&x, &mut q);
                q.iter().map(|q| f32::from(*q)).chain([s]).collect()
            });
            check_float(&format!("quantize_blocks {n}"), |k| {
                let (mut q, mut scales) = (vec![0; n], vec![0.0; n.div_ceil(32)]);
                quantize::quantize_blocks(&x, &mut q, &mut scales);
                q.resize(n.next_multiple_of(32), 0);
                let mut blocks = vec![QuantizedBlock::default(); n.div_ceil(32)];
                (k.quantize_blocks)(&x, &mut blocks);
                for ((block, q), scale) in blocks.iter().zip(q.chunks(32)).zip(scales) {
                    let sum = q.iter().map(|q| i32::from(*q)).sum();
                    let q = q.try_into().unwrap();
                    assert_eq!(*block, QuantizedBlock { q, scale, sum }, "{k:?} {n}");
                }
                blocks.iter().map(|block| block.scale).collect()
            });
            check_float(&format!("sum and dequantize {n}"), |k| {
                let mut q = vec![0; n];
                let s = (k.quantize)(&x, &mut q);
                let sums: Vec<i32> = q.iter().map(|q| i32::from(*q) * 65_537).collect();
                let mut y = vec![f32::NAN; n];
                (k.dequantize)(&sums, s, w[0], &mut y);
                y.into_iter().chain([(k.sum)(&q) as f32]).collect()
            });
            check_float(&format!("rms_norm {n}"), |k| {
                let mut y = x.clone();
                let r = (k.rms_norm)(&mut y, &w, 1e-5);
                y.into_iter().chain([r]).collect()
            });
            let elementwise = |what: &str, slot: &dyn Fn(&Kernels, &mut [f32])| {
                check_float(&format!("{what} {n} {scale}"), |k| {
                    let mut y = x.clone();
                    slot(k, &mut y);
                    y
                });
            };
            elementwise("silu_mul", &|k, y| (k.silu_mul)(y, &w));
            elementwise("relu2_mul", &|k, y| (k.relu2_mul)(y, &w));
            elementwise("gelu_tanh_mul", &|k, y| (k.gelu_tanh_mul)(y, &w));
            elementwise("add", &|k, y| (k.add)(y, &w));
            if n % 2 == 0 {
                elementwise("rotate", &|k, y| (k.rotate)(y, &w[..n / 2], &w[n / 2..]));
            }
        }
    }
}

/// A product of a table: x, then y.
type Product<'a> = dyn Fn(&Kernels, &[f32], &mut [f32]) + 'a;

#[test]
fn products_with_rows_equal_the_scalar_table() {
    let mut noise = Noise::new(3);
    for n in WIDTHS {
        for (rows, tokens) in [(0, 1), (1, 1), (4, 1), (7, 1), (1, 4), (7, 3), (9, 6)] {
            let x = noise.floats(tokens * n);
            let f32s = noise.floats(rows * n);
            // Every bit pattern but the special ones, so subnormal numbers are there too.
            let f16s: Vec<f16> = (0..rows * n)
                .map(|_| f16::from_bits(noise.next() as u16))
                .map(|v| if v.is_finite() { v } else { f16::ONE })
                .collect();
            let bf16s: Vec<bf16> = f32s.iter().map(|v| bf16::from_f32(*v)).collect();
            let run = |what: &str, slot: &Product| {
                check_float(&format!("{what} {tokens} {rows}x{n}"), |k| {
                    let mut y = vec![f32::NAN; tokens * rows];
                    slot(k, &x, &mut y);
                    // Company changes nothing.
                    for (t, x) in x.chunks(n).enumerate() {
                        let mut alone = vec![f32::NAN; rows];
                        slot(k, x, &mut alone);
                        assert_eq!(bits(&alone), bits(&y[t * rows..][..rows]), "{what} {k:?}");
                    }
                    y
                });
            };
            run("gemm_f32", &|k, x, y| (k.gemm_f32)(x, n, &f32s, y));
            run("gemm_f16", &|k, x, y| (k.gemm_f16)(x, n, &f16s, y));
            run("gemm_bf16", &|k, x, y| (k.gemm_bf16)(x, n, &bf16s, y));
        }
    }
}

/// Random rows of blocks; their scales are any finite numbers.
fn random_blocks(noise: &mut Noise, count: usize, bytes: usize) -> Vec<u8> {
    let mut blocks: Vec<u8> = (0..count * bytes).map(|_| noise.next() as u8).collect();
    for block in blocks.chunks_exact_mut(bytes) {
        block[1] &= 0xbf; // below 2
    }
    blocks
}

#[test]
fn products_with_blocks_equal_the_scalar_table() {
    let mut noise = Noise::new(9);
    let shapes = [
        (1, 1),
        (2, 1),
        (17, 1),
        (1, 2),
        (5, 3),
        (8, 4),
        (33, 9),
        (7, 15),
    ];
    for blocks in [1, 2, 3, 8, 11, 32, 33, 80] {
        for (rows, tokens) in shapes {
            let mut x: Vec<QuantizedBlock> = (0..tokens * blocks)
                .map(|_| QuantizedBlock {
                    q: [0; 32].map(|_: i8| (noise.below(255) as i32 - 127) as i8),
                    scale: noise.float(),
                    sum: 0,
                })
                .collect();
            for worst in [0, 1, 2] {
                for block in &mut x {
                    match worst {
                        0 => {}
                        1 => block.q.fill(-127), // with codes of -128 and 15
                        // Pairs of products of one sign beside pairs of the other.
                        _ => block.q = std::array::from_fn(|i| [127, 127, -127, -127][i % 4]),
                    }
                    block.sum = block.q.iter().map(|q| i32::from(*q)).sum();
                }
                for (name, bytes) in [("q8_0", 34), ("q4_0", 18)] {
                    let mut packed = random_blocks(&mut noise, rows * blocks, bytes);
                    for block in packed.chunks_exact_mut(bytes).filter(|_| worst > 0) {
                        block[2..].fill(if bytes == 34 { 0x80 } else { 0xff });
                    }
                    check_float(&format!("{name} {tokens} {rows}x{blocks}"), |k| {
                        let mut y = vec![f32::NAN; tokens * rows];
                        let product = BlockProduct {
                            blocks,
                            rows: &packed,
                            x: &x,
                        };
                        match bytes {
                            34 => (k.gemm_q8_0)(product, &mut y),
                            _ => (k.gemm_q4_0)(product, &mut y),
                        }
                        assert!(y.iter().all(|y| y.is_finite()));
                        y
                    });
                }
            }
        }
    }
}

#[test]
fn products_with_blocks_are_those_of_their_values() {
    let mut noise = Noise::new(10);
    for (dense, bytes) in [(Dense::Q8_0, 34), (Dense::Q4_0, 18)] {
        let w = noise.floats(96);
        let x = noise.floats(96);
        let mut packed = vec![0; 3 * bytes];
        assert!(dense.pack_row(&w, &mut packed));
        let mut values = vec![0.0; 96];
        match dense {
            Dense::Q8_0 => DenseRows::Q8_0(packed.as_chunks().0).decode(0, &mut values),
            _ => DenseRows::Q4_0(packed.as_chunks().0).decode(0, &mut values),
        }
        let mut blocks = [QuantizedBlock::default(); 3];
        (scalar::KERNELS.quantize_blocks)(&x, &mut blocks);
        let rounded = blocks
            .iter()
            .flat_map(|block| block.q.map(|q| f32::from(q) * block.scale));
        let products = rounded
            .zip(&values)
            .map(|(x, w)| f64::from(x) * f64::from(*w));
        let expected: f64 = products.sum();
        let mut y = [f32::NAN];
        let product = BlockProduct {
            blocks: 3,
            rows: &packed,
            x: &blocks,
        };
        match dense {
            Dense::Q8_0 => (scalar::KERNELS.gemm_q8_0)(product, &mut y),
            _ => (scalar::KERNELS.gemm_q4_0)(product, &mut y),
        }
        assert!(
            (f64::from(y[0]) - expected).abs() < 1e-5,
            "{y:?} {expected}"
        );
    }
}

#[test]
fn planes_of_coded_tables_equal_the_scalar_table() {
    let mut noise = Noise::new(8);
    for n in WIDTHS.into_iter().chain([1 << 14]) {
        let worst: Vec<f32> = (0..n).map(|i| [1.0, -1.0][i / 200 % 2]).collect();
        for byte in [None, Some(0xff), Some(0)] {
            for (rows, tokens) in [
                (0, 1),
                (1, 1),
                (3, 2),
                (4, 1),
                (4, 3),
                (9, 1),
                (5, 11),
                (40, 5),
                (0, 7),
                (33, 17),
            ] {
                for is_high in [false, true] {
                    let mut q: Vec<Int16> = (0..tokens).map(|_| Int16::default()).collect();
                    for q in &mut q {
                        let x = byte.map_or_else(|| noise.floats(n), |_| worst.clone());
                        match is_high {
                            true => q.fill_high(&x),
                            false => q.fill(&x),
                        }
                    }
                    let mut bytes = |len: usize| -> Vec<u8> {
                        (0..len)
                            .map(|_| byte.unwrap_or(noise.next() as u8))
                            .collect()
                    };
                    let groups = rows * table::groups(n);
                    let (four, two) = (bytes(groups * 64), bytes(groups * 32));
                    let last = bytes(groups * 32);
                    let multipliers: Vec<u8> = (0..groups)
                        .map(|_| match byte {
                            Some(_) => table::LARGEST_MULTIPLIER,
                            None => noise.below(32) as u8,
                        })
                        .collect();
                    let product = |rows, weight| PlaneProduct {
                        x: &q,
                        rows,
                        multipliers: &multipliers,
                        weight,
                    };
                    let run = |k: &Kernels| {
                        let mut sums = [7, -7, 9, 9, 9].map(|sum| vec![sum; tokens * rows]);
                        let [a, b, whole @ ..] = &mut sums;
                        (k.plane4)(product(&four, 16), a);
                        (k.plane2)(product(&two, 4), b);
                        // Whole codes of one, two and three planes.
                        for (i, sums) in whole.iter_mut().enumerate() {
                            let product = CodeProduct {
                                x: &q,
                                planes: &[&four[..], &two, &last][..=i],
                                multipliers: &multipliers,
                                weight: [16, 4, 1][i],
                            };
                            (k.codes)(product, sums);
                        }
                        sums.concat()
                    };
                    let expected = run(&scalar::KERNELS);
                    for table in Kernels::available() {
                        assert_eq!(run(table), expected, "{table:?} {rows}x{n} {tokens}");
                    }
                    // Σ |m · digit · q| is a bound that the worst case must come near.
                    let most = f64::from(table::LARGEST_MULTIPLIER)
                        * 15.0
                        * f64::from(quantize::LARGEST_INT16 + 128.0)
                        * n as f64
                        * 17.0;
                    assert!(expected.iter().all(|sum| (*sum as f64).abs() <= most + 8.0));
                }
            }
        }
    }
}

#[test]
fn screens_equal_their_definition() {
    let mut noise = Noise::new(12);
    for len in [1, 7, 63, 64] {
        for _ in 0..50 {
            let mut sums: Vec<i64> = (0..len).map(|_| noise.next() as i64 >> 20).collect();
            let skipped = noise.next() & noise.next();
            let dropped = noise.below(len as u64);
            sums[dropped] = DROPPED;
            // Equal sums: the first one is the largest.
            sums[len / 2] = sums[len - 1];
            let mut of_rows = || std::array::from_fn(|_| f64::from(noise.float().abs()));
            let bounds = RowBounds {
                scales: of_rows(),
                terms: of_rows(),
                rest: of_rows(),
            };
            let threshold = Threshold {
                factors: [noise.float(), noise.float(), 0.5].map(|x| f64::from(x) * 1e12),
                least: f64::from(noise.float()) * 1e12,
                largest_norm: 0.9,
            };
            let reaches = |i: usize| {
                let [a, b, c] = threshold.factors;
                let error = bounds.terms[i] * a + bounds.rest[i] * b + c;
                let upper = sums[i] as f64 * bounds.scales[i] + error;
                sums[i] != DROPPED
                    && (upper >= threshold.least || bounds.terms[i] > threshold.largest_norm)
            };
            let expected = (0..len).map(|i| u64::from(reaches(i)) << i);
            let expected: u64 = expected.sum();
            let scales = bounds.scales.map(|scale| scale as f32);
            let counted = (0..len).filter(|i| sums[*i] != DROPPED && skipped >> i & 1 == 0);
            let value = |i: usize| sums[i] as f64 * f64::from(scales[i]);
            let best = counted.rev().max_by(|a, b| value(*a).total_cmp(&value(*b)));
            for kernels in Kernels::available() {
                let reaching = (kernels.reaching)(&sums, &bounds, threshold);
                assert_eq!(reaching, expected, "{kernels:?}");
                let (largest, place) = (kernels.largest)(&sums, &scales[..len], skipped);
                match best {
                    Some(best) => assert_eq!((largest, place), (value(best), best), "{kernels:?}"),
                    None => assert_eq!(largest, f64::NEG_INFINITY, "{kernels:?}"),
                }
            }
        }
    }
}

#[test]
fn activations_in_16_bits_are_those_that_were_given() {
    let x = Noise::new(9).floats(300);
    let mut q = Int16::default();
    q.fill(&x);
    let absmax = x.iter().fold(0f32, |m, x| m.max(x.abs()));
    let back = q.high.as_flattened().iter().zip(q.low.as_flattened());
    let back: Vec<f32> = back
        .map(|(h, l)| (256 * i32::from(*h) + i32::from(*l)) as f32 / q.scale())
        .collect();
    assert!(back[300..].iter().all(|x| *x == 0.0));
    for (x, y) in x.iter().zip(&back) {
        assert!((x - y).abs() <= absmax / 65000.0, "{x} {y}");
    }
    q.fill(&[0.0; 5]);
    assert_eq!(q.high_norm(), 0.0);
}

#[test]
fn the_quantizer_is_that_of_the_ternary_crate() {
    // Every tie between two codes, both signs, and its neighbours.
    let mut x = vec![127.0];
    for code in -127..127 {
        let tie = code as f32 + 0.5;
        x.extend([tie, tie.next_up(), tie.next_down()]);
    }
    for scale in [1.0, 1e-20, 3e-6, 1e30] {
        let x: Vec<f32> = x.iter().map(|x| x * scale).collect();
        let (mut expected, mut q) = (vec![0; x.len()], vec![1; x.len()]);
        let factor = quantize::quantize_activations(&x, &mut expected);
        for table in Kernels::available() {
            assert_eq!((table.quantize)(&x, &mut q), factor);
            assert_eq!(q, expected, "{table:?} {scale}");
        }
    }
    let x = Noise::new(4).floats(6912);
    let (mut expected, mut q) = (vec![0; x.len()], vec![0; x.len()]);
    let scale = quantize::quantize_activations(&x, &mut expected);
    for table in Kernels::available() {
        assert_eq!((table.quantize)(&x, &mut q), scale);
        assert_eq!(q, expected, "{table:?}");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 9, 6911] {
                let mut x = x.clone();
                x[at] = bad;
                assert!(
                    !quantize::is_usable((table.quantize)(&x, &mut q)),
                    "{table:?}"
                );
                assert!(q.iter().all(|q| *q == 0), "{table:?}");
            }
        }
    }
}

#[test]
fn sums_follow_the_documented_order() {
    let (x, w) = (Noise::new(5).floats(333), Noise::new(6).floats(333));
    let mut lanes = [0f32; 16];
    for i in 0..333 {
        lanes[i % 16] += x[i] * w[i];
    }
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
    }
    let mut y = [0.0];
    (scalar::KERNELS.gemm_f32)(&x, 333, &w, &mut y);
    assert_eq!(y[0].to_bits(), lanes[0].to_bits());
}

#[test]
fn every_half_precision_number_converts_exactly() {
    for bits in 0..=u16::MAX {
        let (ours, theirs) = (
            widen::f16_to_f32(f16::from_bits(bits)),
            f16::from_bits(bits).to_f32(),
        );
        assert!(
            ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(),
            "{bits:#x}"
        );
    }
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    for i in -1_100_000..=900_000 {
        let x = i as f32 * 1e-4;
        let (ours, exact) = (float::exp(x), f64::from(x).exp());
        let rounded = exact as f32;
        let unit =
            (f64::from(rounded.next_up()) - f64::from(rounded)).max(f64::from(f32::from_bits(1)));
        let error = (f64::from(ours) - exact).abs() / unit;
        assert!(
            ours == rounded || error <= 2.0,
            "exp({x}) = {ours}, {exact}, {error} ulp"
        );
    }
    assert_eq!(float::exp(0.0), 1.0);
    assert_eq!(float::exp(f32::NEG_INFINITY), 0.0);
    assert_eq!(float::exp(f32::INFINITY), f32::INFINITY);
    assert!(float::exp(f32::NAN).is_nan());
}

#[test]
fn gelu_is_that_of_the_definition() {
    for i in -2000..=2000 {
        let x = i as f32 * 0.01;
        let mut y = [x];
        (scalar::KERNELS.gelu_tanh_mul)(&mut y, &[1.0]);
        let x = f64::from(x);
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        let exact = 0.5 * x * (1.0 + u.tanh());
        assert!(
            (f64::from(y[0]) - exact).abs() <= 2e-6 * exact.abs() + 1e-9,
            "{x} {y:?}"
        );
    }
    for (x, expected) in [(1e30, 1e30), (-1e30, 0.0), (0.0, 0.0), (-30.0, 0.0)] {
        let mut y = [x];
        (scalar::KERNELS.gelu_tanh_mul)(&mut y, &[1.0]);
        assert_eq!(y[0], expected);
    }
}

#[test]
fn a_nan_never_disappears() {
    for table in Kernels::available() {
        for at in 0..40 {
            let with_nan = |x: f32| {
                let mut y = vec![x; 40];
                y[at] = f32::NAN;
                y
            };
            let ones = [1.0; 40];
            let (mut a, mut b) = (with_nan(0.5), with_nan(0.5));
            (table.silu_mul)(&mut a, &ones);
            (table.relu2_mul)(&mut b, &ones);
            let mut c = with_nan(0.5);
            (table.gelu_tanh_mul)(&mut c, &ones);
            assert!(
                a[at].is_nan() && b[at].is_nan() && c[at].is_nan(),
                "{table:?}"
            );
            assert!(!quantize::is_usable((table.rms_norm)(
                &mut with_nan(0.5),
                &ones,
                1e-5
            )));
        }
        assert!(!quantize::is_usable((table.rms_norm)(
            &mut [1e30; 40],
            &[1.0; 40],
            1e-5
        )));
    }
}

//! The slots of attention.

use std::ops::Range;

use half::f16;

use super::super::softmax::exp2;
use super::super::{Kernels, LANES, PanelProduct, Scores, SoftmaxBlock, scalar};
use super::{Noise, bits, check_float};

/// Every shape that tiles of 1, 2, 3, 4, 8 and 16 rows and pairs of steps cut differently.
fn shapes(mut check: impl FnMut(usize, usize, usize, usize)) {
    for rows in [1, 2, 3, 4, 5, 9, 16, 31] {
        for (depth, used) in [(2, 1), (22, 22), (128, 7), (128, 128), (80, 79)] {
            for panels in [0, 1, 3] {
                check(rows, depth, used, panels);
            }
        }
    }
}

fn half(noise: &mut Noise) -> f16 {
    // Every bit pattern but the special ones, so subnormal numbers are there too.
    let v = f16::from_bits(noise.next() as u16);
    if v.is_finite() { v } else { f16::ONE }
}

fn product<'a, X, T>(
    x: &'a [X],
    panels: &'a [T],
    depth: usize,
    used: usize,
) -> PanelProduct<'a, X, T> {
    PanelProduct {
        x,
        panels,
        depth,
        used,
    }
}

#[test]
fn products_with_panels_follow_the_documented_order() {
    let mut noise = Noise::new(21);
    shapes(|rows, depth, used, panels| {
        let width = (panels + 1) * LANES;
        let x = noise.floats(rows * depth);
        let codes: Vec<i16> = (0..rows * depth).map(|_| noise.next() as i16 / 2).collect();
        let n = panels * depth * LANES;
        let f32s = noise.floats(n);
        let f16s: Vec<f16> = (0..n).map(|_| half(&mut noise)).collect();
        let i8s: Vec<i8> = (0..n).map(|_| noise.next() as i8).collect();
        let mut expected = [(); 3].map(|_| vec![7.0; rows * width]);
        for r in 0..rows {
            for c in 0..panels * LANES {
                let (panel, l) = (c / LANES * depth, c % LANES);
                let (mut a, mut b, mut sum) = (0f32, 0f32, 0i32);
                for i in 0..used {
                    a += x[r * depth + i] * f32s[(panel + i) * LANES + l];
                    b += x[r * depth + i] * f16s[(panel + i) * LANES + l].to_f32();
                }
                for i in 0..used.next_multiple_of(2) {
                    let code = i8s[(panel + i / 2 * 2) * LANES + 2 * l + i % 2];
                    sum += i32::from(codes[r * depth + i]) * i32::from(code);
                }
                let at = r * width + c;
                (expected[0][at], expected[1][at], expected[2][at]) = (a, b, sum as f32);
            }
        }
        for k in Kernels::available() {
            let mut y = [(); 3].map(|_| vec![7.0; rows * width]);
            (k.panels_f32)(product(&x, &f32s, depth, used), &mut y[0]);
            (k.panels_f16)(product(&x, &f16s, depth, used), &mut y[1]);
            (k.panels_i8)(product(&codes, &i8s, depth, used), &mut y[2]);
            for (y, expected) in y.iter().zip(&expected) {
                assert_eq!(
                    bits(y),
                    bits(expected),
                    "{k:?} {rows} {depth} {used} {panels}"
                );
            }
        }
    });
}

#[test]
fn the_largest_codes_do_not_overflow() {
    for (depth, largest) in [(256, 32767), (512, 32767), (1024, 16511)] {
        for (a, b) in [(1, 1), (1, -1), (-1, -1)] {
            let (x, v) = (vec![a * largest; depth], vec![b * 127; depth * LANES]);
            let expected = i32::from(a) * i32::from(b) * i32::from(largest) * 127 * depth as i32;
            for k in Kernels::available() {
                let mut y = [0.0; LANES];
                (k.panels_i8)(product(&x, &v, depth, depth), &mut y);
                assert_eq!(y, [expected as f32; LANES], "{k:?} {depth}");
            }
        }
    }
}

#[test]
#[cfg(panic = "unwind")]
fn lengths_that_disagree_are_refused() {
    for k in Kernels::available() {
        for (x, panels, depth, used, y) in [
            (8, 128, 8, 9, 16),
            (9, 128, 8, 8, 16),
            (8, 127, 8, 8, 16),
            (8, 144, 8, 8, 16),
            (8, 256, 8, 8, 16),
            (16, 128, 8, 8, 17),
            (0, 128, 8, 8, 16),
            (8, 128, 0, 0, 16),
        ] {
            let floats = || {
                let (x, panels) = (vec![0.0; x], vec![0.0; panels]);
                (k.panels_f32)(product(&x, &panels, depth, used), &mut vec![0.0; y]);
            };
            let codes = || {
                let (x, panels) = (vec![0; x], vec![0; panels]);
                (k.panels_i8)(product(&x, &panels, depth, used), &mut vec![0.0; y]);
            };
            assert!(
                std::panic::catch_unwind(floats).is_err(),
                "{k:?} {x} {panels} {depth}"
            );
            assert!(
                std::panic::catch_unwind(codes).is_err(),
                "{k:?} {x} {panels} {depth}"
            );
        }
    }
}

fn values(blocks: &[SoftmaxBlock]) -> impl Iterator<Item = f32> {
    blocks.iter().flat_map(|b| [b.max, b.sum, b.factor])
}

/// The weights of rows of which `used` scores count, and what the blocks say.
fn softmax(
    k: &Kernels,
    x: &[f32],
    used: usize,
    seen: &[Range<usize>],
) -> (Vec<f32>, Vec<SoftmaxBlock>) {
    let (mut x, mut blocks) = (x.to_vec(), vec![SoftmaxBlock::EMPTY; seen.len()]);
    let scores = Scores {
        x: &mut x,
        used,
        seen,
    };
    (k.softmax_blocks)(scores, &mut blocks);
    (x, blocks)
}

/// The same in codes.
fn softmax_i8(
    k: &Kernels,
    x: &[f32],
    factors: &[f32],
    scales: [&[f32]; 2],
    seen: &[Range<usize>],
) -> (Vec<i16>, Vec<SoftmaxBlock>) {
    let (mut x, mut weights) = (x.to_vec(), vec![7; x.len()]);
    let mut blocks = vec![SoftmaxBlock::EMPTY; seen.len()];
    let scores = Scores {
        x: &mut x,
        used: scales[0].len(),
        seen,
    };
    (k.softmax_blocks_i8)(scores, factors, scales, &mut weights, &mut blocks);
    (weights, blocks)
}

#[test]
fn the_slots_between_the_products_equal_the_scalar_table() {
    let mut noise = Noise::new(22);
    for n in [16, 32, 128] {
        let seen = [
            0..1,
            0..2,
            0..15,
            0..n - 1,
            0..n,
            1..2,
            3..n - 1,
            15..n,
            n - 1..n,
        ];
        for scale in [1e-30, 1e-3, 1.0, 30.0, 1e4, 1e30] {
            // Rows are longer than what is used of them.
            let width = n + 5;
            let x: Vec<f32> = noise.floats(seen.len() * width);
            let x: Vec<f32> = x.iter().map(|x| x * scale).collect();
            let positive = |x: Vec<f32>| -> Vec<f32> { x.iter().map(|x| x.abs()).collect() };
            let scales = [positive(noise.floats(n)), positive(noise.floats(n))];
            let scales = [&scales[0][..], &scales[1]];
            let factors = positive(noise.floats(seen.len()));
            check_float(&format!("softmax_blocks {n} {scale}"), |k| {
                let (weights, blocks) = softmax(k, &x, n, &seen);
                weights.into_iter().chain(values(&blocks)).collect()
            });
            check_float(&format!("softmax_blocks_i8 {n} {scale}"), |k| {
                let (weights, blocks) = softmax_i8(k, &x, &factors, scales, &seen);
                for (i, seen) in seen.iter().enumerate() {
                    let (weights, rest) = weights[i * width..][..width].split_at(n);
                    let largest = weights[seen.clone()].contains(&32767);
                    assert!(largest || blocks[i].factor == 1e-30 / 32767.0);
                    let others = weights[..seen.start].iter().chain(&weights[seen.end..]);
                    assert!(others.into_iter().all(|w| *w == 0));
                    assert!(rest.iter().all(|w| *w == 7));
                }
                let weights = weights.into_iter().map(f32::from);
                weights.chain(values(&blocks)).collect()
            });
            check_float(&format!("merge {n} {scale}"), |k| {
                let mut y = scales[0].to_vec();
                (k.merge)(&mut y, &x[..n], [0.3, 1.7]);
                y
            });
            for seen in &seen {
                check_float(&format!("quantize_i16 {seen:?} {scale}"), |k| {
                    let mut q = vec![7; seen.len()];
                    let factor = (k.quantize_i16)(&x[seen.clone()], 0.1, 32767.0, &mut q);
                    q.into_iter().map(f32::from).chain([factor]).collect()
                });
            }
        }
    }
}

#[test]
fn rows_do_not_change_each_other() {
    let (n, width) = (32, 37);
    let seen = [0..32, 0..7, 5..20, 31..32];
    let mut noise = Noise::new(24);
    let x: Vec<f32> = noise.floats(seen.len() * width);
    let ones = vec![1.0; n];
    for k in Kernels::available() {
        let (weights, blocks) = softmax(k, &x, n, &seen);
        let (codes, coded) = softmax_i8(k, &x, &[1.0; 4], [&ones, &ones], &seen);
        for (i, of_row) in seen.iter().enumerate() {
            let row = i * width..(i + 1) * width;
            let alone = softmax(k, &x[row.clone()], n, std::slice::from_ref(of_row));
            assert_eq!(bits(&weights[row.clone()]), bits(&alone.0), "{k:?} {i}");
            assert_eq!(blocks[i], alone.1[0], "{k:?} {i}");
            let of_row = std::slice::from_ref(of_row);
            let alone = softmax_i8(k, &x[row.clone()], &[1.0], [&ones, &ones], of_row);
            assert_eq!(codes[row], alone.0, "{k:?} {i}");
            assert_eq!(coded[i], alone.1[0], "{k:?} {i}");
        }
    }
}

#[test]
fn weights_are_those_of_the_definition() {
    let x = Noise::new(23)
        .floats(32)
        .iter()
        .map(|x| 9.0 * x)
        .collect::<Vec<_>>();
    let (weights, blocks) = softmax(&scalar::KERNELS, &x, 32, &[const { 3..20 }]);
    let max = x[3..20].iter().copied().fold(f32::MIN, f32::max);
    let exact = x[3..20].iter().map(|x| f64::from(x - max).exp2());
    let exact: Vec<f64> = exact.collect();
    assert_eq!((blocks[0].max, blocks[0].factor), (max, 1.0));
    assert!((f64::from(blocks[0].sum) - exact.iter().sum::<f64>()).abs() < 1e-6);
    for (weight, exact) in weights[3..].iter().zip(exact) {
        assert!((f64::from(*weight) - exact).abs() < 1e-7);
    }
    let others = weights[..3].iter().chain(&weights[20..]);
    assert!(others.into_iter().all(|w| *w == 0.0));
}

#[test]
fn a_bad_score_spoils_the_sum() {
    const SEEN: Range<usize> = 0..20;
    for k in Kernels::available() {
        for bad in [f32::NAN, f32::INFINITY, f32::from_bits(0x7fff_ffff)] {
            for at in 0..20 {
                let mut x = vec![0.5; 32];
                x[at] = bad;
                let mut q = vec![0; 32];
                let factor = (k.quantize_i16)(&x, 1.0, 32767.0, &mut q);
                let ones = [1.0; 32];
                let (_, blocks) = softmax_i8(k, &x, &[1.0], [&ones, &ones], &[SEEN]);
                assert!(blocks[0].sum.is_nan(), "{k:?}");
                assert!(softmax(k, &x, 32, &[SEEN]).1[0].sum.is_nan(), "{k:?}");
                assert!(!factor.is_finite(), "{k:?}");
            }
        }
        // Positions before and after the range are not read.
        let mut x = vec![f32::NAN; 32];
        x[2..20].fill(0.5);
        let (_, blocks) = softmax(k, &x, 32, &[const { 2..20 }]);
        assert_eq!(blocks[0].sum, 18.0);
    }
}

#[test]
fn exp2_is_within_two_units_in_the_last_place() {
    for i in 0..1_000_000 {
        let x = i as f32 * -1e-4;
        let (ours, exact) = (exp2(x), f64::from(x).exp2());
        let unit = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
        let error = (f64::from(ours) - exact).abs() / unit;
        assert!(error <= 2.0, "2^{x} = {ours}, {exact}, {error} ulp");
    }
    assert_eq!(exp2(0.0), 1.0);
    assert_eq!([-100.5, -1e30, f32::NEG_INFINITY].map(exp2), [0.0; 3]);
    assert!(exp2(f32::NAN).is_nan() && exp2(f32::from_bits(0x7fff_ffff)).is_nan());
}

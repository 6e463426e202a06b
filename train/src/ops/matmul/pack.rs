//! Packing: a panel holds the columns of a strip of rows one after the other, as a tile reads them.

use super::Mat;

/// One cache line of values; panels are aligned to it.
#[derive(Clone, Copy, Default, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
pub(super) struct Line([f32; 16]);

/// The first `count` values of memory that grows as needed.
pub(super) fn room(lines: &mut Vec<Line>, count: usize) -> &mut [f32] {
    let needed = count.div_ceil(16);
    if lines.len() < needed {
        lines.resize(needed, Line::default());
    }
    &mut bytemuck::cast_slice_mut(lines)[..count]
}

/// panel\[k · width + i\] = x\[first + i\]\[first_k + k\]; 0 where the row is `end` or later.
#[inline(always)]
pub(super) fn pack(
    x: Mat<&[f32]>,
    first: usize,
    end: usize,
    first_k: usize,
    width: usize,
    panel: &mut [f32],
) {
    let rows = width.min(end - first);
    let start = x.start + first * x.row_stride + first_k * x.column_stride;
    if x.column_stride != 1 {
        debug_assert_eq!(x.row_stride, 1);
        return match (rows == width, width) {
            (true, 32) => columns::<32>(&x.data[start..], x.column_stride, panel),
            (true, 16) => columns::<16>(&x.data[start..], x.column_stride, panel),
            _ => some_columns(&x.data[start..], x.column_stride, rows, width, panel),
        };
    }
    if rows < width {
        panel.fill(0.0);
    }
    let depth = panel.len() / width;
    let row = |i: usize| &x.data[start + i * x.row_stride..][..depth];
    let fours = rows / 4;
    for i in 0..fours {
        transpose_four(std::array::from_fn(|r| row(4 * i + r)), 4 * i, width, panel);
    }
    for i in 4 * fours..rows {
        for (panel, x) in panel.chunks_exact_mut(width).zip(row(i)) {
            panel[i] = *x;
        }
    }
}

/// Panels from columns that are contiguous, `W` values of each.
#[inline(always)]
fn columns<const W: usize>(x: &[f32], stride: usize, panel: &mut [f32]) {
    for (panel, x) in panel
        .as_chunks_mut::<W>()
        .0
        .iter_mut()
        .zip(x.chunks(stride))
    {
        *panel = *x.first_chunk().expect("a column has all rows of the panel");
    }
}

/// Like [`columns`], for any width and for rows that end before it.
#[inline(always)]
fn some_columns(x: &[f32], stride: usize, rows: usize, width: usize, panel: &mut [f32]) {
    for (panel, x) in panel.chunks_exact_mut(width).zip(x.chunks(stride)) {
        panel[..rows].copy_from_slice(&x[..rows]);
        panel[rows..].fill(0.0);
    }
}

/// Four rows into the places `at..at + 4` of every column of a panel, in blocks of four by four.
#[inline(always)]
fn transpose_four(rows: [&[f32]; 4], at: usize, width: usize, panel: &mut [f32]) {
    let whole = rows[0].len() / 4;
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<4>().0);
    let blocks = a.iter().zip(b).zip(c.iter().zip(d));
    for (((a, b), (c, d)), panel) in blocks.zip(panel.chunks_exact_mut(4 * width)) {
        for (k, column) in transposed([*a, *b, *c, *d]).iter().enumerate() {
            panel[k * width + at..][..4].copy_from_slice(column);
        }
    }
    for k in 4 * whole..rows[0].len() {
        for (place, row) in panel[k * width + at..][..4].iter_mut().zip(rows) {
            *place = row[k];
        }
    }
}

/// The transposed block.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(in super::super) fn transposed(m: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    use std::arch::x86_64::*;
    // Compilers move single values here; these instructions, which every x86-64 has, move rows.
    let [a, b, c, d] = m.map(bytemuck::cast::<[f32; 4], __m128>);
    // SAFETY: every x86-64 CPU has SSE, which these instructions belong to.
    #[allow(unsafe_code)]
    let columns = unsafe {
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (high_ab, high_cd) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        [
            _mm_movelh_ps(ab, cd),
            _mm_movehl_ps(cd, ab),
            _mm_movelh_ps(high_ab, high_cd),
            _mm_movehl_ps(high_cd, high_ab),
        ]
    };
    columns.map(bytemuck::cast)
}

/// The transposed block.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(in super::super) fn transposed(m: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    std::array::from_fn(|column| m.map(|row| row[column]))
}

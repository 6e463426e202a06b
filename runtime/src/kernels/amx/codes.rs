//! Products of several tokens with whole codes ([`super::super::whole`]) by tiles.
//!
//! A group of 32 rows is unpacked into the first-level cache: the codes u, and their first planes
//! where activations have low bytes. It meets all tokens, 16 at a time. The sums of a group leave
//! the tiles, and with its multiplier they are added in 64 bits.

use std::arch::x86_64::__m512i;
use std::cell::RefCell;

use sterna_ternary::table::{GROUP, PLANE_BYTES};

use super::super::avx512;
use super::super::avx512::digits::Rows16;
use super::super::avx512::registers;
use super::super::codes::{CodeProduct, Int16};
use super::super::digits::{Lanes, Line};
use super::super::whole::{self, CodeLanes, LARGEST, RUNS, STEPS};
use super::tiles::{CodeSums, CodeTiles, TILE_COLUMNS, TILE_ROWS, TILE_TOKENS, Tiles};

/// Fewest tokens that take less time with tiles.
const FEWEST: usize = 6;
/// Rows that are unpacked together.
const ROWS: usize = 2 * TILE_ROWS;

/// Activations of a group, (2, 16 tokens, 64 columns).
type Group = [[[i8; TILE_COLUMNS]; TILE_TOKENS]; GROUP / TILE_COLUMNS];
/// Codes of a group of 16 rows.
type Codes = [[__m512i; STEPS]; RUNS];
/// Codes of a group of 32 rows, and their first planes: (16 rows, of each).
type Panel = [[Codes; 2]; 2];
/// 64-bit sums of a token: those of even rows and of odd rows, of the first 16 and of the others.
type Wide = [[__m512i; 2]; 2];

/// Working memory of a thread.
#[derive(Default)]
struct Memory {
    q: Vec<Line>,
    panel: Vec<Line>,
    wide: Vec<Line>,
    sums: Vec<Line>,
    constants: Vec<i32>,
    multipliers: Vec<[[i32; TILE_ROWS]; 2]>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// [`Kernels::codes`](super::super::Kernels::codes)
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn codes(product: CodeProduct, sums: &mut [i64]) {
    if product.x.len() < FEWEST {
        return (avx512::KERNELS.codes)(product, sums);
    }
    // SAFETY: this function is compiled for AVX-512 F, BW and VNNI, and its table has tiles.
    unsafe {
        match product.x[0].is_high() {
            true => multiply::<false>(product, sums),
            false => multiply::<true>(product, sums),
        }
    }
}

/// Adds the products of all tokens with all rows to `sums` (tokens, rows).
///
/// # Safety
/// The CPU has tiles and AVX-512 F, BW and VNNI; everything is inlined into the caller.
#[inline(always)]
unsafe fn multiply<const LOW: bool>(product: CodeProduct, sums: &mut [i64]) {
    let n = product.checked(sums);
    let (x, groups) = (product.x, product.x[0].groups());
    let (largest, excess) = LARGEST[product.planes.len() - 1];
    // The memory is taken out, since code in a closure would not have the instruction set.
    let mut memory = MEMORY.take();
    let parts = x.len().div_ceil(TILE_TOKENS);
    // SAFETY: integers, and vectors of them.
    let (q, panel, wide, of_group) = unsafe {
        let q: &mut [Group] = Line::registers(&mut memory.q, 2 * parts * groups);
        let panel: &mut [Panel] = Line::registers(&mut memory.panel, 1);
        let wide: &mut [Wide] = Line::registers(&mut memory.wide, x.len());
        let of_group: &mut [CodeSums] = Line::registers(&mut memory.sums, 1);
        (q, &mut panel[0], wide, &mut of_group[0])
    };
    let (high, low) = q.split_at_mut(parts * groups); // (parts, groups)
    in_tiles(x, |x| &x.high, high);
    if LOW {
        in_tiles(x, |x| &x.low, low);
    }
    let (high, low) = (&*high, &*low);
    memory.constants.clear(); // (groups, tokens)
    for g in 0..groups {
        memory.constants.extend(x.iter().map(|x| {
            let [high, low] = x.group_sums(g);
            256 * largest * high + 240 * low
        }));
    }
    memory.multipliers.resize(groups, Default::default());
    let mut tiles = Tiles::new();
    for first in (0..n).step_by(ROWS) {
        for r in 0..ROWS.min(n - first) {
            let of_row = &product.multipliers[(first + r) * groups..][..groups];
            for (to, multiplier) in memory.multipliers.iter_mut().zip(of_row) {
                to[r / TILE_ROWS][r % TILE_ROWS] = i32::from(*multiplier);
            }
        }
        // SAFETY: the caller has the instruction sets, and there are all tokens of each group.
        unsafe {
            let zero = Rows16.start([0; 2]);
            wide.fill([[zero; 2]; 2]);
            for (g, multipliers) in memory.multipliers.iter().enumerate() {
                unpack::<LOW>(product, (n, first), g, panel);
                let constants = memory.constants[g * x.len()..].chunks(TILE_TOKENS);
                let of_parts = wide.chunks_mut(TILE_TOKENS).zip(constants);
                for (part, (of_part, constants)) in of_parts.enumerate() {
                    let at = part * groups + g;
                    let product = CodeTiles {
                        q: [high[at].as_ptr().cast(), low[at].as_ptr().cast()],
                        codes: panel
                            .each_ref()
                            .map(|of| of.each_ref().map(|of| of.as_ptr().cast())),
                    };
                    tiles.shape([of_part.len(); 2]);
                    product.multiply::<LOW>(of_group);
                    for (t, (wide, constant)) in of_part.iter_mut().zip(constants).enumerate() {
                        for half in 0..2 {
                            let [high, low] = &of_group[half];
                            let mut sums = [zero; 2];
                            sums[0] = registers::whole(bytemuck::cast_ref(&high[t]));
                            if LOW {
                                sums[1] = registers::whole(bytemuck::cast_ref(&low[t]));
                            }
                            Rows16.scale(&mut wide[half], sums, *constant, &multipliers[half]);
                        }
                    }
                }
            }
            for (wide, sums) in wide.iter().zip(sums.chunks_exact_mut(n)) {
                for (wide, sums) in wide.iter().zip(sums[first..].chunks_mut(TILE_ROWS)) {
                    let mut halves = [[0; TILE_ROWS / 2]; 2];
                    for (wide, to) in wide.iter().zip(&mut halves) {
                        Rows16.store_wide(*wide, to);
                    }
                    for (r, sum) in sums.iter_mut().enumerate() {
                        *sum += product.weight * (halves[r % 2][r / 2] >> excess);
                    }
                }
            }
        }
    }
    drop(tiles);
    MEMORY.set(memory);
}

/// Unpacks a group of 32 rows.
///
/// # Safety
/// The CPU has AVX-512 F, BW and VNNI; everything is inlined into the caller.
#[inline(always)]
unsafe fn unpack<const LOW: bool>(
    product: CodeProduct,
    (n, first): (usize, usize),
    g: usize,
    panel: &mut Panel,
) {
    let groups = product.x[0].groups();
    for (row, [codes, first_planes]) in (first..n).step_by(TILE_ROWS).zip(panel) {
        let mut next = [std::ptr::null(); 3];
        for (i, plane) in product.planes.iter().enumerate() {
            let before = (row + ROWS) * groups + g * TILE_ROWS;
            next[i] = plane.as_ptr().wrapping_add(before * PLANE_BYTES[i]);
        }
        // SAFETY: the caller has the instruction sets.
        unsafe {
            whole::unpack(
                product,
                (n, row),
                g..g + 1,
                Rows16,
                next,
                |[_, step, run], u| {
                    codes[run][step] = u;
                    if LOW {
                        first_planes[run][step] = Rows16.first_plane(u);
                    }
                },
            );
        }
    }
}

/// Puts the groups of 16 tokens side by side: (parts of 16 tokens, groups).
fn in_tiles(x: &[Int16], bytes: impl Fn(&Int16) -> &[[i8; GROUP]], to: &mut [Group]) {
    let groups = x[0].groups();
    for (x, to) in x.chunks(TILE_TOKENS).zip(to.chunks_exact_mut(groups)) {
        for (t, x) in x.iter().enumerate() {
            for (from, to) in bytes(x).iter().zip(&mut *to) {
                for (from, to) in from.as_chunks::<TILE_COLUMNS>().0.iter().zip(to) {
                    to[t] = *from;
                }
            }
        }
    }
}

//! What the tables with `sdot` share: planes of heads, and products with one scale per group of
//! columns, as with NEON alone, but with sums of 32 bits from the start.

mod registers;

pub(super) mod codes {
    crate::kernels::bytes::codes!("neon,dotprod");
}
pub(super) mod groups {
    crate::kernels::bytes::groups!("neon,dotprod");
}

use super::plain::{ranks, tables, ternary};

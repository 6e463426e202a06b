//! Products of bytes in pairs (`pmaddubsw`, `smlal`), written once for registers of 128 and of 256
//! bits.
//!
//! Each file is a macro that an instruction set expands beside its module `registers`: 32 bytes,
//! which are one register or two, and sums of their products, which are one register. So functions
//! keep the target features of their instruction set.

mod codes;
mod groups;
mod ranks;
mod ternary;
#[cfg(target_arch = "x86_64")]
mod unpack;

#[cfg(target_arch = "x86_64")]
pub(super) use unpack::unpack;
pub(super) use {codes::codes, groups::groups, ranks::ranks, ternary::ternary};

//! Registers of tiles: who may use them, their shapes, and the loop of products.
//!
//! The intrinsics are not stable, so the instructions are written as assembly. The compiler knows
//! nothing of tiles: it neither moves nor saves them. No block of assembly leaves anything in them
//! that a later block needs, but their shapes, which [`Tiles`] sets and takes back.

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::sync::LazyLock;

/// Tokens of a tile of activations, and of a tile of sums.
pub const TILE_TOKENS: usize = 16;
/// Rows of a tile of digits, and of a tile of sums.
pub const TILE_ROWS: usize = 16;
/// Columns of a tile of activations, and of a tile of digits.
pub const TILE_COLUMNS: usize = 64;

/// Bytes from the sums of one token to those of the next.
const SUMS_STRIDE: usize = size_of::<[i32; 2 * TILE_ROWS]>();

/// Whether the CPU has tiles of int8, and whether the system lets this process use them.
pub fn features() -> [(&'static str, bool); 2] {
    static FEATURES: LazyLock<[bool; 2]> = LazyLock::new(|| {
        let has_tiles = has_tiles();
        [has_tiles, has_tiles && system::permits_tiles()]
    });
    let [has_tiles, permitted] = *FEATURES;
    [("amx-int8", has_tiles), ("amx-permission", permitted)]
}

/// Whether tiles of int8 can be used.
pub fn are_usable() -> bool {
    features().iter().all(|feature| feature.1)
}

fn has_tiles() -> bool {
    // Leaf 7: bit 24 of EDX are tiles, bit 25 are products of int8.
    const TILES: u32 = 0b11 << 24;
    #[allow(unused_unsafe)] // newer compilers have them as safe functions
    // SAFETY: every x86-64 CPU has this instruction.
    let (most, of_leaf_7) = unsafe { (__cpuid(0).eax, __cpuid_count(7, 0)) };
    most >= 7 && of_leaf_7.edx & TILES == TILES
}

#[cfg(target_os = "linux")]
mod system {
    /// Asks Linux for the registers of tiles. A kernel before 5.16 does not know the question, and
    /// it refuses where a signal stack of this process is too small to save them.
    pub fn permits_tiles() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_ulong = 18;
        // SAFETY: the call changes what the system saves for this process, no memory of it.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_arch_prctl,
                ARCH_REQ_XCOMP_PERM,
                XFEATURE_XTILEDATA,
            )
        };
        answer == 0
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    /// Other systems are not asked: how they answer was not tried.
    pub fn permits_tiles() -> bool {
        false
    }
}

/// The shapes of the eight tiles, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    /// Bytes of a line.
    bytes: [u16; 16],
    lines: [u8; 16],
}

/// Tiles of this thread: 0 to 3 are sums, 4 and 5 activations, 6 and 7 digits.
pub struct Tiles {
    tokens: [usize; 2],
    /// Shapes belong to a thread, so this is not `Send`.
    _thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Sets the shapes for no tokens.
    pub fn new() -> Tiles {
        Tiles {
            tokens: [0; 2],
            _thread: PhantomData,
        }
    }

    /// Sets the shapes, if they are others than before, for 1 to 16 tokens in each of tiles 0, 1
    /// and 4, and as many or others in each of tiles 2, 3 and 5.
    ///
    /// # Safety
    /// [`are_usable`].
    pub unsafe fn shape(&mut self, tokens: [usize; 2]) {
        assert!(tokens.iter().all(|n| (1..=TILE_TOKENS).contains(n)));
        if self.tokens == tokens {
            return;
        }
        self.tokens = tokens;
        let [first, second] = tokens.map(|n| n as u8);
        let mut lines = [0; 16];
        lines[..8].copy_from_slice(&[first, first, second, second, first, second, 16, 16]);
        let mut bytes = [0; 16];
        bytes[..8].fill(64);
        let shapes = Shapes {
            palette: 1,
            start: 0,
            reserved: [0; 14],
            bytes,
            lines,
        };
        // SAFETY: the caller has tiles, and these are shapes that palette 1 allows.
        unsafe {
            asm!("ldtilecfg [{0}]", in(reg) &shapes, options(nostack, preserves_flags, readonly));
        }
    }
}

impl Drop for Tiles {
    /// Leaves nothing that the system would have to save.
    fn drop(&mut self) {
        if self.tokens != [0; 2] {
            // SAFETY: shapes were set, so there are tiles.
            unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
        }
    }
}

/// A product of tiles: sums (tokens, 32 rows) += activations (tokens, columns) · digits (columns,
/// 32 rows).
pub struct TileProduct<'a> {
    /// (tokens, columns), `q_stride` bytes from one token to the next.
    pub q: *const i8,
    pub q_stride: usize,
    /// (columns / 4, 16 rows, 4 columns) of the first 16 rows and of the others.
    pub digits: [*const __m512i; 2],
    /// How many times 64 columns, at least once.
    pub tiles: usize,
    pub sums: &'a mut [[i32; 2 * TILE_ROWS]; 2 * TILE_TOKENS],
    /// Bytes that are prefetched on the way, 256 for each 64 columns; they need not exist.
    pub ahead: *const u8,
}

impl TileProduct<'_> {
    /// Adds the product of some tokens, at most 32, to their sums, exactly; sums wrap as 32-bit
    /// numbers do.
    ///
    /// # Safety
    /// The CPU has tiles, and there are as many activations and digits as the fields say.
    pub unsafe fn add(self, tokens: usize, tiles: &mut Tiles) {
        assert!(self.tiles > 0);
        let first = tokens.min(TILE_TOKENS);
        // SAFETY: as the caller promised.
        unsafe {
            if tokens > first {
                tiles.shape([first, tokens - first]);
                self.add_two();
            } else {
                tiles.shape([first; 2]);
                self.add_one();
            }
        }
    }

    /// At most 16 tokens.
    #[inline(always)]
    unsafe fn add_one(self) {
        // SAFETY: the shapes are set, and all addresses are those of bytes that are there.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {sums_stride}]",
                "tileloadd tmm1, [{sums} + {sums_stride} + 64]",
                "2:",
                "tileloadd tmm4, [{q} + {q_stride}]",
                "tileloadd tmm6, [{first} + {line}]",
                "prefetcht1 [{ahead}]",
                "prefetcht1 [{ahead} + 64]",
                "tdpbsud tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{second} + {line}]",
                "prefetcht1 [{ahead} + 128]",
                "prefetcht1 [{ahead} + 192]",
                "tdpbsud tmm1, tmm4, tmm7",
                "add {ahead}, 256",
                "add {q}, 64",
                "add {first}, 1024",
                "add {second}, 1024",
                "dec {tiles}",
                "jnz 2b",
                "tilestored [{sums} + {sums_stride}], tmm0",
                "tilestored [{sums} + {sums_stride} + 64], tmm1",
                sums = in(reg) self.sums.as_mut_ptr(),
                sums_stride = in(reg) SUMS_STRIDE,
                q = inout(reg) self.q => _,
                q_stride = in(reg) self.q_stride,
                first = inout(reg) self.digits[0] => _,
                second = inout(reg) self.digits[1] => _,
                line = in(reg) 64usize,
                tiles = inout(reg) self.tiles => _,
                ahead = inout(reg) self.ahead => _,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// 17 to 32 tokens.
    #[inline(always)]
    unsafe fn add_two(self) {
        let next_q = self.q.wrapping_add(TILE_TOKENS * self.q_stride);
        // SAFETY: the shapes are set, and all addresses are those of bytes that are there.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {sums_stride}]",
                "tileloadd tmm1, [{sums} + {sums_stride} + 64]",
                "tileloadd tmm2, [{next_sums} + {sums_stride}]",
                "tileloadd tmm3, [{next_sums} + {sums_stride} + 64]",
                "2:",
                "tileloadd tmm4, [{q} + {q_stride}]",
                "tileloadd tmm6, [{first} + {line}]",
                "prefetcht1 [{ahead}]",
                "prefetcht1 [{ahead} + 64]",
                "tdpbsud tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{second} + {line}]",
                "prefetcht1 [{ahead} + 128]",
                "prefetcht1 [{ahead} + 192]",
                "tdpbsud tmm1, tmm4, tmm7",
                "add {ahead}, 256",
                "tileloadd tmm5, [{next_q} + {q_stride}]",
                "tdpbsud tmm2, tmm5, tmm6",
                "tdpbsud tmm3, tmm5, tmm7",
                "add {q}, 64",
                "add {next_q}, 64",
                "add {first}, 1024",
                "add {second}, 1024",
                "dec {tiles}",
                "jnz 2b",
                "tilestored [{sums} + {sums_stride}], tmm0",
                "tilestored [{sums} + {sums_stride} + 64], tmm1",
                "tilestored [{next_sums} + {sums_stride}], tmm2",
                "tilestored [{next_sums} + {sums_stride} + 64], tmm3",
                sums = in(reg) self.sums.as_mut_ptr(),
                next_sums = in(reg) self.sums[TILE_TOKENS..].as_mut_ptr(),
                sums_stride = in(reg) SUMS_STRIDE,
                q = inout(reg) self.q => _,
                next_q = inout(reg) next_q => _,
                q_stride = in(reg) self.q_stride,
                first = inout(reg) self.digits[0] => _,
                second = inout(reg) self.digits[1] => _,
                line = in(reg) 64usize,
                tiles = inout(reg) self.tiles => _,
                ahead = inout(reg) self.ahead => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// A product of tiles for a group of 128 columns: codes with high bytes, and their first planes
/// with low bytes.
#[derive(Clone, Copy)]
pub struct CodeTiles {
    /// High bytes and, if there are any, low bytes: (2, 16 tokens, 64 columns).
    pub q: [*const i8; 2],
    /// Codes and first planes of the first 16 rows and of the others, (columns / 4, 16 rows, 4
    /// columns).
    pub codes: [[*const __m512i; 2]; 2],
}

/// The sums of 16 tokens with 16 rows of [`CodeTiles`]: high and low ones of the first rows and
/// of the others.
pub type CodeSums = [[[[i32; TILE_ROWS]; TILE_TOKENS]; 2]; 2];

impl CodeTiles {
    /// Replaces the sums of the tokens whose shapes are set in both halves, those of low bytes if
    /// `LOW`.
    ///
    /// # Safety
    /// The CPU has tiles and shapes are set, and there are as many activations and codes as the
    /// fields say.
    #[inline(always)]
    pub unsafe fn multiply<const LOW: bool>(self, sums: &mut CodeSums) {
        let [[first_high, first_low], [second_high, second_low]] = sums;
        // SAFETY: the shapes are set, and all addresses are those of bytes that are there.
        unsafe {
            half(
                self.q[0],
                [self.codes[0][0], self.codes[1][0]],
                [first_high, second_high],
            );
            if LOW {
                half(
                    self.q[1],
                    [self.codes[0][1], self.codes[1][1]],
                    [first_low, second_low],
                );
            }
        }
    }
}

/// Replaces the sums of 32 rows: (16 rows), each (tokens, 16 rows).
///
/// # Safety
/// That of [`CodeTiles::multiply`].
#[inline(always)]
unsafe fn half(
    q: *const i8,
    codes: [*const __m512i; 2],
    [first_sums, second_sums]: [&mut [[i32; TILE_ROWS]; TILE_TOKENS]; 2],
) {
    // SAFETY: as the caller promised.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tileloadd tmm4, [{q} + {line}]",
            "tileloadd tmm6, [{first} + {line}]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{second} + {line}]",
            "tdpbsud tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{q} + {line} + 1024]",
            "tileloadd tmm6, [{first} + {line} + 1024]",
            "tdpbsud tmm0, tmm5, tmm6",
            "tileloadd tmm7, [{second} + {line} + 1024]",
            "tdpbsud tmm1, tmm5, tmm7",
            "tilestored [{first_sums} + {line}], tmm0",
            "tilestored [{second_sums} + {line}], tmm1",
            q = in(reg) q,
            first = in(reg) codes[0],
            second = in(reg) codes[1],
            line = in(reg) 64usize,
            first_sums = in(reg) first_sums.as_mut_ptr(),
            second_sums = in(reg) second_sums.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _,
            out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        );
    }
}

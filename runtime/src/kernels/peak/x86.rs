//! Multiply-adds of SSSE3, AVX2, AVX-VNNI, AVX-512 and AMX.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::amx::tiles::{self, TILE_TOKENS, Tiles};
use super::{Loops, Peak, REPEAT, accumulate, loops};

pub(super) const SSSE3: Peak = Peak {
    table: "ssse3",
    int8: loops!(
        "pmaddubsw and paddw",
        maddubs_128,
        16,
        [4, 6, 8, 12],
        is_x86_feature_detected!("ssse3")
    ),
    f32: loops!("mulps and addps", f32_128, 4, [6, 8, 10, 12], true),
    fma: Loops::NONE,
};

pub(super) const AVX2: Peak = Peak {
    table: "avx2",
    int8: loops!(
        "vpmaddubsw and vpaddw",
        maddubs,
        32,
        [4, 6, 8, 12],
        is_x86_feature_detected!("avx2")
    ),
    f32: F32_256,
    fma: FMA_256,
};

pub(super) const AVX_VNNI: Peak = Peak {
    table: "avx-vnni",
    int8: loops!(
        "vpdpbusd, 256 bits",
        dpbusd_256,
        32,
        [6, 8, 10, 12],
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni")
    ),
    f32: F32_256,
    fma: FMA_256,
};

pub(super) const AVX512: Peak = Peak {
    table: "avx512",
    int8: loops!(
        "vpdpbusd, 512 bits",
        dpbusd_512,
        64,
        [8, 12, 16, 24],
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
    ),
    f32: F32_512,
    fma: FMA_512,
};

pub(super) const AMX: Peak = Peak {
    table: "amx",
    int8: loops!("tdpbsud", dpbsud, 16384, [4], tiles::are_usable()),
    f32: F32_512,
    fma: FMA_512,
};

const F32_512: Loops = loops!(
    "vmulps and vaddps, 512 bits",
    f32_512,
    16,
    [8, 12, 16, 24],
    is_x86_feature_detected!("avx512f")
);

const FMA_512: Loops = loops!(
    "vfmadd231ps, 512 bits",
    fma_512,
    16,
    [8, 12, 16, 24],
    is_x86_feature_detected!("avx512f")
);

const F32_256: Loops = loops!(
    "vmulps and vaddps, 256 bits",
    f32_256,
    8,
    [6, 8, 10, 12],
    is_x86_feature_detected!("avx2")
);

const FMA_256: Loops = loops!(
    "vfmadd231ps, 256 bits",
    fma_256,
    8,
    [6, 8, 10, 12],
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
);

/// The same register with contents that the compiler does not know, so that a product of it is
/// computed each time.
macro_rules! opaque {
    ($class:ident, $x:expr) => {{
        let mut x = $x;
        // SAFETY: no instruction at all.
        unsafe { asm!("/* {0} */", inout($class) x, options(nomem, nostack, preserves_flags)) };
        x
    }};
}

#[target_feature(enable = "ssse3")]
fn maddubs_128<const N: usize>() {
    let one = _mm_set1_epi8(1);
    accumulate::<N, _>(_mm_setzero_si128(), |sum| {
        let x = opaque!(xmm_reg, one);
        _mm_add_epi16(sum, _mm_maddubs_epi16(x, x))
    });
}

#[target_feature(enable = "sse2")]
fn f32_128<const N: usize>() {
    let one = _mm_set1_ps(1.0);
    accumulate::<N, _>(_mm_setzero_ps(), |sum| {
        let x = opaque!(xmm_reg, one);
        _mm_add_ps(sum, _mm_mul_ps(x, x))
    });
}

#[target_feature(enable = "avx2")]
fn maddubs<const N: usize>() {
    let one = _mm256_set1_epi8(1);
    accumulate::<N, _>(_mm256_setzero_si256(), |sum| {
        let x = opaque!(ymm_reg, one);
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(x, x))
    });
}

#[target_feature(enable = "avx2,avxvnni")]
fn dpbusd_256<const N: usize>() {
    let one = opaque!(ymm_reg, _mm256_set1_epi8(1));
    accumulate::<N, _>(_mm256_setzero_si256(), |sum| {
        _mm256_dpbusd_avx_epi32(sum, one, one)
    });
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn dpbusd_512<const N: usize>() {
    let one = opaque!(zmm_reg, _mm512_set1_epi8(1));
    accumulate::<N, _>(_mm512_setzero_si512(), |sum| {
        _mm512_dpbusd_epi32(sum, one, one)
    });
}

/// Tiles of zeros; `N` is the number of tiles of sums.
fn dpbsud<const N: usize>() {
    const { assert!(N == 4) };
    let mut tiles = Tiles::new();
    // SAFETY: only where there are tiles is this loop run.
    unsafe {
        tiles.shape([TILE_TOKENS; 2]);
        asm!(
            "2:",
            "tdpbsud tmm0, tmm4, tmm6",
            "tdpbsud tmm1, tmm4, tmm7",
            "tdpbsud tmm2, tmm5, tmm6",
            "tdpbsud tmm3, tmm5, tmm7",
            "dec {0}",
            "jnz 2b",
            inout(reg) REPEAT => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            options(nomem, nostack),
        );
    }
}

#[target_feature(enable = "avx2")]
fn f32_256<const N: usize>() {
    let one = _mm256_set1_ps(1.0);
    accumulate::<N, _>(_mm256_setzero_ps(), |sum| {
        let x = opaque!(ymm_reg, one);
        _mm256_add_ps(sum, _mm256_mul_ps(x, x))
    });
}

#[target_feature(enable = "avx512f")]
fn f32_512<const N: usize>() {
    let one = _mm512_set1_ps(1.0);
    accumulate::<N, _>(_mm512_setzero_ps(), |sum| {
        let x = opaque!(zmm_reg, one);
        _mm512_add_ps(sum, _mm512_mul_ps(x, x))
    });
}

#[target_feature(enable = "avx2,fma")]
fn fma_256<const N: usize>() {
    let one = opaque!(ymm_reg, _mm256_set1_ps(1.0));
    accumulate::<N, _>(_mm256_setzero_ps(), |sum| _mm256_fmadd_ps(one, one, sum));
}

#[target_feature(enable = "avx512f")]
fn fma_512<const N: usize>() {
    let one = opaque!(zmm_reg, _mm512_set1_ps(1.0));
    accumulate::<N, _>(_mm512_setzero_ps(), |sum| _mm512_fmadd_ps(one, one, sum));
}

//! How tables are filled: those of x86 CPUs with loops of `float`, `codes`, `screen` and `softmax`,
//! compiled for an instruction set, and with functions of that instruction set.
//!
//! A table is handed out by its `detect` only, after all features that its functions are compiled
//! for were found. This is what makes the two calls of this file sound, and every slot is filled
//! through one of them.

/// [`Kernels`](super::Kernels) with every loop that the compiler vectorizes well, compiled for the
/// features `$features`; the other slots are those of `scalar`.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled_loops {
    ($features:literal) => {
        $crate::kernels::compile::compiled_loops! { $features:
            float::quantize_int16(x: &[f32], high: &mut [i8], low: &mut [i8]) -> f32;
            float::sum(q: &[i8]) -> i32;
            float::dequantize(sums: &[i32], s: f32, scale: f32, y: &mut [f32]) -> ();
            float::quantize_blocks(x: &[f32], blocks: &mut [$crate::kernels::QuantizedBlock]) -> ();
            float::rms_norm(x: &mut [f32], weight: &[f32], eps: f32) -> f32;
            float::silu_mul(gate: &mut [f32], up: &[f32]) -> ();
            float::relu2_mul(gate: &mut [f32], up: &[f32]) -> ();
            float::gelu_tanh_mul(gate: &mut [f32], up: &[f32]) -> ();
            float::rotate(x: &mut [f32], cos: &[f32], sin: &[f32]) -> ();
            float::add(x: &mut [f32], y: &[f32]) -> ();
            codes::decode_planes(
                planes: &sterna_ternary::planes::Planes,
                row: usize,
                values: &mut [f32]
            ) -> ();
            screen::reaching(
                sums: &[i64],
                bounds: &$crate::kernels::screen::RowBounds,
                threshold: $crate::kernels::screen::Threshold
            ) -> u64;
            screen::largest(sums: &[i64], scales: &[f32], skipped: u64) -> (f64, usize);
            softmax::softmax_blocks(
                scores: $crate::kernels::Scores,
                blocks: &mut [$crate::kernels::SoftmaxBlock]
            ) -> ();
            softmax::softmax_blocks_i8(
                scores: $crate::kernels::Scores,
                factors: &[f32],
                scales: [&[f32]; 2],
                weights: &mut [i16],
                blocks: &mut [$crate::kernels::SoftmaxBlock]
            ) -> ();
            softmax::merge(y: &mut [f32], x: &[f32], factors: [f32; 2]) -> ();
            softmax::quantize_i16(x: &[f32], scale: f32, largest: f32, q: &mut [i16]) -> f32;
        }
    };
    ($features:literal: $($file:ident::$slot:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $crate::kernels::Kernels {
            $($slot: {
                fn slot($($arg: $type),*) -> $result {
                    #[target_feature(enable = $features)]
                    fn compiled($($arg: $type),*) -> $result {
                        $crate::kernels::$file::$slot($($arg),*)
                    }
                    // SAFETY: only a table calls this, and `detect` hands a table out only where it
                    // found `$features`.
                    unsafe { compiled($($arg),*) }
                }
                slot
            },)*
            ..$crate::kernels::scalar::KERNELS
        }
    };
}

/// A slot that calls a function of the table's instruction set:
/// `slot!(module::function(arguments))`.
macro_rules! slot {
    ($($path:ident)::+($($arg:ident),*)) => {
        |$($arg),*| {
            // SAFETY: only a table calls this, and `detect` hands a table out only where it found
            // every feature that the functions in it are compiled for.
            unsafe { $($path)::+($($arg),*) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) use compiled_loops;
pub(super) use slot;

//! Options for what a GGUF file does not say of itself.

use std::path::PathBuf;

use clap::ValueEnum;
use sterna_convert::{GgufHints, I2sOrder, LutKernels};

#[derive(clap::Args)]
pub struct Hints {
    /// How the I2_S of a GGUF source is laid out, which the file does not say. arm: bitnet.cpp on ARM after
    /// November 2025.
    #[arg(long, value_enum, default_value = "x86")]
    i2s_order: Order,
    /// For a GGUF source in TL1 or TL2, the include/kernel_config.ini of the bitnet.cpp that wrote it: the order of
    /// the weights depends on it and the file does not say which it was.
    #[arg(long, value_name = "FILE")]
    kernel_config: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Order {
    X86,
    Arm,
}

impl Hints {
    pub fn read(&self) -> sterna_convert::Result<GgufHints> {
        let kernels = self.kernel_config.as_deref().map(LutKernels::open);
        Ok(GgufHints {
            i2s_order: match self.i2s_order {
                Order::X86 => I2sOrder::Blocks128,
                Order::Arm => I2sOrder::Blocks64,
            },
            kernels: kernels.transpose()?,
        })
    }
}

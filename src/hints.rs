//! Options for what a GGUF file does not say of itself.

use std::path::PathBuf;

use clap::ValueEnum;
use sterna_convert::{GgufHints, I2sOrder, LutKernels};

#[derive(clap::Args)]
pub struct Hints {
    /// Layout of I2_S in a GGUF source, which the file does not say.
    ///
    /// arm: bitnet.cpp on ARM after November 2025.
    #[arg(long, value_enum, default_value = "x86", help_heading = "Source")]
    i2s_order: Order,
    /// For TL1 or TL2, the kernel_config.ini of the bitnet.cpp that wrote it.
    ///
    /// The file is include/kernel_config.ini. The order of the weights depends on it, and a GGUF
    /// file does not say which one it was written with.
    #[arg(long, value_name = "FILE", help_heading = "Source")]
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

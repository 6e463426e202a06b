//! Options for the properties that a GGUF file does not state.

use std::path::PathBuf;

use sterna_convert::{GgufHints, I2sOrder, LutKernels};

use crate::choice::choice;

#[derive(clap::Args)]
pub struct Hints {
    /// Layout of I2_S in GGUF.
    ///
    /// A GGUF file does not say which layout it has. arm is what bitnet.cpp writes on ARM since
    /// November 2025; all published files have the layout x86.
    #[arg(
        long,
        value_name = "CPU",
        default_value = "x86",
        help_heading = "Source"
    )]
    #[arg(value_parser = choice(ORDERS, processor))]
    i2s_order: I2sOrder,
    /// For TL1 or TL2, the kernel_config.ini of the bitnet.cpp that wrote it.
    ///
    /// The file is include/kernel_config.ini. The order of the weights depends on it, and a GGUF
    /// file does not say which one it was written with.
    #[arg(long, value_name = "FILE", help_heading = "Source")]
    kernel_config: Option<PathBuf>,
}

const ORDERS: [(I2sOrder, &str); 2] = [(I2sOrder::Blocks128, ""), (I2sOrder::Blocks64, "")];

/// The processor on which bitnet.cpp writes blocks in this order.
fn processor(order: I2sOrder) -> &'static str {
    match order {
        I2sOrder::Blocks128 => "x86",
        I2sOrder::Blocks64 => "arm",
    }
}

impl Hints {
    pub fn read(&self) -> sterna_convert::Result<GgufHints> {
        let kernels = self.kernel_config.as_deref().map(LutKernels::open);
        Ok(GgufHints {
            i2s_order: self.i2s_order,
            kernels: kernels.transpose()?,
        })
    }
}

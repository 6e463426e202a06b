//! `sterna cpu`: what this machine is, and which kernels it runs.

use sterna_validate::speed::Machine;

use crate::output::{out, outln};

/// Show what was detected of this machine, and the kernels that it runs.
///
/// One kernel table is chosen: the fastest that runs.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let machine = Machine::detect();
    match args.json {
        true => outln!("{}", machine.json_with_kernels())?,
        false => out!("{}{}", machine.describe(), machine.describe_kernels())?,
    }
    Ok(())
}

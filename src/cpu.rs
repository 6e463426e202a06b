//! `sterna cpu`: what this machine is, and which kernels it runs.

use serde_json::{Value, json};
use sterna_runtime::Kernels;
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
    if args.json {
        let tables = machine.tables();
        let tables = tables.iter().map(|table| {
            json!({
                "name": table.name, "runs": table.missing.is_empty(), "missing": table.missing,
            })
        });
        outln!(
            "{}",
            json!({
                "machine": machine.json(),
                "kernels": Kernels::best().name,
                "tables": tables.collect::<Value>(),
            })
        )?;
    } else {
        out!("{}", machine.describe())?;
        for table in machine.tables() {
            let why = match table.missing.as_slice() {
                [] if table.name == Kernels::best().name => "runs; chosen, the fastest".to_owned(),
                [] => "runs".to_owned(),
                missing => format!("does not run: no {}", missing.join(", ")),
            };
            outln!("kernels      {:<8} {why}", table.name)?;
        }
    }
    Ok(())
}

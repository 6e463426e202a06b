//! `sterna cpu`: what this machine is, and which kernels it runs.

use serde_json::{Value, json};
use sterna_runtime::Kernels;
use sterna_ternary::units;
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
                "machine": to_json(&machine),
                "kernels": Kernels::best().name,
                "tables": tables.collect::<Value>(),
            })
        )?;
    } else {
        out!("{}", describe(&machine))?;
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

/// The machine as it stands in JSON.
pub fn to_json(machine: &Machine) -> Value {
    let caches = machine.caches.iter().map(
        |cache| json!({ "level": cache.level, "bytes": cache.bytes, "shared_by": cache.shared_by }),
    );
    let features = machine.features.iter().filter(|(_, has)| *has);
    json!({
        "cpu": machine.cpu,
        "architecture": machine.architecture,
        "logical_cpus": machine.logical_cpus,
        "affinity": machine.affinity,
        "cpu_quota": machine.cpu_quota,
        "usable_cores": machine.usable_cores,
        "caches": caches.collect::<Value>(),
        "memory_bytes": machine.memory_bytes,
        "features": features.map(|(name, _)| *name).collect::<Value>(),
    })
}

/// The machine in words.
pub fn describe(machine: &Machine) -> String {
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".into());
    let caches = machine.caches.iter().map(|cache| {
        let size = match cache.bytes >> 20 {
            0 => format!("{} KiB", cache.bytes >> 10),
            mebibytes => format!("{mebibytes} MiB"),
        };
        format!("L{} {size} (cpus {})", cache.level, cache.shared_by)
    });
    let caches: Vec<String> = caches.collect();
    let features = machine.features.iter().filter(|(_, has)| *has);
    let features: Vec<&str> = features.map(|(name, _)| *name).collect();
    let mut text = format!(
        "processor    {} ({})\n\
         cores        {} physical ones usable; {} hardware threads on, affinity {}\n",
        machine.cpu,
        machine.architecture,
        machine.usable_cores,
        or_unknown(machine.logical_cpus.map(|n| n.to_string())),
        or_unknown(machine.affinity.clone()),
    );
    if let Some(quota) = machine.cpu_quota {
        text += &format!("quota        {quota:.2} processors\n");
    }
    text += &format!(
        "caches       {}\n\
         memory       {}\n\
         features     {}\n",
        or_unknown((!caches.is_empty()).then(|| caches.join(", "))),
        or_unknown(machine.memory_bytes.map(units::bytes)),
        features.join(" "),
    );
    text
}

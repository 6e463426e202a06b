//! `sterna replay`: logged requests computed again.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use serde_json::json;
use sterna_serve::http::{BadModel, Replayed, Served, replay};

use crate::exit::{BadInput, Usage};
use crate::output::{detail, note, outln};

/// Compute logged requests again and compare every byte.
///
/// Reads what `sterna serve --log-requests` wrote. Lines of another fingerprint belong to another
/// model, KV type or version; they are counted and not computed. The exit code is 1 if an answer
/// differs, or if no line could be compared.
#[derive(clap::Args)]
pub struct Args {
    /// The log of requests.
    log: PathBuf,
    #[command(flatten)]
    model: crate::model::Args,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// What came of the lines.
#[derive(Debug, Default)]
struct Counts {
    same: usize,
    different: usize,
    foreign: usize,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let name = args.log.display();
    let file = std::fs::File::open(&args.log).map_err(|e| BadInput(format!("{name}: {e}")))?;
    let served = Served::alone(args.model.open()?).map_err(|error| match error {
        BadModel::Memory(error) => anyhow::Error::from(Usage(error.to_string())),
        error => error.into(),
    })?;
    detail!("{}", served.describe());
    let served = Arc::new(served);
    let mut counts = Counts::default();
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let line = line.with_context(|| format!("{name}, line {number}"))?;
        let replayed = replay(&served, &line);
        match replayed.map_err(|e| BadInput(format!("{name}, line {number}: {e}")))? {
            Replayed::Same => counts.same += 1,
            Replayed::Foreign { fingerprint } => {
                counts.foreign += 1;
                let own = &served.fingerprint;
                note!("line {number}: fingerprint {fingerprint}, this model's is {own}");
            }
            Replayed::Different {
                byte,
                logged,
                computed,
            } => {
                counts.different += 1;
                note!("line {number}: byte {byte} of the answer differs");
                note!("  logged:   {logged}\n  computed: {computed}");
            }
        }
    }
    show(args, &counts)?;
    if counts.different > 0 {
        anyhow::bail!("{} answers differ from the log", counts.different);
    }
    if counts.same == 0 {
        anyhow::bail!("no answer was compared: no line has the fingerprint of this model");
    }
    Ok(())
}

fn show(args: &Args, counts: &Counts) -> anyhow::Result<()> {
    let Counts {
        same,
        different,
        foreign,
    } = counts;
    if args.json {
        let object = json!({"same": same, "different": different, "foreign": foreign});
        outln!("{object}")?;
    } else {
        outln!("{same} answers are the same, {different} differ, {foreign} lines are of others")?;
    }
    Ok(())
}

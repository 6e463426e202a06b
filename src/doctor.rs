//! `sterna doctor`: why a model writes garbage, as a list of known failure modes, each with a
//! verdict and a fix.

use std::path::PathBuf;

use sterna_diagnose::doctor::{self, Examination, Stage};
use sterna_ternary::TemporaryFolder;

use crate::exit;
use crate::locate::{Want, locate};
use crate::output::{note, out, outln};
use crate::terminal;

/// Find out why a model writes garbage.
///
/// Checks its files, weights, tokenizer and template for known failure modes. The model is packed
/// into a temporary folder and predicts built-in texts, unchanged and with typical mistakes undone.
/// Exit codes: 0 nothing is broken, 1 something is, 3 it cannot be read
#[derive(clap::Args)]
pub struct Args {
    /// A packed file, a Hugging Face folder, a GGUF file, or a hub name.
    model: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let report = examine(args)?;
    if args.json {
        outln!("{}", serde_json::to_string(&report)?)?;
    } else {
        out!("{}", report.describe())?;
    }
    Ok(match report.broken {
        0 => exit::FINE,
        _ => exit::FAILED,
    })
}

/// Packs the model into a temporary folder and checks it.
pub fn examine(args: &Args) -> anyhow::Result<Examination> {
    let path = locate(&args.model, Want::Either)?;
    let scratch = TemporaryFolder::new()?;
    let bar = terminal::bar(0, "  packing {wide_bar} {percent}%");
    let report = doctor::examine(&path, scratch.path(), &mut |progress| match progress {
        Stage::Packing { done, total } => {
            bar.set_length(total);
            bar.set_position(done);
        }
        Stage::Running(what) => {
            bar.finish_and_clear();
            if terminal::is_terminal() {
                note!("  running the built-in texts {what}");
            }
        }
    });
    bar.finish_and_clear();
    Ok(report?)
}

//! `sterna inspect`: what is in a packed file or a checkpoint.

use std::path::PathBuf;

use sterna_diagnose::facts::{self, Facts};

use crate::exit::Usage;
use crate::locate::{Want, locate};
use crate::output::{out, outln, warning};

/// Show what is in a model: shapes, packing, sizes, trits, tokenizer.
///
/// Also its family and its chat template.
#[derive(clap::Args)]
pub struct Args {
    /// A packed file, a Hugging Face folder, a GGUF file, or a hub name.
    model: PathBuf,
    /// Read everything: compare the checksum and count all trits.
    ///
    /// This takes as long as reading the file takes. Checkpoints have no checksum.
    #[arg(long)]
    verify: bool,
    /// Tokens of context for which memory is counted [default: the most]
    ///
    /// The most is the context that the model was made for.
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let facts = look(args)?;
    match args.json {
        true => outln!("{}", serde_json::to_value(&facts)?)?,
        false => out!("{}", facts.describe(args.verify))?,
    }
    Ok(())
}

/// Opens the model and counts.
pub fn look(args: &Args) -> anyhow::Result<Facts> {
    let path = locate(&args.model, Want::Either)?;
    let source = sterna_convert::open(&path, true)?;
    for warning in source.warnings() {
        warning!("{warning}");
    }
    let most = source.config().max_position_embeddings;
    if let Some(context) = args.context.filter(|n| !(1..=most).contains(n)) {
        let why = format!("--context {context}: the model was made for 1 to {most} tokens");
        return Err(Usage(why).into());
    }
    Ok(facts::of(&path, &*source, args.verify, args.context)?)
}

//! `sterna tokenizer`: a byte-level BPE from texts.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use sterna_datasets::bpe::WordCounts;
use sterna_ternary::units;
use sterna_train::Preparing;
use sterna_train::run::texts::SAMPLE;

use crate::output::{note, outln};
use crate::preparing::{Progress, ReadArgs, StrictArg, warn};

/// Train a tokenizer.
#[derive(Subcommand)]
pub enum Verb {
    Train(Train),
}

/// Train a byte-level BPE and write files that transformers loads.
///
/// The files are tokenizer.json and tokenizer_config.json. Digits stay single tokens.
/// `<|begin_of_text|>` is id 0 and `<|end_of_text|>` id 1.
#[derive(clap::Args)]
pub struct Train {
    /// Files or folders of texts and of records, or hub data sets.
    ///
    /// The kinds of files are those of `sterna data prepare`.
    #[arg(required = true)]
    text: Vec<PathBuf>,
    /// Number of tokens.
    ///
    /// The 256 bytes and the special tokens are included. There are fewer if the text has no more
    /// pairs to merge.
    #[arg(long, value_name = "N")]
    vocab_size: usize,
    /// The folder to write into; created if it does not exist.
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    /// Megabytes of text to learn from at most; 0 for all.
    ///
    /// Of more text a sample is taken, in parts from everywhere. More text changes few tokens and
    /// takes longer.
    #[arg(long, value_name = "MB", default_value_t = SAMPLE / 1_000_000)]
    sample: u64,
    /// Context that transformers should assume, in tokens.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    context: usize,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    strict: StrictArg,
    /// Print one JSON object with path and size.
    #[arg(long)]
    json: bool,
}

pub fn run(verb: &Verb) -> anyhow::Result<()> {
    let Verb::Train(args) = verb;
    let parts = args.read.parts(&args.text)?;
    let (total, bytes) = (parts.total(), parts.text_bytes());
    let most = match args.sample {
        0 => u64::MAX,
        megabytes => megabytes.saturating_mul(1_000_000),
    };
    let mut parts = parts.tolerant(args.strict.strict);
    let mut progress = Progress::new(Preparing::Words, total);
    let mut counts = WordCounts::new()?;
    let used = {
        let watch = &mut progress.watch(Preparing::Words, total);
        counts.add_sample(&mut parts, bytes, most, watch)?
    };
    progress.show(Preparing::Merges, 0, 0);
    let tokenizer = counts.train(args.vocab_size, &[])?;
    progress.finish();
    warn(&parts);
    if bytes > most {
        note!(
            "trained on {} of about {} of text, from all parts of it; --sample 0 reads all",
            units::bytes(used),
            units::bytes(bytes)
        );
    }
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("{}: cannot be created", args.out.display()))?;
    tokenizer.save(&args.out, args.context)?;
    if args.json {
        outln!(
            "{}",
            json!({"out": args.out, "vocab_size": tokenizer.vocab_size()})
        )?;
    } else {
        outln!(
            "{}: {} tokens",
            args.out.join("tokenizer.json").display(),
            tokenizer.vocab_size()
        )?;
    }
    Ok(())
}

//! `sterna tokenizer`: a byte-level BPE from texts.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use sterna_datasets::{read, train_bpe};

use crate::locate::texts;
use crate::output::outln;

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
    /// Files or folders of .txt, .jsonl, .json and .parquet, or hub data sets.
    ///
    /// A data set of the hub is hf:org/name@revision.
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
    /// Documents to read at most.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    documents: usize,
    /// Context that transformers should assume, in tokens.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    context: usize,
    /// The line that separates the documents of a .txt file.
    #[arg(long, value_name = "LINE")]
    separator: Option<String>,
    /// Print one JSON object with path and size.
    #[arg(long)]
    json: bool,
}

pub fn run(verb: &Verb) -> anyhow::Result<()> {
    let Verb::Train(args) = verb;
    let texts = args.text.iter().map(|path| texts(path));
    let texts: Vec<PathBuf> = texts.collect::<anyhow::Result<_>>()?;
    let documents = read::documents(&texts, args.separator.clone())?;
    let texts: Vec<String> = documents
        .take(args.documents)
        .collect::<sterna_datasets::Result<_>>()?;
    let tokenizer = train_bpe(texts, args.vocab_size, &[])?;
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

//! `sterna data`: texts to look at, token shards to train on.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use sterna_datasets::{Corpus, Mix, Split, Tokenizer, prepare};
use sterna_train::Preparing;

use crate::choice::choice;
use crate::output::outln;
use crate::preparing::{Progress, ReadArgs, StrictArg, warn};

/// Generate texts with known answers, or turn texts into token shards.
#[derive(Subcommand)]
pub enum Verb {
    Generate(Generate),
    Prepare(Prepare),
}

/// Print generated documents as JSON lines: task, text, entropy in nats.
///
/// Tasks: stories, addition2, addition3, copy, recall, facts, chat. Sums are written lowest digit
/// first, so `12+39=150` means 51. Documents of chat have `messages` instead of `text`, as
/// `sterna train --chat` reads them.
#[derive(clap::Args)]
pub struct Generate {
    /// Tasks and their shares, like addition2=0.6,stories=0.4.
    #[arg(long)]
    mix: Mix,
    /// Number of documents.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    documents: u64,
    /// The same seed gives the same documents.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Which part to generate.
    ///
    /// Held-out documents share no problem with training documents.
    #[arg(long, default_value = "train", value_parser = choice(SPLITS, Split::name))]
    split: Split,
}

const SPLITS: [(Split, &str); 2] = [(Split::Train, ""), (Split::HeldOut, "")];

/// Encode texts into train.tokens and held_out.tokens.
#[derive(clap::Args)]
pub struct Prepare {
    /// Files or folders of texts and of records, or hub data sets.
    ///
    /// .txt and .md files are one document, or several with --separator. Records of .jsonl,
    /// .ndjson, .json and .parquet have `text`, `messages`, or `prompt` and `completion`, or the
    /// key of --column. All but .parquet may be packed, with .gz or .zst at the end of their names.
    /// A data set of the hub is hf:org/name@revision.
    #[arg(required = true)]
    text: Vec<PathBuf>,
    /// A folder with tokenizer.json, as `sterna tokenizer train` writes it.
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// The folder to write into; created if it does not exist.
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    /// Share of the documents that is held out.
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.01,
        allow_negative_numbers = true
    )]
    held_out: f64,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    strict: StrictArg,
    /// Print one JSON object with paths and counts.
    #[arg(long)]
    json: bool,
}

pub fn run(verb: &Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Generate(args) => generate(args),
        Verb::Prepare(args) => prepare(args),
    }
}

fn generate(args: &Generate) -> anyhow::Result<()> {
    let corpus = Corpus {
        mix: args.mix.clone(),
        seed: args.seed,
        split: args.split,
    };
    for index in 0..args.documents {
        outln!("{}", corpus.record(index))?;
    }
    Ok(())
}

fn prepare(args: &Prepare) -> anyhow::Result<()> {
    let tokenizer = Tokenizer::load(&args.tokenizer)?;
    let held_out = prepare::HeldOut::share(args.held_out)?;
    let parts = args.read.parts(&args.text)?;
    let total = parts.total();
    let mut parts = parts.tolerant(args.strict.strict);
    let mut progress = Progress::new(Preparing::Tokens, total);
    let written = {
        let watch = &mut progress.watch(Preparing::Tokens, total);
        prepare::texts(&mut parts, &tokenizer, &args.out, held_out, watch)?
    };
    progress.finish();
    warn(&parts);
    let shards = [&written.train, &written.held_out];
    if args.json {
        let entry = |s: &prepare::Written| {
            let (path, documents) = (&s.path, s.documents);
            json!({"path": path, "documents": documents, "tokens": s.tokens})
        };
        outln!(
            "{}",
            json!({"train": entry(shards[0]), "held_out": entry(shards[1]),
                "left_out": parts.left_out()})
        )?;
    } else {
        for s in shards {
            outln!(
                "{}: {} documents, {} tokens",
                s.path.display(),
                s.documents,
                s.tokens
            )?;
        }
    }
    Ok(())
}

//! `sterna embed`: vectors of texts, for search, clustering and comparison.
//!
//! The vector of a text is the hidden state of its last token after the last norm, scaled to length
//! one. sentence-transformers computes the same with last-token pooling and normalization. Texts
//! are computed in batches, and the bits of a vector do not depend on the batch.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use sterna_runtime::embed::{self, Batch, Embedded};
use sterna_runtime::{Model, Tokenizer};

use crate::generate::BYTE_ORDER_MARK;
use crate::output::outln;

/// Print a vector for each text, one per line.
///
/// The vector is the hidden state of the last token. Embedding models with last-token pooling are
/// trained for it, and any model has one. Special tokens are those of the model's tokenizer.json
/// and tokenizer_config.json. If the tokenizer ends texts with a token, as embedding models do, the
/// vector is that token's hidden state. An instruction that a model expects before queries is part
/// of the text.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: crate::model::Args,
    /// A text; repeatable [default: the lines of standard input]
    #[arg(long, short, conflicts_with = "file")]
    text: Vec<String>,
    /// A file with one text per line.
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// Do not scale the vectors to length one.
    #[arg(long)]
    no_normalize: bool,
    /// Print a JSON object per line: index, embedding, number of tokens.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let model = args.model.open()?;
    let tokenizer = model.tokenizer()?;
    let (mut batch, mut done) = (Batch::new(&model), 0);
    for (index, text) in args.texts()?.enumerate() {
        let ids = ids(&model, &tokenizer, &text?).with_context(|| format!("text {index}"))?;
        args.print(batch.push(ids)?, &mut done)?;
    }
    args.print(batch.finish()?, &mut done)
}

impl Args {
    fn texts(&self) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<String>> + '_>> {
        if !self.text.is_empty() {
            return Ok(Box::new(self.text.iter().map(|text| Ok(text.clone()))));
        }
        let Some(path) = &self.file else {
            let lines = std::io::stdin().lock().lines();
            return Ok(Box::new(
                lines.map(|line| line.map(without_mark).context("standard input")),
            ));
        };
        let name = || path.display().to_string();
        let file = std::fs::File::open(path).with_context(name)?;
        let lines = BufReader::new(file).lines();
        Ok(Box::new(lines.map(move |line| {
            line.map(without_mark).with_context(name)
        })))
    }

    /// Prints the vectors of texts after those that are done.
    fn print(&self, vectors: Vec<Embedded>, done: &mut usize) -> anyhow::Result<()> {
        for (mut vector, tokens) in vectors {
            if !self.no_normalize {
                embed::normalize(&mut vector);
            }
            if self.json {
                outln!(
                    "{}",
                    json!({"index": *done, "embedding": vector, "tokens": tokens})
                )?;
            } else {
                let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
                outln!("{}", numbers.join(" "))?;
            }
            *done += 1;
        }
        Ok(())
    }
}

fn without_mark(line: String) -> String {
    line.trim_start_matches(BYTE_ORDER_MARK).to_owned()
}

/// The tokens of a text. An error if there are none, or more than the model takes.
fn ids(model: &Model, tokenizer: &Tokenizer, text: &str) -> anyhow::Result<Vec<u32>> {
    let ids = tokenizer.encode(text, true)?;
    let most = model.config().max_position_embeddings;
    anyhow::ensure!(
        !ids.is_empty(),
        "the text has no tokens, expected at least one; leave empty lines out"
    );
    anyhow::ensure!(
        ids.len() <= most,
        "the text has {} tokens, expected at most {most}; divide it",
        ids.len()
    );
    Ok(ids)
}

//! `sterna validate`: what a model costs in accuracy and gains in speed.

mod models;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use sterna_runtime::Options;
use sterna_validate::{Convention, Text, judge};

use crate::exit::{Interrupted, Usage};
use crate::{model, terminal};
use models::Models;

/// Measure what models lose in accuracy and gain in speed, and write a report for whoever must decide.
///
/// The first model is the reference that the others are compared with, token by token. Without --text, stories of
/// the built-in generator are predicted, which any model trained by `sterna quickstart` knows.
#[derive(clap::Args)]
pub struct Args {
    /// Packed files, Hugging Face folders, GGUF files, folders of training runs or names on the hub; the first
    /// is the reference.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Texts to predict: .txt, .jsonl, or folders of them [default: stories of the built-in generator]
    #[arg(long, num_args = 1..)]
    text: Vec<PathBuf>,
    /// The line that separates the documents of a .txt file.
    #[arg(long)]
    separator: Option<String>,
    /// How perplexity is computed; figures of different conventions do not compare.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "rolling")]
    convention: Vec<ConventionName>,
    /// Tokens that predict at most [default: what all models take, but 512 for chunks and 2048 for the others]
    #[arg(long)]
    context: Option<usize>,
    /// Of the convention `strided` [default: half the context]
    #[arg(long)]
    stride: Option<usize>,
    /// Score about so many tokens and leave the rest of the text out.
    #[arg(long)]
    tokens: Option<usize>,
    /// Threads [default: one per physical core that this process may use]
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    choices: model::Choices,
    /// The folder of the report, and of what a later call with the same arguments need not compute again.
    #[arg(long, short)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum ConventionName {
    /// As llama.cpp: chunks of the text, their second halves scored
    Chunks,
    /// As lm-evaluation-harness: every token of each document; also per word and byte
    Rolling,
    /// As transformers' guide: overlapping windows
    Strided,
}

/// Stories that are scored where no text is given.
const STORIES: u64 = 2000;

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let options = Options {
        threads: args.threads.map(model::check_threads).transpose()?,
        kernels: args.choices.kernels()?,
        kv_type: args.choices.kv_type(),
        memory: args.choices.memory(),
    };
    let text = match args.text.is_empty() {
        true => Text::stories(STORIES),
        false => Text::open(&args.text, args.separator.clone())?,
    };
    terminal::catch_interrupts()?;
    let models = Models::open(&args.models, options)?;
    let state = tempfile::tempdir()?;
    for convention in conventions(args, &models)? {
        let task = sterna_validate::Task {
            text: &text,
            convention,
            most_tokens: args.tokens,
            state: state.path(),
        };
        let bar = terminal::bar(0, "  tokens {wide_bar} {pos}/{len}  ETA {eta}");
        let judgments = judge(&models.subjects, &task, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            !terminal::interrupted()
        })?;
        bar.finish_and_clear();
        for (i, judgment) in judgments.ok_or(Interrupted)?.iter().enumerate() {
            let scored = judgment.scored(&task);
            println!("{} {} {:?}", i, convention.name(), scored.perplexity().loss);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The conventions that were asked for, with what all models take as the context.
fn conventions(args: &Args, models: &Models) -> anyhow::Result<Vec<Convention>> {
    let longest =
        |subject: &sterna_validate::Subject| subject.model.config().max_position_embeddings;
    let most = models.subjects.iter().map(longest).min().unwrap_or(1);
    let context = |usual: usize| match args.context {
        Some(context) if !(4..=most).contains(&context) => {
            let why = format!("--context {context}: expected 4 to {most}, which all models take");
            Err(Usage(why))
        }
        given => Ok(given.unwrap_or(usual.min(most))),
    };
    let convention = |name: &ConventionName| {
        Ok(match name {
            ConventionName::Chunks => Convention::Chunks {
                context: context(512)?,
            },
            ConventionName::Rolling => Convention::Rolling {
                context: context(2048)?,
            },
            ConventionName::Strided => {
                let context = context(2048)?;
                let stride = args.stride.unwrap_or(context / 2);
                if !(1..=context).contains(&stride) {
                    let why = format!("--stride {stride}: expected 1 to {context}, the context");
                    return Err(Usage(why).into());
                }
                Convention::Strided { context, stride }
            }
        })
    };
    args.convention.iter().map(convention).collect()
}

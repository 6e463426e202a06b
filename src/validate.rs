//! `sterna validate`: what a model costs in accuracy and gains in speed.

mod models;
mod progress;

use std::path::PathBuf;

use sterna_runtime::{Options, threads};
use sterna_validate::accuracy::NEGLIGIBLE;
use sterna_validate::gate::Scope;
use sterna_validate::report::{ModelReport, Plan, Setting};
use sterna_validate::speed::SpeedPlan;
use sterna_validate::store::State;
use sterna_validate::{Convention, Gate, Report, Subject, Text, judge, tasks};

use crate::choice::choice;
use crate::exit::{self, Interrupted, Usage};
use crate::model;
use crate::output::{note, out, outln};
use crate::preparing::ReadArgs;
use crate::terminal::Stoppable;
use models::Models;
use progress::Progress;

/// Measure what models lose in accuracy and gain in speed.
///
/// The first model is the reference: the others are compared with it token by token, on a text that
/// all predict. With --out the report is written as a page (report.html), as Markdown and as JSON,
/// its plots as SVG; the same command goes on where it was interrupted. Without --text, stories of
/// the built-in generator are predicted, which models of `sterna quickstart` know.
#[derive(clap::Args)]
pub struct Args {
    /// Models; the first one is the reference.
    ///
    /// Packed files, Hugging Face folders, GGUF files, training runs or names on the hub. A model
    /// that is not a packed file is packed without rounding, its head too.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Take the first model's own master weights as the reference.
    ///
    /// They are not rounded to trits, their activations are not rounded either, and they are
    /// evaluated in f32.
    #[arg(long, help_heading = "Models")]
    masters: bool,
    /// Texts to predict: .txt, .jsonl, .json, .parquet, or folders of them.
    ///
    /// [default: stories of the built-in generator]
    #[arg(long, num_args = 1.., help_heading = "Data")]
    text: Vec<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
    /// How perplexity is computed.
    ///
    /// Figures of different conventions cannot be compared. The answer uses the first convention.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "rolling"
    )]
    #[arg(value_parser = choice(CONVENTIONS, Convention::name), help_heading = "Perplexity")]
    convention: Vec<Convention>,
    /// Tokens that predict a token, at most.
    ///
    /// [default: what all models take, but 512 for chunks and 2048 for the others]
    #[arg(long, value_name = "N", help_heading = "Perplexity")]
    context: Option<usize>,
    /// Stride of the convention `strided` [default: half the context]
    #[arg(long, value_name = "N", help_heading = "Perplexity")]
    stride: Option<usize>,
    /// Score about this number of tokens and leave the rest out.
    ///
    /// The convention `rolling` takes whole documents, and so at least the first one.
    #[arg(long, value_name = "N", help_heading = "Perplexity")]
    tokens: Option<usize>,
    /// Tasks to solve: files, folders, or generated ones.
    ///
    /// Files or folders of records (.jsonl, .parquet) in the layout of a known data set, which is
    /// recognized by their fields or named (LAYOUT=PATH); task files (.toml); or generated tasks:
    /// stories, addition2, addition3, copy, recall, facts. How each task asks is printed first.
    #[arg(long, num_args = 1.., value_delimiter = ',', help_heading = "Tasks")]
    tasks: Vec<String>,
    /// Solved examples before each item of a task.
    #[arg(long, value_name = "N", requires = "tasks", help_heading = "Tasks")]
    fewshot: Option<usize>,
    /// Items of each task at most.
    #[arg(long, value_name = "N", requires = "tasks", help_heading = "Tasks")]
    limit: Option<usize>,
    /// Nats per token that do not matter.
    ///
    /// A smaller difference is called “no practical difference”, not “worse” or “better”.
    #[arg(long, value_name = "NATS", default_value_t = NEGLIGIBLE, value_parser = nats)]
    #[arg(allow_negative_numbers = true, help_heading = "Output")]
    negligible: f64,
    /// Do not measure speed.
    #[arg(long, help_heading = "Speed")]
    no_speed: bool,
    /// Numbers of threads to measure, like 1,2 [default: 1 and --threads]
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        conflicts_with = "no_speed"
    )]
    #[arg(help_heading = "Speed")]
    speed_threads: Vec<usize>,
    /// Numbers of conversations at once to measure.
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,2,4,8"
    )]
    #[arg(conflicts_with = "no_speed", help_heading = "Speed")]
    batch: Vec<usize>,
    /// Rounds that count.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        conflicts_with = "no_speed"
    )]
    #[arg(help_heading = "Speed")]
    repetitions: usize,
    /// Threads [default: one per physical core that this process may use]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    threads: Option<usize>,
    #[command(flatten)]
    choices: model::Choices,
    /// Conditions that later models must meet, like kl<1e-3,top1>=0.99.
    ///
    /// A single model must meet them itself. Other conditions are ppl_ratio<1.01 and decode>20. If
    /// a condition fails, the exit code is 1.
    #[arg(long, value_delimiter = ',', help_heading = "Output")]
    gate: Vec<String>,
    /// The folder of the report; created if it does not exist.
    ///
    /// It also keeps intermediate results, which a later call does not compute again.
    #[arg(long, short, value_name = "DIR", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Print the report as one JSON object.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Conventions with their usual numbers, which [`conventions`] fits to the models.
const CONVENTIONS: [(Convention, &str); 3] = [
    (
        Convention::USUAL[0],
        "As llama.cpp: chunks of the text, their second halves scored",
    ),
    (
        Convention::USUAL[1],
        "As lm-evaluation-harness: every token of each document; also per word and byte",
    ),
    (
        Convention::USUAL[2],
        "As transformers' guide: overlapping windows",
    ),
];

fn nats(text: &str) -> Result<f64, String> {
    let nats = text
        .parse()
        .ok()
        .filter(|nats: &f64| nats.is_finite() && *nats >= 0.0);
    nats.ok_or_else(|| "expected a number of nats, 0 or more".to_owned())
}

/// Stories that are predicted if no text is given.
const STORIES: u64 = 1000;

pub fn run(args: &Args) -> anyhow::Result<u8> {
    for (flag, given) in [("--tokens", args.tokens), ("--limit", args.limit)] {
        if given == Some(0) {
            return Err(Usage(format!("{flag} is 0, expected at least 1")).into());
        }
    }
    let gates = args.gate.iter().map(|gate| gate.parse());
    let gates: Vec<Gate> = gates.collect::<Result<_, _>>()?;
    let options = Options {
        threads: args.threads.map(model::check_threads).transpose()?,
        kernels: args.choices.kernels()?,
        kv_type: args.choices.kv,
        memory: args.choices.memory,
    };
    let text = match args.text.is_empty() {
        true => Text::stories(STORIES),
        false => Text::open(&args.text, &args.read.options())?,
    };
    let exams = exams(args)?;
    let scope = Scope {
        models: args.models.len() + usize::from(args.masters),
        has_speed: !args.no_speed,
        is_rolling: matches!(args.convention[..], [Convention::Rolling { .. }, ..]),
        tasks: exams.iter().map(|task| task.name().to_owned()).collect(),
    };
    for gate in &gates {
        gate.check_scope(&scope)?; // before hours of work
    }
    let state = State::open(args.out.as_deref())?;
    let models = Models::open(&args.models, args.masters, options)?;
    announce(&exams, &models.subjects)?;
    let measured = Plan {
        text: &text,
        conventions: &conventions(args, &models.subjects)?,
        most_tokens: args.tokens,
        exams: &exams,
        speed: (!args.no_speed)
            .then(|| anyhow::Ok((plan(args, &models.subjects)?, options)))
            .transpose()?,
        state: state.folder(),
    };
    let given = models.subjects.iter().zip(&models.given);
    let mut report = Report {
        answer: Vec::new(),
        notes: Vec::new(),
        setting: setting(args, options, &text),
        models: given.map(|(s, path)| ModelReport::of(s, path)).collect(),
        gates: Vec::new(),
    };
    let _stoppable = Stoppable::work();
    let mut progress = Progress::new();
    let see = &mut |what: &str, done, total| progress.see(what, done, total);
    let is_whole = report.measure(&models.subjects, &measured, see)?;
    progress.finish();
    if !is_whole {
        return Err(Interrupted.into());
    }
    for gate in &gates {
        report.gates.extend(gate.check(&report.models));
    }
    let report = report.with_answer();
    if let Some(out) = &args.out {
        report.write(out)?;
    }
    match args.json {
        true => outln!("{}", serde_json::to_string(&report)?)?,
        false => out!("{}", report.text())?,
    }
    let failed: Vec<_> = report.gates.iter().filter(|gate| !gate.holds).collect();
    for gate in &failed {
        let found = gate
            .value
            .map_or("it was not measured".into(), |v| format!("found {v}"));
        note!("gate: {} fails for {}: {found}", gate.condition, gate.model);
    }
    Ok(match failed.is_empty() {
        true => exit::FINE,
        false => exit::FAILED,
    })
}

/// The tasks that were asked for.
fn exams(args: &Args) -> anyhow::Result<Vec<tasks::AccuracyTask>> {
    let options = tasks::TaskOptions {
        fewshot: args.fewshot,
        limit: args.limit,
        ..tasks::TaskOptions::default()
    };
    let tasks = tasks::AccuracyTask::load_all(&args.tasks, &options);
    Ok(tasks.map_err(sterna_validate::Error::from)?)
}

/// Says how each task asks, and refuses models that cannot answer, before hours of work.
fn announce(exams: &[tasks::AccuracyTask], subjects: &[Subject]) -> anyhow::Result<()> {
    for task in exams {
        let room = task.check_room(judge::longest_context(subjects));
        room.map_err(sterna_validate::Error::from)?;
        note!("{}", task.summary().describe(task.name()));
    }
    Ok(())
}

fn setting(args: &Args, options: Options, text: &Text) -> Setting {
    let words = crate::ARGUMENTS.get().into_iter().flatten();
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let command = format!("sterna {}", words.join(" "));
    Setting::of(command, options, text, args.negligible)
}

/// The conventions that were asked for, with what all models take as the context.
fn conventions(args: &Args, subjects: &[Subject]) -> anyhow::Result<Vec<Convention>> {
    let most = judge::longest_context(subjects);
    let fit = |usual: &Convention| usual.fitted(most, args.context, args.stride);
    let fitted: Result<_, _> = args.convention.iter().map(fit).collect();
    Ok(fitted.map_err(Usage)?)
}

fn plan(args: &Args, subjects: &[Subject]) -> anyhow::Result<SpeedPlan> {
    let most = judge::longest_context(subjects);
    let given = args.speed_threads.iter().map(|n| model::check_threads(*n));
    let mut threads: Vec<usize> = given.collect::<Result<_, _>>()?;
    if threads.is_empty() {
        threads = vec![1, args.threads.unwrap_or_else(threads::physical_cores)];
    }
    threads.sort_unstable();
    threads.dedup();
    if args.repetitions == 0 || args.batch.contains(&0) {
        let why = "--repetitions and --batch: expected numbers of at least 1";
        return Err(Usage(why.into()).into());
    }
    let (batches, repetitions) = (args.batch.clone(), args.repetitions);
    Ok(SpeedPlan::within(most, threads, batches, repetitions))
}

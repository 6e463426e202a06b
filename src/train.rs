//! `sterna train`: from a recipe to a Hugging Face folder, with a progress bar.

mod answers;
mod find_rate;
mod page;
mod place;
mod profile;
mod show;
pub mod start;
mod template;
mod watch;

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use serde_json::json;
use sterna_datasets::Layout;
use sterna_train::recipe::presets;
use sterna_train::run::tensorboard::Board;
use sterna_train::{Control, Draft, Event, Outcome, Place, Run};

use crate::choice::choice;
use crate::exit::{Interrupted, Usage, not_built_with};
use crate::model::check_threads;
use crate::output::outln;
use crate::terminal::{self, Stoppable};

pub use place::refuse_ranks;
use watch::Watch;

/// Train a model as a recipe says and write a Hugging Face folder.
///
/// The recipe is a preset, a file, or a file over a preset; flags change single values. OUT gets
/// recipe.toml, run.json (where every value came from, versions, hashes of the data), data/,
/// checkpoints/, metrics.jsonl, tensorboard/ and model/, the folder that `sterna convert` and
/// transformers read. Ctrl-C saves a checkpoint, and the same command continues from there.
#[derive(clap::Args)]
pub struct Args {
    /// A recipe; see configs/ for examples.
    #[arg(long, value_name = "FILE", help_heading = "Recipe")]
    config: Option<PathBuf>,
    /// A recipe inside the program.
    ///
    /// It is named after the size of its model. It needs --text, or [data] in the file of --config.
    #[arg(long, value_name = "NAME", help_heading = "Recipe")]
    #[arg(value_parser = PossibleValuesParser::new(presets::names()))]
    preset: Option<String>,
    /// One value of the recipe, like train.learning_rate=1e-3; repeatable.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Recipe")]
    set: Vec<String>,
    /// A checkpoint to start from, instead of the recipe's shape.
    ///
    /// A file, a folder or a name of the hub, in any format that `sterna convert` reads.
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    from: Option<String>,
    /// A checkpoint to learn from, in addition to the text.
    ///
    /// Named as in --from. [teacher] of the recipe says how much is learned from it. Without --from
    /// the model gets the tokenizer of the teacher.
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    teacher: Option<String>,
    /// Texts to train on: files, folders, hub data sets.
    ///
    /// The kinds of files are .txt, .md, .jsonl, .ndjson, .json and .parquet, and all but the last
    /// also with .gz or .zst. A data set of the hub is hf:org/name@revision.
    #[arg(long, num_args = 1.., value_name = "FILE", help_heading = "Data")]
    text: Vec<PathBuf>,
    /// The key or column of records that holds the text [default: text]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    column: Option<String>,
    /// Conversations to train on: .jsonl, .parquet or folders of them.
    ///
    /// Records have messages, as chats, ShareGPT, Alpaca, TRL and preference sets write them. What
    /// was recognized is printed, with two examples. The model learns the messages of the
    /// assistant. The chat template is that of the checkpoint; for a model from scratch,
    /// `data.template` names it, chatml by default.
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with = "text")]
    #[arg(help_heading = "Data")]
    chat: Vec<PathBuf>,
    /// The layout of the records of --chat [default: what their keys say]
    #[arg(long, value_name = "NAME", value_parser = choice(LAYOUTS, Layout::name))]
    #[arg(help_heading = "Data")]
    chat_format: Option<Layout>,
    /// Refuse data with a record that cannot be used.
    ///
    /// Without this flag such records are left out and counted, and only more than a tenth of them
    /// is an error.
    #[arg(long, help_heading = "Data")]
    strict: bool,
    /// Steps, instead of the recipe's.
    #[arg(long, value_name = "N", help_heading = "Schedule")]
    steps: Option<u64>,
    /// Steps between checkpoints, instead of the recipe's.
    #[arg(long, value_name = "N", help_heading = "Schedule")]
    checkpoint_every: Option<u64>,
    /// Threads [default: all cores]; the weights do not depend on it
    #[arg(long, value_name = "N", help_heading = "Machine")]
    threads: Option<usize>,
    #[command(flatten)]
    place: place::Args,
    /// The folder of the run; created if it does not exist.
    #[arg(long, short, value_name = "DIR", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Show the losses on a page of this machine while training goes on.
    ///
    /// The address is printed. The page is on a free port, or on the one of --watch=PORT.
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "0", help_heading = "Output")]
    watch: Option<u16>,
    /// Print one JSON object at the end: step, loss and folders.
    ///
    /// With a flag of "Instead of training" the object holds the result of that flag.
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Print every value of the recipe and where it comes from, and stop.
    #[arg(long, group = "instead", help_heading = "Instead of training")]
    print_config: bool,
    /// Time two steps and preparation, print memory, speed and hours, stop.
    #[arg(long, group = "instead", help_heading = "Instead of training")]
    plan: bool,
    /// Time the parts of a step, print them and their limits, and stop.
    ///
    /// The table has milliseconds, the share of the step, the work, its rate and the share of the
    /// rate that the machine can reach.
    #[arg(long, group = "instead", help_heading = "Instead of training")]
    profile: bool,
    /// Try learning rates in short runs, suggest one, and stop.
    ///
    /// The rates go from 1e-4 to 3e-2, and the loss of each is printed.
    #[arg(long, group = "instead", help_heading = "Instead of training")]
    find_lr: bool,
    /// Steps of each short run of --find-lr, at least 4.
    #[arg(long, value_name = "N", default_value_t = 60, requires = "find_lr")]
    #[arg(help_heading = "Instead of training", value_parser = clap::value_parser!(u64).range(4..))]
    find_lr_steps: u64,
}

const LAYOUTS: [(Layout, &str); 6] = [
    (Layout::Messages, "A list of `role` and `content`"),
    (Layout::ShareGpt, "A list of `from` and `value`"),
    (Layout::Alpaca, "`instruction`, `input` and `output`"),
    (Layout::PromptCompletion, "`prompt` and `completion`"),
    (Layout::Preference, "`prompt`, `chosen` and `rejected`"),
    (Layout::QuestionAnswer, "A question and an answer, texts"),
];

pub fn run(args: &Args) -> anyhow::Result<()> {
    args.check()?;
    let ranks = args.place.join()?;
    match args.place.place(&ranks) {
        // The place is dropped last: GPUs leave together, and a rank that failed waits for no
        // other.
        Ok(place) => place::end(&ranks, run_at(args, &place)),
        Err(error) => place::end(&ranks, Err(error)),
    }
}

impl Args {
    /// Whether no flag of "Instead of training" is given.
    fn is_training(&self) -> bool {
        !(self.plan || self.profile || self.find_lr || self.print_config)
    }

    /// Refuses a command without a recipe or a folder for the run.
    fn check(&self) -> Result<(), Usage> {
        if self.config.is_none() && self.preset.is_none() {
            let names: Vec<&str> = presets::names().collect();
            return Err(Usage(format!(
                "no recipe: give --preset NAME with --text FILE, or --config FILE; NAME is one of \
                 {}. --from MODEL with either of them starts from a checkpoint",
                names.join(", ")
            )));
        }
        if self.out.is_none() && self.is_training() {
            return Err(Usage("no --out: give the folder of the run".into()));
        }
        if self.watch.is_some() && !cfg!(feature = "serve") {
            return Err(not_built_with("--watch", "serve"));
        }
        Ok(())
    }
}

fn run_at(args: &Args, place: &Place) -> anyhow::Result<()> {
    let run = opened(args)?;
    use_threads(args.threads)?;
    if !args.is_training() && (place.ranks.size() > 1 || args.place.is_on_gpu()) {
        let why = "only training itself runs on several ranks or a GPU";
        return Err(Usage(why.into()).into());
    }
    if args.print_config {
        return show::values(&run, args.json);
    }
    if args.plan {
        return show::plan(&run, args.json);
    }
    if args.profile {
        return profile::print(&run, args.json);
    }
    let Some(out) = args.out.as_ref().filter(|_| !args.find_lr) else {
        return find_rate::run(&run, args.find_lr_steps, args.json);
    };
    let trained = train(&run, out, place, args.watch)?;
    if !place.ranks.is_first() {
        return trained.finished();
    }
    let Outcome {
        step,
        held_out_loss,
        model,
    } = &trained.outcome;
    if args.json {
        outln!(
            "{}",
            json!({"step": step, "held_out_loss": held_out_loss, "model": model})
        )?;
    } else {
        if let Some(loss) = held_out_loss {
            outln!("held-out loss {loss:.4} nats per token after {step} steps")?;
        }
        outln!("{}", model.display())?;
        outln!(
            "next: sterna convert {} --out {}\n      sterna plot {}",
            model.display(),
            out.join("model.sterna").display(),
            out.display()
        )?;
    }
    trained.finished()
}

/// The run of preset, file and flags, later ones over earlier ones, with the checkpoint that they
/// name.
fn opened(args: &Args) -> anyhow::Result<Run> {
    let mut draft = match &args.preset {
        Some(name) => presets::draft(name)?,
        None => Draft::default(),
    };
    if let Some(path) = &args.config {
        draft.add_file(path)?;
    }
    for (key, paths, flag) in [
        ("data.text", &args.text, "--text"),
        ("data.chat", &args.chat, "--chat"),
    ] {
        if !paths.is_empty() {
            let paths = paths.iter().map(|path| path.to_string_lossy().into_owned());
            draft.set(key, paths.collect::<Vec<_>>().into(), flag)?;
        }
    }
    if let Some(layout) = args.chat_format {
        draft.set("data.chat_format", layout.name().into(), "--chat-format")?;
    }
    if args.strict {
        draft.set("data.strict", true.into(), "--strict")?;
    }
    for (key, name, flag) in [
        ("data.column", &args.column, "--column"),
        ("model.from", &args.from, "--from"),
        ("teacher.from", &args.teacher, "--teacher"),
    ] {
        if let Some(name) = name {
            draft.set(key, name.clone().into(), flag)?;
        }
    }
    for (key, value, flag) in [
        ("train.steps", args.steps, "--steps"),
        (
            "train.checkpoint_every",
            args.checkpoint_every,
            "--checkpoint-every",
        ),
    ] {
        if let Some(value) = value {
            draft.set(key, i64::try_from(value)?.into(), flag)?;
        }
    }
    for assignment in &args.set {
        draft.set_text(assignment, "--set")?;
    }
    let config = args.config.as_ref().map(|path| path.display().to_string());
    let name = args.preset.as_ref().map(|name| format!("preset {name}"));
    let (mut recipe, origins) = draft.finish(&config.or(name).unwrap_or_default())?;
    start::datasets(&mut recipe)?;
    start::open(recipe, origins)
}

/// Lets the trainer use this many threads.
pub fn use_threads(threads: Option<usize>) -> anyhow::Result<()> {
    match threads {
        Some(threads) => Ok(sterna_train::use_threads(check_threads(threads)?)?),
        None => Ok(()),
    }
}

/// The outcome of a run and its losses.
pub struct Trained {
    pub outcome: Outcome,
    /// Loss of every step that this call took.
    pub losses: Vec<f64>,
    stopped: bool,
}

impl Trained {
    fn new(outcome: Outcome, losses: Vec<f64>, run: &Run) -> Trained {
        let stopped = outcome.step < run.recipe().train.steps;
        Trained {
            outcome,
            losses,
            stopped,
        }
    }

    /// An error if Ctrl-C ended the run.
    pub fn finished(&self) -> anyhow::Result<()> {
        if self.stopped {
            Err(Interrupted.into())
        } else {
            Ok(())
        }
    }
}

/// Trains with progress on stderr, curves for TensorBoard and, given a port, a page to watch. Only
/// the first rank has them.
pub fn train(
    run: &Run,
    folder: &Path,
    place: &Place,
    port: Option<u16>,
) -> anyhow::Result<Trained> {
    if !place.ranks.is_first() {
        let mut stoppable = None;
        let outcome = sterna_train::train(run, folder, place, |event| {
            if matches!(event, Event::Started { .. }) {
                stoppable = Some(Stoppable::work());
            }
            terminal::control()
        })?;
        return Ok(Trained::new(outcome, Vec::new(), run));
    }
    let mut watch = Watch::new(run.recipe().train.steps);
    let mut board = Board::new(&folder.join("tensorboard"));
    let page = port.and_then(|port| page::open(port, run, folder));
    let mut failed = None;
    let outcome = sterna_train::train(run, folder, place, |event| {
        let control = watch.see(&event);
        if let Some((feed, _)) = &page {
            feed.see(&event, folder);
        }
        if let Err(error) = board.see(&event) {
            failed.get_or_insert(error);
        }
        if failed.is_some() {
            Control::Stop
        } else {
            control
        }
    })?;
    let losses = watch.finish();
    if let Some(error) = failed {
        return Err(error.into());
    }
    Ok(Trained::new(outcome, losses, run))
}

//! `sterna train`: from a recipe to a Hugging Face folder, with a bar.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::json;
use sterna_train::{Control, Event, Outcome, Recipe};

use crate::exit::{Interrupted, Usage};
use crate::terminal;

/// Train a model as a recipe says and write it as a Hugging Face folder.
///
/// OUT gets recipe.toml, data/, checkpoints/, metrics.jsonl and model/, the folder that `sterna convert` and
/// transformers read. The same command goes on where a run was stopped. Ctrl-C saves a checkpoint first.
#[derive(clap::Args)]
pub struct Args {
    /// A recipe; see configs/ for examples.
    #[arg(long)]
    config: PathBuf,
    /// The folder of the run; created if need be.
    #[arg(long, short)]
    out: PathBuf,
    /// Steps, instead of the recipe's.
    #[arg(long)]
    steps: Option<u64>,
    /// Steps between checkpoints, instead of the recipe's.
    #[arg(long)]
    checkpoint_every: Option<u64>,
    /// Threads [default: all cores]; the weights do not depend on it
    #[arg(long)]
    threads: Option<usize>,
    /// Print one JSON object with step, loss and folders at the end.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut recipe = Recipe::load(&args.config)?;
    recipe.train.steps = args.steps.unwrap_or(recipe.train.steps);
    recipe.train.checkpoint_every = args
        .checkpoint_every
        .unwrap_or(recipe.train.checkpoint_every);
    recipe.check(&args.config)?;
    use_threads(args.threads)?;
    terminal::catch_interrupts()?;
    let trained = train(&recipe, &args.out)?;
    let Outcome {
        step,
        held_out_loss,
        model,
    } = &trained.outcome;
    if args.json {
        println!(
            "{}",
            json!({"step": step, "held_out_loss": held_out_loss, "model": model})
        );
    } else {
        if let Some(loss) = held_out_loss {
            println!("held-out loss {loss:.4} nats per token after {step} steps");
        }
        println!("{}", model.display());
        println!(
            "next: sterna convert {} --out {}",
            model.display(),
            args.out.join("model.sterna").display()
        );
    }
    trained.finished()
}

/// Lets the trainer use this many threads.
pub fn use_threads(threads: Option<usize>) -> anyhow::Result<()> {
    match threads {
        Some(0) => Err(Usage("--threads is 0, expected at least 1".into()).into()),
        Some(threads) => Ok(sterna_train::use_threads(threads)?),
        None => Ok(()),
    }
}

/// A run with what was seen of it.
pub struct Trained {
    pub outcome: Outcome,
    /// Loss of every step that this call took.
    pub losses: Vec<f64>,
    stopped: bool,
}

impl Trained {
    /// An error if Ctrl-C ended the run.
    pub fn finished(&self) -> anyhow::Result<()> {
        if self.stopped {
            Err(Interrupted.into())
        } else {
            Ok(())
        }
    }
}

/// Trains with progress on stderr.
pub fn train(recipe: &Recipe, folder: &Path) -> anyhow::Result<Trained> {
    let template = "  {wide_bar} step {pos}/{len}  {msg}  ETA {eta}";
    let mut watch = Watch {
        bar: terminal::bar(recipe.train.steps, template),
        losses: Vec::new(),
        smooth: None,
        start: Instant::now(),
        tokens: 0,
        last_line: Instant::now(),
    };
    let outcome = sterna_train::train(recipe, folder, |event| watch.see(&event))?;
    watch.bar.finish_and_clear();
    let stopped = outcome.step < recipe.train.steps;
    Ok(Trained {
        outcome,
        losses: watch.losses,
        stopped,
    })
}

struct Watch {
    bar: ProgressBar,
    losses: Vec<f64>,
    /// Loss, smoothed over about 50 steps.
    smooth: Option<f64>,
    start: Instant,
    tokens: usize,
    last_line: Instant,
}

/// Time between two lines of a log that is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Watch {
    fn see(&mut self, event: &Event) -> Control {
        match event {
            Event::Preparing => self.say("training the tokenizer and encoding the data"),
            Event::Warning(error) => self.say(&format!("warning: {error}")),
            Event::Started {
                parameters,
                step,
                epochs,
            } => {
                let parameters = *parameters as f64 / 1e6;
                let from = if *step > 0 {
                    format!(", going on from step {step}")
                } else {
                    String::new()
                };
                self.say(&format!(
                    "{parameters:.2} M parameters, {epochs:.1} epochs{from}"
                ));
                self.start = Instant::now();
                self.bar.set_position(*step);
                self.bar.reset_eta();
            }
            Event::Step { step, loss, tokens } => self.step(*step, *loss, *tokens),
            Event::Evaluated { step, loss } => {
                self.say(&format!("step {step}: held-out loss {loss:.4}"));
            }
            Event::Saved(_) => {}
        }
        if terminal::interrupted() {
            Control::Stop
        } else {
            Control::Continue
        }
    }

    fn step(&mut self, step: u64, loss: f64, tokens: usize) {
        self.losses.push(loss);
        self.tokens += tokens;
        let smooth = self.smooth.map_or(loss, |s| s + 0.04 * (loss - s));
        self.smooth = Some(smooth);
        let rate = self.tokens as f64 / self.start.elapsed().as_secs_f64();
        self.bar.set_position(step);
        self.bar
            .set_message(format!("loss {smooth:.3}  {rate:.0} tokens/s"));
        if !terminal::is_terminal() && self.last_line.elapsed() > LINE_EVERY {
            self.last_line = Instant::now();
            let steps = self.bar.length().unwrap_or(step);
            eprintln!("step {step}/{steps}  loss {smooth:.3}  {rate:.0} tokens/s");
        }
    }

    fn say(&self, line: &str) {
        if terminal::is_terminal() {
            self.bar.println(line)
        } else {
            eprintln!("{line}")
        }
    }
}

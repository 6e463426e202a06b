//! `sterna quickstart`: every step once: corpus, training, Hugging Face folder, packed file, text.

use std::path::{Path, PathBuf};
use std::time::Instant;

use sterna_datasets::Task;
use sterna_runtime::{Model, Options};
use sterna_train::{Origins, Place, Recipe};
use sterna_validate::generated::Trial;
use sterna_validate::plot::sparkline;

use crate::exit::BadInput;
use crate::output::{note, out, outln};
use crate::{convert, train};

const RECIPE: &str = include_str!("../configs/quickstart.toml");
const BUILT_IN: &str = "configs/quickstart.toml";

/// Train, pack and try a small ternary model, in minutes and offline.
///
/// Makes a corpus with the built-in generators, trains a tokenizer and a model of about 1M
/// parameters, writes a Hugging Face folder, converts it and runs the packed file. A second call
/// goes on where the first one stopped.
#[derive(clap::Args)]
pub struct Args {
    /// The folder of the run; created if needed.
    #[arg(long, short, value_name = "DIR", default_value = "runs/quickstart")]
    out: PathBuf,
    /// Another recipe, such as configs/chat.toml.
    ///
    /// Its data are a mix with addition2, stories and chat, which the model is tried with.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Steps, instead of the recipe's.
    ///
    /// Fewer steps take less time, and the model then knows less.
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Seed of texts, first weights and order of data, not the recipe's.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads [default: all cores]; the weights do not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let start = Instant::now();
    train::refuse_ranks("quickstart")?;
    let mut recipe = recipe(args.config.as_deref())?;
    if let Some(seed) = args.seed {
        (recipe.data.seed, recipe.train.seed) = (seed, seed);
    }
    recipe.train.steps = args.steps.unwrap_or(recipe.train.steps);
    train::use_threads(args.threads)?;

    let exists = args.out.join("model.sterna").exists();
    note!(
        "1. train: {}{}",
        args.out.display(),
        if exists { " (finished before)" } else { "" }
    );
    let run = train::start::open(recipe, Origins::default())?;
    let recipe = run.recipe();
    let trained = train::train(&run, &args.out, &Place::default(), None)?;
    trained.finished()?;
    if !trained.losses.is_empty() {
        let (first, last) = (
            trained.losses[0],
            trained.outcome.held_out_loss.unwrap_or(f64::NAN),
        );
        note!(
            "   loss {first:.2} {} {last:.2}",
            sparkline(&trained.losses, 60)
        );
    }
    let packed = args.out.join("model.sterna");
    note!(
        "2. convert: {} -> {}",
        trained.outcome.model.display(),
        packed.display()
    );
    let report = convert::convert_with_defaults(&trained.outcome.model, &packed)?;
    note!("   {} weights, {} differ", report.weights, report.differ);

    note!("3. run: {}", packed.display());
    let model = Model::open(
        &packed,
        Options {
            threads: args.threads,
            ..Options::default()
        },
    )?;
    let mix = recipe.data.mix.as_ref();
    let share = mix.map_or(0.0, |mix| mix.share(Task::Stories));
    let trial = Trial::of(&model, recipe.data.seed, share)?;
    let seconds = start.elapsed().as_secs_f64();
    let results = trial.abilities(report.bytes_in, report.bytes_out, seconds);
    let recipe = args.config.as_deref().unwrap_or(Path::new(BUILT_IN));
    let text = results.describe(&trial.samples, &trial.conversation) + &next(&args.out, recipe);
    if args.json {
        note!("{text}");
        outln!("{}", serde_json::to_string(&results)?)?;
    } else {
        out!("{text}")?;
    }
    Ok(())
}

/// The recipe of a file, or the built-in one.
fn recipe(path: Option<&Path>) -> anyhow::Result<Recipe> {
    let Some(path) = path else {
        return Ok(Recipe::parse(RECIPE, Path::new(BUILT_IN))?);
    };
    let text = std::fs::read_to_string(path).map_err(sterna_train::Error::io(path))?;
    let recipe = Recipe::parse(&text, path)?;
    let share = |task| recipe.data.mix.as_ref().map_or(0.0, |mix| mix.share(task));
    let tried = [Task::Addition2, Task::Stories, Task::Chat];
    match tried.into_iter().find(|task| share(*task) == 0.0) {
        None => Ok(recipe),
        Some(task) => Err(BadInput(format!(
            "{}: [data] `mix` has no {task}, which the model is tried with: add it, or use `sterna \
             train --config {0}`",
            path.display(),
        ))
        .into()),
    }
}

/// What is in the folder, and what to do next.
fn next(out: &Path, recipe: &Path) -> String {
    let packed = out.join("model.sterna");
    format!(
        "\nfiles in {}: model/ (Hugging Face folder), model.sterna (packed), \
         metrics.jsonl (loss curve),\n\
         checkpoints/, data/ (tokenizer and tokens), recipe.toml\n\
         \nNext:\n  sterna chat {}\n  \
         sterna generate {} --prompt \"Once Tom\" --temperature 0.8 --seed 3\n  \
         sterna inspect {} --verify\n  \
         sterna train --config {} --out runs/mine\n",
        out.display(),
        out.display(),
        packed.display(),
        packed.display(),
        recipe.display(),
    )
}

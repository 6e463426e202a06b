//! `sterna quickstart`: the main job from nothing: text, training, Hugging Face folder, packed file, text.

mod talk;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use sterna_datasets::{Split, Task, generate};
use sterna_runtime::{Generation, Model, Options, Sampling, Settings, Tokenizer};
use sterna_ternary::units;
use sterna_train::{Origins, Place, Recipe};
use sterna_validate::{Window, pass};

use crate::output::{note, out, outln};
use crate::{convert, terminal, train};

const RECIPE: &str = include_str!("../configs/quickstart.toml");
/// Held-out problems and stories that the packed model is scored on.
const PROBLEMS: u64 = 500;
const STORIES: u64 = 200;

/// Train, pack and try a small ternary model, in minutes and offline.
///
/// Makes a corpus with the built-in generators, trains a tokenizer and a model of about 1M
/// parameters, writes a Hugging Face folder, converts it and runs the packed file. A second call
/// goes on where the first one stopped.
#[derive(clap::Args)]
pub struct Args {
    /// The folder of the run; created if it does not exist.
    #[arg(long, short, value_name = "DIR", default_value = "runs/quickstart")]
    out: PathBuf,
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

/// What the packed model can do.
#[derive(Serialize)]
struct Results {
    /// Share of held-out two-digit sums that are exactly right.
    addition2_accuracy: f64,
    /// Nats per token on held-out stories.
    stories_loss: f64,
    /// Nats per token that no model can do without: the entropy of the generator's choices.
    stories_entropy: f64,
    /// Share of the answers in held-out conversations that are exactly right.
    chat_accuracy: f64,
    decode_tokens_per_second: f64,
    bytes_master: u64,
    bytes_packed: u64,
    seconds: f64,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let start = Instant::now();
    train::refuse_ranks("quickstart")?;
    let mut recipe = Recipe::parse(RECIPE, Path::new("configs/quickstart.toml"))?;
    if let Some(seed) = args.seed {
        (recipe.data.seed, recipe.train.seed) = (seed, seed);
    }
    recipe.train.steps = args.steps.unwrap_or(recipe.train.steps);
    train::use_threads(args.threads)?;
    terminal::catch_interrupts()?;

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
            terminal::sparkline(&trained.losses, 60)
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
    let tokenizer = model.tokenizer()?;
    let samples = samples(&model, &tokenizer)?;
    let (addition2_accuracy, speed) = exact_match(&model, &tokenizer, recipe.data.seed)?;
    let (stories_loss, stories_entropy) = stories(&model, &tokenizer, recipe)?;
    let talk = talk::Talk::new(&model, &tokenizer)?;
    let chat_accuracy = talk.accuracy(recipe.data.seed)?;
    let conversation = talk.conversation()?;
    let results = Results {
        addition2_accuracy,
        stories_loss,
        stories_entropy,
        chat_accuracy,
        decode_tokens_per_second: speed,
        bytes_master: report.bytes_in,
        bytes_packed: report.bytes_out,
        seconds: start.elapsed().as_secs_f64(),
    };
    show(&args.out, &samples, &conversation, &results, args.json)
}

/// Texts that the packed model writes: (prompt, continuation).
fn samples(model: &Model, tokenizer: &Tokenizer) -> anyhow::Result<Vec<(String, String)>> {
    let sampled = |seed| Sampling {
        temperature: 0.7,
        top_p: 0.95,
        seed,
        ..Sampling::default()
    };
    [
        ("Once Mia", sampled(1)),
        ("Once Tom sat in the barn. Ivy", sampled(2)),
        ("47+38=", Sampling::default()),
    ]
    .into_iter()
    .map(|(prompt, sampling)| {
        let stop = if prompt.ends_with('=') {
            vec!["\n".to_owned()]
        } else {
            Vec::new()
        };
        let (text, ..) = complete(
            model,
            tokenizer,
            prompt,
            Settings {
                max_tokens: None,
                sampling,
                stop,
            },
        )?;
        Ok((prompt.to_owned(), text))
    })
    .collect()
}

/// The continuation of a prompt, its new tokens after the first, and the time they took.
fn complete(
    model: &Model,
    tokenizer: &Tokenizer,
    prompt: &str,
    settings: Settings,
) -> anyhow::Result<(String, usize, Duration)> {
    let ids = tokenizer.encode(prompt, true)?;
    let mut cache = model.new_cache(model.config().max_position_embeddings)?;
    let mut generation = Generation::new(model, tokenizer, &mut cache, &ids, settings)?;
    let text = generation.by_ref().collect::<Result<String, _>>()?;
    let summary = generation.summary();
    Ok((
        text,
        summary.generated_tokens.saturating_sub(1),
        summary.generated_time,
    ))
}

/// Share of held-out sums that come out exactly, and decoded tokens per second on the way.
fn exact_match(model: &Model, tokenizer: &Tokenizer, seed: u64) -> anyhow::Result<(f64, f64)> {
    let mut right = 0;
    let (mut tokens, mut time) = (0, Duration::ZERO);
    for index in 0..PROBLEMS {
        let problem = generate::problem(Task::Addition2, seed, index, Split::HeldOut);
        let max_tokens = Some(tokenizer.encode(&problem.answer, false)?.len());
        let settings = Settings {
            max_tokens,
            ..Settings::default()
        };
        let (text, new, elapsed) = complete(model, tokenizer, &problem.prompt, settings)?;
        right += u64::from(text == problem.answer);
        (tokens, time) = (tokens + new, time + elapsed);
    }
    Ok((
        right as f64 / PROBLEMS as f64,
        tokens as f64 / time.as_secs_f64().max(1e-9),
    ))
}

/// Loss and entropy of held-out stories in nats per token. A document's entropy includes the choice
/// of its task from the mix, and both include the token that ends it.
fn stories(model: &Model, tokenizer: &Tokenizer, recipe: &Recipe) -> anyhow::Result<(f64, f64)> {
    let shares = recipe.data.mix.iter().flat_map(|mix| mix.shares());
    let share = shares
        .filter(|(task, _)| *task == Task::Stories)
        .map(|(_, share)| share)
        .sum::<f64>();
    let end = tokenizer.eos().first().copied();
    let (mut windows, mut entropy) = (Vec::new(), 0.0);
    for index in 0..STORIES {
        let story = generate::document(Task::Stories, recipe.data.seed, index, Split::HeldOut);
        let mut ids = tokenizer.encode(&story.text, true)?;
        ids.extend(end);
        let (scored, document) = (ids.len() - 1, index as usize);
        windows.push(Window {
            ids,
            scored,
            document,
        });
        entropy += story.entropy - share.ln();
    }
    let losses = pass::losses(model, &windows)?;
    let tokens = losses.len() as f64;
    Ok((losses.iter().sum::<f64>() / tokens, entropy / tokens))
}

fn show(
    out: &Path,
    samples: &[(String, String)],
    conversation: &[(String, String)],
    results: &Results,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut text =
        String::from("\nWhat the packed model writes (sums are written lowest digit first):\n");
    for (prompt, continuation) in samples {
        text += &format!("  [{prompt}]{}\n", continuation.replace('\n', " / "));
    }
    text += "\nA conversation with the packed model:\n";
    for (said, answer) in conversation {
        text += &format!("  > {said}\n  {answer}\n");
    }
    let Results {
        bytes_master,
        bytes_packed,
        ..
    } = *results;
    text += &format!(
        "\nheld-out two-digit sums  {:.1} % exactly right\n\
         held-out stories         {:.3} nats per token; {:.3} is the entropy of their choices\n\
         held-out conversations   {:.1} % of their answers exactly right\n\
         size                     {} of master weights, {} packed ({:.1} x smaller)\n\
         speed                    {:.0} tokens/s decoded one by one\n\
         time                     {:.0} s\n",
        100.0 * results.addition2_accuracy,
        results.stories_loss,
        results.stories_entropy,
        100.0 * results.chat_accuracy,
        units::bytes(bytes_master),
        units::bytes(bytes_packed),
        bytes_master as f64 / bytes_packed as f64,
        results.decode_tokens_per_second,
        results.seconds,
    );
    let packed = out.join("model.sterna");
    text += &format!(
        "\nfiles in {}: model/ (Hugging Face folder), model.sterna (packed), metrics.jsonl (loss curve),\n\
         checkpoints/, data/ (tokenizer and tokens), recipe.toml\n\
         \nNext:\n  sterna chat {}\n  sterna generate {} --prompt \"Once Tom\" --temperature 0.8 --seed 3\n  \
         sterna inspect {} --verify\n  \
         sterna train --config configs/quickstart.toml --out runs/mine\n",
        out.display(),
        out.display(),
        packed.display(),
        packed.display(),
    );
    if as_json {
        note!("{text}");
        outln!("{}", serde_json::to_string(results)?)?;
    } else {
        out!("{text}")?;
    }
    Ok(())
}

//! `sterna plot`: the loss curves of runs, or their losses against their sizes, as a picture.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sterna_ternary::{Output, layout};
use sterna_train::{Precision, Recipe};
use sterna_validate::plot::scaling::{self, Point, Size};
use sterna_validate::plot::{Chart, Curve, LARGE, Reach, Scale};

use crate::choice::choice;
use crate::exit::{BadInput, Usage};
use crate::output::{out, outln};

/// Draw loss curves of runs, or losses against sizes, as one picture.
///
/// Training losses are a line, held-out losses are dots. Reads the metrics.jsonl of each run, also
/// while it goes on. The line is smoothed over about a fiftieth of the run. The first steps, whose
/// losses are far above the others, are cut off.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of runs, as `sterna train` writes them.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// A .svg file [default: loss.svg or scaling.svg in the first RUN]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw losses against sizes of models, and print a table.
    ///
    /// Losses are those of the last evaluation on held-out text, in bits per byte, so models with
    /// different tokenizers can be compared. Runs that differ only in their seed are one point,
    /// with the standard error of the mean. Points of equal precision and equal tokens are a curve. If a
    /// curve has several recipes of one size, give or take a twentieth, the best of them is drawn
    /// and the table has all. A curve of at least three sizes gets the power law that fits it best.
    /// Bytes are those of the weights in a packed file: a quarter byte for each ternary weight, two
    /// for each in full precision, one for each value of embedding and head.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "parameters", value_parser = choice(SIZES, Size::name))]
    scaling: Option<Size>,
}

/// Values of `--scaling`.
const SIZES: [(Size, &str); 2] = [
    (Size::Parameters, "The number of weights"),
    (Size::Bytes, "The bytes of the weights in a packed file"),
];

pub fn run(args: &Args) -> anyhow::Result<()> {
    let name = match args.scaling {
        Some(_) => "scaling.svg",
        None => "loss.svg",
    };
    let path = match &args.out {
        Some(path) if path.extension().is_some_and(|extension| extension == "svg") => path.clone(),
        Some(path) => {
            let why = format!("--out {}: expected a .svg file", path.display());
            return Err(Usage(why).into());
        }
        None => args.runs[0].join(name),
    };
    let chart = match args.scaling {
        Some(size) => {
            let points = points(&args.runs)?;
            out!("{}", scaling::table(&points))?;
            scaling::chart(&points, size)
        }
        None => losses(&args.runs)?,
    };
    let svg = chart.draw().svg();
    Output::new(&path)?
        .write(|file| file.write_all(svg.as_bytes()).map_err(anyhow::Error::from))?;
    outln!("{}", path.display())?;
    Ok(())
}

fn losses(runs: &[PathBuf]) -> anyhow::Result<Chart> {
    let curves = runs.iter().map(|run| Curve::of_run(run));
    Ok(Chart {
        size: LARGE,
        curves: curves.collect::<Result<_, _>>()?,
        x: Scale::linear("step", Reach::Zero),
        y: Scale::linear("loss, nats per token", Reach::Settled),
    })
}

/// Reads finished runs and joins those that differ only in their seed.
///
/// # Errors
/// A folder that is not a finished run with a held-out loss, and a model that cannot be read.
fn points(runs: &[PathBuf]) -> anyhow::Result<Vec<Point>> {
    let mut found: BTreeMap<String, Point> = BTreeMap::new();
    for run in runs {
        let path = run.join("recipe.toml");
        let text = read(&path, "the recipe of a run")?;
        let mut recipe = Recipe::parse(&text, &path)?;
        let loss = bits_per_byte(run, recipe.train.steps)?;
        recipe.train.seed = 0;
        if let Some(point) = found.get_mut(&recipe.to_toml()) {
            point.losses.push(loss);
            continue;
        }
        let point = measured(run, &recipe, loss)?;
        found.insert(recipe.to_toml(), point);
    }
    let mut points: Vec<Point> = found.into_values().collect();
    points.sort_by_key(|point| (point.is_ternary, point.tokens, point.parameters));
    Ok(points)
}

/// A point of one run, with the sizes of its model.
fn measured(run: &Path, recipe: &Recipe, loss: f64) -> anyhow::Result<Point> {
    let (train, model) = (&recipe.train, run.join("model"));
    let source = sterna_convert::open(&model, true)?;
    let is_ternary = train.precision == Precision::Ternary;
    let name = run.file_name().unwrap_or(run.as_os_str());
    Ok(Point {
        is_ternary,
        tokens: train.steps * (train.batch * train.accumulate * train.context) as u64,
        parameters: layout::counts(source.config()).0,
        bytes: scaling::bytes(&layout::weights(source.config()), is_ternary),
        name: name.to_string_lossy().into_owned(),
        losses: vec![loss],
    })
}

/// The bits per byte of the evaluation after the last step.
fn bits_per_byte(run: &Path, steps: u64) -> anyhow::Result<f64> {
    let path = run.join("metrics.jsonl");
    let text = read(&path, "the metrics of a run")?;
    // A run that goes on may be in the middle of its last line, which then is not JSON.
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = lines.filter(|line| line["step"] == steps);
    let loss = last
        .filter_map(|line| line["bits_per_byte"].as_f64())
        .next_back();
    let why = || {
        let path = path.display();
        BadInput(format!(
            "{path}: expected the held-out loss after step {steps}, the last one, found none; \
             let the run end, with text that is held out"
        ))
    };
    Ok(loss.ok_or_else(why)?)
}

fn read(path: &Path, expected: &str) -> anyhow::Result<String> {
    let why = |e: std::io::Error| BadInput(format!("{}: {e}; expected {expected}", path.display()));
    Ok(std::fs::read_to_string(path).map_err(why)?)
}

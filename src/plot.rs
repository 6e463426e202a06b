//! `sterna plot`: the loss curves of runs, or their losses against their sizes, as a picture.

mod scaling;

use std::io::Write;
use std::path::PathBuf;

use sterna_ternary::Output;
use sterna_validate::plot::{Chart, Curve, LARGE, Reach, Scale};

use crate::choice::choice;
use crate::exit::Usage;
use crate::output::{out, outln};
use scaling::Size;

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
    /// different tokenizers can be compared. Runs that differ only in their seed are one point, with
    /// the standard error of the mean. Points of equal precision and equal tokens are a curve. If a
    /// curve has several recipes of one size, give or take a twentieth, the best of them is drawn
    /// and the table has all. A curve of at least three sizes gets the power law that fits it best.
    /// Bytes are those of the weights in a packed file: a quarter byte for each ternary weight, two
    /// for each in full precision, one for each value of embedding and head.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "parameters", value_parser = choice(scaling::SIZES, Size::name))]
    scaling: Option<Size>,
}

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
            let points = scaling::points(&args.runs)?;
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

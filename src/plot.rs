//! `sterna plot`: the loss curves of runs as a picture.

use std::io::Write;
use std::path::PathBuf;

use sterna_ternary::Output;
use sterna_validate::plot::{Chart, Curve, LARGE, Reach, Scale};

use crate::exit::Usage;
use crate::output::outln;

/// Draw the loss curves of runs into one picture.
///
/// Training losses are a line, held-out losses are dots. Reads the metrics.jsonl of each run, also
/// while it goes on. The line is smoothed over about a fiftieth of the run. The first steps, whose
/// losses are far above the others, are cut off.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of runs, as `sterna train` writes them.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// A .svg file [default: loss.svg in the first RUN]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let path = match &args.out {
        Some(path) if path.extension().is_some_and(|extension| extension == "svg") => path.clone(),
        Some(path) => {
            let why = format!("--out {}: expected a .svg file", path.display());
            return Err(Usage(why).into());
        }
        None => args.runs[0].join("loss.svg"),
    };
    let curves = args.runs.iter().map(|run| Curve::of_run(run));
    let chart = Chart {
        size: LARGE,
        curves: curves.collect::<Result<_, _>>()?,
        x: Scale::linear("step", Reach::Zero),
        y: Scale::linear("loss, nats per token", Reach::Settled),
    };
    let svg = chart.draw().svg();
    Output::new(&path)?
        .write(|file| file.write_all(svg.as_bytes()).map_err(anyhow::Error::from))?;
    outln!("{}", path.display())?;
    Ok(())
}

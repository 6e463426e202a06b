//! `sterna plot`: the loss curves of runs as a picture.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sterna_ternary::Output;
use sterna_validate::plot::{Chart, Curve, LARGE, Reach, Scale};

use crate::exit::{BadInput, Usage};
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
    let curves = args.runs.iter().map(|run| curve(run));
    let chart = Chart {
        size: LARGE,
        curves: curves.collect::<anyhow::Result<_>>()?,
        x: Scale::linear("step", Reach::Zero),
        y: Scale::linear("loss, nats per token", Reach::Settled),
    };
    let svg = chart.draw().svg();
    Output::new(&path)?
        .write(|file| file.write_all(svg.as_bytes()).map_err(anyhow::Error::from))?;
    outln!("{}", path.display())?;
    Ok(())
}

/// The losses in the metrics of a run.
fn curve(run: &Path) -> anyhow::Result<Curve> {
    let path = run.join("metrics.jsonl");
    let refuse = |why: String| BadInput(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|e| refuse(e.to_string()))?;
    let name = run.file_name().unwrap_or(run.as_os_str());
    let mut curve = Curve {
        name: name.to_string_lossy().into_owned(),
        ..Curve::default()
    };
    // A run that goes on may be in the middle of its last line.
    for (i, line) in text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .enumerate()
    {
        let value: Value = serde_json::from_str(line).map_err(|e| {
            refuse(format!(
                "line {}: {e}; expected the metrics of a run",
                i + 1
            ))
        })?;
        let point = |key: &str| Some((value["step"].as_f64()?, value[key].as_f64()?));
        curve.line.extend(point("loss"));
        curve.dots.extend(point("held_out_loss"));
    }
    if curve.line.is_empty() {
        return Err(refuse("no step was taken yet".into()).into());
    }
    curve.smooth();
    let last = |points: &[(f64, f64)]| points.last().map(|(_, loss)| *loss);
    if let Some(loss) = last(&curve.line) {
        curve.name += &format!(": {loss:.3}");
    }
    if let Some(loss) = last(&curve.dots) {
        curve.name += &format!(", held-out {loss:.3}");
    }
    Ok(curve)
}

//! `sterna verify`: whether two files hold the same model.

use std::path::PathBuf;
use std::process::ExitCode;

use sterna_convert::Comparison;

use crate::hints::Hints;
use crate::locate::{Want, locate};
use crate::output::{out, outln};
use crate::terminal;

/// Compare two models trit by trit, in any formats.
///
/// Each is a Hugging Face folder, a GGUF file or a packed file. Trits and scales must be equal. If
/// the types of an embedding or a head differ, its values must be those that conversion from one
/// type to the other gives. The same holds for linear layers if one of the models is a baseline
/// (f16, q8_0, q4_0): its numbers are compared with the numbers, master weights or products of the
/// other. Exits with 1 if anything differs.
#[derive(clap::Args)]
pub struct Args {
    /// A model: a file, a folder or a name of the hub.
    a: PathBuf,
    /// The same model in another form.
    b: PathBuf,
    #[command(flatten)]
    hints: Hints,
    /// Print one JSON object with counts and scales of every matrix.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let hints = args.hints.read()?;
    let open = |given| -> anyhow::Result<_> {
        let path = locate(given, Want::Either)?;
        Ok(sterna_convert::open_with(&path, &hints, true)?)
    };
    let (a, b) = (open(&args.a)?, open(&args.b)?);
    let bar = terminal::bar(0, "  comparing {wide_bar} {percent}%");
    let found = sterna_convert::verify_open(&*a, &*b, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let found = found?;
    if args.json {
        outln!("{}", serde_json::to_string(&found)?)?;
    } else {
        out!("{}", describe(&found))?;
    }
    Ok(match found.is_equal() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn describe(found: &Comparison) -> String {
    let mut text = format!(
        "{} weights, {} differ; {} scales, {} differ; {} other values, {} differ\n\
         {}",
        found.weights,
        found.differ,
        found.scales,
        found.scales_differ,
        found.values,
        found.values_differ,
        trits(found),
    );
    for m in found
        .matrices
        .iter()
        .filter(|m| m.differ > 0 || m.scales[0] != m.scales[1])
    {
        text += &format!(
            "{}: {} trits differ, scales {} and {}\n",
            m.name, m.differ, m.scales[0], m.scales[1]
        );
    }
    let dense = found.dense.iter().filter(|t| t.differ > 0);
    for t in dense.chain(&found.tables) {
        let [a, b] = t.dtypes;
        text += &match t.differ {
            0 if a == b => format!("{}: {a}, equal\n", t.name),
            0 => format!(
                "{}: {a} and {b}, equal except for the rounding of one type, largest {:.1e}\n",
                t.name, t.max_error
            ),
            n => format!(
                "{}: {a} and {b}, {n} values differ, largest {:.1e}\n",
                t.name, t.max_error
            ),
        };
    }
    let [a, b] = found.activations;
    if a != b {
        text += &format!(
            "activations: {a} and {b}; this is how the models are run, not a part of them\n"
        );
    }
    for key in &found.config_differs {
        text += &format!("config: {key} differs\n");
    }
    text
}

/// The linear layers, in one line.
fn trits(found: &Comparison) -> String {
    let sum = |f: fn(&sterna_convert::MatrixComparison) -> u64| -> u64 {
        found.matrices.iter().map(f).sum()
    };
    if let Some(first) = found.dense.first() {
        let [a, b] = first.dtypes;
        let largest = found.dense.iter().fold(0f32, |e, m| e.max(m.max_error));
        let count = found.dense.len();
        return format!(
            "{count} linear layers: numbers, the first {a} and {b}, \
             largest difference {largest:.1e}\n"
        );
    }
    format!(
        "trits: {} of -1, {} of 0, {} of +1\n",
        sum(|m| m.minus),
        sum(|m| m.zero),
        sum(|m| m.plus)
    )
}

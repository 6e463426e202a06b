//! `sterna verify`: whether two files hold the same model.

use std::path::PathBuf;

use sterna_convert::Comparison;

use crate::exit;
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

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let found = compare(args)?;
    if args.json {
        outln!("{}", serde_json::to_string(&found)?)?;
    } else {
        out!("{}", found.describe())?;
    }
    Ok(match found.is_equal() {
        true => exit::FINE,
        false => exit::FAILED,
    })
}

/// Opens both models and compares them.
pub fn compare(args: &Args) -> anyhow::Result<Comparison> {
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
    Ok(found?)
}

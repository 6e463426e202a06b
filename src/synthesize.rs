//! `sterna synthesize`: a model of real shape with random weights.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::json;
use sterna_convert::{Synthetic, shapes};
use sterna_ternary::{LinearType, Output, OutputFolder, Packing, TableType, layout, units};

use crate::choice::choice;
use crate::convert::PACKINGS;
use crate::exit::Usage;
use crate::output::outln;
use crate::terminal;

/// Write a model of a published shape with random weights.
///
/// It serves to measure speed and memory on this machine: it writes nonsense, exactly as fast as a
/// trained model. The same seed gives the same bytes, and both forms hold the same weights. The
/// model is written in parts, so it needs little memory.
#[derive(clap::Args)]
pub struct Args {
    /// The name of a shape, or a config.json.
    ///
    /// Names: bitnet-2b4t, falcon-e-1b, falcon3-1b, falcon3-7b, llama3-8b, bitnet-100b.
    shape: String,
    /// The file to write, or the new folder with --as hf.
    #[arg(long, short, value_name = "PATH")]
    out: PathBuf,
    /// The form to write.
    #[arg(long = "as", value_enum, default_value = "packed")]
    form: Form,
    /// Type of the linear layers [default: i2]
    #[arg(long, value_name = "TYPE", value_parser = choice(PACKINGS, LinearType::name))]
    packing: Option<LinearType>,
    /// Type of embedding and head [default: q8]
    #[arg(long, value_name = "TYPE", value_parser = choice(HEADS, TableType::name))]
    head: Option<TableType>,
    /// The same seed gives the same bytes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print one JSON object with path, bytes and number of weights.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Form {
    /// One packed file, as `sterna convert` writes it.
    Packed,
    /// A Hugging Face folder: packed uint8 weights, all else in bf16.
    Hf,
}

const HEADS: [(TableType, &str); 9] = [
    (
        TableType::F16Planes,
        "f16 in planes: exact, and read like q8; an embedding apart from the head is f16",
    ),
    (TableType::Bf16Planes, "The same with bf16"),
    (TableType::F32Planes, "The same with f32"),
    (TableType::F32, ""),
    (TableType::F16, ""),
    (TableType::Bf16, ""),
    (TableType::Q8, "8 bits per value"),
    (TableType::Q6, "6 bits per value"),
    (TableType::Q4, "4 bits per value"),
];

pub fn run(args: &Args) -> anyhow::Result<()> {
    let shape = shapes::read(&args.shape).map_err(Usage)?;
    let model = Synthetic::new(Path::new(&args.shape), &shape, args.seed)?;
    let bar = terminal::bar(0, "  writing {wide_bar} {percent}%");
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let file = match args.form {
        Form::Packed => {
            let packing = args.packing.unwrap_or(Packing::I2.into());
            let head = args.head.unwrap_or(TableType::Q8);
            let out = Output::new(&args.out)?;
            model.write_packed(&out, packing, head, &mut progress)?;
            args.out.clone()
        }
        Form::Hf if args.packing.is_some() || args.head.is_some() => {
            let why =
                "--packing and --head are for --as packed; a Hugging Face folder has one layout";
            return Err(Usage(why.into()).into());
        }
        Form::Hf => {
            let out = OutputFolder::new(&args.out)?;
            model.write_huggingface(&out, &mut progress)?;
            args.out.join("model.safetensors")
        }
    };
    bar.finish_and_clear();
    let (parameters, ternary) = layout::counts(model.config());
    let bytes = file.metadata()?.len();
    if args.json {
        let (out, seed) = (&args.out, args.seed);
        outln!(
            "{}",
            json!({
                "out": out, "bytes": bytes, "parameters": parameters, "ternary_weights": ternary,
                "seed": seed,
            })
        )?;
    } else {
        outln!(
            "{}: {}, {:.2} M parameters, {:.2} M of them in linear layers and random",
            args.out.display(),
            units::bytes(bytes),
            parameters as f64 / 1e6,
            ternary as f64 / 1e6
        )?;
    }
    Ok(())
}

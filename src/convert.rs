//! `sterna convert`: a checkpoint to a packed file, with proof.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use sterna_convert::{HeadType, Options, Report};
use sterna_ternary::Packing;

use crate::locate::{Want, locate};
use crate::terminal;

/// Pack a checkpoint into one file that the runtime maps, and prove that no weight differs.
///
/// SOURCE is a Hugging Face folder: BitNet, Falcon3-1.58bit, Falcon-E, Llama3-8B-1.58 or a model that was
/// trained here, with master weights or packed. Where there is no such path, it is the name of a model on the
/// hub, which is fetched first: org/name, org/name@revision or org/name:file.gguf
#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder with config.json and model.safetensors, or the name of one on the hub.
    source: PathBuf,
    /// The file to write.
    #[arg(long, short)]
    out: PathBuf,
    /// t5: 1.6 bits a weight, smallest; i2: 2 bits a weight. Same results.
    #[arg(long, value_enum, default_value = "t5")]
    packing: PackingName,
    /// Type of the head, and of the embedding of a tied model.
    #[arg(long, value_enum, default_value = "q8")]
    head: Head,
    /// Go on where tokenizer or generation settings are missing: the model then runs on token ids only.
    #[arg(long)]
    allow_missing: bool,
    /// Print one JSON object with counts, scales, errors and checksum.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PackingName {
    I2,
    T5,
}

#[derive(Clone, Copy, ValueEnum)]
enum Head {
    /// 8 bits a value, a scale for each 128 of them: nothing measurable is lost
    Q8,
    /// 6 bits a value
    Q6,
    /// 4 bits a value
    Q4,
    /// Half precision
    F16,
    /// The narrowest of f16, bf16 and f32 that holds every value
    Lossless,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let options = Options {
        packing: match args.packing {
            PackingName::I2 => Packing::I2,
            PackingName::T5 => Packing::T5,
        },
        head: match args.head {
            Head::Lossless => HeadType::Lossless,
            Head::F16 => HeadType::F16,
            Head::Q8 => HeadType::Q8,
            Head::Q6 => HeadType::Q6,
            Head::Q4 => HeadType::Q4,
        },
        allow_missing: args.allow_missing,
    };
    sterna_convert::check_output(&args.out)?; // before gigabytes are fetched for it
    let source = locate(&args.source, Want::Checkpoint)?;
    let report = convert(&source, &args.out, &options)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", describe(&report, &args.out));
    }
    Ok(())
}

/// What `sterna convert` does without options.
pub fn convert_with_defaults(source: &Path, out: &Path) -> anyhow::Result<Report> {
    let (packing, head) = (Packing::T5, HeadType::default());
    convert(
        source,
        out,
        &Options {
            packing,
            head,
            allow_missing: false,
        },
    )
}

fn convert(source: &Path, out: &Path, options: &Options) -> anyhow::Result<Report> {
    let bar = terminal::bar(0, "  packing {wide_bar} {percent}%");
    let report = sterna_convert::convert(source, out, options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(report)
}

fn describe(report: &Report, out: &Path) -> String {
    let sum =
        |f: fn(&sterna_convert::MatrixReport) -> u64| report.matrices.iter().map(f).sum::<u64>();
    let share = |n: u64| 100.0 * n as f64 / report.weights.max(1) as f64;
    let (minus, zero, plus) = (sum(|m| m.minus), sum(|m| m.zero), sum(|m| m.plus));
    let mut text = format!(
        "{}: {} from {}, packing {}\n\
         proof: {} weights, {} differ; {} scales, {} differ; {} other values, {} differ\n\
         trits: -1 {:.1} %, 0 {:.1} %, +1 {:.1} %\n",
        out.display(),
        terminal::bytes(report.bytes_out),
        terminal::bytes(report.bytes_in),
        report.packing,
        report.weights,
        report.differ,
        report.scales,
        report.scales_differ,
        report.values,
        report.values_differ,
        share(minus),
        share(zero),
        share(plus),
    );
    for table in &report.tables {
        let error = match table.max_error {
            0.0 => "exact".to_owned(),
            e => format!("mean error {:.1e}, largest {e:.1e}", table.mean_error),
        };
        text += &format!(
            "{}: {} from {}, {error}\n",
            table.name, table.dtype, table.source_dtype
        );
    }
    text + &format!("sha256 {}\n", report.sha256)
}

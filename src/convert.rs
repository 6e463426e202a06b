//! `sterna convert`: a model from one format to another, with proof.

use std::path::{Path, PathBuf};

use sterna_convert::{
    ConversionReport, GgufOptions, GgufType, HeadType, HuggingFace, PackedOptions, Source, Target,
};
use sterna_ternary::{Activations, Dense, LinearType, Output, OutputFolder, Packing};

use crate::choice::choice;
use crate::exit::Usage;
use crate::hints::Hints;
use crate::locate::{Want, locate};
use crate::output::{note, out, outln, warning};
use crate::terminal;

/// Convert a model to another format, and prove that no weight differs.
///
/// SOURCE is a Hugging Face folder (BitNet, Falcon3-1.58bit, Falcon-E, Llama3-8B-1.58 or a model
/// that was trained here, with master weights or packed), a GGUF file, or a packed file. If there
/// is no such path, SOURCE is the name of a model on the hub, which is fetched first: org/name,
/// org/name@revision or org/name:file.gguf
#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder, a GGUF file, a packed file, or a hub name.
    ///
    /// A folder holds config.json and model.safetensors.
    source: PathBuf,
    /// The file to write, or the folder.
    #[arg(long, short, value_name = "PATH", help_heading = "Output")]
    out: PathBuf,
    /// The format to write.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "native",
        help_heading = "Output"
    )]
    #[arg(value_parser = choice(FORMATS, Format::name))]
    to: Format,
    /// Type of the linear layers.
    ///
    /// For packed files. i2 is fastest, t5 is smallest, and both give the same results. f16, q8_0
    /// and q4_0 make baselines of full-precision models, to compare with.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "i2",
        help_heading = "Types"
    )]
    #[arg(value_parser = choice(PACKINGS, LinearType::name))]
    packing: LinearType,
    /// Type of the head.
    ///
    /// In a tied model it is also the type of the embedding. [default: ternary if the head is
    /// ternary, q8 if not; f16 in GGUF]
    #[arg(long, value_name = "TYPE", help_heading = "Types")]
    #[arg(value_parser = choice(HEADS, HeadType::name))]
    head: Option<HeadType>,
    /// Rounding of the inputs of linear layers.
    ///
    /// For packed files. [default: int16 if the model was trained without quantized activations, as
    /// int8 would change its logits by a percent; int8 if not, as BitNet models are trained] int16
    /// takes twice the arithmetic.
    #[arg(long, value_name = "TYPE", help_heading = "Types")]
    #[arg(value_parser = choice(ACTIVATIONS, Activations::name))]
    activations: Option<Activations>,
    /// Name of the tokenizer's split rule in llama.cpp, for GGUF.
    ///
    /// Needed if the rule is not recognized.
    #[arg(long, value_name = "NAME", help_heading = "GGUF")]
    pre: Option<String>,
    /// Round scales that the GGUF type does not hold, instead of refusing.
    ///
    /// A type may hold scales only as f16, or one scale for more weights than in the source.
    #[arg(long, help_heading = "GGUF")]
    lossy: bool,
    #[command(flatten)]
    hints: Hints,
    /// Read the weights of a folder as master weights, to be ternarized.
    ///
    /// The statement of config.json is then ignored. It is for the revision `prequantized` of
    /// Falcon-E and for fine-tunes of it.
    #[arg(long, help_heading = "Source")]
    masters: bool,
    /// Go on if tokenizer or generation settings are missing.
    ///
    /// The model then runs on token ids only.
    #[arg(long, help_heading = "Source")]
    allow_missing: bool,
    /// Print one JSON object with counts, scales, errors and checksum.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What `--to` names.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Packed,
    Gguf(GgufType),
    HuggingFace,
}

const FORMATS: [(Format, &str); 8] = [
    (Format::Packed, "The packed file that Sterna runs"),
    (
        Format::Gguf(GgufType::I2S),
        "GGUF for bitnet.cpp, 2 bits per weight",
    ),
    (
        Format::Gguf(GgufType::Tq1_0),
        "GGUF for llama.cpp, 1.69 bits per weight",
    ),
    (
        Format::Gguf(GgufType::Tq2_0),
        "GGUF for llama.cpp, 2.06 bits per weight",
    ),
    (
        Format::Gguf(GgufType::Q2_0),
        "GGUF for llama.cpp, 2.25 bits per weight, for widths that are not multiples of 256",
    ),
    (
        Format::Gguf(GgufType::Q2_0G128),
        "The older layout of q2_0, one scale per 128 weights, for programs that expect it",
    ),
    (
        Format::Gguf(GgufType::Iq2Bn),
        "GGUF for ik_llama.cpp, 2 bits per weight",
    ),
    (
        Format::HuggingFace,
        "A Hugging Face folder for transformers: packed weights, or products of several scales",
    ),
];

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Packed => "native",
            Format::Gguf(weights) => weights.name(),
            Format::HuggingFace => "hf",
        }
    }
}

/// Values of `--packing`, here and in `sterna synthesize`.
pub const PACKINGS: [(LinearType, &str); 5] = [
    (LinearType::Ternary(Packing::I2), "Trits, two bits each"),
    (LinearType::Ternary(Packing::T5), "Trits, five per byte"),
    (
        LinearType::Dense(Dense::F16),
        "Numbers, nothing rounded: each matrix in the narrowest of f16, bf16 and f32 that holds \
         its values. Runs in f32",
    ),
    (
        LinearType::Dense(Dense::Q8_0),
        "8 bits per weight, one scale per 32 weights, as in GGUF",
    ),
    (
        LinearType::Dense(Dense::Q4_0),
        "4 bits per weight, one scale per 32 weights, as in GGUF",
    ),
];

const ACTIVATIONS: [(Activations, &str); 2] = [(Activations::Int8, ""), (Activations::Int16, "")];

const HEADS: [(HeadType, &str); 6] = [
    (
        HeadType::Lossless,
        "The narrowest of trits, f16, bf16 and f32 that holds every value; numbers are in planes, \
         read like q8 by greedy, top-k and min-p sampling and slower if all logits are needed",
    ),
    (
        HeadType::Q8,
        "8 bits per value, one scale per 128 values (32 in GGUF): rounded",
    ),
    (HeadType::Q6, "6 bits per value, Q6_K in GGUF: rounded"),
    (HeadType::Q4, "4 bits per value: rounded"),
    (
        HeadType::Ternary,
        "Trits, one scale per 128, for a ternary table: about 2.1 bits per value, exact",
    ),
    (
        HeadType::F16,
        "Half precision: rounded, and read whole for every token",
    ),
];

pub fn run(args: &Args) -> anyhow::Result<()> {
    let report = proved(args)?;
    if args.json {
        outln!("{}", serde_json::to_string(&report)?)?;
    } else {
        out!("{}", report.describe(&args.out))?;
    }
    Ok(())
}

/// Checks the options, converts and proves.
pub fn proved(args: &Args) -> anyhow::Result<ConversionReport> {
    let head = args.head;
    let gguf = |weights| GgufOptions {
        weights,
        head: head.unwrap_or(HeadType::F16),
        pre: args.pre.clone(),
        lossy: args.lossy,
        allow_missing: args.allow_missing,
    };
    if !matches!(args.to, Format::Gguf(_)) && (args.pre.is_some() || args.lossy) {
        let why = "--pre and --lossy are for GGUF: give --to i2_s, tq1_0, tq2_0, q2_0, q2_0_g128 \
                   or iq2_bn";
        return Err(Usage(why.into()).into());
    }
    if args.to != Format::Packed && args.activations.is_some() {
        let why =
            "--activations is for packed files; no other format says how activations are rounded";
        return Err(Usage(why.into()).into());
    }
    let is_dense = args.packing.dense().is_some();
    if is_dense && (args.to != Format::Packed || args.activations.is_some()) {
        let why = "--packing f16, q8_0 and q4_0 are for packed files, and they determine how \
                   activations are rounded: leave out --to and --activations";
        return Err(Usage(why.into()).into());
    }
    // The output path is checked before gigabytes are fetched.
    let file = || Output::new(&args.out);
    let target = match args.to {
        Format::Packed => {
            let options = PackedOptions {
                packing: args.packing,
                head: head.unwrap_or_default(),
                activations: args.activations,
                allow_missing: args.allow_missing,
            };
            Target::Packed(file()?, options)
        }
        Format::Gguf(weights) => Target::Gguf(file()?, gguf(weights)),
        Format::HuggingFace if head.is_some() => {
            let why = "--to hf keeps the type of the head: leave out --head";
            return Err(Usage(why.into()).into());
        }
        Format::HuggingFace => Target::HuggingFace {
            out: OutputFolder::new(&args.out)?,
            allow_missing: args.allow_missing,
        },
    };
    let hints = args.hints.read()?;
    let source = locate(&args.source, Want::Checkpoint)?;
    let open = |allow_missing| -> sterna_convert::Result<Box<dyn Source>> {
        match args.masters {
            true => Ok(Box::new(HuggingFace::open_masters(&source, allow_missing)?)),
            false => sterna_convert::open_with(&source, &hints, allow_missing),
        }
    };
    if args.masters && !source.is_dir() {
        let why = format!("--masters: {} is not a folder", source.display());
        return Err(Usage(why).into());
    }
    convert(open, &target)
}

/// Converts like `sterna convert` without options.
pub fn convert_with_defaults(source: &Path, out: &Path) -> anyhow::Result<ConversionReport> {
    convert(
        |allow_missing| sterna_convert::open(source, allow_missing),
        &Target::Packed(Output::new(out)?, PackedOptions::default()),
    )
}

fn convert(
    open: impl FnOnce(bool) -> sterna_convert::Result<Box<dyn Source>>,
    target: &Target,
) -> anyhow::Result<ConversionReport> {
    let mut source = open(target.allow_missing())?;
    if let Some((id, name)) = sterna_diagnose::template::end_of_turn(&*source)
        && sterna_convert::add_end_of_turn(&mut *source, id)?
    {
        note!(
            "the chat template ends an answer with {name} ({id}); it is added to the tokens that \
             end a text"
        );
    }
    let bar = terminal::bar(0, "  packing {wide_bar} {percent}%");
    let show = &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let report = target.write(&*source, show);
    bar.finish_and_clear();
    let report = report?;
    for warning in &report.warnings {
        warning!("{warning}");
    }
    if let Some(trouble) = sterna_diagnose::template::trouble(&*source) {
        warning!("{trouble}; chats with this model will fail");
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_libraries_can_be_chosen() {
        let is_listed = |wanted: LinearType| PACKINGS.iter().any(|(packing, _)| *packing == wanted);
        assert!(Packing::ALL.into_iter().all(|p| is_listed(p.into())));
        assert!(Dense::ALL.into_iter().all(|d| is_listed(d.into())));
        let is_listed = |wanted| FORMATS.iter().any(|(format, _)| *format == wanted);
        assert!(
            GgufType::ALL
                .into_iter()
                .all(|t| is_listed(Format::Gguf(t)))
        );
        // `auto` is what happens without the flag.
        let is_listed = |wanted| HEADS.iter().any(|(head, _)| *head == wanted);
        let heads = HeadType::ALL.into_iter();
        assert!(heads.filter(|h| *h != HeadType::Auto).all(is_listed));
    }
}

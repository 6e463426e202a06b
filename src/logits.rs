//! `sterna logits`: the logits of a sequence of ids, to compare them with other programs.

use std::io::Write;
use std::path::PathBuf;

use crate::output::outln;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use sterna_runtime::Logits;
use sterna_ternary::Output;

/// Write the logits after every position of a sequence of token ids.
///
/// The file is safetensors with one tensor: F32 `logits` [n, vocab].
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: crate::model::Args,
    /// Token ids, like 1,2,3; nothing is added before them.
    #[arg(long, value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print one JSON object with shape, file and the most probable next id.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let out = Output::new(&args.out)?;
    let model = args.model.open()?;
    let mut cache = model.new_cache(args.ids.len())?;
    let logits = model.forward(&mut cache, &args.ids, Logits::All)?;
    let vocabulary = model.config().vocab_size;
    let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![args.ids.len(), vocabulary], &bytes)?;
    let file = safetensors::serialize([("logits", view)], None)?;
    out.write(|w| w.write_all(&file).map_err(anyhow::Error::from))?;
    let next = sterna_runtime::sampler::greedy(&logits[logits.len() - vocabulary..]);
    if args.json {
        let shape = [args.ids.len(), vocabulary];
        outln!("{}", json!({"out": args.out, "shape": shape, "next": next}))?;
    } else {
        outln!(
            "{}: logits [{}, {vocabulary}], next id {next}",
            args.out.display(),
            args.ids.len()
        )?;
    }
    Ok(())
}

//! `sterna logits`: the numbers behind the text, for anyone who must compare.

use std::path::PathBuf;

use anyhow::Context;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use sterna_runtime::Logits;

/// Write the logits after every position of a sequence of token ids: F32 `logits` [n, vocab] in a
/// safetensors file.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: crate::model::Args,
    /// Token ids, like 1,2,3; nothing is put in front of them.
    #[arg(long, value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// Print one JSON object with shape, file and the most probable next id.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let model = args.model.open()?;
    let mut cache = model.new_cache(args.ids.len())?;
    let logits = model.forward(&mut cache, &args.ids, Logits::All)?;
    let vocabulary = model.config().vocab_size;
    let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![args.ids.len(), vocabulary], &bytes)?;
    let file = safetensors::serialize([("logits", view)], None)?;
    let write = |w: &mut std::io::BufWriter<std::fs::File>| std::io::Write::write_all(w, &file);
    sterna_ternary::durable::write(&args.out, write)
        .with_context(|| format!("{}: cannot be written", args.out.display()))?;
    let next = sterna_runtime::sampler::greedy(&logits[logits.len() - vocabulary..]);
    if args.json {
        let shape = [args.ids.len(), vocabulary];
        println!("{}", json!({"out": args.out, "shape": shape, "next": next}));
    } else {
        println!(
            "{}: logits [{}, {vocabulary}], next id {next}",
            args.out.display(),
            args.ids.len()
        );
    }
    Ok(())
}

//! Look at the tensors of a checkpoint, pack it, and prove that nothing changed.
//!
//! cargo run --release --example convert -- folder-or-gguf model.sterna

use std::path::Path;

use sterna_convert::PackedOptions;
use sterna_ternary::{Output, Packing, Role, layout};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, source, out] = &args[..] else {
        anyhow::bail!("usage: convert CHECKPOINT OUT.sterna");
    };
    // A Hugging Face folder, a GGUF file or a packed file: all are a `Source` of tensors.
    let source = sterna_convert::open(Path::new(source), false)?;
    for weight in layout::weights(source.config()) {
        let shape = format!("{} × {}", weight.rows, weight.columns);
        let what = match weight.role {
            Role::Linear => {
                let layer = source.linear(&weight)?;
                let zeros = layer.trits.iter().filter(|trit| **trit == 0).count();
                let zeros = 100.0 * zeros as f64 / layer.trits.len() as f64;
                format!("{zeros:.0} % zeros, {} scales", layer.scales.values.len())
            }
            Role::Table => format!("embedding or head, {:?}", source.dtype(&weight)),
            Role::Norm => "norm".into(),
        };
        println!("{:44} {shape:>11}  {what}", weight.name);
    }

    // The writer reads its file back and compares every trit, scale and value with the source.
    // The file gets its name only if all are equal.
    let options = PackedOptions {
        packing: Packing::T5.into(), // five trits in a byte
        ..PackedOptions::default()
    };
    let mut progress = |_done, _total| {};
    let out = Output::new(Path::new(out))?;
    let report = sterna_convert::write_packed(&*source, &out, &options, &mut progress)?;
    println!("{} weights, {} differ", report.weights, report.differ);
    println!("{} bytes became {}", report.bytes_in, report.bytes_out);

    // Any two models can be compared like this, whatever their formats.
    let packed = sterna_convert::open(out.path(), false)?;
    let again = sterna_convert::verify_open(&*source, &*packed, &mut progress)?;
    println!("compared again: {} differ", again.differ);
    Ok(())
}

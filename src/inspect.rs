//! `sterna inspect`: what is in a packed file.

use std::path::PathBuf;

use serde_json::{Value, json};
use sterna_ternary::layout::{self, Role};
use sterna_ternary::{PackedFile, file::Values};

use crate::terminal;

/// Show family, shapes, packing, sizes and trits of a packed file.
#[derive(clap::Args)]
pub struct Args {
    /// A packed file, as `sterna convert` writes it.
    model: PathBuf,
    /// Read the whole file: compare its checksum and count the trits of every layer.
    #[arg(long)]
    verify: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let file = PackedFile::open(&args.model)?;
    let layers = if args.verify {
        file.verify()?;
        count(&file)?
    } else {
        Value::Null
    };
    let facts = facts(&file, layers);
    if args.json {
        println!("{facts}");
    } else {
        print!("{}", describe(&facts));
    }
    Ok(())
}

fn facts(file: &PackedFile, matrices: Value) -> Value {
    let c = &file.config;
    let weights = layout::weights(c);
    let linear = || weights.iter().filter(|w| w.role == Role::Linear);
    let trits: usize = linear().map(|w| w.rows * w.columns).sum();
    let packed: usize = linear().map(|w| file.matrix(&w.name).data.len()).sum();
    let parameters: usize = weights.iter().map(|w| w.rows * w.columns).sum();
    let files: Vec<&str> = sterna_ternary::file::FILES
        .into_iter()
        .filter(|f| file.file(f).is_some())
        .collect();
    json!({
        "path": file.path(),
        "bytes": file.len(),
        "family": c.family.model_type,
        "architecture": c.family.architecture,
        "parameters": parameters,
        "ternary_weights": trits,
        "packing": file.packing.name(),
        "bits_per_ternary_weight": 8.0 * packed as f64 / trits as f64,
        "bits_per_parameter": 8.0 * file.len() as f64 / parameters as f64,
        "embedding": type_name(&file.embedding().values),
        "head": type_name(&file.head().values),
        "tied": c.tie_word_embeddings,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_position_embeddings,
        "rope_theta": c.rope.theta,
        "hidden_act": c.family.activation.name(),
        "files": files,
        "matrices": matrices,
    })
}

fn type_name(values: &Values) -> &'static str {
    match values {
        Values::F32(_) => "f32",
        Values::F16(_) => "f16",
        Values::Bf16(_) => "bf16",
        Values::Codes(codes) => ["q4", "q6", "q8"][codes.planes - 1],
    }
}

/// Scale and counts of -1, 0, +1 of every linear layer.
fn count(file: &PackedFile) -> anyhow::Result<Value> {
    let mut matrices = Vec::new();
    for weight in layout::weights(&file.config)
        .iter()
        .filter(|w| w.role == Role::Linear)
    {
        let matrix = file.matrix(&weight.name);
        let mut trits = vec![0; matrix.columns];
        let mut counts = [0u64; 3];
        for row in matrix
            .data
            .chunks_exact(file.packing.row_bytes(matrix.columns))
        {
            file.packing.unpack_row(row, &mut trits)?;
            trits.iter().for_each(|t| counts[(t + 1) as usize] += 1);
        }
        matrices.push(json!({
            "name": weight.name, "rows": weight.rows, "columns": weight.columns,
            "scale": matrix.scale, "minus": counts[0], "zero": counts[1], "plus": counts[2],
        }));
    }
    Ok(Value::Array(matrices))
}

fn describe(f: &Value) -> String {
    let text = |key: &str| {
        f[key]
            .as_str()
            .map_or_else(|| f[key].to_string(), str::to_owned)
    };
    let number = |key: &str| f[key].as_f64().unwrap_or(f64::NAN);
    let mut lines = vec![
        format!(
            "{}: {}",
            text("path"),
            terminal::bytes(f["bytes"].as_u64().unwrap_or(0))
        ),
        format!(
            "family       {} ({}), {}",
            text("family"),
            text("architecture"),
            text("hidden_act")
        ),
        format!(
            "parameters   {:.2} M, {:.2} M of them ternary",
            number("parameters") / 1e6,
            number("ternary_weights") / 1e6
        ),
        format!(
            "packing      {}, {:.3} bits a ternary weight, {:.2} bits a parameter in all",
            text("packing"),
            number("bits_per_ternary_weight"),
            number("bits_per_parameter")
        ),
        format!(
            "tables       embedding {}, head {}{}",
            text("embedding"),
            text("head"),
            if f["tied"] == true {
                " (the same table)"
            } else {
                ""
            }
        ),
        format!(
            "shape        {} layers, hidden {}, feed-forward {}, {} heads ({} kv) of {}",
            text("num_hidden_layers"),
            text("hidden_size"),
            text("intermediate_size"),
            text("num_attention_heads"),
            text("num_key_value_heads"),
            text("head_dim")
        ),
        format!("vocabulary   {}", text("vocab_size")),
        format!(
            "context      {}, rope theta {}",
            text("max_position_embeddings"),
            text("rope_theta")
        ),
        format!(
            "files        {}",
            f["files"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    ];
    for m in f["matrices"].as_array().into_iter().flatten() {
        let zeros = m["zero"].as_f64().unwrap_or(0.0);
        let all = m["rows"].as_f64().unwrap_or(0.0) * m["columns"].as_f64().unwrap_or(0.0);
        lines.push(format!(
            "{:<45} {:>6} x {:<6} scale {:<12.6} zeros {:.1} %",
            m["name"].as_str().unwrap_or(""),
            m["rows"],
            m["columns"],
            m["scale"].as_f64().unwrap_or(f64::NAN),
            100.0 * zeros / all
        ));
    }
    lines.join("\n") + "\n"
}

//! `sterna inspect`: what is in a packed file or a checkpoint.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sterna_convert::Source;
use sterna_runtime::{KvCache, KvType};
use sterna_ternary::layout::{self, EMBEDDING, HEAD, Role, Weight};
use sterna_ternary::{Config, PackedFile, Scaling, file::Values};

use crate::exit::Usage;
use crate::locate::{Want, locate};
use crate::terminal;

/// Show family, shapes, packing, sizes and trits of a packed file or of a checkpoint.
#[derive(clap::Args)]
pub struct Args {
    /// A packed file, a Hugging Face folder, a GGUF file, or the name of one on the hub.
    model: PathBuf,
    /// Read the whole file: compare its checksum, which checkpoints lack, and count the trits of every layer.
    #[arg(long)]
    verify: bool,
    /// Tokens of context for which memory is counted [default: all that the model was made for].
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let path = locate(&args.model, Want::Either)?;
    let mut facts = match path.is_dir() || sterna_convert::is_gguf(&path)? {
        true => of_checkpoint(&path, args.verify)?,
        false => of_packed(&path, args.verify)?,
    };
    if let Some(context) = args.context {
        let most = facts["max_position_embeddings"].as_u64().unwrap_or(0);
        if !(1..=most).contains(&(context as u64)) {
            let why = format!("--context {context}: the model was made for 1 to {most} tokens");
            return Err(Usage(why).into());
        }
    }
    facts["memory"] = memory(&path, args.context)?;
    if args.json {
        println!("{facts}");
    } else {
        print!("{}", describe(&facts));
    }
    Ok(())
}

fn of_packed(path: &Path, verify: bool) -> anyhow::Result<Value> {
    let file = PackedFile::open(path)?;
    let packed: usize = linear(&file.config)
        .iter()
        .map(|w| {
            let matrix = file.matrix(&w.name);
            let size = match matrix.scaling {
                Scaling::Group => file.group_scales.bytes(),
                Scaling::Matrix | Scaling::Row => size_of::<f32>(),
            };
            matrix.data.len() + (matrix.scales.len() - 1) * size
        })
        .sum();
    let files = sterna_ternary::file::FILES
        .into_iter()
        .filter(|f| file.file(f).is_some());
    let mut facts = facts(
        file.path(),
        file.len() as u64,
        &file.config,
        files.collect(),
    );
    let trits = facts["ternary_weights"].as_f64().unwrap_or(f64::NAN);
    facts["packing"] = file.packing.name().into();
    facts["bits_per_ternary_weight"] = (8.0 * packed as f64 / trits).into();
    facts["activations"] = file.activations.name().into();
    facts["embedding"] = type_name(&file.embedding().values).into();
    facts["head"] = type_name(&file.head().values).into();
    if verify {
        file.verify()?;
        facts["matrices"] = count(&file.config, |weight| {
            let matrix = file.matrix(&weight.name);
            let mut trits = vec![0; matrix.columns];
            let mut counts = [0; 3];
            for row in matrix
                .data
                .chunks_exact(file.packing.row_bytes(matrix.columns))
            {
                file.packing.unpack_row(row, &mut trits)?;
                add(&mut counts, &trits);
            }
            Ok((matrix.scales.to_f32().into_owned(), counts))
        })?;
    }
    Ok(facts)
}

fn of_checkpoint(path: &Path, verify: bool) -> anyhow::Result<Value> {
    let source = sterna_convert::open(path, true)?;
    for warning in source.warnings() {
        eprintln!("warning: {warning}");
    }
    let config = source.config();
    let files = source.files().iter().map(|(name, _)| name.as_str());
    let mut facts = facts(path, source.bytes(), config, files.collect());
    facts["packing"] = match path.is_dir() {
        true => stored_as(&*source)?,
        false => "GGUF",
    }
    .into();
    facts["activations"] = source.activations().name().into();
    for (key, table) in [("embedding", EMBEDDING), ("head", HEAD)] {
        let table = if config.tie_word_embeddings {
            EMBEDDING
        } else {
            table
        };
        let weight = layout::weights(config)
            .into_iter()
            .find(|w| w.name == table);
        facts[key] = weight
            .map(|w| source.dtype(&w).name().to_lowercase())
            .into();
    }
    if verify {
        facts["matrices"] = count(config, |weight| {
            let matrix = source.linear(weight)?;
            let mut counts = [0; 3];
            add(&mut counts, &matrix.trits);
            Ok((matrix.scales.values, counts))
        })?;
    }
    Ok(facts)
}

/// How the ternary weights are stored, as the first of them shows.
fn stored_as(source: &dyn Source) -> anyhow::Result<&'static str> {
    use sterna_convert::StoredScale::{Divide, Masters, Multiply, Products};
    let Some(first) = linear(source.config()).into_iter().next() else {
        return Ok("none");
    };
    Ok(match source.linear(&first)?.stored {
        Masters => "masters",
        Products(_) => "products of trits and scales",
        Multiply(_) => "2 bits, scales to multiply by",
        Divide(_) => "2 bits, scales to divide by",
    })
}

/// What a config says.
fn facts(path: &Path, bytes: u64, c: &Config, files: Vec<&str>) -> Value {
    let size = |weights: &[Weight]| weights.iter().map(|w| w.rows * w.columns).sum::<usize>();
    let parameters = size(&layout::weights(c));
    json!({
        "path": path,
        "bytes": bytes,
        "family": c.family.name,
        "architecture": c.family.architecture,
        "parameters": parameters,
        "ternary_weights": size(&linear(c)),
        "packing": Value::Null,
        "bits_per_ternary_weight": Value::Null,
        "activations": Value::Null,
        "bits_per_parameter": 8.0 * bytes as f64 / parameters as f64,
        "embedding": Value::Null,
        "head": Value::Null,
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
        "matrices": Value::Null,
    })
}

/// Bytes that generation needs with so many tokens of context: the weights as they lie in a packed file, and the
/// cache in each of its types.
fn memory(path: &Path, context: Option<usize>) -> anyhow::Result<Value> {
    let Ok(file) = PackedFile::open(path) else {
        return Ok(Value::Null);
    };
    let context = context.unwrap_or(file.config.max_position_embeddings);
    let cache = |kv_type| KvCache::bytes_for(&file.config, kv_type, context);
    Ok(json!({
        "context": context,
        "weights": file.len(),
        "cache": {
            "f32": cache(KvType::F32), "f16": cache(KvType::F16), "q8": cache(KvType::Q8),
        },
    }))
}

/// The ternary layers.
fn linear(config: &Config) -> Vec<Weight> {
    let mut weights = layout::weights(config);
    weights.retain(|w| w.role == Role::Linear);
    weights
}

fn type_name(values: &Values) -> &'static str {
    match values {
        Values::F32(_) => "f32",
        Values::F16(_) => "f16",
        Values::Bf16(_) => "bf16",
        Values::Trits(_) => "ternary",
        Values::Codes(codes) => ["q4", "q6", "q8"][codes.planes - 1],
    }
}

/// Scales and counts of -1, 0, +1 of every ternary layer.
fn count(
    config: &Config,
    read: impl Fn(&Weight) -> anyhow::Result<(Vec<f32>, [u64; 3])>,
) -> anyhow::Result<Value> {
    let mut matrices = Vec::new();
    for weight in linear(config) {
        let (scales, counts) = read(&weight)?;
        let sum: f64 = scales.iter().map(|s| f64::from(*s)).sum();
        let scale = (sum / scales.len() as f64) as f32;
        matrices.push(json!({
            "name": weight.name, "rows": weight.rows, "columns": weight.columns,
            "scale": scale, "scales": scales.len(), "minus": counts[0], "zero": counts[1], "plus": counts[2],
        }));
    }
    Ok(Value::Array(matrices))
}

fn add(counts: &mut [u64; 3], trits: &[i8]) {
    trits.iter().for_each(|t| counts[(t + 1) as usize] += 1);
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
            "packing      {}{}, {:.2} bits a parameter in all",
            text("packing"),
            match f["bits_per_ternary_weight"].as_f64() {
                Some(bits) => format!(", {bits:.3} bits a ternary weight"),
                None => String::new(),
            },
            number("bits_per_parameter")
        ),
        format!("activations  {}", text("activations")),
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
    if let Some(memory) = f["memory"].as_object() {
        let bytes = |value: &Value| terminal::bytes(value.as_u64().unwrap_or(0));
        lines.push(format!(
            "memory       {} of weights, with {} tokens of context {} more (f16), {} (q8)",
            bytes(&memory["weights"]),
            memory["context"],
            bytes(&memory["cache"]["f16"]),
            bytes(&memory["cache"]["q8"]),
        ));
    }
    for m in f["matrices"].as_array().into_iter().flatten() {
        let zeros = m["zero"].as_f64().unwrap_or(0.0);
        let all = m["rows"].as_f64().unwrap_or(0.0) * m["columns"].as_f64().unwrap_or(0.0);
        lines.push(format!(
            "{:<45} {:>6} x {:<6} {} {:<12.6} zeros {:.1} %",
            m["name"].as_str().unwrap_or(""),
            m["rows"],
            m["columns"],
            match m["scales"].as_u64() {
                Some(1) => "scale".to_owned(),
                _ => format!("{} scales, mean", m["scales"]),
            },
            m["scale"].as_f64().unwrap_or(f64::NAN),
            100.0 * zeros / all
        ));
    }
    lines.join("\n") + "\n"
}

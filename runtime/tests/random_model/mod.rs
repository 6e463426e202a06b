//! Small packed models of random weights, with the weights beside them.
#![allow(dead_code)] // not every test file uses everything

pub mod tokenizer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::{Value, json};
use sterna_ternary::file::Description;
use sterna_ternary::layout::{self, Weight, scale_name};
use sterna_ternary::packing::DenseRows;
use sterna_ternary::planes::PlaneRow;
use sterna_ternary::table::CodedRow;
use sterna_ternary::trits::TritRow;
use sterna_ternary::{
    Activations, Config, Dense, Dtype, LinearType, PackedWriter, Role, Scaling, TableType, quantize,
};

/// What to make.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub config: Value,
    pub table: TableType,
    pub embedding: TableType,
    pub seed: u64,
    /// Scales of linear layers that are not random, by parts of their names.
    pub scales: Vec<(&'static str, f32)>,
    /// Which weights of a layer share a scale.
    pub scaling: Scaling,
    /// The packing of a model that is not ternary.
    pub dense: Option<Dense>,
    /// The type of its numbers if they are not blocks.
    pub number: Dtype,
    /// How activations are rounded.
    pub activations: Activations,
    /// Type of the scales of groups; those are then numbers that it holds.
    pub group_scales: Dtype,
    /// Values of the head, if they are not random.
    pub head_values: Option<Vec<f32>>,
    /// Embedded beside config.json, in the order of the packed file.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// A model as plain numbers.
pub struct Plain {
    pub config: Config,
    /// Not of a ternary model.
    pub dense: Option<Dense>,
    /// Trits or numbers of linear layers, values of tables and norms, row-major.
    pub tensors: HashMap<String, Vec<f32>>,
    /// In the shape of [`Scaling::shape`].
    pub scales: HashMap<String, Vec<f32>>,
}

/// A recipe of odd sizes: no width is a multiple of a block or of a vector.
pub fn odd(model_type: &str, tied: bool, table: TableType) -> Recipe {
    let (architecture, act) = match model_type {
        "bitnet" => ("BitNetForCausalLM", "relu2"),
        "llama" => ("LlamaForCausalLM", "silu"),
        "gemma3_text" => ("Gemma3ForCausalLM", "gelu_pytorch_tanh"),
        _ => ("Qwen3ForCausalLM", "silu"),
    };
    let mut recipe = Recipe {
        config: json!({
            "architectures": [architecture], "model_type": model_type, "hidden_act": act,
            "hidden_size": 100, "intermediate_size": 333, "num_hidden_layers": 2,
            "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 22, "vocab_size": 67,
            "max_position_embeddings": 300, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": tied, "bos_token_id": 1, "eos_token_id": 2,
        }),
        table,
        embedding: TableType::F16,
        seed: 1,
        scales: Vec::new(),
        scaling: Scaling::Matrix,
        dense: None,
        number: Dtype::F16,
        activations: Activations::Int8,
        group_scales: Dtype::F32,
        head_values: None,
        files: Vec::new(),
    };
    if model_type == "gemma3_text" {
        let config = &mut recipe.config;
        config["hidden_activation"] = act.into();
        config["layer_types"] = json!(["sliding_attention", "full_attention"]);
        config["sliding_window"] = 5.into();
        config["rope_local_base_freq"] = 500.0.into();
        config["query_pre_attn_scalar"] = 30.into();
    }
    recipe
}

/// The same with a norm before every linear layer.
pub fn with_linear_norms(mut recipe: Recipe) -> Recipe {
    recipe.config["quantization_config"] = json!({"use_rms_norm": true, "rms_norm_eps": 1e-4});
    recipe
}

/// Writes the model of a recipe as `name` in `folder`; the packing of one that is not ternary is
/// its own.
pub fn write(
    recipe: &Recipe,
    packing: impl Into<LinearType>,
    folder: &Path,
    name: &str,
) -> (PathBuf, Plain) {
    let packing = packing.into();
    let path = folder.join(name);
    let config = Config::from_json(&recipe.config).unwrap();
    let mut files = vec![(
        "config.json".to_owned(),
        recipe.config.to_string().into_bytes(),
    )];
    files.extend(
        recipe
            .files
            .iter()
            .map(|(name, bytes)| (name.to_string(), bytes.clone())),
    );
    let linears = layout::weights(&config).into_iter();
    let linears: Vec<_> = linears.filter(|w| w.role == Role::Linear).collect();
    let of_all = linears.iter().map(|w| w.name.clone());
    let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
    let mut uniform = move || (random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0;
    let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| uniform()).collect() };
    let is_head = |w: &Weight| config.tie_word_embeddings || w.name == layout::HEAD;
    let weights = layout::weights(&config).into_iter().map(|weight| {
        let mut numbers = draw(weight.rows * weight.columns);
        let scales = match weight.role {
            Role::Linear if recipe.dense.is_none() => {
                let shape = recipe.scaling.shape(weight.rows, weight.columns);
                draw(shape.iter().product())
            }
            Role::Table if is_head(&weight) => {
                numbers = recipe.head_values.clone().unwrap_or(numbers);
                Vec::new()
            }
            _ => Vec::new(),
        };
        (weight, numbers, scales)
    });
    let weights: Vec<(Weight, Vec<f32>, Vec<f32>)> = weights.collect();
    let mut exceptions = [0; 2];
    for (weight, numbers, _) in weights.iter().filter(|w| w.0.role == Role::Table) {
        let (i, table) = match is_head(weight) {
            true => (1, recipe.table),
            false => (0, recipe.embedding),
        };
        if table.has_low_plane() {
            let rows = numbers.chunks_exact(weight.columns);
            let bytes = rows.map(|row| PlaneRow::encode(row, table).exceptions.len());
            exceptions[i] = bytes.sum::<usize>() / table.numbers().unwrap().bytes();
        }
    }
    let description = Description {
        config: config.clone(),
        packing: recipe.dense.map_or(packing, LinearType::Dense),
        activations: recipe.activations,
        embedding: recipe.embedding,
        head: recipe.table,
        exceptions,
        scaling: of_all.clone().map(|name| (name, recipe.scaling)).collect(),
        numbers: of_all.map(|name| (name, recipe.number)).collect(),
        group_scales: recipe.group_scales,
        files,
    };
    let mut plain = Plain {
        config: config.clone(),
        dense: recipe.dense,
        tensors: HashMap::new(),
        scales: HashMap::new(),
    };
    PackedWriter::write(&path, &description, |writer| {
        for (weight, numbers, random_scales) in &weights {
            let name = &weight.name;
            let kept = match weight.role {
                Role::Norm => {
                    let gains: Vec<f32> = numbers.iter().map(|x| 1.0 + 0.3 * x).collect();
                    writer.vector(name, &gains)?;
                    gains
                }
                Role::Linear if recipe.dense.is_some() => {
                    let (dense, columns) = (recipe.dense.unwrap(), weight.columns);
                    let (bytes, values) = numbers_of(dense, recipe.number, numbers, columns);
                    writer.rows(name, &bytes)?;
                    values
                }
                Role::Linear => {
                    let packing = packing.ternary().expect("a ternary model");
                    let trits: Vec<i8> = numbers
                        .iter()
                        .map(|x| (x * 1.5).round_ties_even().clamp(-1.0, 1.0) as i8)
                        .collect();
                    let mut row = vec![0; packing.row_bytes(weight.columns)];
                    for trits in trits.chunks_exact(weight.columns) {
                        packing.pack_row(trits, &mut row);
                        writer.rows(name, &row)?;
                    }
                    let given = recipe.scales.iter().find(|(part, _)| name.contains(part));
                    let scale = |random: f32| given.map_or(scale_of(random), |(_, s)| *s);
                    let scales: Vec<f32> = random_scales.iter().map(|x| scale(*x)).collect();
                    writer.vector(&scale_name(name), &scales)?;
                    plain.scales.insert(name.clone(), scales);
                    trits.iter().map(|t| f32::from(*t)).collect()
                }
                Role::Table => {
                    let table = if is_head(weight) {
                        recipe.table
                    } else {
                        recipe.embedding
                    };
                    write_table(writer, name, table, numbers, weight.columns)?
                }
            };
            plain.tensors.insert(name.clone(), kept);
        }
        Ok::<(), sterna_ternary::Error>(())
    })
    .unwrap();
    (path, plain)
}

/// Bytes of a matrix that is not ternary, and the values that they hold.
fn numbers_of(dense: Dense, number: Dtype, x: &[f32], columns: usize) -> (Vec<u8>, Vec<f32>) {
    match (dense.block_bytes(), number) {
        (Some(size), _) => {
            let (mut bytes, mut values) = (Vec::new(), vec![0.0; x.len()]);
            for x in x.chunks_exact(columns) {
                let mut row = vec![0; columns.div_ceil(32) * size];
                assert!(dense.pack_row(x, &mut row));
                bytes.extend(row);
            }
            let rows = match dense {
                Dense::Q8_0 => DenseRows::Q8_0(bytes.as_chunks().0),
                _ => DenseRows::Q4_0(bytes.as_chunks().0),
            };
            for (row, values) in values.chunks_exact_mut(columns).enumerate() {
                rows.decode(row, values);
            }
            (bytes, values)
        }
        (None, Dtype::F16) => {
            let x: Vec<f16> = x.iter().map(|x| f16::from_f32(*x)).collect();
            let values = x.iter().map(|x| x.to_f32()).collect();
            (bytemuck::cast_slice(&x).to_vec(), values)
        }
        (None, Dtype::Bf16) => {
            let x: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
            let values = x.iter().map(|x| x.to_f32()).collect();
            (bytemuck::cast_slice(&x).to_vec(), values)
        }
        (None, _) => (bytemuck::cast_slice(x).to_vec(), x.to_vec()),
    }
}

/// A scale, which f16 holds too, from a random number in ±1.
fn scale_of(random: f32) -> f32 {
    f16::from_f32(0.1 + 0.05 * random).to_f32()
}

/// Writes a table and returns the values that it holds.
fn write_table(
    writer: &mut PackedWriter,
    name: &str,
    table: TableType,
    x: &[f32],
    columns: usize,
) -> Result<Vec<f32>, sterna_ternary::Error> {
    match table {
        TableType::F32 => {
            writer.rows(name, bytemuck::cast_slice(x))?;
            Ok(x.to_vec())
        }
        TableType::F16 => {
            let x: Vec<f16> = x.iter().map(|x| f16::from_f32(*x)).collect();
            writer.rows(name, bytemuck::cast_slice(&x))?;
            Ok(x.iter().map(|x| x.to_f32()).collect())
        }
        TableType::Bf16 => {
            let x: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
            writer.rows(name, bytemuck::cast_slice(&x))?;
            Ok(x.iter().map(|x| x.to_f32()).collect())
        }
        TableType::Ternary => {
            let mut values = Vec::new();
            for x in x.chunks_exact(columns) {
                let trits: Vec<i8> = x.iter().map(|x| quantize::trit(*x, 0.6) as i8).collect();
                let scales: Vec<f32> = x.chunks(128).map(|x| scale_of(x[0])).collect();
                writer.trit_rows(name, &[TritRow::encode(&trits, &scales)])?;
                let weights = trits.iter().enumerate();
                values.extend(weights.map(|(i, t)| f32::from(*t) * scales[i / 128]));
            }
            Ok(values)
        }
        TableType::F32Planes | TableType::F16Planes | TableType::Bf16Planes => {
            for x in x.chunks_exact(columns) {
                writer.plane_rows(name, &[PlaneRow::encode(x, table)])?;
            }
            Ok(match table {
                TableType::F16Planes => x.iter().map(|x| f16::from_f32(*x).to_f32()).collect(),
                TableType::Bf16Planes => x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
                _ => x.to_vec(),
            })
        }
        TableType::Q8 | TableType::Q6 | TableType::Q4 => {
            let mut values = vec![0.0; x.len()];
            for (x, values) in x
                .chunks_exact(columns)
                .zip(values.chunks_exact_mut(columns))
            {
                let row = CodedRow::encode(x, table.planes());
                row.decode(values);
                writer.coded_rows(name, &[row])?;
            }
            Ok(values)
        }
    }
}

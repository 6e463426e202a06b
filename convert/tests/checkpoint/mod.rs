//! Small checkpoints with odd sizes, written as Hugging Face folders, and the expected results.
#![allow(dead_code)] // each test binary uses a part

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use sterna_convert::{ConversionReport, Error, HeadType, PackedOptions};
use sterna_ternary::file::Values;
use sterna_ternary::layout::{self, Role};
use sterna_ternary::{Config, LinearType, PackedFile, Packing, quantize};
use tempfile::TempDir;

pub const OPTIONS: PackedOptions = PackedOptions {
    packing: LinearType::Ternary(Packing::I2),
    head: HeadType::Lossless,
    activations: None,
    allow_missing: false,
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Storage {
    Divide,
    Multiply,
    Online,
}

impl Storage {
    pub const ALL: [Storage; 3] = [Storage::Divide, Storage::Multiply, Storage::Online];
}

#[derive(Debug, Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub config: Value,
    pub tensors: BTreeMap<String, Tensor>,
    /// What the model must hold: trits and scale of matrices.
    pub matrices: BTreeMap<String, (Vec<i8>, f32)>,
    /// Values of norms and tables.
    pub values: BTreeMap<String, Vec<f32>>,
    pub shards: usize,
}

/// A small generator of numbers from 0 to 1.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
}

pub fn config(storage: Storage, tied: bool) -> Value {
    let quantization = match storage {
        Storage::Divide => json!({"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"]}),
        Storage::Multiply => json!({"quant_method": "bitnet", "linear_class": "autobitlinear",
            "quantization_mode": "offline"}),
        Storage::Online => json!({"quant_method": "bitnet", "linear_class": "autobitlinear",
            "quantization_mode": "online"}),
    };
    json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "hidden_size": 10, "intermediate_size": 7, "num_hidden_layers": 2, "num_attention_heads": 3,
        "num_key_value_heads": 1, "head_dim": 2, "vocab_size": 11, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": tied,
        "bos_token_id": 0, "eos_token_id": 2, "quantization_config": quantization,
    })
}

/// Encodes numbers in a type, and returns them also after rounding to that type.
pub fn store(dtype: Dtype, shape: &[usize], values: &[f32]) -> (Tensor, Vec<f32>) {
    let halves = || values.iter().map(|x| f16::from_f32(*x));
    let brains = || values.iter().map(|x| bf16::from_f32(*x));
    let (bytes, values) = match dtype {
        Dtype::F32 => (
            values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            values.to_vec(),
        ),
        Dtype::F16 => (
            halves().flat_map(f16::to_le_bytes).collect(),
            halves().map(f16::to_f32).collect(),
        ),
        Dtype::BF16 => (
            brains().flat_map(bf16::to_le_bytes).collect(),
            brains().map(bf16::to_f32).collect(),
        ),
        _ => unreachable!(),
    };
    (
        Tensor {
            dtype,
            shape: shape.to_vec(),
            bytes,
        },
        values,
    )
}

/// transformers' `pack_weights`: code trit + 1 of row i·R + r in bits 2i and 2i + 1 of byte row r.
pub fn pack(trits: &[i8], rows: usize, columns: usize) -> Vec<u8> {
    let quarter = rows.div_ceil(4);
    let mut bytes = vec![0u8; quarter * columns];
    for row in 0..rows {
        for c in 0..columns {
            bytes[row % quarter * columns + c] |=
                ((trits[row * columns + c] + 1) as u8) << (2 * (row / quarter));
        }
    }
    bytes
}

impl Checkpoint {
    pub fn new(storage: Storage, dtype: Dtype, tied: bool) -> Checkpoint {
        Checkpoint::from_config(config(storage, tied), storage, dtype)
    }

    pub fn from_config(config: Value, storage: Storage, dtype: Dtype) -> Checkpoint {
        let parsed = Config::from_json(&config).unwrap();
        let mut random = Random(7);
        let mut made = Checkpoint {
            config,
            tensors: BTreeMap::new(),
            matrices: BTreeMap::new(),
            values: BTreeMap::new(),
            shards: 1,
        };
        for w in layout::weights(&parsed) {
            let shape = if w.role == Role::Norm {
                vec![w.columns]
            } else {
                vec![w.rows, w.columns]
            };
            let values: Vec<f32> = (0..w.rows * w.columns)
                .map(|_| random.next() * 3.0 - 1.5)
                .collect();
            let (tensor, values) = store(dtype, &shape, &values);
            if w.role != Role::Linear {
                made.tensors.insert(w.name.clone(), tensor);
                made.values.insert(w.name, values);
                continue;
            }
            let mut trits = vec![0; values.len()];
            let scale = quantize::ternarize(&values, &mut trits);
            if storage == Storage::Online {
                made.tensors.insert(w.name.clone(), tensor);
                made.matrices.insert(w.name, (trits, scale));
                continue;
            }
            let (stored, scale) = store(dtype, &[1], &[random.next() * 40.0 + 0.3]);
            let scale = if storage == Storage::Divide {
                1.0 / scale[0]
            } else {
                scale[0]
            };
            let bytes = pack(&trits, w.rows, w.columns);
            let shape = vec![w.rows.div_ceil(4), w.columns];
            made.tensors.insert(layout::scale_name(&w.name), stored);
            made.tensors.insert(
                w.name.clone(),
                Tensor {
                    dtype: Dtype::U8,
                    shape,
                    bytes,
                },
            );
            made.matrices.insert(w.name, (trits, scale));
        }
        made
    }

    /// Adds a tensor of ones.
    pub fn add(&mut self, name: &str, shape: &[usize]) {
        let ones = vec![1.0; shape.iter().product()];
        self.tensors
            .insert(name.into(), store(Dtype::F32, shape, &ones).0);
    }

    /// Overwrites one value of a float tensor.
    pub fn set(&mut self, name: &str, index: usize, value: f32) {
        let tensor = self.tensors.get_mut(name).unwrap();
        let (one, _) = store(tensor.dtype, &[1], &[value]);
        let size = one.bytes.len();
        tensor.bytes[index * size..][..size].copy_from_slice(&one.bytes);
    }

    pub fn write(&self, folder: &Path) {
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        fs::write(folder.join("tokenizer.json"), r#"{"model": {}}"#).unwrap();
        fs::write(folder.join("tokenizer_config.json"), r#"{"a": 1}"#).unwrap();
        fs::write(
            folder.join("generation_config.json"),
            r#"{"eos_token_id": [2, 3]}"#,
        )
        .unwrap();
        fs::write(folder.join("chat_template.jinja"), "{{ messages }}").unwrap();
        fs::write(folder.join("reference.safetensors"), "none of our business").unwrap();
        if self.shards == 1 {
            let bytes = serialize(self.tensors.iter());
            return fs::write(folder.join("model.safetensors"), bytes).unwrap();
        }
        let mut map = serde_json::Map::new();
        for shard in 0..self.shards {
            let file = shard_name(shard, self.shards);
            let part = self
                .tensors
                .iter()
                .enumerate()
                .filter(|(i, _)| i % self.shards == shard);
            let part: Vec<_> = part.map(|(_, t)| t).collect();
            map.extend(part.iter().map(|(name, _)| (name.to_string(), json!(file))));
            fs::write(folder.join(&file), serialize(part.into_iter())).unwrap();
        }
        let index = json!({"metadata": {}, "weight_map": map});
        fs::write(
            folder.join("model.safetensors.index.json"),
            index.to_string(),
        )
        .unwrap();
    }

    pub fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        folder
    }

    /// Converts in a folder of its own.
    pub fn convert(
        &self,
        options: &PackedOptions,
    ) -> Result<(ConversionReport, PackedFile, TempDir), Error> {
        let folder = self.folder();
        let (report, out) = convert(folder.path(), options)?;
        let packed = PackedFile::open(&out).unwrap();
        Ok((report, packed, folder))
    }

    pub fn error(&self) -> Error {
        self.convert(&OPTIONS).expect_err("an error")
    }

    /// Compares a lossless result with its input.
    pub fn check(&self, packed: &PackedFile) {
        packed.verify().unwrap();
        for w in layout::weights(&packed.config) {
            match w.role {
                Role::Linear => {
                    let (trits, scale) = &self.matrices[&w.name];
                    assert_eq!(&unpack(packed, &w.name), trits, "{}", w.name);
                    assert_eq!(
                        packed.matrix(&w.name).scales.at(0).to_bits(),
                        scale.to_bits()
                    );
                }
                Role::Norm => assert_eq!(packed.vector(&w.name), self.values[&w.name]),
                Role::Table => {
                    let table = if w.name == layout::HEAD {
                        packed.head()
                    } else {
                        packed.embedding()
                    };
                    assert_eq!(
                        table_values(table.values, w.columns),
                        self.values[&w.name],
                        "{}",
                        w.name
                    );
                }
            }
        }
    }
}

pub fn shard_name(shard: usize, shards: usize) -> String {
    format!("model-{:05}-of-{shards:05}.safetensors", shard + 1)
}

pub fn serialize<'a>(tensors: impl Iterator<Item = (&'a String, &'a Tensor)>) -> Vec<u8> {
    let views = tensors.map(|(name, t)| {
        (
            name,
            TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap(),
        )
    });
    safetensors::serialize(views, None).unwrap()
}

/// Converts a folder to `model.sterna` in it and checks that no temporary file is left there.
pub fn convert(
    folder: &Path,
    options: &PackedOptions,
) -> Result<(ConversionReport, PathBuf), Error> {
    let out = folder.join("model.sterna");
    let (mut last, mut total) = (0, 0);
    let result = sterna_convert::convert(folder, &out, options, &mut |done, all| {
        assert!(done > last && done <= all);
        (last, total) = (done, all);
    });
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let left = names
        .filter(|n| n.contains("sterna") || n.starts_with('.'))
        .collect::<Vec<_>>();
    match &result {
        Ok(report) => {
            assert_eq!(last, total, "the progress ends at its total");
            assert_eq!(left, ["model.sterna"]);
            assert_eq!(
                (report.differ, report.scales_differ, report.values_differ),
                (0, 0, 0)
            );
        }
        Err(_) => assert_eq!(left, Vec::<String>::new(), "an error leaves nothing"),
    }
    Ok((result?, out))
}

pub fn unpack(packed: &PackedFile, name: &str) -> Vec<i8> {
    let matrix = packed.matrix(name);
    let packing = packed.packing.ternary().unwrap();
    let mut trits = vec![0; matrix.rows * matrix.columns];
    let rows = matrix.data.chunks_exact(packing.row_bytes(matrix.columns));
    for (trits, row) in trits.chunks_exact_mut(matrix.columns).zip(rows) {
        packing.unpack_row(row, trits).unwrap();
    }
    trits
}

pub fn table_values(values: Values, columns: usize) -> Vec<f32> {
    match values {
        Values::F32(v) => v.to_vec(),
        Values::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
        Values::Bf16(v) => v.iter().map(|x| x.to_f32()).collect(),
        Values::Trits(trits) => {
            let mut values = vec![0.0; trits.rows * columns];
            for (row, values) in values.chunks_exact_mut(columns).enumerate() {
                trits.decode(row, values);
            }
            values
        }
        Values::Codes(codes) => {
            let mut values = vec![f32::NAN; codes.scales.len() * columns];
            for (row, values) in values.chunks_exact_mut(columns).enumerate() {
                codes.decode(row, values);
            }
            values
        }
        Values::Planes(planes) => {
            let mut values = vec![f32::NAN; planes.ends.len() * columns];
            for (row, values) in values.chunks_exact_mut(columns).enumerate() {
                planes.decode(row, values);
            }
            values
        }
    }
}

/// A byte-level tokenizer with two added tokens.
pub fn tokenizer(pre_tokenizer: Value) -> Value {
    json!({
        "added_tokens": [{"id": 8, "content": "<s>", "special": true},
            {"id": 9, "content": "<x>", "special": false}],
        "pre_tokenizer": pre_tokenizer,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4},
            "merges": [["a", "b"], ["Ġ", "ab"]]},
    })
}

pub fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})
}

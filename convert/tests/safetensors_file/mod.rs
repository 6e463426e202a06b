//! A Hugging Face folder made by hand, field by field, so that each field can lie.
#![allow(dead_code)] // each test binary uses a part

pub mod lies;

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

pub const SINGLE: &str = "model.safetensors";
pub const INDEX: &str = "model.safetensors.index.json";

#[derive(Clone)]
pub struct Folder {
    pub config: Value,
    /// In place of the config.
    pub raw_config: Option<Vec<u8>>,
    pub shards: Vec<Shard>,
    pub index: Option<Vec<u8>>,
    /// Tokenizer and so on.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

#[derive(Clone)]
pub struct Shard {
    pub name: String,
    /// In place of the length of the header.
    pub length: Option<u64>,
    pub header: Map<String, Value>,
    /// In place of the header.
    pub raw: Option<Vec<u8>>,
    pub data: Vec<u8>,
    /// In place of the whole file.
    pub whole: Option<Vec<u8>>,
}

impl Shard {
    fn new(name: &str) -> Shard {
        Shard {
            name: name.into(),
            length: None,
            header: Map::new(),
            raw: None,
            data: Vec::new(),
            whole: None,
        }
    }

    pub fn push(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) {
        let start = self.data.len();
        self.data.extend(bytes);
        let entry =
            json!({"dtype": dtype, "shape": shape, "data_offsets": [start, self.data.len()]});
        self.header.insert(name.into(), entry);
    }

    /// Removes the last byte of the data.
    pub fn cut(&mut self) {
        self.data.pop();
    }

    pub fn bytes(&self) -> Vec<u8> {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let text = Value::Object(self.header.clone()).to_string().into_bytes();
        let text = self.raw.clone().unwrap_or(text);
        let length = self.length.unwrap_or(text.len() as u64);
        [&length.to_le_bytes()[..], &text, &self.data].concat()
    }

    /// Position of the bytes of a tensor in the file.
    fn start(&self, name: &str) -> usize {
        self.header[name]["data_offsets"][0].as_u64().unwrap() as usize
    }
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

impl Folder {
    /// A llama of one layer with packed matrices of four columns, tied.
    pub fn good() -> Folder {
        let mut shard = Shard::new(SINGLE);
        let table: Vec<f32> = (0..20).map(|i| i as f32 - 7.5).collect();
        shard.push("model.embed_tokens.weight", "F32", &[5, 4], &floats(&table));
        for (part, rows) in [
            ("self_attn.q_proj", 4),
            ("self_attn.k_proj", 2),
            ("self_attn.v_proj", 2),
            ("self_attn.o_proj", 4),
            ("mlp.gate_proj", 4),
            ("mlp.up_proj", 4),
            ("mlp.down_proj", 4),
        ] {
            let name = format!("model.layers.0.{part}.weight");
            let codes = if rows == 4 {
                [0x24, 0x91, 0x09, 0x86]
            } else {
                [0x04, 0x01, 0x09, 0x06]
            };
            shard.push(&name, "U8", &[1, 4], &codes);
            shard.push(&format!("{name}_scale"), "F32", &[1], &floats(&[0.5]));
        }
        for norm in [
            "layers.0.input_layernorm",
            "layers.0.post_attention_layernorm",
            "norm",
        ] {
            shard.push(
                &format!("model.{norm}.weight"),
                "F32",
                &[4],
                &floats(&[1.0; 4]),
            );
        }
        let files: [(&'static str, &[u8]); 4] = [
            ("tokenizer.json", br#"{"model": {}}"#),
            ("tokenizer_config.json", br#"{"eos_token": "a"}"#),
            ("generation_config.json", br#"{"eos_token_id": [2, 3]}"#),
            ("chat_template.jinja", b"{{ messages }}"),
        ];
        Folder {
            config: json!({
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
                "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1, "head_dim": 2, "vocab_size": 5,
                "max_position_embeddings": 16,
                "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
                "bos_token_id": 0, "eos_token_id": 2,
                "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                    "quantization_mode": "offline"},
            }),
            raw_config: None,
            shards: vec![shard],
            index: None,
            files: files.map(|(name, bytes)| (name, bytes.to_vec())).into(),
        }
    }

    /// The same with matrices of numbers: masters, or products if `mode` is None.
    pub fn of_numbers(mode: Option<&str>) -> Folder {
        let mut folder = Folder::good();
        folder.config["quantization_config"] = match mode {
            Some(mode) => {
                json!({
                    "quant_method": "bitnet", "linear_class": "autobitlinear",
                    "quantization_mode": mode,
                })
            }
            None => Value::Null,
        };
        let old = std::mem::replace(&mut folder.shards[0], Shard::new(SINGLE));
        let shard = &mut folder.shards[0];
        for (name, entry) in &old.header {
            let rows = if name.contains("k_proj") || name.contains("v_proj") {
                2
            } else {
                4
            };
            if entry["dtype"] == "U8" {
                let weights: Vec<f32> = (0..4 * rows)
                    .map(|i| [0.5, 0.0, -0.5][(i * i + i / 5) % 3])
                    .collect();
                shard.push(name, "F32", &[rows, 4], &floats(&weights));
            } else if !name.ends_with("_scale") {
                let shape: Vec<usize> = serde_json::from_value(entry["shape"].clone()).unwrap();
                let bytes = &old.data[old.start(name)..][..4 * shape.iter().product::<usize>()];
                shard.push(name, "F32", &shape, bytes);
            }
        }
        folder
    }

    /// The same in two shards.
    pub fn sharded() -> Folder {
        let mut folder = Folder::good();
        let whole = folder.shards.remove(0);
        folder.shards = ["one.safetensors", "two.safetensors"]
            .map(Shard::new)
            .into();
        let mut map = Map::new();
        for (i, (name, entry)) in whole.header.iter().enumerate() {
            let shape: Vec<usize> = serde_json::from_value(entry["shape"].clone()).unwrap();
            let end = entry["data_offsets"][1].as_u64().unwrap() as usize;
            let shard = &mut folder.shards[i % 2];
            let dtype = entry["dtype"].as_str().unwrap();
            shard.push(name, dtype, &shape, &whole.data[whole.start(name)..end]);
            map.insert(name.clone(), shard.name.clone().into());
        }
        folder.set_index(json!({"metadata": {"total_size": 1}, "weight_map": map}));
        folder
    }

    pub fn set_index(&mut self, index: Value) {
        self.index = Some(index.to_string().into_bytes());
    }

    /// Changes the index.
    pub fn index(&mut self, change: impl FnOnce(&mut Map<String, Value>)) {
        let mut index: Value = serde_json::from_slice(self.index.as_ref().unwrap()).unwrap();
        change(index["weight_map"].as_object_mut().unwrap());
        self.set_index(index);
    }

    /// The entry of a tensor in the first shard.
    pub fn entry(&mut self, name: &str) -> &mut Value {
        &mut self.shards[0].header[name]
    }

    /// Overwrites a number.
    pub fn number(&mut self, name: &str, index: usize, value: f32) {
        let at = self.shards[0].start(name) + 4 * index;
        self.shards[0].data[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub fn raw(&mut self, header: &str) {
        self.shards[0].raw = Some(header.as_bytes().to_vec());
    }

    /// All files by name.
    pub fn bytes(&self) -> Vec<(String, Vec<u8>)> {
        let config = self.config.to_string().into_bytes();
        let config = self.raw_config.clone().unwrap_or(config);
        let mut all = vec![("config.json".to_owned(), config)];
        all.extend(self.index.iter().map(|i| (INDEX.to_owned(), i.clone())));
        all.extend(self.shards.iter().map(|s| (s.name.clone(), s.bytes())));
        let files = self.files.iter();
        all.extend(files.map(|(name, bytes)| (name.to_string(), bytes.clone())));
        all
    }

    /// Writes all files into an empty folder of that name.
    pub fn write(&self, folder: &Path) {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir(folder).unwrap();
        for (name, bytes) in self.bytes() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }

    pub fn size(&self) -> usize {
        self.bytes().iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

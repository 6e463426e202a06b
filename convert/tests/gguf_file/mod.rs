//! A GGUF file made by hand, field by field, so that each field can lie.
#![allow(dead_code)] // each test binary uses a part

pub mod lies;

#[derive(Clone)]
pub struct File {
    pub magic: [u8; 4],
    pub version: u32,
    pub count_tensors: Option<u64>,
    pub count_pairs: Option<u64>,
    pub count_dimensions: Option<u32>,
    /// Key, type, encoded value.
    pub pairs: Vec<(String, u32, Vec<u8>)>,
    pub raw_key: Option<Vec<u8>>,
    pub key_length: Option<u64>,
    pub tensors: Vec<Tensor>,
    pub cut_data: bool,
    pub behind: Vec<u8>,
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dimensions: Vec<u64>,
    pub type_id: u32,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

pub mod value {
    pub fn u32(n: u32) -> Vec<u8> {
        n.to_le_bytes().to_vec()
    }

    pub fn f32(x: f32) -> Vec<u8> {
        x.to_le_bytes().to_vec()
    }

    pub fn bytes(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
    }

    pub fn array(kind: u32, len: u64, bytes: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &len.to_le_bytes(), bytes].concat()
    }

    pub fn texts(texts: &[&str]) -> Vec<u8> {
        let each: Vec<u8> = texts.iter().flat_map(|t| bytes(t.as_bytes())).collect();
        array(8, texts.len() as u64, &each)
    }
}

pub fn text(text: &str) -> Vec<u8> {
    value::bytes(text.as_bytes())
}

impl File {
    /// A llama of one layer with matrices of 4 × 4 numbers, tied, with a tokenizer of bytes.
    pub fn good() -> File {
        let mut file = File {
            magic: *b"GGUF",
            version: 3,
            count_tensors: None,
            count_pairs: None,
            count_dimensions: None,
            pairs: Vec::new(),
            raw_key: None,
            key_length: None,
            tensors: Vec::new(),
            cut_data: false,
            behind: Vec::new(),
        };
        file.set("general.architecture", 8, text("llama"));
        file.set("general.name", 8, text("tiny"));
        file.set("general.file_type", 4, value::u32(0));
        for (key, n) in [
            ("context_length", 16),
            ("embedding_length", 4),
            ("block_count", 1),
            ("feed_forward_length", 4),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 2),
            ("rope.dimension_count", 2),
        ] {
            file.set(&format!("llama.{key}"), 4, value::u32(n));
        }
        file.set(
            "llama.attention.layer_norm_rms_epsilon",
            6,
            value::f32(1e-5),
        );
        file.set("llama.rope.freq_base", 6, value::f32(10000.0));
        file.set("tokenizer.ggml.model", 8, text("gpt2"));
        file.set("tokenizer.ggml.pre", 8, text("llama-bpe"));
        let tokens = ["a", "b", "ab", "<|eot_id|>", "<|end_of_text|>"];
        file.set("tokenizer.ggml.tokens", 9, value::texts(&tokens));
        let kinds = [1, 1, 1, 3, 3u32].map(u32::to_le_bytes).concat();
        file.set("tokenizer.ggml.token_type", 9, value::array(5, 5, &kinds));
        file.set("tokenizer.ggml.merges", 9, value::texts(&["a b"]));
        file.set("tokenizer.ggml.eos_token_id", 4, value::u32(4));
        file.set("tokenizer.ggml.bos_token_id", 4, value::u32(4));
        file.set("tokenizer.chat_template", 8, text("{{ messages }}"));
        let table: Vec<f32> = (0..20).map(|i| i as f32).collect();
        file.matrix("token_embd.weight", 5, table);
        for part in [
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_gate",
            "ffn_up",
            "ffn_down",
        ] {
            let trits = (0..16).map(|i| ((i * i + i / 5) % 3) as f32 - 1.0);
            let name = format!("blk.0.{part}.weight");
            file.matrix(&name, 4, trits.map(|t| t * 0.5).collect());
        }
        for norm in [
            "blk.0.attn_norm.weight",
            "blk.0.ffn_norm.weight",
            "output_norm.weight",
        ] {
            file.push(norm, vec![1.0; 4]);
        }
        file
    }

    /// The same with a tokenizer of scores.
    pub fn sentence_piece() -> File {
        let mut file = File::good();
        file.set("tokenizer.ggml.model", 8, text("llama"));
        file.remove("tokenizer.ggml.merges");
        let tokens = ["<unk>", "<0x0A>", "▁", "a", "▁a"];
        file.set("tokenizer.ggml.tokens", 9, value::texts(&tokens));
        let kinds = [2, 6, 1, 1, 1u32].map(u32::to_le_bytes).concat();
        file.set("tokenizer.ggml.token_type", 9, value::array(5, 5, &kinds));
        let scores = [0.0, 0.0, -2.0, -3.0, -1f32].map(f32::to_le_bytes).concat();
        file.set("tokenizer.ggml.scores", 9, value::array(6, 5, &scores));
        file
    }

    pub fn set(&mut self, key: &str, kind: u32, value: Vec<u8>) {
        match self.pairs.iter_mut().find(|p| p.0 == key) {
            Some(pair) => (pair.1, pair.2) = (kind, value),
            None => self.pairs.push((key.into(), kind, value)),
        }
    }

    pub fn remove(&mut self, key: &str) {
        self.pairs.retain(|p| p.0 != key);
    }

    pub fn find(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap()
    }

    /// Overwrites a number.
    pub fn data(&mut self, name: &str, index: usize, value: f32) {
        self.find(name).bytes[4 * index..][..4].copy_from_slice(&value.to_le_bytes());
    }

    /// Adds an F32 vector.
    pub fn push(&mut self, name: &str, values: Vec<f32>) {
        self.append(Tensor {
            name: name.into(),
            dimensions: vec![values.len() as u64],
            type_id: 0,
            offset: 0,
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        });
    }

    fn matrix(&mut self, name: &str, rows: u64, values: Vec<f32>) {
        self.push(name, values);
        let last = self.tensors.last_mut().unwrap();
        last.dimensions = vec![last.dimensions[0] / rows, rows];
    }

    /// Adds a tensor after the others.
    pub fn append(&mut self, mut tensor: Tensor) {
        let end = self
            .tensors
            .last()
            .map_or(0, |t| t.offset + t.bytes.len() as u64);
        tensor.offset = end.next_multiple_of(32);
        self.tensors.push(tensor);
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(
            self.count_tensors
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        bytes.extend(
            self.count_pairs
                .unwrap_or(self.pairs.len() as u64)
                .to_le_bytes(),
        );
        for (i, (key, kind, value)) in self.pairs.iter().enumerate() {
            let key = match &self.raw_key {
                Some(raw) if i == 0 => raw.as_slice(),
                _ => key.as_bytes(),
            };
            let length = self
                .key_length
                .filter(|_| i == 0)
                .unwrap_or(key.len() as u64);
            bytes.extend(length.to_le_bytes());
            bytes.extend(key);
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        for (i, tensor) in self.tensors.iter().enumerate() {
            bytes.extend(text(&tensor.name));
            let count = self.count_dimensions.filter(|_| i == 0);
            bytes.extend(
                count
                    .unwrap_or(tensor.dimensions.len() as u32)
                    .to_le_bytes(),
            );
            bytes.extend(tensor.dimensions.iter().flat_map(|d| d.to_le_bytes()));
            bytes.extend(tensor.type_id.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        if self.cut_data {
            return bytes;
        }
        let start = bytes.len().next_multiple_of(32);
        bytes.resize(start, 0);
        let mut end = 0;
        for tensor in &self.tensors {
            bytes.resize(start + end, 0);
            bytes.extend(&tensor.bytes);
            end = (end + tensor.bytes.len()).next_multiple_of(32);
        }
        bytes.extend(&self.behind);
        bytes
    }
}

//! A packed file taken apart, so that each part can lie. Its checksums are
//! recomputed, unless they are the lie.
#![allow(dead_code)] // each test binary uses a part

pub mod lies;

use std::path::Path;

use serde_json::{Map, Value, json};
use sterna_convert::{Error, HeadType, PackedOptions, convert};
use sterna_ternary::{LinearType, sha256};

#[derive(Clone)]
pub struct File {
    /// In place of the length of the header.
    pub length: Option<u64>,
    pub header: Map<String, Value>,
    /// In place of the header.
    pub raw: Option<Vec<u8>>,
    pub data: Vec<u8>,
    /// In place of the whole file.
    pub whole: Option<Vec<u8>>,
    /// Whether the checksums are recomputed.
    pub seals: bool,
    /// Pads the header so that the data begin at a multiple of this.
    pub alignment: usize,
}

impl File {
    /// The packed file of a folder.
    pub fn of(
        folder: &Path,
        out: &Path,
        packing: impl Into<LinearType>,
        head: HeadType,
    ) -> Result<File, Error> {
        let options = PackedOptions {
            packing: packing.into(),
            head,
            allow_missing: true,
            activations: None,
        };
        convert(folder, out, &options, &mut |_, _| {})?;
        let bytes = std::fs::read(out).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        Ok(File {
            length: None,
            header: header.as_object().unwrap().clone(),
            raw: None,
            data: bytes[8 + length..].to_vec(),
            whole: None,
            seals: true,
            alignment: 64,
        })
    }

    pub fn entry(&mut self, name: &str) -> &mut Value {
        &mut self.header[name]
    }

    pub fn metadata(&mut self, key: &str, value: Value) {
        self.header["__metadata__"][key] = value;
    }

    /// The bytes of a tensor.
    pub fn bytes_of(&mut self, name: &str) -> &mut [u8] {
        let offset = |i: usize| self.header[name]["data_offsets"][i].as_u64().unwrap() as usize;
        let range = offset(0)..offset(1);
        &mut self.data[range]
    }

    /// Overwrites a number.
    pub fn number(&mut self, name: &str, index: usize, value: f32) {
        self.bytes_of(name)[4 * index..][..4].copy_from_slice(&value.to_le_bytes());
    }

    /// Changes the config in place. The spaces after it give room.
    pub fn config(&mut self, key: &str, value: Value) {
        let mut config: Value = serde_json::from_slice(self.bytes_of("config.json")).unwrap();
        config[key] = value;
        self.raw_config(config.to_string().as_bytes());
    }

    pub fn raw_config(&mut self, text: &[u8]) {
        let bytes = self.bytes_of("config.json");
        bytes.fill(b' ');
        bytes[..text.len()].copy_from_slice(text);
    }

    /// Adds a tensor after the others.
    pub fn push(&mut self, name: &str, dtype: &str, shape: Value, bytes: &[u8]) {
        let start = self.data.len();
        self.data.extend(bytes);
        let offsets = [start, self.data.len()];
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        self.header.insert(name.into(), entry);
    }

    pub fn bytes(&self) -> Vec<u8> {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let mut header = self.header.clone();
        // Vectors begin with the first norm, or with the scales of an embedding that has codes.
        let first = [
            "model.layers.0.input_layernorm.weight",
            "model.embed_tokens.weight_scale",
        ];
        let entries = first.iter().filter_map(|name| header.get(*name));
        let starts = entries.filter_map(|entry| entry["data_offsets"][0].as_u64());
        let start = starts.min().map_or(0, |n| n as usize).min(self.data.len());
        let metadata = header
            .get_mut("__metadata__")
            .and_then(Value::as_object_mut);
        if let Some(metadata) = metadata.filter(|_| self.seals) {
            let (matrices, vectors) = self.data.split_at(start);
            metadata.insert("matrices_sha256".into(), sha256::of(matrices).into());
            metadata.insert("vectors_sha256".into(), sha256::of(vectors).into());
        }
        let text = Value::Object(header).to_string().into_bytes();
        let mut text = self.raw.clone().unwrap_or(text);
        let end = (8 + text.len()).div_ceil(64) * self.alignment;
        text.resize(end.max(8 + text.len()) - 8, b' ');
        let length = self.length.unwrap_or(text.len() as u64);
        let mut bytes = [&length.to_le_bytes()[..], &text, &self.data].concat();
        if self.seals {
            seal(&mut bytes);
        }
        bytes
    }
}

/// Recomputes the checksum of the header, if it is at its place.
pub fn seal(bytes: &mut [u8]) {
    const KEY: &[u8] = b"\"header_sha256\":\"";
    let Some(length) = bytes.first_chunk().map(|b| u64::from_le_bytes(*b)) else {
        return;
    };
    let end = usize::try_from(length).ok().and_then(|n| n.checked_add(8));
    let Some(end) = end.filter(|end| *end <= bytes.len()) else {
        return;
    };
    let at = bytes[..end].windows(KEY.len()).position(|w| w == KEY);
    let Some(at) = at.map(|at| at + KEY.len()).filter(|at| at + 64 <= end) else {
        return;
    };
    bytes[at..at + 64].fill(b'0');
    let sum = sha256::of(&bytes[..end]);
    bytes[at..at + 64].copy_from_slice(sum.as_bytes());
}

//! The weights of a Hugging Face folder: `model.safetensors`, or the shards that
//! `model.safetensors.index.json` names. Every other file is none of our business.
//!
//! Headers are checked at opening; afterwards a part of a file is mapped for as long as it is read, so that
//! the memory in use does not grow with the checkpoint.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::{Mmap, MmapOptions};
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::{Error, Result, parallel};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a folder by name.
#[derive(Debug)]
pub(crate) struct SafetensorsFiles {
    shards: Vec<Shard>,
    /// Name → index into `shards`.
    names: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    /// Where the data starts in the file.
    data_start: u64,
    bytes: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

/// One tensor in its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    shard: &'a Shard,
    info: &'a TensorInfo,
}

impl SafetensorsFiles {
    pub fn open(folder: &Path) -> Result<SafetensorsFiles> {
        let index = folder.join(INDEX);
        let single = folder.join(SINGLE);
        if index.exists() {
            return open_shards(folder, &index);
        }
        if !single.exists() {
            return Err(Error::Input {
                path: folder.to_owned(),
                why: format!("there is neither {SINGLE} nor {INDEX}"),
            });
        }
        let shard = Shard::open(single)?;
        let names = shard.tensors.keys().map(|name| (name.clone(), 0)).collect();
        let shards = vec![shard];
        Ok(SafetensorsFiles { shards, names })
    }

    pub fn find(&self, name: &str) -> Option<Stored<'_>> {
        let shard = &self.shards[*self.names.get(name)?];
        let info = &shard.tensors[name];
        Some(Stored { shard, info })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|s| s.path.as_path())
    }

    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.bytes).sum()
    }
}

fn open_shards(folder: &Path, index: &Path) -> Result<SafetensorsFiles> {
    let error = |why: String| Error::Index {
        path: index.to_owned(),
        why,
    };
    let text = std::fs::read(index).map_err(Error::io(index))?;
    let json: Value = serde_json::from_slice(&text).map_err(|e| error(e.to_string()))?;
    let map = json["weight_map"]
        .as_object()
        .ok_or_else(|| error("`weight_map` is not an object".into()))?;
    let mut files = BTreeMap::new();
    for (tensor, file) in map {
        let file = file
            .as_str()
            .filter(|file| is_plain_name(file))
            .ok_or_else(|| {
                let expected = "expected the name of a file in this folder";
                error(format!("{tensor} lies in {file}, {expected}"))
            })?;
        files.entry(file).or_insert_with(Vec::new).push(tensor);
    }
    let mut all = SafetensorsFiles {
        shards: Vec::new(),
        names: BTreeMap::new(),
    };
    for (file, tensors) in files {
        let shard = Shard::open(folder.join(file))?;
        if let Some(absent) = tensors.iter().find(|t| !shard.tensors.contains_key(**t)) {
            return Err(error(format!("{absent} should lie in {file} and does not")));
        }
        if let Some(extra) = shard.tensors.keys().find(|t| !tensors.contains(t)) {
            return Err(error(format!("{file} holds {extra}, which is not listed")));
        }
        let shard_index = all.shards.len();
        let names = shard.tensors.keys();
        all.names
            .extend(names.map(|name| (name.clone(), shard_index)));
        all.shards.push(shard);
    }
    Ok(all)
}

fn is_plain_name(file: &str) -> bool {
    !file.contains(['/', '\\', ':', '\0']) && !["", ".", ".."].contains(&file)
}

impl Shard {
    fn open(path: PathBuf) -> Result<Shard> {
        let metadata = path.metadata().map_err(Error::io(&path))?;
        let error = |why: String| Error::Safetensors {
            path: path.clone(),
            why,
        };
        if !metadata.is_file() {
            return Err(error("it is not a file".into())); // opening a pipe would wait forever
        }
        let file = File::open(&path).map_err(Error::io(&path))?;
        let bytes = metadata.len();
        let len = usize::try_from(bytes).map_err(|e| error(e.to_string()))?;
        let map = map(&path, &file, 0, len)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            let why = format!("{e} ({bytes} bytes)");
            error(why)
        })?;
        let tensors = metadata.tensors();
        let tensors = tensors
            .into_iter()
            .map(|(name, info)| (name, info.clone()))
            .collect();
        Ok(Shard {
            path,
            file,
            data_start: 8 + header as u64,
            bytes,
            tensors,
        })
    }
}

impl<'a> Stored<'a> {
    pub fn path(self) -> &'a Path {
        &self.shard.path
    }

    pub fn dtype(self) -> Dtype {
        self.info.dtype
    }

    pub fn shape(self) -> &'a [usize] {
        &self.info.shape
    }

    /// Type and shape, for messages.
    pub fn describe(self) -> String {
        format!("{} {:?}", self.dtype(), self.shape())
    }

    /// The bytes of some elements; `elements` lies within the tensor.
    pub fn bytes(self, elements: Range<usize>) -> Result<Mmap> {
        let size = self.dtype().bitsize() / 8;
        let start = self.info.data_offsets.0 + elements.start * size;
        let offset = self.shard.data_start + start as u64;
        map(self.path(), &self.shard.file, offset, elements.len() * size)
    }

    /// Elements `first..` of an F32, F16 or BF16 tensor, as many as fill `values`.
    pub fn values(self, first: usize, values: &mut [f32]) -> Result<()> {
        let bytes = self.bytes(first..first + values.len())?;
        let size = self.dtype().bitsize() / 8;
        parallel::rows(values.len(), values, 1, |first, values| {
            let bytes = &bytes[first * size..][..values.len() * size];
            decode(self.dtype(), bytes, values);
            Ok(())
        })
    }
}

/// Whether [`Stored::values`] reads this type.
pub(crate) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// Little-endian numbers of any alignment, exactly.
fn decode(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            for (x, b) in values.iter_mut().zip(bytes.as_chunks().0) {
                *x = f32::from_le_bytes(*b);
            }
        }
        Dtype::F16 => {
            let mut buffer = [f16::ZERO; 1024];
            for (values, bytes) in values.chunks_mut(1024).zip(bytes.chunks(2048)) {
                let halves = &mut buffer[..values.len()];
                for (h, b) in halves.iter_mut().zip(bytes.as_chunks().0) {
                    *h = f16::from_le_bytes(*b);
                }
                halves.convert_to_f32_slice(values);
            }
        }
        Dtype::BF16 => {
            for (x, b) in values.iter_mut().zip(bytes.as_chunks().0) {
                *x = bf16::from_le_bytes(*b).to_f32();
            }
        }
        other => unreachable!("{other} is refused at opening"),
    }
}

#[allow(unsafe_code)]
fn map(path: &Path, file: &File, offset: u64, len: usize) -> Result<Mmap> {
    // SAFETY: the mapping is read-only, private to this process and short-lived. A checkpoint that another
    // process shortens meanwhile ends this one with SIGBUS; a checkpoint is not written while it is converted.
    unsafe { MmapOptions::new().offset(offset).len(len).map(file) }.map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_plain_names() {
        for bad in ["", ".", "..", "../x", "/x", "a/b", "a\\b", "C:x"] {
            assert!(!is_plain_name(bad), "{bad}");
        }
        assert!(is_plain_name("model-00001-of-00002.safetensors"));
    }

    #[test]
    fn halves_decode_exactly_at_any_length() {
        for count in [0, 1, 1023, 1024, 1025, 5000] {
            let halves: Vec<u16> = (0..count).map(|i| (i * 13 % 0x7c00) as u16).collect();
            let bytes: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
            let mut values = vec![0.0; count];
            decode(Dtype::F16, &bytes, &mut values);
            let expected: Vec<f32> = halves.iter().map(|h| f16::from_bits(*h).to_f32()).collect();
            assert_eq!(values, expected);
            decode(Dtype::BF16, &bytes, &mut values);
            let expected: Vec<f32> = halves
                .iter()
                .map(|h| bf16::from_bits(*h).to_f32())
                .collect();
            assert_eq!(values, expected);
        }
    }
}

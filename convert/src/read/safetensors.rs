//! The weights of a Hugging Face folder: `model.safetensors`, or without it the shards named in
//! `model.safetensors.index.json`, as in transformers. Other files are ignored.
//!
//! The crate safetensors parses the headers. The index has no crate of its own; it is a JSON map
//! that `serde_json` parses, and this file checks it against the shards.
//!
//! Headers are checked at opening. After that, a part of a file is mapped only while it is read, so
//! that memory does not grow with the checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sterna_ternary::json::{self, shown};

use crate::read::adapter::{self, Adapter};
use crate::read::embedded;
use crate::read::mapped::{self, map};
use crate::read::wrappers::unwrapped;
use crate::{Error, Result, parallel};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a folder by name.
#[derive(Debug)]
pub(crate) struct SafetensorsFiles {
    shards: Vec<ShardFile>,
    /// By the name without the parts that wrappers add.
    names: BTreeMap<String, Place>,
    /// What the user should know.
    warnings: Vec<String>,
}

/// Where a tensor is.
#[derive(Debug)]
struct Place {
    /// Index into the shards.
    shard: usize,
    /// Its name in the file.
    stored: String,
}

#[derive(Debug)]
struct ShardFile {
    path: PathBuf,
    file: File,
    /// Offset of the data in the file.
    data_start: u64,
    bytes: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

/// One tensor in its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredTensor<'a> {
    shard: &'a ShardFile,
    info: &'a TensorInfo,
}

impl SafetensorsFiles {
    pub fn open(folder: &Path) -> Result<SafetensorsFiles> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        let mut warnings = Vec::new();
        let shards = if single.exists() {
            if index.exists() {
                warnings.push(format!(
                    "{INDEX} is not used, because there is {SINGLE}; transformers takes the same"
                ));
            }
            vec![ShardFile::open(single)?]
        } else if index.exists() {
            open_shards(folder, &index)?
        } else {
            return Err(nothing(folder)?);
        };
        SafetensorsFiles::named(folder, shards, warnings)
    }

    /// Gives the tensors of files the names that they have without wrappers.
    fn named(
        folder: &Path,
        shards: Vec<ShardFile>,
        mut warnings: Vec<String>,
    ) -> Result<SafetensorsFiles> {
        let stored: Vec<(usize, &String)> = (0..)
            .zip(&shards)
            .flat_map(|(shard, file)| file.tensors.keys().map(move |name| (shard, name)))
            .collect();
        let input = |why: String| Error::Input {
            path: folder.to_owned(),
            why,
        };
        if let Some((_, name)) = stored.iter().find(|(_, name)| adapter::is_unmerged(name)) {
            return Err(adapter::unmerged(folder, name));
        }
        let plain = unwrapped(stored.iter().map(|(_, name)| name.as_str()));
        if let Some((plain, (_, stored))) = plain.iter().zip(&stored).find(|(a, b)| *a != b.1) {
            warnings.push(format!(
                "wrappers of PyTorch, such as torch.compile, changed the names of tensors: {} is \
                 read as {}",
                shown(stored),
                shown(plain)
            ));
        }
        let mut names: BTreeMap<String, Place> = BTreeMap::new();
        for (plain, (shard, stored)) in plain.into_iter().zip(&stored) {
            let (shard, stored) = (*shard, (*stored).clone());
            if let Some(other) = names.get(&plain) {
                let why = format!(
                    "tensors {} and {} have the same name without wrappers of PyTorch; keep one",
                    shown(&other.stored),
                    shown(&stored)
                );
                return Err(input(why));
            }
            names.insert(plain, Place { shard, stored });
        }
        Ok(SafetensorsFiles {
            shards,
            names,
            warnings,
        })
    }

    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub fn find(&self, name: &str) -> Option<StoredTensor<'_>> {
        let place = self.names.get(name)?;
        let shard = &self.shards[place.shard];
        let info = &shard.tensors[&place.stored];
        Some(StoredTensor { shard, info })
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

/// The used part of an index.
#[derive(Deserialize)]
struct Index {
    /// Tensor → file.
    weight_map: BTreeMap<String, String>,
}

/// Why a folder without weights that can be read is refused.
fn nothing(folder: &Path) -> Result<Error> {
    if let Some(adapter) = Adapter::find(folder)? {
        return Ok(adapter.alone(folder));
    }
    let entries = folder.read_dir().map_err(Error::io(folder))?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_pickle = |name: &String| {
        [".bin", ".pt", ".pth"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let advice = match names.into_iter().find(is_pickle) {
        Some(pickle) => format!(
            "; {} is not read, because opening a pickle executes code: save the model with \
             `save_pretrained(folder, safe_serialization=True)`",
            shown(&pickle)
        ),
        None => String::new(),
    };
    Ok(Error::Input {
        path: folder.to_owned(),
        why: format!("there is neither {SINGLE} nor {INDEX}{advice}"),
    })
}

fn open_shards(folder: &Path, index: &Path) -> Result<Vec<ShardFile>> {
    let error = |why: String| Error::Index {
        path: index.to_owned(),
        why,
    };
    let text = embedded::read(index)?.unwrap_or_default();
    check_values(&text).map_err(error)?;
    let Index { weight_map } = serde_json::from_slice(&text).map_err(|e| {
        let expected = "expected a `weight_map` of tensors and names of files in this folder";
        error(format!("{expected}: {}", shown(&e.to_string())))
    })?;
    let mut files: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (tensor, file) in &weight_map {
        if !is_plain_name(file) {
            let (tensor, file) = (shown(tensor), shown(file));
            let expected = "expected the name of a file in this folder";
            return Err(error(format!("{tensor} is in \"{file}\", {expected}")));
        }
        files.entry(file).or_default().insert(tensor);
    }
    if files.is_empty() {
        return Err(error("`weight_map` is empty".into()));
    }
    let mut shards: Vec<ShardFile> = Vec::new();
    for (file, tensors) in files {
        let path = folder.join(file);
        if !path.exists() {
            return Err(error(format!(
                "it names {file}, which is not in the folder"
            )));
        }
        let shard = ShardFile::open(path)?;
        if let Some(absent) = tensors.iter().find(|t| !shard.tensors.contains_key(**t)) {
            let absent = shown(absent);
            return Err(error(format!("{absent} should be in {file} and is not")));
        }
        let extra = shard.tensors.keys().find(|t| !tensors.contains(t.as_str()));
        if let Some(extra) = extra {
            return Err(error(format!("{file} holds {extra}, which is not listed")));
        }
        shards.push(shard);
    }
    Ok(shards)
}

/// Whether a name stays inside its folder on every system and can be displayed. Links are followed:
/// the cache of the Hub consists of links, and the owner of the folder made them.
fn is_plain_name(file: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !['/', '\\', ':'].contains(&c);
    file.len() <= 255 && file.chars().all(is_plain) && !["", ".", ".."].contains(&file)
}

/// Most JSON values of an index or a header, at eight per tensor. It bounds the memory that a
/// hostile file can allocate.
const MOST_VALUES: usize = 100_000;

fn check_values(text: &[u8]) -> std::result::Result<(), String> {
    match json::count(text) {
        ..=MOST_VALUES => Ok(()),
        found => Err(format!(
            "it holds {found} values, expected at most {MOST_VALUES}"
        )),
    }
}

/// Longest accepted name of a tensor, in bytes.
const LONGEST_NAME: usize = 256;

fn is_tensor_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len()) && !name.chars().any(char::is_control)
}

impl ShardFile {
    fn open(path: PathBuf) -> Result<ShardFile> {
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
        check_values(json_part(&map)).map_err(error)?;
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|e| error(format!("{} ({bytes} bytes)", shown(&e.to_string()))))?;
        let tensors = metadata.tensors();
        if let Some(name) = tensors.keys().find(|name| !is_tensor_name(name)) {
            let expected = format!("1 to {LONGEST_NAME} bytes that can be shown");
            let name = shown(name);
            return Err(error(format!(
                "a tensor is named \"{name}\", expected {expected}"
            )));
        }
        let tensors = tensors
            .into_iter()
            .map(|(name, info)| (name, info.clone()))
            .collect();
        Ok(ShardFile {
            path,
            file,
            data_start: 8 + header as u64,
            bytes,
            tensors,
        })
    }
}

/// The JSON part that the first eight bytes announce, as far as the file contains it.
fn json_part(file: &[u8]) -> &[u8] {
    let Some((length, rest)) = file.split_first_chunk() else {
        return &[];
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    &rest[..length.min(rest.len())]
}

impl<'a> StoredTensor<'a> {
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
        format!("{} {}", self.dtype(), shown(&format!("{:?}", self.shape())))
    }

    /// Maps the bytes of some elements; `elements` is within the tensor.
    pub fn bytes(self, elements: Range<usize>) -> Result<Mmap> {
        let size = self.dtype().bitsize() / 8;
        let start = self.info.data_offsets.0 + elements.start * size;
        let offset = self.shard.data_start + start as u64;
        map(self.path(), &self.shard.file, offset, elements.len() * size)
    }

    /// Decodes elements of an F32, F16 or BF16 tensor from index `first` on until `values` is full.
    pub fn values(self, first: usize, values: &mut [f32]) -> Result<()> {
        let bytes = self.bytes(first..first + values.len())?;
        let size = self.dtype().bitsize() / 8;
        parallel::rows(values.len(), values, 1, |first, values| {
            let bytes = &bytes[first * size..][..values.len() * size];
            mapped::decode(float_type(self.dtype()), bytes, values);
            Ok(())
        })
    }
}

fn float_type(dtype: Dtype) -> sterna_ternary::Dtype {
    match dtype {
        Dtype::F32 => sterna_ternary::Dtype::F32,
        Dtype::F16 => sterna_ternary::Dtype::F16,
        Dtype::BF16 => sterna_ternary::Dtype::Bf16,
        other => unreachable!("{other} is refused at opening"),
    }
}

/// Whether [`StoredTensor::values`] reads this type.
pub(crate) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_plain_names() {
        let long = "x".repeat(256);
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "/x",
            "a/b",
            "a\\b",
            "C:x",
            "x\0",
            "x\u{1b}[2J",
            &long,
        ] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
        assert!(is_plain_name("model-00001-of-00002.safetensors"));
    }
}

//! The header of the packed file: JSON in the safetensors layout, with a checksum over itself.
//!
//! The crate safetensors cannot write it: it chooses the order of the tensors itself and does not
//! align each of them to 64 bytes.

use std::collections::HashMap;
use std::fmt::{self, Formatter};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::json::{count, shown};
use crate::layout::{ALIGNMENT, Dtype, Layout};
use crate::{Activations, Error, LinearType, Result, TableType, sha256};
use std::path::Path;

/// Format version of files that state how activations are rounded and how group scales are stored.
const VERSION: &str = "3";
/// Format version with int8 activations and f32 group scales. Used whenever it can express the
/// model, so that older programs can read the file.
const PLAIN_VERSION: &str = "2";
/// Format version of files with a dense packing, which implies the rounding of activations.
const DENSE_VERSION: &str = "4";
/// Format version of files with a table in planes, of any packing.
const PLANES_VERSION: &str = "5";
/// Longest accepted header in bytes, the same limit as in the safetensors crate.
const LONGEST: usize = 100_000_000;
/// Most JSON values in a header, at eight per tensor. It bounds the memory that a hostile header
/// can allocate.
const MOST_VALUES: usize = 100_000;
/// Placeholder for the header's own checksum while that checksum is computed.
const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Contents of the header, not yet compared with the layout that the config requires.
pub(crate) struct Header {
    pub form: Form,
    pub vectors_sha256: String,
    pub matrices_sha256: String,
    /// Type, shape and byte range of every tensor.
    pub tensors: HashMap<String, Tensor>,
    /// Where the data starts in the file.
    pub data_start: usize,
}

/// How a file stores its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub packing: LinearType,
    /// Rounding of activations; used only by ternary packings.
    pub activations: Activations,
    /// Type of the group scales: F32 or F16.
    pub group_scales: Dtype,
    /// Types of embedding and head.
    pub tables: [TableType; 2],
}

impl Form {
    /// The lowest format version that can express this form.
    fn version(&self) -> &'static str {
        if self.tables.iter().any(|table| table.has_low_plane()) {
            return PLANES_VERSION;
        }
        let is_plain = self.activations == Activations::Int8
            && self.group_scales == Dtype::F32
            && !self.tables.contains(&TableType::Ternary);
        match (self.packing, is_plain) {
            (LinearType::Dense(_), _) => DENSE_VERSION,
            (LinearType::Ternary(_), true) => PLAIN_VERSION,
            (LinearType::Ternary(_), false) => VERSION,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub start: usize,
    pub end: usize,
}

/// Encodes the bytes before the data. The length depends only on the layout.
pub(crate) fn encode(layout: &Layout, form: &Form, vectors: &str, matrices: &str) -> Vec<u8> {
    let mut json = Map::new();
    let [embedding, head] = form.tables;
    let mut metadata = Map::new();
    let mut say = |key: &str, value: &str| metadata.insert(key.into(), value.into());
    say("format", "sterna");
    let version = form.version();
    say("version", version);
    say("packing", form.packing.name());
    if version == VERSION || (version == PLANES_VERSION && form.packing.ternary().is_some()) {
        say("activations", form.activations.name());
    }
    if version != PLAIN_VERSION {
        say("group_scales", form.group_scales.name());
    }
    say("embedding", embedding.name());
    say("head", head.name());
    say("header_sha256", BLANK);
    say("vectors_sha256", vectors);
    say("matrices_sha256", matrices);
    json.insert("__metadata__".into(), Value::Object(metadata));
    for entry in &layout.entries {
        let value = json!({
            "dtype": entry.dtype.name(),
            "shape": entry.shape,
            "data_offsets": [entry.offset, entry.offset + entry.len],
        });
        json.insert(entry.name.clone(), value);
    }
    let mut text = Value::Object(json).to_string().into_bytes();
    let end = (8 + text.len()).next_multiple_of(ALIGNMENT);
    text.resize(end - 8, b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    let sum = sha256::of(&bytes);
    let at = find(&bytes, BLANK).expect("the blank checksum was just written");
    bytes[at..at + sum.len()].copy_from_slice(sum.as_bytes());
    bytes
}

/// Reads and checks the header of a file, given the whole file.
pub(crate) fn decode(path: &Path, file: &[u8]) -> Result<Header> {
    let not_packed = |why: &str| Error::NotPacked {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let length = file
        .first_chunk::<8>()
        .ok_or_else(|| not_packed("shorter than 8 bytes"))?;
    if length.starts_with(b"GGUF") {
        return Err(not_packed("it is a GGUF file"));
    }
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > LONGEST || length > file.len() - 8 {
        return Err(not_packed(&format!(
            "its first 8 bytes announce a header of {length} bytes"
        )));
    }
    // Count before parsing: small JSON can become large values.
    let data_start = 8 + length;
    let values = count(&file[8..data_start]);
    if values > MOST_VALUES {
        let why = format!("its header holds {values} values, expected at most {MOST_VALUES}");
        return Err(not_packed(&why));
    }
    let Parsed { metadata, entries } =
        serde_json::from_slice(&file[8..data_start]).map_err(|e| {
            not_packed(&format!(
                "its header is malformed ({})",
                shown(&e.to_string())
            ))
        })?;
    let text = |key: &str| metadata.get(key).map_or("", String::as_str);
    if text("format") != "sterna" {
        return Err(not_packed("its header has no `format` sterna"));
    }
    if ![PLAIN_VERSION, VERSION, DENSE_VERSION, PLANES_VERSION].contains(&text("version")) {
        let found = shown(text("version"));
        return Err(Error::Version {
            path: path.to_owned(),
            expected: "2 to 5",
            found,
        });
    }
    // After this check the header is as it was written, so what is wrong below was never valid.
    check_own_sum(path, &file[..data_start], text("header_sha256"))?;
    let unknown = |key| not_packed(&format!("its {key} {} is unknown", shown(text(key))));
    let version = text("version");
    let packing = LinearType::from_name(text("packing"));
    // Dense packings belong to version 4, and only to it; version 5 has all packings.
    let is_right = |p: &LinearType| {
        version == PLANES_VERSION || p.dense().is_some() == (version == DENSE_VERSION)
    };
    let packing = packing.filter(is_right).ok_or_else(|| unknown("packing"))?;
    let table = |key| {
        let unknown = || {
            let found = shown(text(key));
            not_packed(&format!("its {key} type {found} is unknown"))
        };
        TableType::from_name(text(key)).ok_or_else(unknown)
    };
    // The values that version 2 implies.
    let mut form = Form {
        packing,
        activations: Activations::Int8,
        group_scales: Dtype::F32,
        tables: [table("embedding")?, table("head")?],
    };
    if (version == PLANES_VERSION) != (form.version() == PLANES_VERSION) {
        return Err(not_packed(
            "tables in planes are for version 5, and it has one at least",
        ));
    }
    if version == PLAIN_VERSION && form.version() != PLAIN_VERSION {
        return Err(not_packed("version 2 has no ternary tables"));
    }
    if version == VERSION || (version == PLANES_VERSION && packing.ternary().is_some()) {
        let activations = Activations::from_name(text("activations"));
        form.activations = activations.ok_or_else(|| unknown("activations"))?;
    }
    if version != PLAIN_VERSION {
        let dtype = Dtype::from_name(text("group_scales"));
        let dtype = dtype.filter(|d| [Dtype::F32, Dtype::F16].contains(d));
        form.group_scales = dtype.ok_or_else(|| unknown("group_scales"))?;
    }
    if !data_start.is_multiple_of(ALIGNMENT) {
        return Err(not_packed("its data is not aligned to 64 bytes"));
    }
    let tensors = entries
        .into_iter()
        .map(|(name, entry)| {
            let malformed = || shown(&name);
            let tensor = entry
                .tensor()
                .ok_or_else(|| not_packed(&format!("its entry {} is malformed", malformed())))?;
            Ok((name, tensor))
        })
        .collect::<Result<_>>()?;
    Ok(Header {
        form,
        vectors_sha256: text("vectors_sha256").to_owned(),
        matrices_sha256: text("matrices_sha256").to_owned(),
        tensors,
        data_start,
    })
}

fn check_own_sum(path: &Path, bytes: &[u8], expected: &str) -> Result<()> {
    let mut bytes = bytes.to_vec();
    let at = find(&bytes, expected).filter(|_| expected.len() == BLANK.len());
    if let Some(at) = at {
        bytes[at..at + BLANK.len()].copy_from_slice(BLANK.as_bytes());
    }
    check_sum(path, "header", &bytes, expected)
}

/// Compares the SHA-256 of `bytes` with the checksum in the header.
pub(crate) fn check_sum(
    path: &Path,
    part: &'static str,
    bytes: &[u8],
    expected: &str,
) -> Result<()> {
    let found = sha256::of(bytes);
    if found == expected {
        return Ok(());
    }
    Err(Error::Damaged {
        path: path.to_owned(),
        part,
        expected: shown(expected),
        found,
    })
}

/// The parsed JSON of a header. If a name is repeated, the last entry counts; checksums and layout
/// checks detect any harm.
struct Parsed {
    metadata: HashMap<String, String>,
    entries: HashMap<String, ParsedTensor>,
}

#[derive(Deserialize)]
struct ParsedTensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl ParsedTensor {
    fn tensor(self) -> Option<Tensor> {
        let [start, end] = self.data_offsets;
        Some(Tensor {
            dtype: Dtype::from_name(&self.dtype)?,
            shape: self.shape,
            start,
            end,
        })
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Parsed, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("an object with `__metadata__` and tensors")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Parsed, M::Error> {
        let mut parsed = Parsed {
            metadata: HashMap::new(),
            entries: HashMap::new(),
        };
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                parsed.metadata = map.next_value()?;
            } else {
                parsed.entries.insert(name, map.next_value()?);
            }
        }
        Ok(parsed)
    }
}

fn find(haystack: &[u8], needle: &str) -> Option<usize> {
    haystack
        .windows(needle.len().max(1))
        .position(|w| w == needle.as_bytes())
}

//! Encodes the header of a GGUF file: key-value pairs and tensor infos.

use crate::read::gguf::container::{DEFAULT_ALIGNMENT, MAGIC};
use crate::read::gguf::metadata::MetadataType;

const VERSION: u32 = 3;

/// Encoded pairs, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Pairs {
    count: u64,
    bytes: Vec<u8>,
}

impl Pairs {
    fn key(&mut self, key: &str, kind: MetadataType) {
        self.count += 1;
        put_text(&mut self.bytes, key);
        self.bytes.extend(kind.id().to_le_bytes());
    }

    pub fn text(&mut self, key: &str, text: &str) {
        self.key(key, MetadataType::Text);
        put_text(&mut self.bytes, text);
    }

    pub fn number(&mut self, key: &str, number: u32) {
        self.key(key, MetadataType::U32);
        self.bytes.extend(number.to_le_bytes());
    }

    pub fn float(&mut self, key: &str, number: f32) {
        self.key(key, MetadataType::F32);
        self.bytes.extend(number.to_le_bytes());
    }

    pub fn boolean(&mut self, key: &str, value: bool) {
        self.key(key, MetadataType::Bool);
        self.bytes.push(value.into());
    }

    fn array(&mut self, key: &str, kind: MetadataType, len: usize) {
        self.key(key, MetadataType::Array);
        self.bytes.extend(kind.id().to_le_bytes());
        self.bytes.extend((len as u64).to_le_bytes());
    }

    pub fn texts<T: AsRef<str>>(&mut self, key: &str, texts: &[T]) {
        self.array(key, MetadataType::Text, texts.len());
        for text in texts {
            put_text(&mut self.bytes, text.as_ref());
        }
    }

    pub fn floats(&mut self, key: &str, numbers: &[f32]) {
        self.array(key, MetadataType::F32, numbers.len());
        self.bytes
            .extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    }

    pub fn integers(&mut self, key: &str, numbers: &[i32]) {
        self.array(key, MetadataType::I32, numbers.len());
        self.bytes
            .extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// A tensor to write.
pub(crate) struct Planned {
    pub name: String,
    /// From the innermost outwards.
    pub dimensions: Vec<u64>,
    pub type_id: u32,
    /// Without padding.
    pub bytes: u64,
}

/// Everything before the data. The tensors follow in the order of `tensors`, each padded to
/// [`DEFAULT_ALIGNMENT`].
pub(crate) fn header(pairs: &Pairs, tensors: &[Planned]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(pairs.count.to_le_bytes());
    bytes.extend(&pairs.bytes);
    let mut offset = 0u64;
    for tensor in tensors {
        put_text(&mut bytes, &tensor.name);
        bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
        bytes.extend(tensor.dimensions.iter().flat_map(|d| d.to_le_bytes()));
        bytes.extend(tensor.type_id.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset += tensor.bytes.next_multiple_of(DEFAULT_ALIGNMENT);
    }
    bytes.resize(bytes.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
    bytes
}

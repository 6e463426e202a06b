//! Models of any shape with random weights, to measure speed and memory without a trained model.
//!
//! Every row of every tensor has its own generator, seeded with the seed, the tensor name and the
//! row. Rows are generated while they are written, on all cores. The model is never completely in
//! memory, and its bytes depend only on the seed.
//!
//! 42 % of the trits are zero, and scale · √(columns · 0.58) = 1, so a linear layer preserves the
//! magnitude of its input; norms are 1. Scales are bf16 numbers, and tables hold multiples of 2⁻¹²
//! below 2⁻⁴, so every float type stores them exactly. Converting the Hugging Face folder therefore
//! gives the packed file byte for byte. Dense linear layers (f16, q8_0, q4_0) have the same values
//! as tables.

mod huggingface;
mod random;
pub mod shapes;
mod tokenizer;

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use sterna_ternary::file::{Description, FILES};
use sterna_ternary::layout::{self, EMBEDDING, Role, Weight};
use sterna_ternary::{
    Activations, Config, Dense, Dtype, LinearType, Output, OutputFolder, PackedWriter, Packing,
    TableType,
};

use crate::read::embedded;
use crate::write::{stream, table};
use crate::{Error, Result, ValueType, blocks};
use random::Seed;

/// A model that is only a shape and a seed until it is written.
#[derive(Debug)]
pub struct Synthetic {
    config: Config,
    /// Files to embed; see [`crate::Source::files`].
    files: Vec<(String, Vec<u8>)>,
    seed: Seed,
}

impl Synthetic {
    /// A model with the shape of a config.json, whose `quantization_config` is replaced. `path` is
    /// used in messages.
    ///
    /// # Errors
    /// A config that Sterna does not support, or a vocabulary that is too small for the embedded
    /// tokenizer.
    pub fn new(path: &Path, config_json: &[u8], seed: u64) -> Result<Synthetic> {
        let mut json = embedded::parse_object(path, config_json)?;
        json["quantization_config"] = json!({
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": ["lm_head"],
        });
        let config = Config::from_json(&json).map_err(|source| Error::Config {
            path: path.to_owned(),
            source,
        })?;
        if config.vocab_size < tokenizer::SIZE {
            return Err(Error::File {
                path: path.to_owned(),
                why: format!(
                    "`vocab_size` is {}, expected at least {}: 256 bytes and the special tokens",
                    config.vocab_size,
                    tokenizer::SIZE
                ),
            });
        }
        let text = |json: Value| format!("{json:#}\n").into_bytes();
        let contents = [
            json,
            tokenizer::json(),
            tokenizer::config(),
            tokenizer::generation(),
        ];
        let names = FILES.iter().map(|name| name.to_string());
        Ok(Synthetic {
            config,
            files: names.zip(contents.map(text)).collect(),
            seed: Seed(seed),
        })
    }

    /// Shapes and constants.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Writes the packed file `out`. `head` is the type of embedding and head. If the head is coded
    /// and not tied, the embedding is F16. `progress` is called with (done, total), counted in
    /// weights.
    pub fn write_packed(
        &self,
        out: &Output,
        packing: LinearType,
        head: TableType,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let embedding = match head.planes() > 0 && !self.config.tie_word_embeddings {
            true => TableType::F16,
            false => head,
        };
        let weights = layout::weights(&self.config);
        let last = weights.iter().rfind(|w| w.role == Role::Table);
        let exceptions = match last {
            Some(weight) if head.has_low_plane() => {
                table::exceptions(head, weight, |f| self.for_each_chunk(weight, |x| f(x)))?
            }
            _ => 0,
        };
        let description = Description {
            config: self.config.clone(),
            packing,
            activations: Activations::Int8,
            embedding,
            head,
            exceptions: [0, exceptions],
            scaling: HashMap::new(),
            numbers: HashMap::new(),
            group_scales: Dtype::F32,
            files: self.files.clone(),
        };
        let mut count = Count::new(&self.config, progress);
        let fill = |writer: &mut PackedWriter| -> Result<()> {
            for weight in weights {
                match weight.role {
                    Role::Norm => writer.vector(&weight.name, &vec![1.0; weight.columns])?,
                    Role::Linear => match packing {
                        LinearType::Ternary(packing) => {
                            self.write_matrix(writer, &weight, packing, &mut count)?;
                        }
                        LinearType::Dense(packing) => {
                            self.write_dense(writer, &weight, packing, &mut count)?;
                        }
                    },
                    Role::Table if weight.name == EMBEDDING => {
                        self.write_table(writer, &weight, embedding, &mut count)?;
                    }
                    Role::Table => self.write_table(writer, &weight, head, &mut count)?,
                }
            }
            Ok(())
        };
        out.make(|path| PackedWriter::fill(path, &description, fill))
    }

    /// Writes a Hugging Face folder: packed U8 matrices with a scale that multiplies; all other
    /// tensors in bf16.
    pub fn write_huggingface(
        &self,
        out: &OutputFolder,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        huggingface::write(self, out, &mut Count::new(&self.config, progress))
    }

    fn write_matrix(
        &self,
        writer: &mut PackedWriter,
        weight: &Weight,
        packing: Packing,
        count: &mut Count,
    ) -> Result<()> {
        let fill = |row, trits: &mut [i8]| {
            self.seed.trits(&weight.name, row, trits);
            Ok(())
        };
        stream::packed_rows(weight, packing, fill, |rows, bytes| {
            count.add(rows * weight.columns);
            Ok(writer.rows(&weight.name, bytes)?)
        })?;
        let scale = random::scale(weight.columns).to_f32();
        Ok(writer.vector(&layout::scale_name(&weight.name), &[scale])?)
    }

    /// Writes a matrix of the same kind of numbers as in tables, which F16 represents exactly.
    fn write_dense(
        &self,
        writer: &mut PackedWriter,
        weight: &Weight,
        packing: Dense,
        count: &mut Count,
    ) -> Result<()> {
        self.for_each_chunk(weight, |values| {
            count.add(values.len());
            let bytes = match packing {
                Dense::F16 => table::number_bytes(ValueType::F16, values)?,
                blocks => {
                    let bytes = blocks::encode(blocks, values, weight.columns);
                    bytes.expect("f16 holds the scales of numbers below one")
                }
            };
            Ok(writer.rows(&weight.name, &bytes)?)
        })
    }

    fn write_table(
        &self,
        writer: &mut PackedWriter,
        weight: &Weight,
        table: TableType,
        count: &mut Count,
    ) -> Result<()> {
        self.for_each_chunk(weight, |values| {
            count.add(values.len());
            let precision = ValueType::of_table(table);
            table::encode(precision, values, weight.columns)?.write(writer, &weight.name)
        })
    }

    /// Generates a table or a dense matrix in chunks of whole rows.
    fn for_each_chunk(&self, weight: &Weight, f: impl FnMut(&[f32]) -> Result<()>) -> Result<()> {
        let fill = |row, values: &mut [f32]| {
            self.seed.values(&weight.name, row, values);
            Ok(())
        };
        stream::rows(weight.rows, weight.columns, weight.columns, fill, f)
    }
}

/// Counts weights, for the caller's progress bar.
struct Count<'a> {
    done: u64,
    total: u64,
    show: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Count<'a> {
    fn new(config: &Config, show: &'a mut dyn FnMut(u64, u64)) -> Count<'a> {
        let weights = layout::weights(config);
        let many = weights.iter().filter(|w| w.role != Role::Norm);
        Count {
            done: 0,
            total: many.map(|w| (w.rows * w.columns) as u64).sum(),
            show,
        }
    }

    fn add(&mut self, weights: usize) {
        self.done += weights as u64;
        (self.show)(self.done, self.total);
    }
}

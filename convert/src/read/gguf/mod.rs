//! Reader of GGUF files.
//!
//! `container` parses the file with `cursor` and `metadata`; `resolve` finds the entry of
//! `gguf::types` for each tensor; `described` and `config` convert metadata to a config;
//! `vocabulary` reads the tokenizer.

pub(crate) mod config;
pub(crate) mod container;
mod cursor;
mod described;
pub(crate) mod metadata;
mod resolve;
pub(crate) mod vocabulary;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sterna_ternary::layout::{self, Dtype, HEAD, Role, Weight};
use sterna_ternary::{Activations, Config, Scaling};

use self::container::{Container, Info};
use crate::gguf::names::Architecture;
use crate::gguf::types::{self, Content, ScaleAt, Size, Type};
use crate::gguf::{CONFIG, GgufHints, LutKernels, names};
use crate::read::embedded::REQUIRED;
use crate::scales::factors;
use crate::source::check_finite;
use crate::{Error, Result, Scales, Source, StoredScale, Ternary, ValueType, parallel};

/// A GGUF file.
#[derive(Debug)]
pub struct Gguf {
    container: Container,
    types: HashMap<u32, &'static Type>,
    kernels: Option<LutKernels>,
    architecture: &'static Architecture,
    config: Config,
    activations: Activations,
    files: Vec<(String, Vec<u8>)>,
    warnings: Vec<String>,
}

impl Gguf {
    /// Reads the header and checks names, types and shapes of all tensors.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the file has no tokenizer, unless `allow_missing`.
    pub fn open(path: &Path, hints: &GgufHints, allow_missing: bool) -> Result<Gguf> {
        let container = Container::open(path)?;
        let types = resolve::resolve(&container, hints)?;
        let architecture = described::architecture(&container)?;
        let mut warnings = Vec::new();
        let given = described::embedded_config(&container)?;
        let is_untied = given
            .as_ref()
            .is_some_and(|c| c["tie_word_embeddings"] == false);
        // Facts that metadata do not state follow from the tensors: the vocabulary, a tied head,
        // norms.
        let family = architecture.family();
        let facts = described::facts(&container, &types, family, is_untied, &mut warnings)?;
        let metadata = &container.metadata;
        let config = config::read(
            metadata,
            architecture,
            &facts,
            given.as_ref(),
            &mut warnings,
        )?;
        // A file by Sterna embeds its config.json; for others it is written from the metadata.
        let config_json = match metadata.text(CONFIG)? {
            Some(text) => text.as_bytes().to_vec(),
            None => {
                let json = described::packed_config(
                    &config,
                    described::is_weights_only(&container, &types),
                );
                format!("{json:#}\n").into_bytes()
            }
        };
        let activations = described::activations(&config_json);
        let mut files = vec![("config.json".to_owned(), config_json)];
        files.extend(vocabulary::read(
            metadata,
            architecture,
            config.vocab_size,
            &mut warnings,
        )?);
        // A missing tokenizer is an error, unless the caller accepts warnings.
        for (file, consequence) in REQUIRED {
            if files.iter().any(|(name, _)| name == file) {
                continue;
            }
            if !allow_missing {
                return Err(Error::MissingFile {
                    path: path.to_owned(),
                    file,
                    consequence,
                });
            }
            warnings.push(format!("there is no {file}: {consequence}"));
        }
        // Every tensor that the config requires must be there, with the right shape.
        let mut gguf = Gguf {
            container,
            types,
            kernels: hints.kernels.clone(),
            architecture,
            config,
            activations,
            files,
            warnings,
        };
        gguf.check_tensors()?;
        if gguf
            .types
            .values()
            .any(|t| matches!(t.content, Content::Lut(_)))
        {
            gguf.warnings.push(UNCONFIRMED.into());
        }
        Ok(gguf)
    }

    /// A string in the metadata, such as `tokenizer.ggml.pre`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.container.metadata.text(key).ok().flatten()
    }

    /// The name of the type of a tensor.
    pub fn type_name(&self, weight: &Weight) -> &'static str {
        self.kind(self.info(weight)).name
    }

    /// Whether the metadata has a key of the architecture, such as `rope.freq_base`.
    pub fn has(&self, key: &str) -> bool {
        let key = format!("{}.{key}", self.architecture.name);
        self.container.metadata.has(&key)
    }

    fn check_tensors(&self) -> Result<()> {
        let (layers, count) = (self.config.num_hidden_layers, self.container.tensors.len());
        if layers * 9 > count {
            let name = format!("blk.{}", layers - 1);
            let found = format!("{count} tensors");
            return self.tensor_error(&name, format!("{layers} layers"), found, INCOMPLETE);
        }
        let mut known = vec![names::ROPE_FACTORS.to_owned()];
        for weight in layout::weights(&self.config) {
            let name = self.name(&weight.name);
            self.check_tensor(&weight, &name)?;
            if weight.role == Role::Linear {
                known.push(companion(&name));
            }
            known.push(name);
        }
        if self.config.tie_word_embeddings {
            known.push(self.name(HEAD)); // it has the bytes of the embedding, or there is none
        }
        let known: std::collections::HashSet<_> = known.into_iter().collect();
        let surplus = self
            .container
            .tensors
            .keys()
            .filter(|name| !known.contains(*name));
        match surplus.min() {
            None => Ok(()),
            Some(name) => Err(Error::UnknownTensor {
                path: self.container.path.clone(),
                tensor: name.escape_debug().to_string(),
                family: self.config.family.name,
                advice: "convert a model of a known family",
            }),
        }
    }

    fn check_tensor(&self, weight: &Weight, name: &str) -> Result<()> {
        let shape = match weight.role {
            Role::Norm => vec![weight.columns as u64],
            Role::Table | Role::Linear => vec![weight.columns as u64, weight.rows as u64],
        };
        let Some(info) = self.container.tensors.get(name) else {
            return self.tensor_error(name, format!("{shape:?}"), "nothing".into(), INCOMPLETE);
        };
        let mut found = info.dimensions.as_slice();
        while found.len() > shape.len() && found.ends_with(&[1]) {
            found = &found[..found.len() - 1];
        }
        if found != shape {
            let advice = "metadata and tensors belong to different models";
            return self.tensor_error(name, format!("{shape:?}"), format!("{found:?}"), advice);
        }
        let kind = self.kind(info);
        let is_float = matches!(kind.content, Content::Floats(_));
        let is_blocks = matches!(kind.size, Size::Blocks { .. });
        let fits = match weight.role {
            Role::Norm => is_float && info.columns().is_multiple_of(kind.unit(0).weights as u64),
            Role::Table => is_blocks,
            Role::Linear => {
                if let (Content::Lut(layout), Some(kernels)) = (&kind.content, &self.kernels) {
                    kernels.blocks(layout, weight.rows, weight.columns)?;
                }
                true
            }
        };
        match fits {
            true => Ok(()),
            false => {
                let expected = "a type of numbers".into();
                self.tensor_error(name, expected, kind.name.into(), "export the model again")
            }
        }
    }

    fn tensor_error<T>(
        &self,
        name: &str,
        expected: String,
        found: String,
        advice: &'static str,
    ) -> Result<T> {
        Err(Error::Tensor {
            path: self.container.path.clone(),
            tensor: name.to_owned(),
            expected,
            found,
            advice,
        })
    }

    fn info(&self, weight: &Weight) -> &Info {
        &self.container.tensors[&self.name(&weight.name)]
    }

    fn name(&self, weight: &str) -> String {
        names::of(self.config.family, weight)
    }

    fn kind(&self, info: &Info) -> &'static Type {
        self.types[&info.type_id]
    }

    /// Maps the bytes of a tensor without its padding.
    fn whole(&self, info: &Info) -> Result<Mmap> {
        let bytes = self.kind(info).bytes(info);
        let bytes = bytes.expect("its type was found by its size");
        self.container.map(info, 0, bytes as usize)
    }

    /// Decodes elements `first..` of a tensor of blocks. Both ends are at block boundaries.
    fn values(&self, info: &Info, first: usize, values: &mut [f32]) -> Result<()> {
        let kind = self.kind(info);
        let unit = kind.unit(0);
        let start = first / unit.weights * unit.bytes;
        let len = values.len() / unit.weights * unit.bytes;
        let bytes = self.container.map(info, start as u64, len)?;
        parallel::rows(values.len(), values, unit.weights, |first, part| {
            let bytes = &bytes[first * unit.bytes..];
            match kind.values(bytes, part) {
                true => Ok(()),
                false => self.no_trit(info),
            }
        })
    }

    fn no_trit<T>(&self, info: &Info) -> Result<T> {
        let (expected, found) = ("codes of trits".into(), "another code".into());
        self.tensor_error(&info.name, expected, found, NO_TRIT)
    }

    /// Decodes trits and scales of a matrix in a ternary type.
    fn coded(&self, weight: &Weight, info: &Info) -> Result<(Vec<i8>, Scales)> {
        let kind = self.kind(info);
        let bytes = self.whole(info)?;
        let mut trits = vec![0; weight.rows * weight.columns];
        let is_valid = match (&kind.content, &self.kernels) {
            (Content::Lut(layout), Some(kernels)) => {
                kernels.trits(layout, &bytes, weight.columns, &mut trits)?
            }
            _ => kind.trits(&bytes, weight.columns, &mut trits)?,
        };
        if !is_valid {
            return self.no_trit(info);
        }
        let scales: Vec<f32> = kind.scales(&bytes, weight.columns).collect();
        let (least, most) = self.range(info, &scales)?;
        if most == 0.0 && kind.scale == ScaleAt::MatrixF32 && trits.iter().any(|t| *t != 0) {
            let (expected, found) = ("a scale above zero".into(), "0".into());
            return self.tensor_error(&info.name, expected, found, LOST_SCALE);
        }
        if most == 0.0 || least == most {
            return Ok((trits, Scales::one(if most > 0.0 { most } else { 1.0 })));
        }
        match Scales::of_runs(&trits, weight.columns, &scales) {
            Some(scales) => Ok((trits, scales)),
            None => {
                let expected = "one scale for each 128 columns".into();
                let found = format!("several, from {least} to {most}");
                self.tensor_error(&info.name, expected, found, SEVERAL_SCALES)
            }
        }
    }

    /// The smallest positive scale and the largest scale. Both are zero if all scales, and so all
    /// weights, are zero.
    fn range(&self, info: &Info, scales: &[f32]) -> Result<(f32, f32)> {
        let is_bad = |s: &f32| !s.is_finite() || *s < 0.0;
        if let Some(index) = scales.iter().position(is_bad) {
            return Err(Error::Value {
                path: self.container.path.clone(),
                tensor: format!("{} (scales)", info.name),
                index,
                value: scales[index],
                expected: "a finite scale, zero or above",
                advice: "the file is damaged; download or export it again",
            });
        }
        let used = scales.iter().filter(|s| **s > 0.0);
        Ok(used.fold((f32::INFINITY, 0.0), |(least, most), s| {
            (least.min(*s), most.max(*s))
        }))
    }

    /// The factor of a matrix that is stored in a separate tensor.
    fn factor(&self, info: &Info) -> Result<Option<f32>> {
        let companion = companion(&info.name);
        let Some(info) = self.container.tensors.get(&companion) else {
            return Ok(None);
        };
        if info.type_id != types::F32.id || info.elements() != 1 {
            let found = format!("{} {:?}", self.kind(info).name, info.dimensions);
            return self.tensor_error(&companion, "F32 [1]".into(), found, INCOMPLETE);
        }
        let mut factor = [0.0];
        self.values(info, 0, &mut factor)?;
        Ok(Some(factor[0]))
    }

    /// Reads a matrix of numbers, which must be -s, 0 and +s with one s per matrix or per 128
    /// columns of a row.
    fn exact(&self, weight: &Weight, info: &Info) -> Result<(Vec<i8>, Scales, StoredScale)> {
        let mut values = vec![0.0; weight.rows * weight.columns];
        self.values(info, 0, &mut values)?;
        check_finite(&self.container.path, weight, 0, &values)?;
        let scale = values.iter().fold(0f32, |s, x| s.max(x.abs()));
        let far = |x: f32| x.abs().min((x.abs() - scale).abs());
        let farthest = values.iter().fold(0f32, |far_off, x| far_off.max(far(*x)));
        if farthest > 0.0 {
            if let Ok(found) = factors(&values, weight.columns) {
                let stored = StoredScale::Products(found.rounded);
                return Ok((found.trits, found.scales, stored));
            }
            let expected = "the three values -s, 0 and +s".into();
            let share = 100.0 * farthest / scale;
            let found = format!(
                "{}, up to {share:.1} % of s = {scale} off",
                self.kind(info).name
            );
            return self.tensor_error(&info.name, expected, found, NOT_TERNARY);
        }
        let trit = |x: &f32| i8::from(*x > 0.0) - i8::from(*x < 0.0);
        let trits = values.iter().map(trit).collect();
        let scale = if scale > 0.0 { scale } else { 1.0 };
        Ok((trits, Scales::one(scale), StoredScale::Multiply(scale)))
    }
}

const INCOMPLETE: &str = "the file is incomplete, or of another family than its metadata say";
const UNCONFIRMED: &str = "\
    nothing in the file confirms the given kernel configuration: with a wrong one the weights are \
    in wrong positions; try the result, and compare it with the original if you have it (sterna \
    verify)";
const NO_TRIT: &str = "the file is damaged, or of a later variant of the type; export it again";
const LOST_SCALE: &str =
    "a quantizer that runs with several threads loses it; quantize again with one thread";
const SEVERAL_SCALES: &str = "models with one scale per fewer than 128 columns are not supported";
const NOT_TERNARY: &str = "\
    convert the original checkpoint, which says how its weights become ternary; to pack a \
    full-precision model as a baseline, use --packing f16, q8_0 or q4_0";

/// The name of a tensor in which some exporters store a factor of a matrix.
fn companion(name: &str) -> String {
    name.replace(".weight", ".scale")
}

impl Source for Gguf {
    fn path(&self) -> &Path {
        &self.container.path
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn files(&self) -> &[(String, Vec<u8>)] {
        &self.files
    }

    fn files_mut(&mut self) -> Option<&mut Vec<(String, Vec<u8>)>> {
        Some(&mut self.files)
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn inputs(&self) -> Vec<PathBuf> {
        vec![self.container.path.clone()]
    }

    fn bytes(&self) -> u64 {
        self.container.bytes
    }

    fn dtype(&self, weight: &Weight) -> Dtype {
        match self.kind(self.info(weight)).name {
            "F32" => Dtype::F32,
            "F16" => Dtype::F16,
            "BF16" => Dtype::Bf16,
            _ => Dtype::U8,
        }
    }

    fn stored_bytes(&self, weight: &Weight) -> u64 {
        let info = self.info(weight);
        self.kind(info).bytes(info).unwrap_or(0)
    }

    fn precision(&self, weight: &Weight) -> ValueType {
        match self.kind(self.info(weight)).name {
            "Q8_0" => ValueType::Q8_0,
            "Q4_0" => ValueType::Q4_0,
            "Q6_K" => ValueType::Q6K,
            name if self.dtype(weight) == Dtype::U8 => ValueType::Other(name),
            _ => ValueType::of(self.dtype(weight)),
        }
    }

    fn scaling(&self, weight: &Weight) -> Result<Scaling> {
        match self.kind(self.info(weight)).scale {
            ScaleAt::MatrixF32 => Ok(Scaling::Matrix),
            _ => Ok(self.linear(weight)?.scales.scaling),
        }
    }

    fn activations(&self) -> Activations {
        self.activations
    }

    fn linear(&self, weight: &Weight) -> Result<Ternary> {
        let info = self.info(weight);
        let (mut trits, mut scales, mut stored) = match self.kind(info).content {
            Content::Trits { .. } | Content::Lut(_) => {
                let (trits, scales) = self.coded(weight, info)?;
                let stored = StoredScale::Multiply(scales.values[0]);
                (trits, scales, stored)
            }
            Content::Floats(_) | Content::Refused(_) => self.exact(weight, info)?,
        };
        if let Some(factor) = self.factor(info)? {
            scales.values.iter_mut().for_each(|s| *s *= factor);
            if let StoredScale::Multiply(scale) = &mut stored {
                *scale = scales.values[0];
            }
        }
        let is_bad = |s: &f32| !s.is_finite() || *s <= 0.0;
        if let Some(index) = scales.values.iter().position(is_bad) {
            return Err(Error::Value {
                path: self.container.path.clone(),
                tensor: info.name.clone(),
                index,
                value: scales.values[index],
                expected: "a finite scale above zero",
                advice: "the file is damaged; download or export it again",
            });
        }
        let heads = names::rotated_heads(&self.config, &weight.name);
        if let Some(heads) = heads.filter(|_| self.architecture.permuted) {
            trits = names::deinterleave(&trits, heads, weight.columns);
            if scales.scaling != Scaling::Matrix {
                let groups = scales.values.chunks_exact(weight.rows);
                let reordered = groups.flat_map(|s| names::deinterleave(s, heads, 1));
                scales.values = reordered.collect();
            }
        }
        Ok(Ternary {
            trits,
            scales,
            stored,
        })
    }

    fn dense(&self, weight: &Weight) -> Result<Vec<f32>> {
        let info = self.info(weight);
        let Content::Floats(_) = self.kind(info).content else {
            return Ok(self.linear(weight)?.products(weight.columns));
        };
        let mut values = vec![0.0; weight.rows * weight.columns];
        self.rows(weight, 0, &mut values)?;
        if let Some(factor) = self.factor(info)? {
            values.iter_mut().for_each(|x| *x *= factor);
        }
        let heads = names::rotated_heads(&self.config, &weight.name);
        Ok(match heads.filter(|_| self.architecture.permuted) {
            Some(heads) => names::deinterleave(&values, heads, weight.columns),
            None => values,
        })
    }

    fn rows(&self, weight: &Weight, first: usize, values: &mut [f32]) -> Result<()> {
        let first = first * weight.columns;
        self.values(self.info(weight), first, values)?;
        check_finite(&self.container.path, weight, first, values)
    }

    fn blocks(&self, weight: &Weight, first: usize, count: usize) -> Result<Option<Vec<u8>>> {
        let info = self.info(weight);
        let unit = self.kind(info).unit(0);
        let bytes = weight.columns / unit.weights * unit.bytes;
        let rows = self
            .container
            .map(info, (first * bytes) as u64, count * bytes)?;
        Ok(Some(rows.to_vec()))
    }

    fn vector(&self, weight: &Weight) -> Result<Vec<f32>> {
        let mut values = vec![0.0; weight.columns];
        self.rows(weight, 0, &mut values)?;
        Ok(values)
    }
}

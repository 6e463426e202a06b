//! Reader of a Hugging Face folder: config.json, tokenizer files and safetensors weights.
//!
//! Linear layers have four forms, which `quantization_config` distinguishes ([`Storage`]): packed
//! bytes with a scale that multiplies; packed bytes with a scale that divides; master weights,
//! ternarized here; and, without `quantization_config`, products of trits and scales with at most
//! one scale per 128 columns of a row. A packed byte holds four codes (trit + 1): from the lowest
//! bits up, rows r, R + r, 2R + r and 3R + r, where R is a quarter of the rows, rounded up. The
//! codes of rows beyond the last row are ignored.
//!
//! Embedding models from Microsoft have a norm before every linear layer, and only the names of the
//! tensors show it. A model without a head may lack the common prefix of all names: see
//! [`Spelling`].

use std::path::{Path, PathBuf};

use safetensors::Dtype as StoredDtype;
use serde_json::Value;
use sterna_ternary::config::Storage;
use sterna_ternary::family::FAMILIES;
use sterna_ternary::file::FILES;
use sterna_ternary::layout::{self, Dtype, EMBEDDING, HEAD, Role, Weight};
use sterna_ternary::tokenizer_files::LEGACY;
use sterna_ternary::{Activations, Config, Scaling, quantize};

use crate::read::adapter::Adapter;
use crate::read::embedded::{self, Embedded, parse_object};
use crate::read::safetensors::{INDEX, SINGLE, SafetensorsFiles, StoredTensor, is_float};
use crate::read::spelling::{Spelling, declare_linear_norms, masters};
use crate::scales::factors;
use crate::source::check_finite;
use crate::{Error, Result, Scales, Source, StoredScale, Ternary, parallel};

const NOT_DECLARED: &str = "\
    nothing declares the matrices ternary. Convert master weights of BitNet training with \
    --masters, or add `quantization_config` {\"quant_method\": \"bitnet\", \"linear_class\": \
    \"autobitlinear\", \"quantization_mode\": \"online\", \"modules_to_not_convert\": \
    [\"lm_head\"]} to config.json. To pack a full-precision model as a baseline, use --packing \
    f16, q8_0 or q4_0";

/// Fewest tensors per layer in any family: seven matrices and two norms. A config with more layers
/// than the checkpoint has room for is refused before the names of its tensors are generated.
const LEAST_PER_LAYER: usize = 9;

/// A Hugging Face folder.
#[derive(Debug)]
pub struct HuggingFace {
    folder: PathBuf,
    spelling: Spelling,
    config: Config,
    storage: Storage,
    /// Whether config.json declares int8 activations with 1bitLLM's `input_bits`.
    has_int8_inputs: bool,
    embedded: Embedded,
    weights: SafetensorsFiles,
}

impl HuggingFace {
    /// Reads the config and checks names, types and shapes of all tensors.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if a file that every model needs is absent, unless `allow_missing`.
    pub fn open(folder: &Path, allow_missing: bool) -> Result<HuggingFace> {
        let path = folder.join("config.json");
        let Some(config_bytes) = embedded::read(&path)? else {
            return Err(match Adapter::find(folder)? {
                Some(adapter) => adapter.alone(folder),
                None => Error::Input {
                    path: folder.to_owned(),
                    why: "there is no config.json".into(),
                },
            });
        };
        let json = parse_object(&path, &config_bytes)?;
        HuggingFace::with_config(folder, json, config_bytes, allow_missing)
    }

    /// [`HuggingFace::open`] for master weights; the quantization in config.json is ignored.
    ///
    /// # Errors
    /// Errors of [`HuggingFace::open`].
    pub fn open_masters(folder: &Path, allow_missing: bool) -> Result<HuggingFace> {
        let path = folder.join("config.json");
        let bytes = embedded::read(&path)?.unwrap_or_default();
        let mut config = parse_object(&path, &bytes)?;
        config["quantization_config"] = masters();
        HuggingFace::open_as(folder, config, allow_missing)
    }

    /// [`HuggingFace::open`] with this config.json. The folder need not contain one.
    ///
    /// # Errors
    /// Errors of [`HuggingFace::open`].
    pub fn open_as(folder: &Path, config: Value, allow_missing: bool) -> Result<HuggingFace> {
        let bytes = format!("{config:#}\n").into_bytes();
        HuggingFace::with_config(folder, config, bytes, allow_missing)
    }

    fn with_config(
        folder: &Path,
        mut json: Value,
        mut config_bytes: Vec<u8>,
        allow_missing: bool,
    ) -> Result<HuggingFace> {
        let weights = SafetensorsFiles::open(folder)?;
        let spelling = Spelling::of(&weights);
        let mut warnings = weights.warnings().to_vec();
        warnings.extend(Adapter::find(folder)?.map(|adapter| adapter.beside()));
        let mut is_changed = false;
        // Without the key, the presence of a head decides.
        if json["tie_word_embeddings"].is_null() {
            is_changed = true;
            json["tie_word_embeddings"] = weights.find(HEAD).is_none().into();
        }
        // The embedding decides the size of the vocabulary; some configs give that of the
        // tokenizer.
        let embedding = weights.find(&spelling.name(EMBEDDING));
        let rows = embedding.and_then(|e| e.shape().first().copied());
        if let (Some(rows), Some(said)) = (rows, json["vocab_size"].as_u64())
            && rows as u64 != said
        {
            warnings.push(format!(
                "`vocab_size` in config.json is {said}, but {EMBEDDING} has {rows} rows; {rows} \
                 is used"
            ));
            json["vocab_size"] = rows.into();
            is_changed = true;
        }
        if spelling.has_undeclared_norms() {
            warnings.push(declare_linear_norms(&mut json));
            is_changed = true;
        }
        // Gemma multiplies embeddings by a constant rounded to the type of the weights, so the type
        // must be known.
        let scales_embeddings = FAMILIES
            .iter()
            .any(|f| f.scales_embeddings && json["model_type"] == f.model_type);
        if scales_embeddings && json["dtype"].is_null() && json["torch_dtype"].is_null() {
            is_changed = true;
            json["torch_dtype"] = embedding.and_then(|e| torch_dtype(e.dtype())).into();
        }
        // The folder is read only: the changed config lives in the packed file.
        if is_changed {
            config_bytes = format!("{json:#}\n").into_bytes();
        }
        let config_error = |source| Error::Config {
            path: folder.to_owned(),
            source,
        };
        let config = Config::from_json(&json).map_err(config_error)?;
        let storage = Config::storage(&json).map_err(config_error)?;
        let mut embedded = Embedded::read(folder, config_bytes, allow_missing)?;
        embedded.warnings.splice(0..0, warnings);
        let mut source = HuggingFace {
            folder: folder.to_owned(),
            spelling,
            config,
            storage,
            has_int8_inputs: json["input_bits"] == 8,
            embedded,
            weights,
        };
        source.check_tensors()?;
        let rows = source.config.vocab_size;
        source.embedded.check_vocabulary(folder, rows)?;
        Ok(source)
    }

    fn is_packed(&self) -> bool {
        matches!(
            self.storage,
            Storage::PackedMultiply | Storage::PackedDivide
        )
    }

    fn check_tensors(&self) -> Result<()> {
        let layers = self.config.num_hidden_layers;
        let count = self.weights.names().count();
        if layers * LEAST_PER_LAYER > count {
            return Err(Error::Tensor {
                path: self.folder.clone(),
                tensor: format!("model.layers.{}", layers - 1),
                expected: format!("{layers} layers"),
                found: format!("{count} tensors"),
                advice: "config.json belongs to another checkpoint, or shards are absent",
            });
        }
        let mut known = std::collections::HashSet::new();
        for weight in layout::weights(&self.config) {
            self.check_tensor(&weight)?;
            if weight.role == Role::Linear && self.is_packed() {
                let name = layout::scale_name(&weight.name);
                self.check(&name, is_float, "F32, F16 or BF16", &[1], None)?;
                known.insert(self.spelling.name(&name));
            }
            known.insert(self.spelling.name(&weight.name));
        }
        for name in self.weights.names().filter(|name| !known.contains(*name)) {
            self.check_surplus(name)?;
        }
        Ok(())
    }

    fn check_tensor(&self, weight: &Weight) -> Result<()> {
        let (rows, columns) = (weight.rows, weight.columns);
        let float = "F32, F16 or BF16";
        match weight.role {
            Role::Norm => self.check(&weight.name, is_float, float, &[columns], None),
            Role::Table => {
                let vocab = "\
                    `vocab_size` and `hidden_size` in config.json must be the rows and columns \
                    of the table";
                self.check(&weight.name, is_float, float, &[rows, columns], Some(vocab))
            }
            Role::Linear => {
                let storage = "\
                    the weights and `quantization_config` in config.json must be of the same \
                    revision: packed weights are U8, `quantization_mode` online has masters";
                match self.storage {
                    Storage::Online | Storage::Products => {
                        let shape = [rows, columns];
                        self.check(&weight.name, is_float, float, &shape, Some(storage))
                    }
                    Storage::PackedMultiply | Storage::PackedDivide => {
                        let is_u8 = |dtype| dtype == StoredDtype::U8;
                        let shape = [rows.div_ceil(4), columns];
                        self.check(&weight.name, is_u8, "U8", &shape, Some(storage))
                    }
                }
            }
        }
    }

    fn check(
        &self,
        name: &str,
        accept: impl Fn(StoredDtype) -> bool,
        dtypes: &str,
        shape: &[usize],
        advice: Option<&'static str>,
    ) -> Result<()> {
        let stored = self.find(name);
        if stored.is_some_and(|s| accept(s.dtype()) && s.shape() == shape) {
            return Ok(());
        }
        let advice = match stored {
            None if name == HEAD => {
                "if the head is the embedding, set `tie_word_embeddings` to true in config.json"
            }
            None => "the checkpoint is incomplete, or of another family than config.json says",
            Some(_) => advice.unwrap_or("config.json belongs to another checkpoint"),
        };
        Err(Error::Tensor {
            path: stored.map_or(&*self.folder, |s| s.path()).to_owned(),
            tensor: self.spelling.name(name),
            expected: format!("{dtypes} {shape:?}"),
            found: stored.map_or("nothing".into(), |s| s.describe()),
            advice,
        })
    }

    /// Refuses a tensor that the model does not have, unless it is redundant.
    fn check_surplus(&self, name: &str) -> Result<()> {
        if name.ends_with(".rotary_emb.inv_freq") {
            return Ok(()); // redundant: it follows from rope_theta
        }
        let advice = if name == HEAD {
            if self.is_embedding(name)? {
                return Ok(());
            }
            "config.json says that the head is the embedding, but they differ: set \
             `tie_word_embeddings` to false"
        } else {
            "convert a checkpoint of a known family, or remove the tensor if nothing uses it"
        };
        let stored = self.weights.find(name);
        Err(Error::UnknownTensor {
            path: stored.map_or(&*self.folder, |s| s.path()).to_owned(),
            tensor: name.to_owned(),
            family: self.config.family.name,
            advice,
        })
    }

    /// Whether a table has the same values as the embedding.
    fn is_embedding(&self, name: &str) -> Result<bool> {
        const CHUNK: usize = 1 << 20;
        let (table, embedding) = (self.stored(name), self.stored(EMBEDDING));
        if !is_float(table.dtype()) || table.shape() != embedding.shape() {
            return Ok(false);
        }
        let count: usize = table.shape().iter().product();
        let (mut a, mut b) = (vec![0.0; CHUNK], vec![0.0; CHUNK]);
        for first in (0..count).step_by(CHUNK) {
            let len = CHUNK.min(count - first);
            table.values(first, &mut a[..len])?;
            embedding.values(first, &mut b[..len])?;
            if a[..len] != b[..len] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finds a tensor by its name in [`layout`].
    fn find(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.weights.find(&self.spelling.name(name))
    }

    fn stored(&self, name: &str) -> StoredTensor<'_> {
        self.find(name)
            .expect("all tensors of the model were found at opening")
    }

    fn scale(&self, weight: &Weight) -> Result<(f32, StoredScale)> {
        let name = layout::scale_name(&weight.name);
        let stored = self.stored(&name);
        let mut value = [0.0];
        stored.values(0, &mut value)?;
        let [value] = value;
        let (scale, origin) = match self.storage {
            Storage::PackedDivide => (1.0 / value, StoredScale::Divide(value)),
            _ => (value, StoredScale::Multiply(value)),
        };
        if [value, scale].iter().all(|x| x.is_finite() && *x > 0.0) {
            return Ok((scale, origin));
        }
        Err(Error::Value {
            path: stored.path().to_owned(),
            tensor: name,
            index: 0,
            value,
            expected: "a finite number above zero, with a finite reciprocal where it divides",
            advice: "the checkpoint is broken; download or export it again",
        })
    }

    fn unpack(&self, weight: &Weight) -> Result<Vec<i8>> {
        let stored = self.stored(&weight.name);
        let (columns, quarter) = (weight.columns, weight.rows.div_ceil(4));
        let bytes = stored.bytes(0..quarter * columns)?;
        if let Some(index) = bytes.iter().position(|b| b & (b >> 1) & 0x55 != 0) {
            return Err(Error::Code {
                path: stored.path().to_owned(),
                tensor: weight.name.clone(),
                index,
                byte: bytes[index],
            });
        }
        let mut trits = vec![0; weight.rows * columns];
        parallel::rows(trits.len(), &mut trits, columns, |first, part| {
            for (row, trits) in (first..).zip(part.chunks_exact_mut(columns)) {
                let shift = 2 * (row / quarter);
                let bytes = &bytes[row % quarter * columns..][..columns];
                for (trit, byte) in trits.iter_mut().zip(bytes) {
                    *trit = (byte >> shift & 3) as i8 - 1;
                }
            }
            Ok(())
        })?;
        Ok(trits)
    }

    fn values(&self, weight: &Weight) -> Result<Vec<f32>> {
        let mut values = vec![0.0; weight.rows * weight.columns];
        self.rows(weight, 0, &mut values)?;
        Ok(values)
    }

    fn take_apart(&self, weight: &Weight) -> Result<Ternary> {
        let values = self.values(weight)?;
        let found = factors(&values, weight.columns).map_err(|at| Error::Tensor {
            path: self.stored(&weight.name).path().to_owned(),
            tensor: weight.name.clone(),
            expected:
                "-s, 0 and +s with one s for each 128 columns of a row, since config.json has no \
                       `quantization_config`"
                    .into(),
            found: format!("{} as value {at}", values[at]),
            advice: NOT_DECLARED,
        })?;
        Ok(Ternary {
            trits: found.trits,
            scales: found.scales,
            stored: StoredScale::Products(found.rounded),
        })
    }

    fn ternarize(&self, weight: &Weight) -> Result<(Vec<i8>, f32)> {
        let masters = self.values(weight)?;
        let scale = quantize::absmean(&masters);
        let mut trits = vec![0; masters.len()];
        parallel::rows(trits.len(), &mut trits, 1, |first, part| {
            for (trit, w) in part.iter_mut().zip(&masters[first..]) {
                *trit = quantize::trit(*w, scale) as i8;
            }
            Ok(())
        })?;
        Ok((trits, scale))
    }
}

/// The name of a type in config.json.
fn torch_dtype(dtype: StoredDtype) -> Option<&'static str> {
    match dtype {
        StoredDtype::F32 => Some("float32"),
        StoredDtype::F16 => Some("float16"),
        StoredDtype::BF16 => Some("bfloat16"),
        _ => None,
    }
}

impl Source for HuggingFace {
    fn path(&self) -> &Path {
        &self.folder
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn files(&self) -> &[(String, Vec<u8>)] {
        &self.embedded.files
    }

    fn files_mut(&mut self) -> Option<&mut Vec<(String, Vec<u8>)>> {
        Some(&mut self.embedded.files)
    }

    fn warnings(&self) -> &[String] {
        &self.embedded.warnings
    }

    fn inputs(&self) -> Vec<PathBuf> {
        let names = FILES.into_iter().chain(LEGACY).chain([SINGLE, INDEX]);
        let shards = self.weights.paths().map(Path::to_owned);
        names
            .map(|name| self.folder.join(name))
            .chain(shards)
            .collect()
    }

    fn bytes(&self) -> u64 {
        self.weights.bytes()
    }

    fn dtype(&self, weight: &Weight) -> Dtype {
        match self.stored(&weight.name).dtype() {
            StoredDtype::F16 => Dtype::F16,
            StoredDtype::BF16 => Dtype::Bf16,
            StoredDtype::U8 => Dtype::U8,
            _ => Dtype::F32,
        }
    }

    fn stored_bytes(&self, weight: &Weight) -> u64 {
        let bytes = |name: &str| {
            let stored = self.weights.find(name)?;
            Some((stored.shape().iter().product::<usize>() * stored.dtype().bitsize() / 8) as u64)
        };
        let scale = layout::scale_name(&weight.name);
        bytes(&weight.name).unwrap_or(0) + bytes(&scale).unwrap_or(0)
    }

    fn scaling(&self, weight: &Weight) -> Result<Scaling> {
        match self.storage {
            Storage::Products => Ok(self.take_apart(weight)?.scales.scaling),
            _ => Ok(Scaling::Matrix),
        }
    }

    fn activations(&self) -> Activations {
        match self.storage {
            Storage::Products if self.has_int8_inputs => Activations::Int8,
            Storage::Products => Activations::Int16,
            Storage::Online | Storage::PackedMultiply | Storage::PackedDivide => Activations::Int8,
        }
    }

    fn linear(&self, weight: &Weight) -> Result<Ternary> {
        let (trits, (scale, stored)) = match self.storage {
            Storage::Online => {
                let (trits, scale) = self.ternarize(weight)?;
                (trits, (scale, StoredScale::Masters))
            }
            Storage::PackedMultiply | Storage::PackedDivide => {
                (self.unpack(weight)?, self.scale(weight)?)
            }
            Storage::Products => return self.take_apart(weight),
        };
        Ok(Ternary {
            trits,
            scales: Scales::one(scale),
            stored,
        })
    }

    fn masters(&self, weight: &Weight) -> Result<Vec<f32>> {
        match self.storage {
            Storage::Online => self.values(weight),
            // Neither products nor full precision are declared. Weights that cannot be taken apart
            // are in full precision.
            Storage::Products => match self.take_apart(weight) {
                Ok(ternary) => Ok(ternary.masters(weight.columns, ternary.scales.scaling)),
                Err(Error::Tensor { .. }) => self.values(weight),
                Err(error) => Err(error),
            },
            _ => {
                let ternary = self.linear(weight)?;
                Ok(ternary.masters(weight.columns, ternary.scales.scaling))
            }
        }
    }

    fn has_masters(&self) -> bool {
        self.storage == Storage::Online
    }

    fn dense(&self, weight: &Weight) -> Result<Vec<f32>> {
        match self.storage {
            Storage::Online | Storage::Products => self.values(weight),
            _ => Ok(self.linear(weight)?.products(weight.columns)),
        }
    }

    fn rows(&self, weight: &Weight, first: usize, values: &mut [f32]) -> Result<()> {
        let stored = self.stored(&weight.name);
        let first = first * weight.columns;
        stored.values(first, values)?;
        let offset = weight.offset(&self.config);
        if offset != 0.0 {
            values.iter_mut().for_each(|x| *x += offset);
        }
        check_finite(stored.path(), weight, first, values)
    }

    fn vector(&self, weight: &Weight) -> Result<Vec<f32>> {
        let mut values = vec![0.0; weight.columns];
        self.rows(weight, 0, &mut values)?;
        Ok(values)
    }
}

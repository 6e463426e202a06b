//! The model under examination. It is opened, with its config repaired in memory if that alone is
//! at fault; then it is packed and run once.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sterna_convert::{Gguf, GgufHints, HeadType, HuggingFace, Source};
use sterna_runtime::{ChatTemplate, KvType, Model, Tokenizer};
use sterna_ternary::{Memory, Output, PackedFile, Packing};

use super::refusals;
use super::stage::{OnProgress, Stage};
use super::texts::{self, Losses, Pieces};
use super::variants::{self, Change};
use crate::Result;
use crate::trits::{TritCounts, linear, of_file};

/// Why a baseline has no trials.
const NUMBERS: &str =
    "the layers are numbers: there are no trits and scales that a mistake could have changed";

/// A model, with everything that several checks need.
pub struct Patient {
    pub source: Box<dyn Source>,
    pub origin: Origin,
    /// What readers refused: (name of the check, their message).
    pub refused: Vec<(&'static str, String)>,
    pub tokenizer: std::result::Result<Tokenizer, sterna_runtime::Error>,
    /// The model that runs, or why it cannot run.
    pub body: std::result::Result<Body, String>,
}

/// The format of the model, with the facts that only this format has.
pub enum Origin {
    Folder,
    Packed,
    Gguf {
        architecture: String,
        /// `tokenizer.ggml.pre`
        pre: Option<String>,
        has_rope_theta: bool,
        template: Option<String>,
    },
}

/// The packed model, its trits and its losses.
pub struct Body {
    pub file: PackedFile,
    /// Empty if the layers are numbers.
    pub counts: Vec<TritCounts>,
    pub losses: Losses,
    /// The built-in texts, or pseudo-random ids if there is no tokenizer.
    ids: Vec<Pieces>,
    pub has_text: bool,
    folder: PathBuf,
}

/// A patient, or the failure modes with which its readers refused it.
pub enum Admission {
    Patient(Box<Patient>),
    Refused(Vec<(&'static str, String)>),
}

impl Patient {
    /// Opens, packs and runs a model. The packed file is written into the folder `scratch`.
    ///
    /// # Errors
    /// Everything that is not a known failure mode: unreadable files, unknown families, damaged
    /// headers.
    pub fn admit(path: &Path, scratch: &Path, progress: OnProgress) -> Result<Admission> {
        let mut refused = Vec::new();
        let Some((source, origin)) = open(path, &mut refused)? else {
            return Ok(Admission::Refused(refused));
        };
        let file = |name: &str| {
            let files = source.files().iter();
            files
                .clone()
                .find(|(n, _)| n == name)
                .map(|(_, b)| b.as_slice())
        };
        let tokenizer = Tokenizer::of_files(source.config(), file);
        let body = match pack(&*source, scratch, progress)? {
            Ok(packed) => {
                let tokenizer = tokenizer.as_ref().ok();
                Ok(Body::run(packed, scratch.to_owned(), tokenizer, progress)?)
            }
            Err(error) => match refusals::check(&error) {
                Some(check) => {
                    refused.push((check, error.to_string()));
                    Err(format!("the model cannot be packed ({check})"))
                }
                None => return Err(error.into()),
            },
        };
        Ok(Admission::Patient(Box::new(Patient {
            source,
            origin,
            refused,
            tokenizer,
            body,
        })))
    }

    /// The body if trials are possible on it, or why they are not.
    pub fn to_be_tried(&self) -> std::result::Result<&Body, String> {
        if self.source.is_dense() {
            return Err(NUMBERS.to_owned());
        }
        match &self.body {
            Err(why) => Err(why.clone()),
            Ok(body) if !body.has_text => Err(self.no_text().to_owned()),
            Ok(body) => Ok(body),
        }
    }

    /// Why there are no texts to run.
    pub fn no_text(&self) -> &'static str {
        match self.file("tokenizer.json") {
            None => "there is no tokenizer.json",
            Some(_) => "the tokenizer cannot be used",
        }
    }

    /// An embedded file.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let file = self.source.files().iter().find(|(n, _)| n == name);
        file.map(|(_, bytes)| bytes.as_slice())
    }

    /// An embedded JSON file; null if it is absent or not JSON.
    pub fn json(&self, name: &str) -> Value {
        let bytes = self.file(name).unwrap_or_default();
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub fn template(&self) -> sterna_runtime::Result<ChatTemplate> {
        ChatTemplate::of_files(|name| self.file(name))
    }

    /// The logarithm of the vocabulary size: the loss of guessing, in nats per token.
    pub fn chance(&self) -> f64 {
        (self.source.config().vocab_size as f64).ln()
    }
}

type OpenedModel = (Box<dyn Source>, Origin);

/// Opens a model. Its config is repaired as long as that helps; `None` if it stays refused for a
/// known reason.
fn open(path: &Path, refused: &mut Vec<(&'static str, String)>) -> Result<Option<OpenedModel>> {
    /// There are fewer kinds of repairs than this.
    const MOST: usize = 4;
    let mut config: Option<Value> = None;
    loop {
        let error = match open_as(path, config.as_ref()) {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) => error,
        };
        let Some(check) = refusals::check(&error) else {
            return Err(error.into());
        };
        refused.push((check, error.to_string()));
        let mut repaired = match config.take() {
            Some(config) => config,
            None => read_config(path),
        };
        if refused.len() > MOST || !refusals::repair(&error, &mut repaired) || !path.is_dir() {
            return Ok(None);
        }
        config = Some(repaired);
    }
}

fn read_config(folder: &Path) -> Value {
    let bytes = std::fs::read(folder.join("config.json")).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn open_as(path: &Path, config: Option<&Value>) -> sterna_convert::Result<OpenedModel> {
    if let Some(config) = config {
        let source = HuggingFace::open_as(path, config.clone(), true)?;
        return with_first_layer(Box::new(source), Origin::Folder);
    }
    if path.is_file() && sterna_convert::is_gguf(path)? {
        let gguf = Gguf::open(path, &GgufHints::default(), true)?;
        let text = |key: &str| gguf.text(key).map(str::to_owned);
        let origin = Origin::Gguf {
            architecture: text("general.architecture").unwrap_or_default(),
            pre: text("tokenizer.ggml.pre"),
            has_rope_theta: gguf.has("rope.freq_base"),
            template: text("tokenizer.chat_template"),
        };
        return Ok((Box::new(gguf), origin));
    }
    let origin = match path.is_dir() {
        true => Origin::Folder,
        false => Origin::Packed,
    };
    with_first_layer(sterna_convert::open(path, true)?, origin)
}

/// Reads the first linear layer: only then does it show whether the weights are as ternary as the
/// config says.
fn with_first_layer(
    source: Box<dyn Source>,
    origin: Origin,
) -> sterna_convert::Result<OpenedModel> {
    if let Some(first) = linear(source.config()).first() {
        match source.is_dense() {
            true => drop(source.dense(first)?),
            false => drop(source.linear(first)?),
        }
    }
    Ok((source, origin))
}

/// The model as a packed file: the given one, or one that is written into the folder `scratch`.
fn pack(
    source: &dyn Source,
    scratch: &Path,
    progress: OnProgress,
) -> Result<sterna_convert::Result<PathBuf>> {
    let path = source.path();
    if path.is_file() && !sterna_convert::is_gguf(path)? {
        return Ok(Ok(path.to_owned()));
    }
    let out = scratch.join("model");
    let options = sterna_convert::PackedOptions {
        packing: Packing::I2.into(),
        head: HeadType::default(),
        activations: None,
        allow_missing: true,
    };
    let packed =
        sterna_convert::write_packed(source, &Output::new(&out)?, &options, &mut |done, total| {
            progress(Stage::Packing { done, total });
        });
    Ok(packed.map(|_| out))
}

impl Body {
    fn run(
        path: PathBuf,
        folder: PathBuf,
        tokenizer: Option<&Tokenizer>,
        progress: OnProgress,
    ) -> Result<Body> {
        let file = PackedFile::open(&path)?;
        let counts = match file.packing.ternary() {
            Some(_) => of_file(&file)?,
            None => Vec::new(),
        };
        let context = file.config.max_position_embeddings;
        let weights = counts.iter().map(|c| c.all() as usize).sum();
        let ids = match tokenizer {
            Some(tokenizer) => texts::encode(tokenizer, context, weights)?,
            None => vec![vec![at_random(&file)]],
        };
        progress(Stage::Running("as it is"));
        let losses = losses(&path, &ids, None)?;
        Ok(Body {
            file,
            counts,
            losses,
            ids,
            has_text: tokenizer.is_some(),
            folder,
        })
    }

    /// The losses of the model with something changed.
    pub fn losses_with(&self, change: &Change) -> Result<Losses> {
        let path = self.folder.join("variant");
        variants::write(&self.file, &path, change)?;
        let chance = (self.file.config.vocab_size as f64).ln();
        losses(&path, &self.ids, texts::best_known(&self.losses, chance))
    }
}

fn losses(path: &Path, ids: &[Pieces], only: Option<usize>) -> Result<Losses> {
    let options = sterna_runtime::Options {
        kv_type: KvType::F32, // half precision would hide or cause an overflow
        memory: Memory::Map,
        ..Default::default()
    };
    texts::losses(&Model::open(path, options)?, ids, only)
}

/// Ids spread over the vocabulary. They show only whether logits are finite.
fn at_random(file: &PackedFile) -> Vec<u32> {
    let size = file.config.vocab_size as u64;
    let count = file.config.max_position_embeddings.min(64) as u64;
    (0..count)
        .map(|i| (i * 0x9e37_79b9 % size) as u32)
        .collect()
}

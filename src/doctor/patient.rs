//! The model under examination: opened, repaired where its config alone is at fault, packed and run once.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sterna_convert::{Error, Gguf, GgufHints, HeadType, HuggingFace, Source};
use sterna_runtime::{ChatTemplate, KvType, Model, Tokenizer};
use sterna_ternary::{Memory, PackedFile, Packing};
use tempfile::TempDir;

use super::finding::{Finding, Verdict};
use super::refusals;
use super::texts::{self, Losses, Pieces};
use super::trials::{self, Trial};
use super::variants::{self, Change};
use super::weights;
use crate::inspect::trits::{Counts, linear, of_file};
use crate::terminal;

/// Why a baseline has no trials.
const NUMBERS: &str =
    "the layers are numbers: there are no trits and scales that a mistake could have changed";

/// A model and everything that several checks ask for.
pub struct Patient {
    pub source: Box<dyn Source>,
    pub origin: Origin,
    /// What readers refused: (check, their message).
    pub refused: Vec<(&'static str, String)>,
    pub tokenizer: Result<Tokenizer, sterna_runtime::Error>,
    /// What runs, or why nothing does.
    pub body: Result<Body, String>,
    /// What changes to the model brought, or why none was made.
    pub trials: Result<Vec<Trial>, String>,
}

/// What only one format says.
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
    /// None where the layers are numbers.
    pub counts: Vec<Counts>,
    pub losses: Losses,
    /// The built-in texts, or ids at random where there is no tokenizer.
    ids: Vec<Pieces>,
    pub has_text: bool,
    folder: TempDir,
}

/// Who comes in: a patient, or the failure mode that made its readers give up.
pub enum Admission {
    Patient(Box<Patient>),
    Refused(Vec<(&'static str, String)>),
}

impl Patient {
    /// Opens, packs and runs a model.
    ///
    /// # Errors
    /// What is no known failure mode: files that cannot be read, unknown families, damaged headers.
    pub fn admit(path: &Path) -> anyhow::Result<Admission> {
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
        let body = match pack(&*source)? {
            Ok((packed, folder)) => Ok(Body::run(packed, folder, tokenizer.as_ref().ok())?),
            Err(error) => match refusals::check(&error) {
                Some(check) => {
                    refused.push((check, error.to_string()));
                    Err(format!("the model cannot be packed ({check})"))
                }
                None => return Err(error.into()),
            },
        };
        let mut patient = Patient {
            source,
            origin,
            refused,
            tokenizer,
            body,
            trials: Err("nothing was tried".to_owned()),
        };
        patient.trials = patient.make_trials()?;
        Ok(Admission::Patient(Box::new(patient)))
    }

    /// Makes the trials, unless something is worse than what they could find.
    fn make_trials(&self) -> anyhow::Result<Result<Vec<Trial>, String>> {
        if self.source.is_dense() {
            return Ok(Err(NUMBERS.to_owned()));
        }
        let body = match &self.body {
            Err(why) => return Ok(Err(why.clone())),
            Ok(body) if !body.has_text => return Ok(Err("there is no tokenizer".to_owned())),
            Ok(body) => body,
        };
        for (name, check) in [
            ("values", weights::values as Examine),
            ("zeros", weights::zeros),
        ] {
            if check(self)?.verdict == Verdict::Broken {
                return Ok(Err(format!("see {name} first")));
            }
        }
        let family = self.source.config().family;
        Ok(Ok(trials::run(body, family, self.chance())?))
    }

    /// An embedded file.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let file = self.source.files().iter().find(|(n, _)| n == name);
        file.map(|(_, bytes)| bytes.as_slice())
    }

    /// An embedded JSON file; null where it is absent or no JSON.
    pub fn json(&self, name: &str) -> Value {
        let bytes = self.file(name).unwrap_or_default();
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub fn template(&self) -> sterna_runtime::Result<ChatTemplate> {
        ChatTemplate::of_files(|name| self.file(name))
    }

    /// The logarithm of the vocabulary size: nats a token of one who guesses.
    pub fn chance(&self) -> f64 {
        (self.source.config().vocab_size as f64).ln()
    }
}

type Examine = fn(&Patient) -> anyhow::Result<Finding>;
type Opened = (Box<dyn Source>, Origin);

/// Opens a model, its config repaired as often as that helps; none where it stays refused for a known reason.
fn open(path: &Path, refused: &mut Vec<(&'static str, String)>) -> anyhow::Result<Option<Opened>> {
    /// More repairs than there are kinds of them cannot be needed.
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

fn open_as(path: &Path, config: Option<&Value>) -> Result<Opened, Error> {
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

/// Whether the weights are as ternary as the config says shows when the first of them is read.
fn with_first_layer(source: Box<dyn Source>, origin: Origin) -> Result<Opened, Error> {
    if let Some(first) = linear(source.config()).first() {
        match source.is_dense() {
            true => drop(source.dense(first)?),
            false => drop(source.linear(first)?),
        }
    }
    Ok((source, origin))
}

/// Gigabytes must not stay behind when somebody has no time to wait.
fn remove_on_interrupt(folder: PathBuf) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        let _ = std::fs::remove_dir_all(&folder); // the process ends anyway
        std::process::exit(130);
    })?;
    Ok(())
}

/// The model as a packed file: itself, or one in a temporary folder.
fn pack(source: &dyn Source) -> anyhow::Result<Result<(PathBuf, TempDir), Error>> {
    let folder = tempfile::Builder::new().prefix("sterna-doctor").tempdir()?;
    remove_on_interrupt(folder.path().to_owned())?;
    let path = source.path();
    if path.is_file() && !sterna_convert::is_gguf(path)? {
        return Ok(Ok((path.to_owned(), folder)));
    }
    let out = folder.path().join("model");
    let bar = terminal::bar(0, "  packing {wide_bar} {percent}%");
    let options = sterna_convert::Options {
        packing: Packing::I2.into(),
        head: HeadType::default(),
        activations: None,
        allow_missing: true,
    };
    let packed = sterna_convert::write_packed(source, &out, &options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(packed.map(|_| (out, folder)))
}

impl Body {
    fn run(path: PathBuf, folder: TempDir, tokenizer: Option<&Tokenizer>) -> anyhow::Result<Body> {
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
        let losses = losses(&path, "as it is", &ids, None)?;
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
    pub fn losses_with(&self, change: &Change, what: &str) -> anyhow::Result<Losses> {
        let path = self.folder.path().join("variant");
        variants::write(&self.file, &path, change)?;
        let chance = (self.file.config.vocab_size as f64).ln();
        losses(
            &path,
            what,
            &self.ids,
            texts::best_known(&self.losses, chance),
        )
    }
}

fn losses(path: &Path, what: &str, ids: &[Pieces], only: Option<usize>) -> anyhow::Result<Losses> {
    if terminal::is_terminal() {
        eprintln!("  running the built-in texts {what}");
    }
    let options = sterna_runtime::Options {
        kv_type: KvType::F32, // half precision would hide or cause an overflow
        memory: Memory::Map,
        ..Default::default()
    };
    texts::losses(&Model::open(path, options)?, ids, only)
}

/// Ids spread over the vocabulary: they show whether logits are finite, and nothing else.
fn at_random(file: &PackedFile) -> Vec<u32> {
    let size = file.config.vocab_size as u64;
    let count = file.config.max_position_embeddings.min(64) as u64;
    (0..count)
        .map(|i| (i * 0x9e37_79b9 % size) as u32)
        .collect()
}

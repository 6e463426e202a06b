//! Everything that was measured, in one structure. `report.json` is this structure; the other forms
//! are rendered from it.

mod answer;
mod document;
mod html;
mod markdown;
mod measure;
mod plots;

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sterna_runtime::{Kernels, Options, threads};
use sterna_ternary::PackedFile;
use sterna_ternary::layout::{self, Role};

use crate::accuracy::{Divergence, Perplexity};
use crate::exam::Exam;
use crate::judge::{Judgment, Passage, Subject};
use crate::speed::{Machine, Speed};
use crate::text::{Text, TextSource};
use crate::windows::Convention;
use crate::{Error, Result};

pub use measure::{Plan, Seen};

/// What was measured of some models. The first one is the reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The answer in words, for each later model: a line with the verdict on accuracy, and a line
    /// with what is solved and gained. Names are between backticks.
    pub answer: Vec<String>,
    /// What a reader must know before the answer counts.
    pub notes: Vec<String>,
    /// How all this was measured.
    pub setting: Setting,
    /// The models.
    pub models: Vec<ModelReport>,
    /// Conditions and whether they hold.
    pub gates: Vec<GateOutcome>,
}

/// Whether a condition holds for a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateOutcome {
    /// As it was given.
    pub condition: String,
    /// Name of the model.
    pub model: String,
    /// What was found; `None` where it was not measured, and then the condition does not hold.
    pub value: Option<f64>,
    /// Whether it holds.
    pub holds: bool,
}

/// What someone needs to repeat the measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setting {
    /// Version of this program.
    pub version: String,
    /// The command as it was given.
    pub command: String,
    /// Name of the processor.
    pub cpu: String,
    /// Its cores that the process may use.
    pub cores: usize,
    /// The table of inner loops.
    pub kernels: String,
    /// Threads.
    pub threads: usize,
    /// Element type of the KV cache.
    pub kv_type: String,
    /// Where energy was read, or why it was not.
    pub energy: String,
    /// Tokens of the prompt and generated tokens of the measurement of speed.
    pub speed_tokens: (usize, usize),
    /// The text.
    pub text: TextSource,
    /// A difference below this, in nats per token, does not matter.
    pub negligible: f64,
}

impl Setting {
    /// This machine, this version, and how models are run on it. Energy and the tokens of speed are
    /// added where speed is measured.
    pub fn of(command: String, options: Options, text: &Text, negligible: f64) -> Setting {
        let machine = Machine::detect();
        Setting {
            version: env!("CARGO_PKG_VERSION").into(),
            command,
            cpu: machine.cpu,
            cores: machine.usable_cores,
            kernels: options.kernels.unwrap_or_else(Kernels::best).name.into(),
            threads: options.threads.unwrap_or_else(threads::physical_cores),
            kv_type: options.kv_type.name().into(),
            energy: "not measured".into(),
            speed_tokens: (0, 0),
            text: text.source(),
            negligible,
        }
    }
}

/// What was measured of one model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelReport {
    /// Its name in the report.
    pub name: String,
    /// The path as it was given.
    pub path: String,
    /// Of the packed file.
    pub sha256: String,
    /// Of the packed file.
    pub bytes: u64,
    /// How its trits are packed.
    pub packing: String,
    /// Whether its numbers are the master weights of a model that was trained with rounded ones.
    pub has_masters: bool,
    /// All weights.
    pub parameters: u64,
    /// Bits of the file per weight.
    pub bits_per_weight: f64,
    /// Bits of the matrices in the layers, with their scales, by their weights.
    pub bits_per_layer_weight: f64,
    /// Per convention.
    pub accuracy: Vec<Accuracy>,
    /// Per task.
    #[serde(default)]
    pub tasks: Vec<Exam>,
    /// `None` where it was not measured.
    pub speed: Option<Speed>,
}

/// How well a model predicts the text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accuracy {
    /// How the text was cut.
    pub convention: Convention,
    /// The convention in words.
    pub meaning: String,
    /// How well it predicts.
    pub perplexity: Perplexity,
    /// How far it is from the reference; `None` for the reference itself and for a model with
    /// another tokenization.
    pub divergence: Option<Divergence>,
}

impl ModelReport {
    /// A model without measurements.
    pub fn of(subject: &Subject, path: &Path) -> ModelReport {
        let file = subject.model.file();
        let weights = layout::weights(&file.config);
        let (parameters, in_layers) = layout::counts(&file.config);
        let linear = weights.iter().filter(|w| w.role == Role::Linear);
        let stored = linear.flat_map(|w| [w.name.clone(), layout::scale_name(&w.name)]);
        let stored = stored.filter_map(|name| file.layout().find(&name));
        let stored: usize = stored.map(|entry| entry.len).sum();
        ModelReport {
            name: subject.name.clone(),
            path: path.display().to_string(),
            sha256: subject.sha256.clone(),
            bytes: file.len() as u64,
            packing: file.packing.name().to_owned(),
            has_masters: has_masters(file),
            parameters: parameters as u64,
            bits_per_weight: 8.0 * file.len() as f64 / parameters as f64,
            bits_per_layer_weight: 8.0 * stored as f64 / in_layers as f64,
            accuracy: Vec::new(),
            tasks: Vec::new(),
            speed: None,
        }
    }

    /// The first convention.
    pub fn main(&self) -> Option<&Accuracy> {
        self.accuracy.first()
    }

    fn divergence(&self) -> Option<&Divergence> {
        self.main()?.divergence.as_ref()
    }
}

/// Whether the linear layers hold numbers that training rounded. The config says that training had
/// master weights. Products of trits and scales keep that config, and the numbers tell them apart:
/// a row of products has a magnitude for each scale and no more.
fn has_masters(file: &PackedFile) -> bool {
    let config = file.file("config.json");
    let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(bytes).ok());
    let is_online =
        config.is_some_and(|c| c["quantization_config"]["quantization_mode"] == "online");
    let weights = layout::weights(&file.config);
    let linear = weights.iter().find(|w| w.role == Role::Linear);
    let Some(linear) = linear.filter(|_| is_online && file.packing.dense().is_some()) else {
        return false;
    };
    let mut row = vec![0.0; linear.columns];
    file.dense(&linear.name).values.decode(0, &mut row);
    let magnitudes = row.iter().filter(|x| **x != 0.0).map(|x| x.abs().to_bits());
    let magnitudes: BTreeSet<u32> = magnitudes.collect();
    magnitudes.len() > linear.columns.div_ceil(GROUP)
}

/// Columns that share a scale, at least.
const GROUP: usize = 128;

impl Report {
    /// Puts the answer into words.
    pub fn with_answer(mut self) -> Report {
        self.answer = answer::of(&self);
        self.notes = answer::notes(&self);
        self
    }

    /// Adds the figures of one convention to each model.
    pub fn add(&mut self, passage: &Passage, judgments: &[Judgment]) {
        let negligible = self.setting.negligible;
        for (model, judgment) in self.models.iter_mut().zip(judgments) {
            let scored = judgment.scored(passage);
            let reference = judgment.is_compared.then_some(&judgments[0].positions);
            model.accuracy.push(Accuracy {
                convention: passage.convention,
                meaning: passage.convention.describe(),
                perplexity: scored.perplexity(),
                divergence: reference
                    .and_then(|positions| scored.divergence(positions, negligible)),
            });
        }
    }

    /// As a table in plain text, for a terminal.
    pub fn text(&self) -> String {
        let document = document::of(self);
        markdown::terminal(&document)
    }

    /// Writes `report.json`, `report.md`, `report.html`, and each plot as SVG, into a folder that
    /// exists.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            sterna_ternary::durable::write(&path, |w| std::io::Write::write_all(w, bytes)).map_err(
                |source| Error::Io {
                    path: path.clone(),
                    source,
                },
            )
        };
        let document = document::of(self);
        for plot in &document.plots {
            write(&format!("{}.svg", plot.name), plot.picture.svg().as_bytes())?;
        }
        write("report.md", markdown::of(&document).as_bytes())?;
        write("report.html", html::of(&document).as_bytes())?;
        let json = serde_json::to_vec_pretty(self).expect("a report is plain data");
        write("report.json", &json)
    }
}

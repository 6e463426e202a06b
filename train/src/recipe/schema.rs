//! A recipe: everything that decides what a run makes, in one small TOML file.
//!
//! Unknown keys are refused. The same recipe gives the same weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sterna_datasets::{Mix, Rows};
use sterna_ternary::{Config, Family, Scaling};

use candle_core::Device;

use super::defaults;
use crate::ops::Distillation;
use crate::optimizer::{Method, Optimizer};
use crate::schedule::{Schedule, Shape};
use crate::{Activations, Error, LossReduction, Model, Precision, Result, Start, Teacher};

/// What to train, on what, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Shape of the decoder.
    pub model: ModelRecipe,
    /// Where the tokens come from.
    pub data: DataRecipe,
    /// Steps, rates and how often to look.
    pub train: TrainRecipe,
    /// A model to learn from, beside the text.
    pub teacher: Option<TeacherRecipe>,
    /// Where values came from, by keys like `train.steps`, if a [`Draft`](crate::Draft) was its source.
    #[serde(skip)]
    pub origins: BTreeMap<String, String>,
    /// The checkpoint that `model.from` names, once [`Recipe::start_from`] was told.
    #[serde(skip)]
    pub start: Option<Start>,
    /// The checkpoint that `teacher.from` names and what it multiplies with, once [`Recipe::taught_by`] was told.
    #[serde(skip)]
    pub teaches: Option<(Start, Precision)>,
}

/// A model to learn from: the divergence from what it expects is mixed with the cross entropy of the text. Without
/// `model.from` the model gets its tokenizer, else it has to have the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherRecipe {
    /// A checkpoint, ternary or in full precision.
    pub from: String,
    /// Share of the divergence in the loss; the rest is cross entropy.
    #[serde(default = "defaults::half")]
    pub weight: f64,
    /// What the logits of both are divided by before they are compared.
    #[serde(default = "defaults::unit")]
    pub temperature: f64,
}

/// Shape of the decoder, whose names are those of config.json; or the checkpoint that has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// A checkpoint to start from. The model has its shape, its tokenizer and its weights.
    pub from: Option<String>,
    /// Whether a checkpoint without norms before `o_proj` and `down_proj` gets some, with gains of 1.
    ///
    /// They bring what these layers read to a mean square of 1, so the model is another one until it has learned to
    /// live with them, whatever λ is.
    #[serde(default)]
    pub insert_sub_norms: bool,
    /// Which weights of a matrix share a scale; as a checkpoint to start from has it if absent, else `tensor`.
    #[serde(default)]
    pub scaling: ScalePer,
    /// Name of a family: bitnet, llama or qwen3.
    #[serde(default)]
    pub family: String,
    /// Width of the residual stream.
    #[serde(default)]
    pub hidden_size: usize,
    /// Width of the feed-forward network.
    #[serde(default)]
    pub intermediate_size: usize,
    /// Decoder layers.
    #[serde(default)]
    pub num_hidden_layers: usize,
    /// Query heads.
    #[serde(default)]
    pub num_attention_heads: usize,
    /// Key and value heads; as many as query heads if absent.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; hidden_size / num_attention_heads if absent.
    pub head_dim: Option<usize>,
    /// Base of the rotary frequencies.
    #[serde(default = "defaults::rope_theta")]
    pub rope_theta: f64,
    /// Added to the mean square in every norm.
    #[serde(default = "defaults::rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Standard deviation of fresh matrices.
    #[serde(default = "defaults::initializer_range")]
    pub initializer_range: f64,
    /// Whether the head is the embedding.
    #[serde(default = "defaults::yes")]
    pub tie_word_embeddings: bool,
}

/// What each scale of a ternary matrix is for; it is mean|W| of that part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScalePer {
    /// The matrix, as BitNet b1.58 has it.
    #[default]
    Tensor,
    /// A row.
    Row,
    /// 128 columns of a row.
    Group,
}

impl From<ScalePer> for Scaling {
    fn from(per: ScalePer) -> Scaling {
        match per {
            ScalePer::Tensor => Scaling::Matrix,
            ScalePer::Row => Scaling::Row,
            ScalePer::Group => Scaling::Group,
        }
    }
}

impl From<Scaling> for ScalePer {
    fn from(scaling: Scaling) -> ScalePer {
        match scaling {
            Scaling::Matrix => ScalePer::Tensor,
            Scaling::Row => ScalePer::Row,
            Scaling::Group => ScalePer::Group,
        }
    }
}

/// Where the tokens come from: one of `mix`, `text` and `chat`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Built-in tasks and their shares, like "addition2=0.5,stories=0.5".
    pub mix: Option<Mix>,
    /// Generated training documents, with `mix`.
    #[serde(default = "defaults::documents")]
    pub documents: u64,
    /// Files or folders of .txt, .jsonl or .parquet, relative to the recipe, or data sets of the hub like
    /// `hf:org/name`; with a weight, each is a source of its own.
    pub text: Option<Vec<Text>>,
    /// Files or folders of .jsonl with conversations, relative to the recipe. They are written by the chat template of
    /// the checkpoint that `model.from` names, several to a row and hidden from each other; what the assistant says
    /// is learned.
    pub chat: Option<Vec<PathBuf>>,
    /// A line that separates the documents of a .txt file.
    pub separator: Option<String>,
    /// Share of the documents that is held out.
    #[serde(default = "defaults::held_out")]
    pub held_out: f64,
    /// Tokens of the tokenizer that is trained on the data; it may come out smaller. A checkpoint has its own.
    #[serde(default)]
    pub vocab_size: usize,
    /// Seed of the generators.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
}

/// A file or folder of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Read with all others as one text.
    Path(PathBuf),
    /// A source of its own.
    Weighted(WeightedText),
}

/// A source of text that gives a share of the training rows, through epochs of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedText {
    /// A file or folder.
    pub path: PathBuf,
    /// Its share is this over the sum of all weights.
    pub weight: f64,
}

impl Text {
    /// The file or folder.
    pub fn path(&self) -> &Path {
        match self {
            Text::Path(path) => path,
            Text::Weighted(text) => &text.path,
        }
    }

    /// The file or folder, to be put in another place.
    pub fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            Text::Path(path) => path,
            Text::Weighted(text) => &mut text.path,
        }
    }

    /// The weight; none of a path alone.
    pub fn weight(&self) -> Option<f64> {
        match self {
            Text::Path(_) => None,
            Text::Weighted(text) => Some(text.weight),
        }
    }
}

/// Whether an entry is a name with a scheme, like `scheme:rest`, and not a path relative to the recipe. The caller
/// replaces it with a path. One letter before the colon is a drive of Windows.
pub(crate) fn is_name(path: &Path) -> bool {
    let scheme = path.to_str().and_then(|path| path.split_once(':'));
    scheme.is_some_and(|(scheme, _)| {
        scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// Steps, rates and how often to look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Ternary or full precision.
    #[serde(default = "defaults::precision")]
    pub precision: Precision,
    /// How the matrices of linear layers are updated.
    #[serde(default = "defaults::optimizer")]
    pub optimizer: Method,
    /// Optimizer steps.
    pub steps: u64,
    /// Sequences that are computed at a time.
    pub batch: usize,
    /// Batches whose gradients make one step.
    #[serde(default = "defaults::one")]
    pub accumulate: usize,
    /// Tokens of a sequence.
    pub context: usize,
    /// Whether tokens look at their own document only, where a sequence holds several.
    #[serde(default)]
    pub mask_documents: bool,
    /// Whether the forward pass keeps all activations or computes them again.
    #[serde(default)]
    pub activations: Activations,
    /// Whether a step minimizes the mean or the sum of the losses of its scored tokens.
    #[serde(default)]
    pub loss: LossReduction,
    /// Peak of the learning rate.
    pub learning_rate: f64,
    /// Steps of its rise.
    pub warmup: u64,
    /// Its shape after that.
    #[serde(default = "defaults::schedule")]
    pub schedule: Shape,
    /// Share of the run after which it falls or its second stage begins; as the shape has it if absent.
    pub decay_from: Option<f64>,
    /// Peak of the second stage of `two-stage`; two thirds of the first if absent.
    pub second_learning_rate: Option<f64>,
    /// Decay of the matrices per step and unit of learning rate.
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: f64,
    /// Share of the run after which there is no weight decay; 0.5 for `two-stage` and else 1 if absent.
    pub weight_decay_until: Option<f64>,
    /// Steps in full precision before the ternary ones.
    #[serde(default)]
    pub ternary_from: u64,
    /// Steps over which quantization is blended in after that.
    #[serde(default)]
    pub ternary_ramp: u64,
    /// Decay rates of the moments.
    #[serde(default = "defaults::betas")]
    pub betas: (f64, f64),
    /// Largest norm of a gradient.
    #[serde(default = "defaults::clip")]
    pub clip: f64,
    /// Weight of the squared log-sum of the logits, which keeps them small; its gradient counts, its
    /// value does not show in the loss.
    #[serde(default)]
    pub z_loss: f64,
    /// Deviations above the mean of the last losses from which a batch is skipped; 0 skips none.
    #[serde(default)]
    pub skip_spikes: f64,
    /// How many last losses.
    #[serde(default = "defaults::spike_window")]
    pub spike_window: usize,
    /// Steps between evaluations on held-out text.
    #[serde(default = "defaults::every")]
    pub evaluate_every: u64,
    /// Steps between checkpoints.
    #[serde(default = "defaults::every")]
    pub checkpoint_every: u64,
    /// Newest checkpoints that are kept.
    #[serde(default = "defaults::keep_last")]
    pub keep_last: usize,
    /// Checkpoints of steps that are multiples of this are kept too; 0 keeps no others.
    #[serde(default)]
    pub keep_every: u64,
    /// Tokens of the text that is written at evaluations; 0 writes none.
    #[serde(default = "defaults::sample_tokens")]
    pub sample_tokens: usize,
    /// Seed of the weights and of the order of the data.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
}

const TOKENIZER: &str = "tokenizer.json";

/// What [`Recipe::start_from`] sets.
const OF_A_CHECKPOINT: [&str; 11] = [
    "model.family",
    "model.hidden_size",
    "model.intermediate_size",
    "model.num_hidden_layers",
    "model.num_attention_heads",
    "model.num_key_value_heads",
    "model.head_dim",
    "model.rope_theta",
    "model.rms_norm_eps",
    "model.tie_word_embeddings",
    "data.vocab_size",
];

impl Recipe {
    /// Reads a recipe; relative paths in it are taken from its folder.
    pub fn load(path: &Path) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let mut recipe = Recipe::parse(&text, path)?;
        let folder = sterna_ternary::durable::folder_of(path);
        let data = &mut recipe.data;
        let texts = data.text.iter_mut().flatten().map(Text::path_mut);
        for path in texts.chain(data.chat.iter_mut().flatten()) {
            if !is_name(path) {
                *path = folder.join(&path);
            }
        }
        Ok(recipe)
    }

    /// Reads a recipe from TOML; `path` stands in error messages.
    pub fn parse(text: &str, path: &Path) -> Result<Recipe> {
        let fail = |e: toml::de::Error| Error::Recipe {
            path: path.to_owned(),
            why: e.to_string(),
        };
        let recipe: Recipe = toml::from_str(text).map_err(fail)?;
        let recipe = recipe.resolved();
        recipe.check(path)?;
        Ok(recipe)
    }

    /// The recipe with the values that depend on others filled in.
    pub fn resolved(mut self) -> Recipe {
        let (m, t) = (&mut self.model, &mut self.train);
        let heads = m.num_attention_heads;
        m.num_key_value_heads.get_or_insert(heads);
        m.head_dim.get_or_insert(m.hidden_size / heads.max(1));
        t.decay_from.get_or_insert(t.schedule.decay_from());
        let until = t.schedule.weight_decay_until();
        t.weight_decay_until.get_or_insert(until);
        if t.schedule == Shape::TwoStage {
            t.second_learning_rate
                .get_or_insert(t.learning_rate * 2.0 / 3.0);
        }
        self
    }

    /// Takes shape and vocabulary from the checkpoint that `model.from` names; they win over what was set.
    pub fn start_from(&mut self, start: Start) {
        let (m, c) = (&mut self.model, &start.config);
        m.family = c.family.name.to_owned();
        m.hidden_size = c.hidden_size;
        m.intermediate_size = c.intermediate_size;
        m.num_hidden_layers = c.num_hidden_layers;
        m.num_attention_heads = c.num_attention_heads;
        m.num_key_value_heads = Some(c.num_key_value_heads);
        m.head_dim = Some(c.head_dim);
        m.rope_theta = c.rope.theta;
        m.rms_norm_eps = f64::from(c.rms_norm_eps);
        m.tie_word_embeddings = c.tie_word_embeddings;
        self.data.vocab_size = c.vocab_size;
        m.scaling = start.scaling.into();
        for key in OF_A_CHECKPOINT {
            self.origins.insert(key.into(), "the checkpoint".into());
        }
        let of_scaling = self.origins.entry("model.scaling".into());
        of_scaling.or_insert_with(|| "the checkpoint".into());
        self.start = Some(start);
    }

    /// Learns from the checkpoint that `teacher.from` names, to be told after [`Recipe::start_from`].
    ///
    /// # Errors
    /// [`Error::Start`] for a teacher with another tokenizer than the checkpoint that `model.from` names.
    pub fn taught_by(&mut self, teacher: Start, precision: Precision) -> Result<()> {
        if let Some(start) = &self.start {
            let of = |s: &Start| (s.config.vocab_size, s.file(TOKENIZER).map(<[u8]>::to_vec));
            if of(&teacher) != of(start) {
                return Err(teacher.error(format!(
                    "a teacher needs the {TOKENIZER} and the `vocab_size` of its student, {}; leave `model.from` out, and \
                     the student gets those of its teacher",
                    start.path.display()
                )));
            }
        } else {
            self.data.vocab_size = teacher.config.vocab_size;
            let origin = "the teacher".to_owned();
            self.origins.insert("data.vocab_size".into(), origin);
        }
        self.teaches = Some((teacher, precision));
        Ok(())
    }

    /// The checkpoint whose tokenizer, templates and settings the run takes over: the one that it starts from, else
    /// its teacher.
    pub(crate) fn tokenizer_from(&self) -> Option<&Start> {
        let teacher = self.teaches.as_ref().map(|(teacher, _)| teacher);
        self.start.as_ref().or(teacher)
    }

    /// The model that `teacher` names, if it names one.
    pub(crate) fn teacher(&self) -> Result<Option<Box<Teacher>>> {
        let Some(recipe) = &self.teacher else {
            return Ok(None);
        };
        let Some((teacher, precision)) = &self.teaches else {
            return Err(Error::Start {
                path: (&recipe.from).into(),
                why: "it was not opened; give it to `Recipe::taught_by`".into(),
            });
        };
        let (config, weights) = (teacher.config.clone(), teacher.weights()?);
        let context = self.train.context;
        let mut model = Model::from_values(config, *precision, context, weights, &Device::Cpu)?;
        model.scaling = teacher.scaling;
        let settings = Distillation {
            weight: recipe.weight as f32,
            temperature: recipe.temperature as f32,
        };
        Ok(Some(Box::new(Teacher::new(model, settings)?)))
    }

    /// Whether every setting is in range; `path` stands in error messages.
    pub fn check(&self, path: &Path) -> Result<()> {
        self.in_range().map_err(|why| Error::Recipe {
            path: path.to_owned(),
            why,
        })
    }

    /// The resolved recipe as TOML, every default spelled out.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe has string keys and finite numbers")
    }

    /// Every value by its key, like `train.steps`, in the order of the sections.
    pub fn flat(&self) -> Vec<(String, toml::Value)> {
        let table = toml::Table::try_from(self);
        let table = table.expect("a recipe has string keys and finite numbers");
        let in_section = |(section, values): (String, toml::Value)| {
            let values = values.as_table().cloned().unwrap_or_default();
            let named = |(key, value)| (format!("{section}.{key}"), value);
            values.into_iter().map(named).collect::<Vec<_>>()
        };
        table.into_iter().flat_map(in_section).collect()
    }

    /// Where a value came from; "default" if nothing set it.
    pub fn origin(&self, key: &str) -> &str {
        self.origins.get(key).map_or("default", String::as_str)
    }

    /// The decoder's config for a tokenizer of so many tokens; that of the checkpoint to start from, if there is one.
    /// The vocabulary of a teacher wins over that of the tokenizer, which may have fewer tokens.
    pub fn config(&self, vocab_size: usize, bos: u32, eos: &[u32]) -> Result<Config> {
        let m = &self.model;
        match (&self.start, &m.from) {
            (Some(start), _) => {
                let mut config = start.config.clone();
                let longest = config.max_position_embeddings.max(self.train.context);
                config.max_position_embeddings = longest;
                return Ok(config);
            }
            (None, Some(from)) => {
                return Err(Error::Start {
                    path: from.into(),
                    why: "it was not opened; give it to `Recipe::start_from`".into(),
                });
            }
            (None, None) => {}
        }
        let family = Family::from_name(&m.family).ok_or_else(|| Error::Recipe {
            path: "[model]".into(),
            why: format!(
                "`family` is {:?}, expected one of {}",
                m.family,
                Family::known()
            ),
        })?;
        crate::model::refuse_family(family)?;
        let (mut vocab_size, mut bos, mut eos) = (vocab_size, bos, eos);
        if let Some((teacher, _)) = &self.teaches {
            vocab_size = teacher.config.vocab_size;
            bos = teacher.config.bos_token_id.unwrap_or(bos);
            eos = &teacher.config.eos_token_id;
        }
        let json = json!({
            "architectures": [family.architecture],
            "model_type": family.model_type,
            "hidden_act": family.activation.name(),
            "hidden_size": m.hidden_size,
            "intermediate_size": m.intermediate_size,
            "num_hidden_layers": m.num_hidden_layers,
            "num_attention_heads": m.num_attention_heads,
            "num_key_value_heads": m.num_key_value_heads.unwrap_or(m.num_attention_heads),
            "head_dim": m.head_dim.unwrap_or(m.hidden_size / m.num_attention_heads.max(1)),
            "vocab_size": vocab_size,
            "max_position_embeddings": self.train.context,
            "rms_norm_eps": m.rms_norm_eps,
            "rope_theta": m.rope_theta,
            "tie_word_embeddings": m.tie_word_embeddings,
            "bos_token_id": bos,
            "eos_token_id": eos,
        });
        Ok(Config::from_json(&json)?)
    }

    /// The optimizer's constants.
    pub fn optimizer(&self) -> Optimizer {
        Optimizer {
            method: self.train.optimizer,
            betas: self.train.betas,
            eps: 1e-8,
            weight_decay: self.train.weight_decay,
        }
    }

    /// What changes from step to step.
    pub fn schedule(&self) -> Schedule {
        let t = &self.train;
        Schedule {
            shape: t.schedule,
            peak: t.learning_rate,
            second_peak: t.second_learning_rate.unwrap_or(t.learning_rate),
            warmup: t.warmup,
            decay_from: t.decay_from.unwrap_or(t.schedule.decay_from()),
            steps: t.steps,
            weight_decay: t.weight_decay,
            weight_decay_until: t.weight_decay_until.unwrap_or(1.0),
            ternary_from: match t.precision {
                Precision::Ternary => t.ternary_from,
                Precision::Full => u64::MAX,
            },
            ternary_ramp: t.ternary_ramp,
        }
    }

    /// Where training rows begin: generated documents are short and start a row each, long texts run on.
    pub fn rows(&self) -> Rows {
        if self.data.mix.is_some() {
            Rows::Documents
        } else {
            Rows::Contiguous
        }
    }
}

//! A recipe: everything that decides what a run makes, in one small TOML file.
//!
//! Unknown keys are refused. The same recipe gives the same weights.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sterna_datasets::{Mix, Rows};
use sterna_ternary::Scaling;

use super::defaults;
use crate::optimizer::Method;
use crate::schedule::RateShape;
use crate::{ActivationStorage, LossReduction, Precision};

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
    pub scaling: Option<ScalePer>,
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
    /// Files or folders of .jsonl or .parquet with conversations, relative to the recipe.
    ///
    /// They are written by a chat template, several to a row and hidden from each other. A model
    /// that starts from a checkpoint has its template and learns what the assistant says. A model
    /// that is trained from scratch has `template` and learns everything, as it has no other text to
    /// learn the language from; in a `mix` with plain texts it learns what the assistant says.
    pub chat: Option<Vec<PathBuf>>,
    /// The chat template of a model that is trained from scratch, for `chat` and for tasks of `mix`
    /// that are conversations: a name, or the path of a .jinja file relative to the recipe.
    /// `chatml` if absent.
    pub template: Option<String>,
    /// Special tokens that a template from a file writes; named templates have their own.
    pub special_tokens: Option<Vec<String>>,
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
    pub activations: ActivationStorage,
    /// Whether a step minimizes the mean or the sum of the losses of its scored tokens.
    #[serde(default)]
    pub loss: LossReduction,
    /// Peak of the learning rate.
    pub learning_rate: f64,
    /// Steps of its rise.
    pub warmup: u64,
    /// Its shape after that.
    #[serde(default = "defaults::schedule")]
    pub schedule: RateShape,
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

impl Recipe {
    /// Whether conversations are among the data, which are packed into rows.
    pub fn has_conversations(&self) -> bool {
        let mut tasks = self.data.mix.iter().flat_map(|mix| mix.shares());
        self.data.chat.is_some() || tasks.any(|(task, _)| task.is_conversation())
    }

    /// Whether a chat template has to be opened: there are conversations, and no checkpoint.
    pub fn needs_template(&self) -> bool {
        self.has_conversations() && self.model.from.is_none() && self.teacher.is_none()
    }

    /// The recipe with the values that depend on others filled in.
    pub fn resolved(mut self) -> Recipe {
        let (m, t) = (&mut self.model, &mut self.train);
        if m.from.is_none() {
            m.scaling.get_or_insert_default();
        }
        let heads = m.num_attention_heads;
        m.num_key_value_heads.get_or_insert(heads);
        m.head_dim.get_or_insert(m.hidden_size / heads.max(1));
        t.decay_from.get_or_insert(t.schedule.decay_from());
        let until = t.schedule.weight_decay_until();
        t.weight_decay_until.get_or_insert(until);
        if t.schedule == RateShape::TwoStage {
            t.second_learning_rate
                .get_or_insert(t.learning_rate * 2.0 / 3.0);
        }
        self
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

    /// Which weights of a ternary matrix share a scale.
    pub fn scaling(&self) -> Scaling {
        self.model.scaling.unwrap_or_default().into()
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

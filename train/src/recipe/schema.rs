//! A recipe: everything that determines the result of a run, in one small TOML file.
//!
//! Unknown keys are refused. The same recipe gives the same weights.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sterna_datasets::{Layout, Mix, Rows};
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
    /// Steps, rates and intervals.
    pub train: TrainRecipe,
    /// A teacher, for distillation.
    pub teacher: Option<TeacherRecipe>,
}

/// The teacher of distillation: the divergence from its predictions is mixed with the cross entropy
/// with the text. A student without `model.from` gets its tokenizer; one with `model.from` must
/// have the same tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherRecipe {
    /// A checkpoint, ternary or in full precision.
    pub from: String,
    /// Share of the divergence in the loss, 0 to 1; the rest is cross entropy.
    #[serde(default = "defaults::half")]
    pub weight: f64,
    /// Divisor of the logits of both models before they are compared.
    #[serde(default = "defaults::unit")]
    pub temperature: f64,
}

/// Shape of the decoder, with the names of config.json, or the checkpoint that has a shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// A checkpoint to start from. The model has its shape, its tokenizer and its weights.
    pub from: Option<String>,
    /// Whether a checkpoint without norms before `o_proj` and `down_proj` gets them, with gains of
    /// 1.
    ///
    /// They scale the inputs of these layers to a mean square of 1. So the model computes something
    /// else until training has adapted it, whatever λ is.
    #[serde(default)]
    pub insert_sub_norms: bool,
    /// Which weights of a matrix share a scale. If absent, that of the checkpoint to start from, or
    /// `tensor` without one.
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
    /// Key and value heads; the number of query heads if absent.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; hidden_size / num_attention_heads if absent.
    pub head_dim: Option<usize>,
    /// Base of the rotary frequencies.
    #[serde(default = "defaults::rope_theta")]
    pub rope_theta: f64,
    /// Added to the mean square in every norm.
    #[serde(default = "defaults::rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Standard deviation of new matrices.
    #[serde(default = "defaults::initializer_range")]
    pub initializer_range: f64,
    /// Whether the embedding is also the head.
    #[serde(default = "defaults::yes")]
    pub tie_word_embeddings: bool,
}

/// The part of a ternary matrix that shares a scale, which is mean|W| of that part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScalePer {
    /// The whole matrix, as in BitNet b1.58.
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
    /// Built-in tasks and their shares, for example "addition2=0.5,stories=0.5".
    pub mix: Option<Mix>,
    /// Number of generated training documents, with `mix`.
    #[serde(default = "defaults::documents")]
    pub documents: u64,
    /// Files or folders of texts and of records, relative to the recipe, or names of data sets of
    /// the hub, like `hf:org/name`. With a weight, each is a separate source.
    pub text: Option<Vec<Text>>,
    /// Files or folders of .jsonl or .parquet with conversations, relative to the recipe.
    ///
    /// A chat template renders them; a row holds several, which do not attend to each other. A
    /// model that starts from a checkpoint has its template and learns what the assistant says. A
    /// model that is trained from scratch has `template` and learns everything, because it has no
    /// other text to learn the language from. In a `mix` with plain texts it learns what the
    /// assistant says.
    pub chat: Option<Vec<PathBuf>>,
    /// The layout of the records of `chat`: messages, sharegpt, alpaca, prompt-completion,
    /// preference or question-answer. If absent, the keys of each record say it.
    pub chat_format: Option<Layout>,
    /// Whether a record that cannot be used ends the run. If not, it is left out, and only more
    /// than a tenth of such records ends the run.
    #[serde(default)]
    pub strict: bool,
    /// The chat template of a model that is trained from scratch: a name, or the path of a .jinja
    /// file relative to the recipe. Where the data contain conversations it is `chatml` if absent;
    /// a model of texts has it for conversations that it learns in a later run.
    pub template: Option<String>,
    /// Special tokens that the template of a file writes. Named templates have their own.
    pub special_tokens: Option<Vec<String>>,
    /// A line that separates the documents of a .txt file.
    pub separator: Option<String>,
    /// The key of records that holds the text, if it is not `text`.
    pub column: Option<String>,
    /// Share of the documents that is held out, 0 to 1; a small corpus may hold out more.
    #[serde(default = "defaults::held_out")]
    pub held_out: f64,
    /// Vocabulary size of the tokenizer that is trained on the data; it may become smaller. A
    /// checkpoint has its own.
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
    /// Read together with all other paths as one source.
    Path(PathBuf),
    /// A separate source.
    Weighted(WeightedText),
}

/// A source of text with its own share of the training rows and its own epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedText {
    /// A file or folder.
    pub path: PathBuf,
    /// Its weight; its share is this divided by the sum of all weights.
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

    /// The file or folder, mutable.
    pub fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            Text::Path(path) => path,
            Text::Weighted(text) => &mut text.path,
        }
    }

    /// The weight; none for a plain path.
    pub fn weight(&self) -> Option<f64> {
        match self {
            Text::Path(_) => None,
            Text::Weighted(text) => Some(text.weight),
        }
    }
}

/// Whether an entry is a name with a scheme, like `scheme:rest`, and not a path relative to the
/// recipe. The caller replaces names by paths. A single letter before the colon is a drive of
/// Windows.
pub(crate) fn is_name(path: &Path) -> bool {
    let scheme = path.to_str().and_then(|path| path.split_once(':'));
    scheme.is_some_and(|(scheme, _)| {
        scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// Steps, rates and intervals.
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
    /// Sequences of one batch.
    pub batch: usize,
    /// Batches whose gradients are added in one step.
    #[serde(default = "defaults::one")]
    pub accumulate: usize,
    /// Tokens of a sequence.
    pub context: usize,
    /// Whether tokens attend only to their own document, where a sequence holds several.
    #[serde(default)]
    pub mask_documents: bool,
    /// Whether the backward pass finds all activations in memory or computes them again.
    #[serde(default)]
    pub activations: ActivationStorage,
    /// Whether a step minimizes the mean or the sum of the losses of its scored tokens.
    #[serde(default)]
    pub loss: LossReduction,
    /// Peak of the learning rate.
    pub learning_rate: f64,
    /// Steps of its linear rise from zero.
    pub warmup: u64,
    /// Its shape after the warm-up.
    #[serde(default = "defaults::schedule")]
    pub schedule: RateShape,
    /// Share of the run after which the rate falls or the second stage begins; the default of the
    /// schedule if absent.
    pub decay_from: Option<f64>,
    /// Peak of the second stage of `two-stage`; two thirds of the first if absent.
    pub second_learning_rate: Option<f64>,
    /// Decay of the matrices of linear layers, per step and unit of learning rate.
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: f64,
    /// Share of the run after which weights do not decay. If absent, 0.5 for `two-stage` and 1 for
    /// all others.
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
    /// Largest norm of the gradient of a step; a larger one is scaled down.
    #[serde(default = "defaults::clip")]
    pub clip: f64,
    /// Weight of the squared log-sum of the logits, which keeps logits small. It is in the gradient
    /// and not in the reported loss.
    #[serde(default)]
    pub z_loss: f64,
    /// Standard deviations above the mean of the last losses from which a batch is skipped; 0 skips
    /// none.
    #[serde(default)]
    pub skip_spikes: f64,
    /// Number of last losses that this compares with.
    #[serde(default = "defaults::spike_window")]
    pub spike_window: usize,
    /// Steps between evaluations on held-out text.
    #[serde(default = "defaults::every")]
    pub evaluate_every: u64,
    /// Steps between checkpoints.
    #[serde(default = "defaults::every")]
    pub checkpoint_every: u64,
    /// Number of newest checkpoints that are kept.
    #[serde(default = "defaults::keep_last")]
    pub keep_last: usize,
    /// Checkpoints of steps that are multiples of this number are kept too; 0 for none.
    #[serde(default)]
    pub keep_every: u64,
    /// Tokens of the sample that evaluations write; 0 for no sample.
    #[serde(default = "defaults::sample_tokens")]
    pub sample_tokens: usize,
    /// Seed of the weights and of the order of the data.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
}

impl Recipe {
    /// Whether the data contain conversations, which are packed into rows.
    pub fn has_conversations(&self) -> bool {
        let mut tasks = self.data.mix.iter().flat_map(|mix| mix.shares());
        self.data.chat.is_some() || tasks.any(|(task, _)| task.is_conversation())
    }

    /// Whether a chat template must be opened: the data contain conversations or later data will,
    /// and no checkpoint has a template.
    pub fn needs_template(&self) -> bool {
        let is_wanted = self.has_conversations() || self.data.template.is_some();
        is_wanted && self.model.from.is_none() && self.teacher.is_none()
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

    /// The resolved recipe as TOML, with every default.
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

    /// Where training rows begin. Generated documents are short and each starts a row; long texts
    /// continue from row to row.
    pub fn rows(&self) -> Rows {
        if self.data.mix.is_some() {
            Rows::Documents
        } else {
            Rows::Contiguous
        }
    }
}

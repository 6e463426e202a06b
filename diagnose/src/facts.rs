//! The facts about a model: shapes, sizes, trits, tokenizer and chat template.
//!
//! `sterna inspect --json` prints [`Facts`] as JSON, so the names and the order of the fields are
//! an interface.

mod text;

use std::path::Path;

use serde::{Serialize, Serializer};
use serde_json::Value;
use sterna_convert::{Gguf, GgufHints, Source};
use sterna_runtime::{ChatTemplate, KvCache, KvType, Tokenizer};
use sterna_ternary::config::Sliding;
use sterna_ternary::file::Values;
use sterna_ternary::layout::{self, EMBEDDING, HEAD, Role, Weight};
use sterna_ternary::{Config, PackedFile};

use crate::Result;
use crate::template::format_of;
use crate::trits::{self, TritCounts};

/// Checkpoints whose linear layers have more bytes than this are counted on request only.
const QUICK: u64 = 2 << 30;

/// The facts about a model. `None` means that the model does not have the thing, or that it was not
/// counted.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The file or folder.
    pub path: String,
    /// Bytes of all its tensors and files.
    pub bytes: u64,
    /// The name of the family.
    pub family: &'static str,
    /// The class of transformers.
    pub architecture: &'static str,
    /// The number of all weights.
    pub parameters: usize,
    /// The number of ternary weights; 0 for a baseline.
    pub ternary_weights: usize,
    /// The number of weights in linear layers.
    pub linear_weights: usize,
    /// How linear layers are stored. In a checkpoint, the first of them decides.
    pub packing: String,
    /// Bits per weight of the linear layers, scales included.
    pub bits_per_ternary_weight: f64,
    /// Bits per weight of the head.
    pub bits_per_head_weight: f64,
    /// The type to which inputs of linear layers are rounded.
    pub activations: &'static str,
    /// Bits per weight of the whole model.
    pub bits_per_parameter: f64,
    /// The type of the embedding.
    pub embedding: String,
    /// The type of the head.
    pub head: String,
    /// Whether the head and the embedding are the same matrix.
    pub tied: bool,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// The number of decoder layers.
    pub num_hidden_layers: usize,
    /// The number of heads of queries.
    pub num_attention_heads: usize,
    /// The number of heads of keys and values.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// The longest context in tokens.
    pub max_position_embeddings: usize,
    /// Base of the rotary positions.
    pub rope_theta: f64,
    /// The tokens that layers with a window see.
    pub sliding_window: Option<usize>,
    /// The number of layers with a window.
    pub windowed_layers: usize,
    /// Whether each linear layer has a norm before it.
    pub norms_before_linear_layers: bool,
    /// The activation function.
    pub hidden_act: &'static str,
    /// Names of the other files of the model.
    pub files: Vec<String>,
    /// The tokenizer.
    pub tokenizer: Option<TokenizerFacts>,
    /// The chat template.
    pub chat_template: Option<TemplateFacts>,
    /// The tokens that end a text.
    pub eos: Option<Vec<EndOfText>>,
    /// The number of linear layers of a baseline in each type.
    #[serde(serialize_with = "as_map")]
    pub linear_types: Option<Vec<(&'static str, usize)>>,
    /// The share of trits that are zero.
    pub zeros: Option<f64>,
    /// The trits of each decoder layer.
    pub layers: Option<Vec<LayerFacts>>,
    /// The trits of each matrix.
    pub matrices: Option<Vec<MatrixFacts>>,
    /// The memory that a packed file needs.
    pub memory: Option<MemoryFacts>,
    /// What looks wrong, in words.
    pub remarks: Vec<String>,
}

/// The facts about a tokenizer.
#[derive(Debug, Clone, Serialize)]
pub struct TokenizerFacts {
    /// The type of the model in tokenizer.json.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The number of tokens.
    pub tokens: Option<usize>,
    /// The name of the rule that splits text, if it is a known one.
    pub split_rule: Option<&'static str>,
    /// The rule that a GGUF file names.
    #[serde(rename = "tokenizer.ggml.pre")]
    pub pre: Option<String>,
    /// Why the tokenizer cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The facts about a chat template.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum TemplateFacts {
    /// The template can be used.
    Known {
        /// The format that it renders.
        format: String,
        /// Its first line that is not empty.
        first_line: Option<String>,
    },
    /// The template cannot be used.
    Broken {
        /// Why not.
        error: String,
    },
}

/// A token that ends a text.
#[derive(Debug, Clone, Serialize)]
pub struct EndOfText {
    /// Its id.
    pub id: u32,
    /// Its name, if the tokenizer has it.
    pub token: Option<String>,
}

/// The trits of a decoder layer.
#[derive(Debug, Clone, Serialize)]
pub struct LayerFacts {
    /// The number of the layer, from 0.
    pub layer: usize,
    /// The share of trits that are zero.
    pub zeros: f64,
    /// The least mean scale of a matrix.
    pub least_scale: f32,
    /// The largest mean scale of a matrix.
    pub largest_scale: f32,
}

/// The trits of a matrix.
#[derive(Debug, Clone, Serialize)]
pub struct MatrixFacts {
    /// The name of the tensor.
    pub name: String,
    /// Rows, the width of the output.
    pub rows: usize,
    /// Columns, the width of the input.
    pub columns: usize,
    /// The scale, or the mean of several.
    pub scale: f32,
    /// The number of scales.
    pub scales: usize,
    /// The number of trits that are -1.
    pub minus: u64,
    /// The number of trits that are 0.
    pub zero: u64,
    /// The number of trits that are +1.
    pub plus: u64,
    /// The number of rows in which every trit is zero.
    pub zero_rows: u64,
}

/// Bytes that generation needs.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryFacts {
    /// Tokens of context.
    pub context: usize,
    /// Bytes of the packed file.
    pub weights: usize,
    /// Bytes of keys and values in each type.
    pub cache: CacheFacts,
}

/// Bytes of keys and values in each type.
#[derive(Debug, Clone, Serialize)]
pub struct CacheFacts {
    /// In f32.
    pub f32: usize,
    /// In f16.
    pub f16: usize,
    /// In 8 bits.
    pub q8: usize,
}

/// Writes pairs as a map, in their order.
fn as_map<S: Serializer>(
    pairs: &Option<Vec<(&'static str, usize)>>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match pairs {
        Some(pairs) => serializer.collect_map(pairs.iter().copied()),
        None => serializer.serialize_none(),
    }
}

/// Collects the facts. With `verify` every byte is read, and damage is an error instead of a
/// remark. `context` is the number of tokens for which the memory is computed; `None` means the
/// model's own limit.
pub fn of(path: &Path, source: &dyn Source, verify: bool, context: Option<usize>) -> Result<Facts> {
    let packed = match path.is_file() && !sterna_convert::is_gguf(path)? {
        true => Some(PackedFile::open(path)?),
        false => None,
    };
    let packed = packed.as_ref();
    let c = source.config();
    let weights = layout::weights(c);
    let linear = trits::linear(c);
    let size = |weights: &[Weight]| weights.iter().map(|w| w.rows * w.columns).sum::<usize>();
    let bits = |bytes: u64, values: usize| 8.0 * bytes as f64 / values as f64;
    let windowed = |sliding: &Sliding| sliding.layers.iter().filter(|is| **is).count();
    let (parameters, linear_weights) = (size(&weights), size(&linear));
    let linear_bytes: u64 = linear.iter().map(|w| source.stored_bytes(w)).sum();
    let head = table(
        &weights,
        if c.tie_word_embeddings {
            EMBEDDING
        } else {
            HEAD
        },
    );

    let mut remarks = Vec::new();
    if let Some(file) = packed.filter(|_| verify) {
        file.verify()?;
    }
    // Trits, if there are any and they are quickly counted.
    let counts = match packed {
        _ if source.is_dense() => None,
        Some(file) => Some(trits::of_file(file)?),
        None if verify || linear_bytes <= QUICK => Some(count(source, verify, &mut remarks)?),
        None => None,
    };
    remark_on_counts(counts.as_deref().unwrap_or_default(), &mut remarks);
    remark_on_values(source, &mut remarks);
    let (tokenizer, eos) = tokenizer(path, source);
    let dense_file = packed.filter(|_| source.is_dense());
    Ok(Facts {
        path: path.display().to_string(),
        bytes: source.bytes(),
        family: c.family.name,
        architecture: c.family.architecture,
        parameters,
        ternary_weights: if source.is_dense() { 0 } else { linear_weights },
        linear_weights,
        packing: packing(path, source, packed)?,
        bits_per_ternary_weight: bits(linear_bytes, linear_weights),
        bits_per_head_weight: bits(source.stored_bytes(head), head.rows * head.columns),
        activations: source.inputs_rounded_to(),
        bits_per_parameter: bits(source.bytes(), parameters),
        embedding: match packed {
            Some(file) => type_name(&file.embedding().values).to_owned(),
            None => dtype_name(source, table(&weights, EMBEDDING)),
        },
        head: match packed {
            Some(file) => type_name(&file.head().values).to_owned(),
            None => dtype_name(source, head),
        },
        tied: c.tie_word_embeddings,
        hidden_size: c.hidden_size,
        intermediate_size: c.intermediate_size,
        num_hidden_layers: c.num_hidden_layers,
        num_attention_heads: c.num_attention_heads,
        num_key_value_heads: c.num_key_value_heads,
        head_dim: c.head_dim,
        vocab_size: c.vocab_size,
        max_position_embeddings: c.max_position_embeddings,
        rope_theta: c.rope.theta,
        sliding_window: c.sliding.as_ref().map(|s| s.window),
        windowed_layers: c.sliding.as_ref().map_or(0, windowed),
        norms_before_linear_layers: c.linear_norm_eps.is_some(),
        hidden_act: c.family.activation.name(),
        files: source
            .files()
            .iter()
            .map(|(name, _)| name.clone())
            .collect(),
        tokenizer,
        chat_template: template(source),
        eos,
        linear_types: dense_file.map(linear_types),
        zeros: counts.as_deref().map(zeros),
        layers: counts.as_deref().map(|counts| layers(c, counts)),
        matrices: counts.map(|counts| counts.into_iter().map(MatrixFacts::from).collect()),
        memory: packed.map(|file| memory(file, context)),
        remarks,
    })
}

fn table<'a>(weights: &'a [Weight], name: &str) -> &'a Weight {
    let found = weights.iter().find(|w| w.name == name);
    found.expect("every model has an embedding, and a head unless it is tied")
}

/// The number of linear layers of a baseline in each type, in the order of their first layers.
fn linear_types(file: &PackedFile) -> Vec<(&'static str, usize)> {
    let mut types: Vec<(&'static str, usize)> = Vec::new();
    for weight in trits::linear(&file.config) {
        let name = file.dense(&weight.name).values.name();
        match types.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => types.push((name, 1)),
        }
    }
    types
}

/// How the weights of linear layers are stored. In a checkpoint the first of them decides.
fn packing(path: &Path, source: &dyn Source, packed: Option<&PackedFile>) -> Result<String> {
    use sterna_convert::StoredScale::{Divide, Masters, Multiply, Products};
    let Some(first) = trits::linear(source.config()).into_iter().next() else {
        return Ok("none".to_owned());
    };
    if let Some(file) = packed {
        return Ok(file.packing.name().to_owned());
    }
    if path.is_file() {
        let gguf = Gguf::open(path, &GgufHints::default(), true)?;
        return Ok(format!("GGUF, {}", gguf.type_name(&first)));
    }
    let name = match source.linear(&first)?.stored {
        Masters => "masters",
        Products(_) => "products of trits and scales",
        Multiply(_) => "2 bits, scales to multiply by",
        Divide(_) => "2 bits, scales to divide by",
    };
    Ok(name.to_owned())
}

fn count(
    source: &dyn Source,
    verify: bool,
    remarks: &mut Vec<String>,
) -> sterna_convert::Result<Vec<TritCounts>> {
    let mut counts = Vec::new();
    for weight in trits::linear(source.config()) {
        match trits::of_layer(source, weight) {
            Ok(count) => counts.push(count),
            Err(error) if verify => return Err(error),
            Err(error) => remarks.push(error.to_string()),
        }
    }
    Ok(counts)
}

/// Remarks on matrices and rows of zeros, and on scales that are not finite.
fn remark_on_counts(counts: &[TritCounts], remarks: &mut Vec<String>) {
    for c in counts {
        let name = &c.weight.name;
        if c.zero == c.all() {
            remarks.push(format!("{name}: every weight is zero"));
        } else if c.zero_rows > 0 {
            remarks.push(format!(
                "{name}: {} rows of {} are zero",
                c.zero_rows, c.weight.rows
            ));
        }
        if !c.scale.is_finite() {
            remarks.push(format!("{name}: the scale is {}", c.scale));
        }
    }
}

/// Zeros and scales of each decoder layer.
fn layers(config: &Config, counts: &[TritCounts]) -> Vec<LayerFacts> {
    let of_layer = |layer: usize| {
        let prefix = format!("model.layers.{layer}.");
        let own = counts.iter().filter(|c| c.weight.name.starts_with(&prefix));
        let own: Vec<TritCounts> = own.cloned().collect();
        let scales = own.iter().map(|c| c.scale);
        LayerFacts {
            layer,
            zeros: zeros(&own),
            least_scale: scales.clone().fold(f32::INFINITY, f32::min),
            largest_scale: scales.fold(0f32, f32::max),
        }
    };
    (0..config.num_hidden_layers).map(of_layer).collect()
}

fn zeros(counts: &[TritCounts]) -> f64 {
    let sum = |f: fn(&TritCounts) -> u64| counts.iter().map(f).sum::<u64>() as f64;
    sum(|c| c.zero) / sum(TritCounts::all)
}

impl From<TritCounts> for MatrixFacts {
    fn from(counts: TritCounts) -> MatrixFacts {
        MatrixFacts {
            name: counts.weight.name,
            rows: counts.weight.rows,
            columns: counts.weight.columns,
            scale: counts.scale,
            scales: counts.scales,
            minus: counts.minus,
            zero: counts.zero,
            plus: counts.plus,
            zero_rows: counts.zero_rows,
        }
    }
}

/// Remarks on norms and tables of zeros, or with NaN or infinities.
fn remark_on_values(source: &dyn Source, remarks: &mut Vec<String>) {
    for weight in layout::weights(source.config()) {
        let is_zero = match weight.role {
            Role::Linear => continue,
            Role::Norm => source.vector(&weight).map(|v| v.iter().all(|x| *x == 0.0)),
            Role::Table => is_zero_table(source, &weight),
        };
        match is_zero {
            Ok(true) => remarks.push(format!("{}: every value is zero", weight.name)),
            Ok(false) => {}
            Err(error) => remarks.push(error.to_string()),
        }
    }
}

/// Whether every value is zero. Reads the whole table, because readers refuse values that are not
/// finite.
fn is_zero_table(source: &dyn Source, weight: &Weight) -> sterna_convert::Result<bool> {
    let rows = ((1 << 22) / weight.columns).clamp(1, weight.rows);
    let mut values = vec![0.0; rows * weight.columns];
    let mut is_zero = true;
    for first in (0..weight.rows).step_by(rows) {
        let count = rows.min(weight.rows - first);
        let part = &mut values[..count * weight.columns];
        source.rows(weight, first, part)?;
        is_zero &= part.iter().all(|x| *x == 0.0);
    }
    Ok(is_zero)
}

fn dtype_name(source: &dyn Source, weight: &Weight) -> String {
    source.dtype(weight).name().to_lowercase()
}

fn type_name(values: &Values) -> &'static str {
    match values {
        Values::F32(_) => "f32",
        Values::F16(_) => "f16",
        Values::Bf16(_) => "bf16",
        Values::Trits(_) => "ternary",
        Values::Codes(codes) => ["q4", "q6", "q8"][codes.planes - 1],
        Values::Planes(planes) => planes.table_type().name(),
    }
}

fn file<'a>(source: &'a dyn Source, name: &str) -> Option<&'a [u8]> {
    let found = source.files().iter().find(|(n, _)| n == name);
    found.map(|(_, bytes)| bytes.as_slice())
}

/// The tokenizer, and the tokens that end a text if it can be used.
fn tokenizer(path: &Path, source: &dyn Source) -> (Option<TokenizerFacts>, Option<Vec<EndOfText>>) {
    let Some(bytes) = file(source, "tokenizer.json") else {
        return (None, None);
    };
    let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let mut facts = TokenizerFacts {
        kind: json["model"]["type"].as_str().map(str::to_owned),
        tokens: None,
        split_rule: sterna_convert::split_rule(&json["pre_tokenizer"]),
        pre: pre(path),
        error: None,
    };
    match Tokenizer::of_files(source.config(), |name| file(source, name)) {
        Err(error) => {
            facts.error = Some(error.to_string());
            (Some(facts), None)
        }
        Ok(tokenizer) => {
            facts.tokens = Some(tokenizer.len());
            let name = |id| tokenizer.token(id).map(|(name, _)| name);
            let ends = tokenizer.eos().iter().map(|id| EndOfText {
                id: *id,
                token: name(*id),
            });
            (Some(facts), Some(ends.collect()))
        }
    }
}

/// The value of `tokenizer.ggml.pre`, if the model is a GGUF file.
fn pre(path: &Path) -> Option<String> {
    let is_gguf = path.is_file() && sterna_convert::is_gguf(path).unwrap_or(false);
    let gguf = is_gguf.then(|| Gguf::open(path, &GgufHints::default(), true).ok())??;
    gguf.text("tokenizer.ggml.pre").map(str::to_owned)
}

fn template(source: &dyn Source) -> Option<TemplateFacts> {
    let template = ChatTemplate::of_files(|name| file(source, name));
    match template.and_then(|template| template.trial().map(|()| template)) {
        Ok(template) => {
            let mut lines = template.original().lines().map(str::trim);
            Some(TemplateFacts::Known {
                format: format_of(template.original()),
                first_line: lines.find(|line| !line.is_empty()).map(str::to_owned),
            })
        }
        Err(sterna_runtime::Error::NoChatTemplate) => None,
        Err(error) => Some(TemplateFacts::Broken {
            error: error.to_string(),
        }),
    }
}

/// Bytes that generation needs with `context` tokens: the weights of the packed file, and the cache
/// in each of its types.
fn memory(file: &PackedFile, context: Option<usize>) -> MemoryFacts {
    let context = context.unwrap_or(file.config.max_position_embeddings);
    let cache = |kv_type| KvCache::bytes_for(&file.config, kv_type, context);
    MemoryFacts {
        context,
        weights: file.len(),
        cache: CacheFacts {
            f32: cache(KvType::F32),
            f16: cache(KvType::F16),
            q8: cache(KvType::Q8),
        },
    }
}

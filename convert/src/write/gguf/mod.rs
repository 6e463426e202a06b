//! Writer of GGUF files. bitnet.cpp reads I2_S; ik_llama.cpp computes with IQ2_BN (it only
//! requantizes I2_S); llama.cpp and programs based on it read TQ1_0, TQ2_0 and Q2_0.
//!
//! All sizes are known before the first weight, so the header is written first and the tensors
//! follow one at a time. A value that a type cannot represent is refused: see `check_width` and
//! `held`.

mod held;
mod pairs;
mod tokens;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use sterna_ternary::layout::{self, HEAD, Role, Weight};
use sterna_ternary::rope::{RopeScaling, yarn_attention_factor};
use sterna_ternary::{Config, Family, Output, durable};

use self::held::{Held, HeldScales};
use self::pairs::{Pairs, Planned, header};
use crate::gguf::names::{self, Architecture};
use crate::gguf::types::{self, ScaleAt, Size, TAIL, Type};
use crate::gguf::{CONFIG, FILE_KEYS, GgufHints, floats, q6_k};
use crate::progress::ProgressCounter;
use crate::proof::{self, proven};
use crate::read::gguf::container::DEFAULT_ALIGNMENT;
use crate::read::gguf::{Gguf, config};
use crate::report::coarser;
use crate::write::table::{self, Choice, TablePlan};
use crate::{ConversionReport, Error, HeadType, MatrixReport, Result, Source, ValueType, parallel};

/// Type of the linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// Two bits per weight, one f32 scale per matrix.
    I2S,
    /// 1.69 bits per weight, including an f16 scale per 256 weights.
    Tq1_0,
    /// 2.06 bits per weight, including an f16 scale per 256 weights.
    Tq2_0,
    /// 2.25 bits per weight, including an f16 scale per 64 weights.
    Q2_0,
    /// 2.13 bits per weight, including an f16 scale per 128 weights: the older layout of Q2_0.
    Q2_0G128,
    /// Two bits per weight, one f32 scale per row.
    Iq2Bn,
}

impl GgufType {
    /// All types.
    pub const ALL: [GgufType; 6] = [
        GgufType::I2S,
        GgufType::Tq1_0,
        GgufType::Tq2_0,
        GgufType::Q2_0,
        GgufType::Q2_0G128,
        GgufType::Iq2Bn,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Layout, name and `general.file_type`.
    fn row(self) -> (&'static Type, &'static str, u32) {
        match self {
            GgufType::I2S => (&types::I2_S, "i2_s", 40),
            GgufType::Tq1_0 => (&types::TQ1_0, "tq1_0", 36),
            GgufType::Tq2_0 => (&types::TQ2_0, "tq2_0", 37),
            GgufType::Q2_0 => (&types::Q2_0, "q2_0", 41),
            GgufType::Q2_0G128 => (&types::Q2_0_G128, "q2_0_g128", 41),
            GgufType::Iq2Bn => (&types::IQ2_BN, "iq2_bn", 137),
        }
    }
}

/// Options of a conversion to GGUF.
#[derive(Debug, Clone)]
pub struct GgufOptions {
    /// Type of the linear layers.
    pub weights: GgufType,
    /// Type of the head: lossless, f16, q8 or q6 (Q6_K). In a tied model it is also the type of the
    /// embedding.
    pub head: HeadType,
    /// The name in llama.cpp of the tokenizer's split rule, if it cannot be recognized.
    pub pre: Option<String>,
    /// Whether scales that the type cannot represent are changed instead of refused.
    pub lossy: bool,
    /// Whether a missing tokenizer or generation config is a warning instead of an error.
    pub allow_missing: bool,
}

pub(crate) fn write(
    source: &dyn Source,
    out: &Output,
    options: &GgufOptions,
    show: &mut dyn FnMut(u64, u64),
) -> Result<ConversionReport> {
    let weights = layout::weights(source.config());
    let (kind, name, file_type) = options.weights.row();
    let mut progress = ProgressCounter::new(crate::progress::total(&weights), show);
    // Refuse what the type cannot hold before anything is read.
    for weight in weights.iter().filter(|w| w.role == Role::Linear) {
        check_width(source, weight, kind)?;
        progress.add(weight.rows * weight.columns);
    }
    let tables = weights.iter().filter(|w| w.role == Role::Table);
    let plans = tables
        .map(|w| plan(source, w, options.head, &mut |n| progress.add(n)))
        .collect::<Result<Vec<TablePlan>>>()?;
    // The header: pairs of metadata, then the tensors with their types and sizes.
    let mut pairs = metadata(source, file_type)?;
    tokens::write(&mut pairs, source, options.pre.as_deref())?;
    let mut planned = Vec::new();
    let factors = config::rope_factors(source.config());
    if let Some(factors) = &factors {
        planned.push(vector(names::ROPE_FACTORS, factors.len()));
    }
    let family = source.config().family;
    planned.extend(weights.iter().map(|w| plan_tensor(family, w, kind, &plans)));

    // The source as this type holds it, for the proof: some types round scales.
    let held = Held { source, kind };
    let ((proof, written), bytes_out, sha256) = proven(out, |unproven| {
        let mut matrices = Vec::new();
        let mut rounding = 0f64;
        let path = out.path();
        let wrap = |e| Error::io(path)(e);
        durable::fill(unproven, wrap, |file| {
            let mut writer = Writer {
                path,
                file,
                planned: planned.iter(),
            };
            writer.all(&header(&pairs, &planned), factors.as_deref(), |writer| {
                for weight in &weights {
                    let report = writer.tensor(&held, weight, &plans, options.lossy)?;
                    if let Some((report, error)) = report {
                        matrices.push(report);
                        rounding = rounding.max(error);
                    }
                    progress.add(weight.rows * weight.columns);
                }
                Ok(())
            })
        })?;
        // Read the file back as any reader would, and compare it with what was to be written.
        let result = Gguf::open(unproven, &GgufHints::default(), true)?;
        let scales = ValueType::F32;
        let proof = proof::prove(&held, &result, source.files(), path, scales, &mut progress)?;
        Ok((proof, (matrices, rounding)))
    })?;
    let (matrices, rounding) = written;
    let mut report = ConversionReport::new(name, source, &proof, &plans, matrices);
    report.scale_rounding = rounding;
    report.bytes_out = bytes_out;
    report.sha256 = sha256;
    report
        .warnings
        .extend(warnings(source.config(), options.weights));
    report
        .warnings
        .extend(coarser(source, "every program that reads GGUF"));
    Ok(report)
}

/// ik_llama.cpp quantizes the inputs of IQ2_BN in parts of this many columns or more, and aborts on
/// narrower matrices.
const LEAST_IQ2_BN: usize = 512;

/// Warnings about known problems of other programs with this model and type.
fn warnings(config: &Config, weights: GgufType) -> Vec<String> {
    let mut warnings = Vec::new();
    let all = layout::weights(config);
    let linear = all.iter().filter(|w| w.role == Role::Linear);
    let narrowest = linear
        .min_by_key(|w| w.columns)
        .expect("a model has layers");
    if weights == GgufType::Iq2Bn && narrowest.columns < LEAST_IQ2_BN {
        warnings.push(format!(
            "ik_llama.cpp aborts on iq2_bn matrices with fewer than {LEAST_IQ2_BN} columns, and {} \
             has {}. For llama.cpp write tq1_0, tq2_0 or q2_0, for bitnet.cpp i2_s",
            narrowest.name, narrowest.columns
        ));
    }
    let architecture = Architecture::of(config).map_or("", |a| a.name);
    if weights == GgufType::I2S {
        warnings.extend(match architecture {
            name if name.starts_with("bitnet") => Some(
                "ik_llama.cpp opens i2_s files of this family but has no product for i2_s: its \
                 output is wrong, without an error. bitnet.cpp computes them; for ik_llama.cpp \
                 write iq2_bn"
                    .into(),
            ),
            "llama" | "qwen3" => Some(
                "ik_llama.cpp aborts on i2_s files of this family, as it has no product for i2_s. \
                 For ik_llama.cpp write iq2_bn"
                    .into(),
            ),
            _ => None,
        });
    }
    if config.family.name != "bitnet" {
        return warnings;
    }
    if ![GgufType::I2S, GgufType::Iq2Bn].contains(&weights) {
        warnings.push(
            "llama.cpp does not support this family: its architecture `bitnet` has another \
             activation. The file says bitnet-b1.58, so that programs without support refuse it. \
             i2_s runs in bitnet.cpp, iq2_bn in ik_llama.cpp"
                .into(),
        );
    }
    if weights != GgufType::Iq2Bn && !config.tie_word_embeddings {
        warnings.push(
            "bitnet.cpp uses the embedding as the head in this family, but this model has a \
             separate head: its output there is wrong. ik_llama.cpp supports it: write iq2_bn"
                .into(),
        );
    }
    warnings
}

/// Requires a width of whole blocks, because padding would change the shape of the model.
fn check_width(source: &dyn Source, weight: &Weight, kind: &Type) -> Result<()> {
    let block = match kind.size {
        Size::Blocks { weights, .. } | Size::Matrix { weights } => weights,
        Size::Rows { .. } => 64,
        Size::Triples => unreachable!("only read"),
    };
    if weight.columns.is_multiple_of(block) {
        return Ok(());
    }
    Err(Error::Tensor {
        path: source.path().to_owned(),
        tensor: weight.name.clone(),
        expected: format!(
            "a width that is a multiple of {block}, the block of {}",
            kind.name
        ),
        found: weight.columns.to_string(),
        advice: "i2_s and q2_0_g128 take multiples of 128, q2_0 and iq2_bn of 64, tq1_0 \
                 and tq2_0 of 256; Sterna's packed file takes any width",
    })
}

/// Plans the tensors. Embedding and head are f16 unless another type is requested.
fn plan(
    source: &dyn Source,
    weight: &Weight,
    head: HeadType,
    advance: &mut dyn FnMut(usize),
) -> Result<TablePlan> {
    let is_head = weight.name == HEAD || source.config().tie_word_embeddings;
    let choice = match head {
        HeadType::Lossless => Choice::Lossless,
        HeadType::F16 | HeadType::Auto => Choice::As(ValueType::F16),
        HeadType::Q8 | HeadType::Q6 if !is_head => Choice::Lossless,
        HeadType::Q8 if weight.columns.is_multiple_of(32) => Choice::As(ValueType::Q8_0),
        HeadType::Q6 if weight.columns.is_multiple_of(q6_k::BLOCK) => Choice::As(ValueType::Q6K),
        HeadType::Q8 | HeadType::Q6 | HeadType::Q4 | HeadType::Ternary => {
            return Err(Error::Tensor {
                path: source.path().to_owned(),
                tensor: weight.name.clone(),
                expected: "a head of lossless, f16, q8 with a width that is a multiple of 32, or \
                           q6 with a multiple of 256"
                    .into(),
                found: format!("{} for {} columns", head.name(), weight.columns),
                advice: "choose another type of the head (--head q8, --head f16)",
            });
        }
    };
    table::plan(source, weight, choice, advance)
}

fn metadata(source: &dyn Source, file_type: u32) -> Result<Pairs> {
    let config = source.config();
    let error = |what: &str| Error::Config {
        path: source.path().to_owned(),
        source: sterna_ternary::Error::Unsupported {
            what: what.into(),
            hint: "; write a packed file".into(),
        },
    };
    let no_name = || error("a family without a GGUF architecture");
    let architecture = Architecture::of(config).ok_or_else(no_name)?;
    let not_said = not_said(config, architecture);
    if let Some(what) = not_said {
        return Err(error(what));
    }
    let mut pairs = Pairs::default();
    pairs.text("general.architecture", architecture.name);
    pairs.text("general.type", "model");
    if let Some(name) = source.path().file_stem().and_then(|name| name.to_str()) {
        pairs.text("general.name", name);
    }
    pairs.number("general.file_type", file_type);
    pairs.number("general.quantization_version", 2);
    // Shapes.
    let key = |name: &str| format!("{}.{name}", architecture.name);
    let mut size = |name: &str, n: usize| pairs.number(&key(name), n as u32);
    size("vocab_size", config.vocab_size);
    size("context_length", config.max_position_embeddings);
    size("embedding_length", config.hidden_size);
    size("block_count", config.num_hidden_layers);
    size("feed_forward_length", config.intermediate_size);
    size("attention.head_count", config.num_attention_heads);
    size("attention.head_count_kv", config.num_key_value_heads);
    if config.head_dim * config.num_attention_heads != config.hidden_size {
        size("attention.key_length", config.head_dim);
        size("attention.value_length", config.head_dim);
    }
    size("rope.dimension_count", config.head_dim);
    // Norms and positions.
    let epsilon = key("attention.layer_norm_rms_epsilon");
    pairs.float(&epsilon, config.rms_norm_eps);
    pairs.float(&key("rope.freq_base"), config.rope.theta as f32);
    if let Some(sliding) = &config.sliding {
        let pattern = pattern(&sliding.layers).expect("files without one are refused");
        pairs.number(&key("attention.sliding_window"), sliding.window as u32);
        if pattern != config::USUAL_PATTERN {
            pairs.number(&key("attention.sliding_window_pattern"), pattern as u32);
        }
        if sliding.rope.theta != config::USUAL_LOCAL_THETA {
            pairs.float(&key("rope.freq_base_swa"), sliding.rope.theta as f32);
        }
    }
    // Scaling of positions. A value that readers would ignore is refused.
    match config.rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => {
            pairs.text(&key("rope.scaling.type"), "linear");
            pairs.float(&key("rope.scaling.factor"), factor as f32);
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor,
            original_max_position_embeddings: original,
        } => {
            let usual = (32.0, 1.0, yarn_attention_factor(factor));
            if (beta_fast, beta_slow, attention_factor) != usual {
                return Err(error("a yarn rope scaling with unusual constants"));
            }
            pairs.text(&key("rope.scaling.type"), "yarn");
            pairs.float(&key("rope.scaling.factor"), factor as f32);
            let key = key("rope.scaling.original_context_length");
            pairs.number(&key, original as u32);
        }
        RopeScaling::Llama3 { .. } if architecture.name == "qwen3" => {
            return Err(error("the rope scaling of Llama 3 in a Qwen 3 model"));
        }
        RopeScaling::Llama3 { .. } => {} // in a tensor
    }
    // The files of the checkpoint, embedded under keys of Sterna, so that it converts back exactly.
    for (name, key) in FILE_KEYS {
        let file = source.files().iter().find(|(n, _)| n == name);
        let text = match file {
            Some((_, bytes)) => std::str::from_utf8(bytes).map(Some),
            None => Ok(None),
        };
        let text = text.map_err(|e| Error::File {
            path: source.path().join(name),
            why: format!("it is not UTF-8 ({e})"),
        })?;
        match text {
            Some(text) => pairs.text(key, text),
            None if key == CONFIG => pairs.text(key, &config.to_json().to_string()),
            None => {}
        }
    }
    Ok(pairs)
}

/// A property of the model that a file of this architecture cannot express.
fn not_said(config: &Config, architecture: &Architecture) -> Option<&'static str> {
    let scalar = config::query_pre_attn_scalar(
        config.num_hidden_layers as u64,
        config.hidden_size as u64,
        config.num_attention_heads as u64,
        config.head_dim as u64,
    );
    let has_pattern = |layers: &[bool]| pattern(layers).is_some();
    match config.linear_norm_eps {
        Some(_) if !architecture.linear_norms => Some("norms before linear layers"),
        Some(eps) if eps != config.rms_norm_eps => {
            Some("norms before linear layers with a different epsilon")
        }
        _ if config.family.query_pre_attn_scalar
            && config.query_pre_attn_scalar != scalar as f32 =>
        {
            Some("a `query_pre_attn_scalar` other than the usual one")
        }
        _ if config
            .sliding
            .as_ref()
            .is_some_and(|s| !has_pattern(&s.layers)) =>
        {
            Some("layers with a sliding window in an irregular order")
        }
        _ => None,
    }
}

/// The distance between layers without a window, if it is constant.
fn pattern(layers: &[bool]) -> Option<usize> {
    let is_it = |n: &usize| {
        (1..)
            .zip(layers)
            .all(|(i, s): (usize, _)| *s != i.is_multiple_of(*n))
    };
    (1..=layers.len() + 1).find(is_it)
}

fn vector(name: &str, len: usize) -> Planned {
    Planned {
        name: name.into(),
        dimensions: vec![len as u64],
        type_id: types::F32.id,
        bytes: 4 * len as u64,
    }
}

fn plan_tensor(family: &Family, weight: &Weight, kind: &Type, plans: &[TablePlan]) -> Planned {
    let name = names::of(family, &weight.name);
    let (columns, elements) = (weight.columns as u64, (weight.rows * weight.columns) as u64);
    let (type_id, bytes) = match weight.role {
        Role::Norm => return vector(&name, weight.columns),
        Role::Table => {
            let (kind, _) = table_type(plans, weight);
            let unit = kind.unit(weight.columns);
            (kind.id, elements / unit.weights as u64 * unit.bytes as u64)
        }
        Role::Linear => {
            let unit = kind.unit(weight.columns);
            let codes = elements / unit.weights as u64 * unit.bytes as u64;
            let is_matrix = kind.scale == ScaleAt::MatrixF32;
            (kind.id, codes + if is_matrix { TAIL as u64 } else { 0 })
        }
    };
    Planned {
        name,
        dimensions: vec![columns, weight.rows as u64],
        type_id,
        bytes,
    }
}

fn table_type(plans: &[TablePlan], weight: &Weight) -> (&'static Type, ValueType) {
    let plan = plans.iter().find(|p| p.name == weight.name);
    let precision = plan.expect("every table has a plan").precision;
    let kind = match precision {
        ValueType::F32 => &types::F32,
        ValueType::F16 => &types::F16,
        ValueType::Bf16 => &types::BF16,
        ValueType::Q8_0 => &types::Q8_0,
        ValueType::Q6K => &types::Q6_K,
        ValueType::Q4_0 | ValueType::Coded(_) | ValueType::Other(_) => {
            unreachable!("no table is planned so")
        }
    };
    (kind, precision)
}

/// Writes tensors in the planned order, each with its padding.
struct Writer<'a> {
    path: &'a Path,
    file: &'a mut BufWriter<File>,
    planned: std::slice::Iter<'a, Planned>,
}

/// Number of bytes made at once.
const CHUNK: usize = 1 << 22;

impl Writer<'_> {
    fn all(
        &mut self,
        header: &[u8],
        factors: Option<&[f32]>,
        tensors: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.put(header)?;
        if let Some(factors) = factors {
            let bytes: Vec<u8> = factors.iter().flat_map(|x| x.to_le_bytes()).collect();
            self.put(&bytes)?;
            self.end()?;
        }
        tensors(self)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(self.path))
    }

    /// Pads the tensor that was just written.
    fn end(&mut self) -> Result<()> {
        let bytes = self.planned.next().expect("every tensor is planned").bytes;
        let padding = bytes.next_multiple_of(DEFAULT_ALIGNMENT) - bytes;
        self.put(&[0; DEFAULT_ALIGNMENT as usize][..padding as usize])
    }

    fn tensor(
        &mut self,
        held: &Held,
        weight: &Weight,
        plans: &[TablePlan],
        lossy: bool,
    ) -> Result<Option<(MatrixReport, f64)>> {
        let Held { source, kind } = *held;
        let mut report = None;
        match weight.role {
            Role::Norm => {
                let values = source.vector(weight)?;
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                self.put(&bytes)?;
            }
            Role::Table => {
                let (_, precision) = table_type(plans, weight);
                let is_copied = precision.is_copied() && source.precision(weight) == precision;
                table::for_each_chunk(source, weight, |first, values| {
                    let rows = values.len() / weight.columns;
                    let copied = match is_copied {
                        true => source.blocks(weight, first, rows)?,
                        false => None,
                    };
                    self.put(&match copied {
                        Some(blocks) => blocks,
                        None => encode_table(precision, values)?,
                    })
                })?;
            }
            Role::Linear => {
                let mut ternary = source.linear(weight)?;
                let mut runs = HeldScales::of(&ternary, weight.columns, kind);
                runs.check(source, weight, kind, lossy)?;
                report = Some((MatrixReport::new(weight, &ternary), runs.error));
                let architecture = Architecture::of(source.config());
                let heads = names::rotated_heads(source.config(), &weight.name);
                if let Some(heads) = heads.filter(|_| architecture.is_some_and(|a| a.permuted)) {
                    ternary.trits = names::interleave(&ternary.trits, heads, weight.columns);
                    let a_row = runs.scales.len() / weight.rows;
                    if a_row > 0 {
                        runs.scales = names::interleave(&runs.scales, heads, a_row);
                    }
                }
                self.matrix(weight, kind, &ternary.trits, &runs.scales)?;
            }
        }
        self.end()?;
        Ok(report)
    }

    fn matrix(&mut self, weight: &Weight, kind: &Type, trits: &[i8], scales: &[f32]) -> Result<()> {
        let unit = kind.unit(weight.columns);
        let step = (CHUNK / unit.bytes).max(1);
        let mut bytes = Vec::new();
        for (i, trits) in trits.chunks(step * unit.weights).enumerate() {
            bytes.resize(trits.len() / unit.weights * unit.bytes, 0);
            parallel::rows(trits.len(), &mut bytes, unit.bytes, |first, bytes| {
                let trits = &trits[first * unit.weights..];
                let scales = &scales[(i * step + first) * unit.scales..];
                kind.encode(trits, weight.columns, scales, bytes);
                Ok(())
            })?;
            self.put(&bytes)?;
        }
        match kind.scale {
            ScaleAt::MatrixF32 => self.put(&types::matrix_tail(scales[0])),
            _ => Ok(()),
        }
    }
}

fn encode_table(precision: ValueType, values: &[f32]) -> Result<Vec<u8>> {
    match precision {
        ValueType::Q8_0 => encode_blocks(values, 32, 34, floats::encode_q8_0),
        ValueType::Q6K => encode_blocks(values, q6_k::BLOCK, q6_k::BYTES, q6_k::encode),
        _ => table::number_bytes(precision, values),
    }
}

/// Encodes blocks of `block` values, each in `size` bytes.
fn encode_blocks(
    values: &[f32],
    block: usize,
    size: usize,
    encode: fn(&[f32], &mut [u8]),
) -> Result<Vec<u8>> {
    let mut bytes = vec![0; values.len() / block * size];
    parallel::rows(values.len(), &mut bytes, size, |first, bytes| {
        encode(&values[first * block..], bytes);
        Ok(())
    })?;
    Ok(bytes)
}

//! A model that is ready to run: the mapped file, the places of its tensors, the kernels and the
//! threads.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use sterna_ternary::scales::{GROUP_COLUMNS, ScaleValues};
use sterna_ternary::{
    Config, Dense, Dtype, LinearType, Memory, PackedFile, Packing, Role, Scaling, TableType,
    layout, sha256, trits,
};

use crate::cache::{KvCache, KvType, PageCount};
use crate::chat::ChatTemplate;
use crate::generation_config::{GENERATION_CONFIG, GenerationConfig};
use crate::kernels::Kernels;
use crate::rotary::Frequencies;
use crate::sampler::Sampling;
use crate::state::State;
use crate::threads::Pool;
use crate::tokenizer::{self, Tokenizer};
use crate::{NUMERICS, Result};

/// How a model is run. Only the element type of the caches can change logits; the other choices
/// change the speed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Threads, the caller included; by default one per physical core.
    pub threads: Option<usize>,
    /// Inner loops; by default [`Kernels::best`].
    pub kernels: Option<&'static Kernels>,
    /// Element type of the KV caches.
    pub kv_type: KvType,
    /// How the file gets into memory: mapped, or copied onto huge pages.
    pub memory: Memory,
}

/// A model in memory: its file, used in place.
///
/// Several threads may share a model. Their forward passes run one after the other, each on all
/// threads.
#[derive(Debug)]
pub struct Model {
    pub(crate) file: PackedFile,
    pub(crate) weights: Weights,
    /// Rotary frequencies: for layers without a window, and for layers with one.
    pub(crate) frequencies: [Frequencies; 2],
    pub(crate) kernels: &'static Kernels,
    pub(crate) pool: Pool,
    pub(crate) state: Mutex<State>,
    kv_type: KvType,
    pages: PageCount,
}

/// Where the tensors are in [`PackedFile::data`], so that the forward pass looks up no names.
#[derive(Debug)]
pub(crate) struct Weights {
    pub layers: Vec<Layer>,
    pub norm: Vector, // (hidden)
    /// Whether any matrix of the layers has one scale per group of columns.
    pub has_groups: bool,
    /// The head (vocab_size, hidden), if it is ternary.
    pub head: Option<Linear>,
}

/// The tensors of one decoder layer. A norm that the family does not have is `None`.
#[derive(Debug)]
pub(crate) struct Layer {
    pub window: Option<usize>,          // positions that a token sees
    pub input_layernorm: Vector,        // (hidden)
    pub q_proj: Linear,                 // (heads · head_dim, hidden)
    pub k_proj: Linear,                 // (kv_heads · head_dim, hidden)
    pub v_proj: Linear,                 // (kv_heads · head_dim, hidden)
    pub q_norm: Option<Vector>,         // (head_dim)
    pub k_norm: Option<Vector>,         // (head_dim)
    pub attn_sub_norm: Option<Vector>,  // (heads · head_dim)
    pub o_proj: Linear,                 // (hidden, heads · head_dim)
    pub attn_post_norm: Option<Vector>, // (hidden)
    pub ffn_norm: Vector,               // (hidden)
    pub gate_proj: Linear,              // (intermediate, hidden)
    pub up_proj: Linear,                // (intermediate, hidden)
    pub ffn_sub_norm: Option<Vector>,   // (intermediate)
    pub down_proj: Linear,              // (hidden, intermediate)
    pub ffn_post_norm: Option<Vector>,  // (hidden)
}

/// A matrix; [`crate::linear`] says how it is applied.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// A norm of the input (columns).
    pub norm: Option<Vector>,
    /// Input features.
    pub columns: usize,
    /// Bytes of a row.
    pub row_bytes: usize,
    /// The rows.
    pub bytes: Range<usize>,
    /// Their format.
    pub rows: RowFormat,
}

/// The format of the rows of a matrix.
#[derive(Debug, Clone)]
pub(crate) enum RowFormat {
    /// Trits, with scales elsewhere.
    Ternary {
        /// How they are packed.
        packing: Packing,
        /// Which of them share a scale.
        scaling: Scaling,
        scales: Range<usize>,
        scales_dtype: Dtype,
    },
    /// Numbers of this type.
    Numbers(Dtype),
    /// Blocks of `q8_0`.
    Q8_0,
    /// Blocks of `q4_0`.
    Q4_0,
}

impl Linear {
    /// Number of scales per row; 0 unless the scales are per group.
    pub fn groups(&self) -> usize {
        match self.rows {
            RowFormat::Ternary {
                scaling: Scaling::Group,
                ..
            } => self.columns.div_ceil(GROUP_COLUMNS),
            _ => 0,
        }
    }
}

/// A norm's gain.
#[derive(Debug, Clone)]
pub(crate) struct Vector(Range<usize>);

impl Model {
    /// Maps and checks a packed file and starts the threads.
    ///
    /// # Errors
    /// Those of [`PackedFile::open`], and threads that cannot be started.
    pub fn open(path: &Path, options: Options) -> Result<Model> {
        Model::of_file(PackedFile::open_in(path, options.memory)?, options)
    }

    /// Starts the threads for a file that is open already, however it came into memory:
    /// `options.memory` has no effect.
    ///
    /// # Errors
    /// Threads that cannot be started. One thread, the caller, always can.
    pub fn of_file(file: PackedFile, options: Options) -> Result<Model> {
        Ok(Model {
            weights: Weights::of(&file),
            frequencies: Frequencies::of(&file.config),
            kernels: options.kernels.unwrap_or_else(Kernels::best),
            pool: Pool::new(options.threads)?,
            state: Mutex::new(State::default()),
            kv_type: options.kv_type,
            pages: PageCount::default(),
            file,
        })
    }

    /// [`Model::open`] and [`Model::tokenizer`] at the same time: a large vocabulary takes as long
    /// to read as the weights to copy.
    ///
    /// # Errors
    /// Those of both.
    pub fn open_with_tokenizer(path: &Path, options: Options) -> Result<(Model, Tokenizer)> {
        std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::open(&PackedFile::open(path)?));
            let model = Model::open(path, options);
            let tokenizer = tokenizer.join();
            let tokenizer = tokenizer.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok((model?, tokenizer?))
        })
    }

    /// Shape and constants.
    pub fn config(&self) -> &Config {
        &self.file.config
    }

    /// The packed file.
    pub fn file(&self) -> &PackedFile {
        &self.file
    }

    /// The table of inner loops in use.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// Threads of the forward pass, the caller included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The threads of the forward pass, for work on its results. While a forward pass of another
    /// thread runs, that work is done by its caller alone.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// An empty KV cache for `context` tokens.
    ///
    /// # Errors
    /// A context of zero or above `max_position_embeddings`.
    pub fn new_cache(&self, context: usize) -> Result<KvCache> {
        KvCache::new(self.config(), self.kv_type, context, &self.pages)
    }

    /// [`Model::new_cache`] for callers beside an engine, which bounds what [`Model::pages`] counts:
    /// the pages of this cache are not counted.
    ///
    /// # Errors
    /// Those of [`Model::new_cache`].
    pub fn new_uncounted_cache(&self, context: usize) -> Result<KvCache> {
        KvCache::new(self.config(), self.kv_type, context, &PageCount::default())
    }

    /// Element type of the KV caches.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Pages of memory in all KV caches, a shared one once; see [`KvCache::page_bytes`].
    pub fn pages(&self) -> usize {
        self.pages.get()
    }

    /// The tokenizer inside the file.
    ///
    /// # Errors
    /// Embedded files that are missing, malformed or do not fit the model.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::open(&self.file)
    }

    /// The chat template inside the file.
    ///
    /// # Errors
    /// [`crate::Error::NoChatTemplate`] and [`crate::Error::ChatTemplate`].
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        ChatTemplate::open(&self.file)
    }

    /// How generation_config.json inside the file says that tokens are chosen.
    ///
    /// # Errors
    /// A file that is malformed.
    pub fn generation_config(&self) -> Result<GenerationConfig> {
        let json = tokenizer::json(&|name| self.file.file(name), GENERATION_CONFIG)?;
        GenerationConfig::read(&json)
    }

    /// How tokens are chosen where a request does not say it: as the makers of the model say, or as
    /// OpenAI's API does where they say nothing.
    ///
    /// # Errors
    /// Those of [`Model::generation_config`].
    pub fn default_sampling(&self) -> Result<Sampling> {
        let said = ["do_sample", "temperature", "top_k", "top_p", "min_p"];
        let json = tokenizer::json(&|name| self.file.file(name), GENERATION_CONFIG)?;
        let sampling = GenerationConfig::read(&json)?.sampling;
        Ok(match said.iter().any(|key| !json[key].is_null()) {
            true => sampling,
            false => Sampling {
                temperature: 1.0,
                ..sampling
            },
        })
    }

    /// Names the bytes of the file, the type of the cache and [`NUMERICS`]: the same fingerprint
    /// and the same request give the same bytes.
    pub fn fingerprint(&self) -> String {
        let parts = [
            self.file.sum(),
            self.kv_type.name().to_owned(),
            NUMERICS.to_string(),
        ];
        format!("st-{}", &sha256::of(parts.join("\n").as_bytes())[..12])
    }

    pub(crate) fn vector(&self, vector: &Vector) -> &[f32] {
        bytemuck::cast_slice(&self.file.data()[vector.0.clone()])
    }

    /// Scales of a ternary matrix, in the shape of [`Scaling::shape`].
    pub(crate) fn scales(&self, range: &Range<usize>, dtype: Dtype) -> ScaleValues<'_> {
        let bytes = &self.file.data()[range.clone()];
        match dtype {
            Dtype::F16 => ScaleValues::F16(bytemuck::cast_slice(bytes)),
            _ => ScaleValues::F32(bytemuck::cast_slice(bytes)),
        }
    }

    /// The packed rows `rows` of a matrix.
    pub(crate) fn rows(&self, linear: &Linear, rows: Range<usize>) -> &[u8] {
        let all = &self.file.data()[linear.bytes.clone()];
        &all[rows.start * linear.row_bytes..rows.end * linear.row_bytes]
    }
}

impl Weights {
    fn of(file: &PackedFile) -> Weights {
        let family = file.config.family;
        let entry = |name: &str| {
            let entry = file.layout().find(name);
            entry.expect("an open file has every tensor of its config")
        };
        // Byte range of a tensor in the file. The forward pass uses ranges and never looks up a
        // name.
        let range = |name: &str| entry(name).offset..entry(name).offset + entry(name).len;
        let linear = |name: &str, columns, rows| Linear {
            norm: None,
            columns,
            row_bytes: entry(name).len / entry(name).shape[0],
            bytes: range(name),
            rows,
        };
        // Trits have their scales in another tensor; numbers and blocks have none.
        let ternary = |name: &str, packing, scaling| {
            let scale = layout::scale_name(name);
            RowFormat::Ternary {
                packing,
                scaling,
                scales: range(&scale),
                scales_dtype: entry(&scale).dtype,
            }
        };
        let matrix = |name: &str| {
            let dense = |rows| linear(name, file.dense(name).columns, rows);
            match file.packing {
                LinearType::Ternary(packing) => {
                    let matrix = file.matrix(name);
                    let rows = ternary(name, packing, matrix.scaling);
                    linear(name, matrix.columns, rows)
                }
                LinearType::Dense(Dense::F16) => dense(RowFormat::Numbers(entry(name).dtype)),
                LinearType::Dense(Dense::Q8_0) => dense(RowFormat::Q8_0),
                LinearType::Dense(Dense::Q4_0) => dense(RowFormat::Q4_0),
            }
        };
        let layer = |i: usize| {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            let linear = |part: &str| {
                let norm = file
                    .config
                    .linear_norm_eps
                    .map(|_| Vector(range(&name(&format!("{part}.rms_norm")))));
                Linear {
                    norm,
                    ..matrix(&name(part))
                }
            };
            let vector = |part: &str| Vector(range(&name(part)));
            // Norms that only some families have.
            let head_norm = |part: &str| family.qk_norm.then(|| vector(part));
            let sub_norm = |block: &str, norm: Option<&str>| {
                norm.map(|norm| vector(&format!("{block}.{norm}")))
            };
            let post_norm = |norm: Option<&str>| norm.map(vector);
            Layer {
                window: file.config.window(i),
                input_layernorm: vector("input_layernorm"),
                q_proj: linear("self_attn.q_proj"),
                k_proj: linear("self_attn.k_proj"),
                v_proj: linear("self_attn.v_proj"),
                q_norm: head_norm("self_attn.q_norm"),
                k_norm: head_norm("self_attn.k_norm"),
                attn_sub_norm: sub_norm("self_attn", family.attn_sub_norm),
                o_proj: linear("self_attn.o_proj"),
                attn_post_norm: post_norm(family.attn_post_norm),
                ffn_norm: vector(family.ffn_norm),
                gate_proj: linear("mlp.gate_proj"),
                up_proj: linear("mlp.up_proj"),
                ffn_sub_norm: sub_norm("mlp", family.ffn_sub_norm),
                down_proj: linear("mlp.down_proj"),
                ffn_post_norm: post_norm(family.ffn_post_norm),
            }
        };
        let weights = layout::weights(&file.config);
        let mut linears = weights.iter().filter(|w| w.role == Role::Linear);
        let has_groups = linears.any(|w| matrix(&w.name).groups() > 0);
        Weights {
            layers: (0..file.config.num_hidden_layers).map(layer).collect(),
            norm: Vector(range(layout::FINAL_NORM)),
            has_groups,
            // A ternary head is one more linear layer; other heads are read as tables.
            head: (file.head_type == TableType::Ternary).then(|| {
                let name = match file.config.tie_word_embeddings {
                    true => layout::EMBEDDING,
                    false => layout::HEAD,
                };
                let columns = file.config.hidden_size;
                linear(name, columns, ternary(name, trits::PACKING, Scaling::Group))
            }),
        }
    }
}

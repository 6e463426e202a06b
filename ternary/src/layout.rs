//! The tensors of a model: names, roles, types, shapes and offsets, all derived from its
//! [`Config`].
//!
//! Trainer, converter, packed file and runtime all take the list of tensors from here.

use std::collections::HashMap;

use crate::packing::{LinearType, dense};
use crate::table::{self, TableType};
use crate::{Config, Scaling, planes, trits};

/// Alignment of matrices in a packed file, in bytes: one cache line.
pub const ALIGNMENT: usize = 64;

/// Element type of a tensor in a packed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// Bytes: packed rows, coded tables, embedded files, padding.
    U8,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Single precision.
    F32,
}

impl Dtype {
    /// Every type with its safetensors name and its size in bytes.
    const TABLE: [(Dtype, &'static str, usize); 4] = [
        (Dtype::U8, "U8", 1),
        (Dtype::F16, "F16", 2),
        (Dtype::Bf16, "BF16", 2),
        (Dtype::F32, "F32", 4),
    ];

    /// The safetensors name.
    pub fn name(self) -> &'static str {
        Dtype::TABLE
            .iter()
            .find(|t| t.0 == self)
            .expect("every type is in the table")
            .1
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        Dtype::TABLE
            .iter()
            .find(|t| t.0 == self)
            .expect("every type is in the table")
            .2
    }

    /// The type with this safetensors name.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::TABLE.iter().find(|t| t.1 == name).map(|t| t.0)
    }
}

/// The role of a tensor in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A linear layer [out_features, in_features], ternary or dense.
    Linear,
    /// The embedding or the head [vocab_size, hidden_size].
    Table,
    /// The gain of an RMSNorm.
    Norm,
}

/// A tensor of a model, with its name and shape in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// Hugging Face name. It ends in `.weight`.
    pub name: String,
    /// Role of the tensor.
    pub role: Role,
    /// Rows; 1 for a norm.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

/// Name of the embedding.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the head in untied models.
pub const HEAD: &str = "lm_head.weight";
/// Name of the norm before the head.
pub const FINAL_NORM: &str = "model.norm.weight";

/// Number of weights of a model, and of those in its linear layers.
pub fn counts(config: &Config) -> (usize, usize) {
    let weights = weights(config);
    let size = |w: &Weight| w.rows * w.columns;
    let linear = weights.iter().filter(|w| w.role == Role::Linear);
    (weights.iter().map(size).sum(), linear.map(size).sum())
}

/// All tensors of a model in the order of the forward pass; the head is last.
pub fn weights(config: &Config) -> Vec<Weight> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let heads = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    let (family, linears_have_norms) = (config.family, config.linear_norm_eps.is_some());
    let mut weights = Vec::new();
    let mut push = |name: String, role, rows, columns| {
        if role == Role::Linear && linears_have_norms {
            weights.push(Weight {
                name: linear_norm_name(&name),
                role: Role::Norm,
                rows: 1,
                columns,
            });
        }
        weights.push(Weight {
            name,
            role,
            rows,
            columns,
        });
    };
    push(EMBEDDING.into(), Role::Table, config.vocab_size, hidden);
    for i in 0..config.num_hidden_layers {
        let name = |part: &str| format!("model.layers.{i}.{part}.weight");
        push(name("input_layernorm"), Role::Norm, 1, hidden);
        push(name("self_attn.q_proj"), Role::Linear, heads, hidden);
        push(name("self_attn.k_proj"), Role::Linear, kv, hidden);
        push(name("self_attn.v_proj"), Role::Linear, kv, hidden);
        if family.qk_norm {
            push(name("self_attn.q_norm"), Role::Norm, 1, config.head_dim);
            push(name("self_attn.k_norm"), Role::Norm, 1, config.head_dim);
        }
        if let Some(norm) = family.attn_sub_norm {
            push(name(&format!("self_attn.{norm}")), Role::Norm, 1, heads);
        }
        push(name("self_attn.o_proj"), Role::Linear, hidden, heads);
        if let Some(norm) = family.attn_post_norm {
            push(name(norm), Role::Norm, 1, hidden);
        }
        push(name(family.ffn_norm), Role::Norm, 1, hidden);
        push(name("mlp.gate_proj"), Role::Linear, intermediate, hidden);
        push(name("mlp.up_proj"), Role::Linear, intermediate, hidden);
        if let Some(norm) = family.ffn_sub_norm {
            push(name(&format!("mlp.{norm}")), Role::Norm, 1, intermediate);
        }
        push(name("mlp.down_proj"), Role::Linear, hidden, intermediate);
        if let Some(norm) = family.ffn_post_norm {
            push(name(norm), Role::Norm, 1, hidden);
        }
    }
    push(FINAL_NORM.into(), Role::Norm, 1, hidden);
    if !config.tie_word_embeddings {
        push(HEAD.into(), Role::Table, config.vocab_size, hidden);
    }
    weights
}

impl Weight {
    /// Constant that Hugging Face checkpoints subtract from the values:
    /// [`crate::Family::norm_offset`] for the norms of the family, zero for all other tensors,
    /// including the norms of linear layers.
    pub fn offset(&self, config: &Config) -> f32 {
        match self.role == Role::Norm && !is_linear_norm(&self.name) {
            true => config.family.norm_offset,
            false => 0.0,
        }
    }
}

/// Suffix of the names of norms before linear layers.
pub const LINEAR_NORM: &str = ".rms_norm.weight";

/// The name of the norm before a linear layer, as transformers uses it with `use_rms_norm`.
pub fn linear_norm_name(linear: &str) -> String {
    let stem = linear.strip_suffix(".weight");
    format!("{}{LINEAR_NORM}", stem.expect("weights have this suffix"))
}

/// Whether a tensor is the norm before a linear layer.
pub fn is_linear_norm(name: &str) -> bool {
    name.ends_with(LINEAR_NORM)
}

/// The name of the scales of a matrix.
pub fn scale_name(weight: &str) -> String {
    format!("{weight}_scale")
}

/// The name of a plane of a coded table. The first plane has the name of the table.
pub fn plane_name(weight: &str, plane: usize) -> String {
    match plane {
        0 => weight.to_owned(),
        plane => format!("{weight}.plane{plane}"),
    }
}

/// The name of the multipliers of a coded table.
pub fn multipliers_name(weight: &str) -> String {
    format!("{weight}_multipliers")
}

/// The name of the remainders of a coded table.
pub fn remainders_name(weight: &str) -> String {
    format!("{weight}_remainders")
}

/// The name of the low plane of a table in planes.
pub fn low_plane_name(weight: &str) -> String {
    format!("{weight}.low_plane")
}

/// The name of the exceptions of a table in planes.
pub fn exceptions_name(weight: &str) -> String {
    format!("{weight}_exceptions")
}

/// The name of the numbers that say where the exceptions of each row end.
pub fn exception_ends_name(weight: &str) -> String {
    format!("{weight}_exception_ends")
}

/// The name of the norms of a table in planes.
pub fn norms_name(weight: &str) -> String {
    format!("{weight}_norms")
}

/// Type and width of the rows of a linear layer. `number` is the type of the values in
/// [`crate::Dense::F16`].
fn row_shape(packing: LinearType, number: Dtype, columns: usize) -> (Dtype, usize) {
    let blocks = columns.div_ceil(dense::BLOCK);
    match packing {
        LinearType::Ternary(packing) => (Dtype::U8, packing.row_bytes(columns)),
        LinearType::Dense(packing) => match packing.block_bytes() {
            Some(bytes) => (Dtype::U8, blocks * bytes),
            None => (number, columns),
        },
    }
}

/// One tensor of a packed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name in the header.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Weights per row of a matrix or table, whatever its encoding. For other tensors, the last
    /// dimension of the shape.
    pub columns: usize,
    /// Offset of the first byte from the start of the data.
    pub offset: usize,
    /// Size in bytes.
    pub len: usize,
}

/// Everything that determines the layout of a packed file.
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    /// Shapes and constants of the model.
    pub config: &'a Config,
    /// Type of the linear layers. Dense layers have no scales.
    pub packing: LinearType,
    /// Types of embedding and head. A tied model has one table, and the second type counts.
    pub tables: [TableType; 2],
    /// Exceptions of embedding and head; 0 for types without a low plane. For a tied model the
    /// second number counts.
    pub exceptions: [usize; 2],
    /// Scaling of each matrix by name. A matrix without an entry has one scale.
    pub scaling: &'a HashMap<String, Scaling>,
    /// Types, by name, of the matrices in [`crate::Dense::F16`] that are not F16.
    pub numbers: &'a HashMap<String, Dtype>,
    /// Type of the group scales: F32 or F16.
    pub group_scales: Dtype,
    /// Names and sizes of the embedded files.
    pub files: &'a [(String, usize)],
}

/// The tensors of a packed file in byte order: matrices, then vectors, then embedded files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Every tensor, including padding.
    pub entries: Vec<Entry>,
    /// Offset of the end of the matrices and the start of the vectors.
    pub matrices_len: usize,
    index: HashMap<String, usize>,
}

impl Layout {
    /// Computes the layout of a file with these contents.
    pub fn new(contents: &Contents) -> Layout {
        let Contents {
            config,
            packing,
            tables,
            exceptions,
            scaling,
            numbers,
            group_scales,
            files,
        } = *contents;
        let mut layout = Layout {
            entries: Vec::new(),
            matrices_len: 0,
            index: HashMap::new(),
        };
        let weights = weights(config);
        let place = |weight: &Weight| match weight.name == EMBEDDING && !config.tie_word_embeddings
        {
            true => 0,
            false => 1,
        };
        let table = |weight: &Weight| tables[place(weight)];
        // Matrices first: they are streamed to the file in the order of the forward pass.
        for weight in &weights {
            match weight.role {
                Role::Linear => {
                    let number = numbers.get(&weight.name).copied().unwrap_or(Dtype::F16);
                    // Rows of bytes for trits and blocks, rows of numbers for F16, BF16 and F32.
                    let (dtype, width) = row_shape(packing, number, weight.columns);
                    let shape = [weight.rows, width];
                    layout.matrix(&weight.name, dtype, shape, weight.columns);
                }
                Role::Table => layout.table(weight, table(weight), exceptions[place(weight)]),
                Role::Norm => {}
            }
        }
        layout.matrices_len = layout.len();
        // Then vectors: norms, and what belongs to matrices besides their rows.
        let mut vectors = Vec::new();
        for weight in &weights {
            let scale = scale_name(&weight.name);
            let mut push = |name, dtype, shape| vectors.push((name, dtype, shape));
            match weight.role {
                Role::Norm => push(weight.name.clone(), Dtype::F32, vec![weight.columns]),
                Role::Linear if packing.dense().is_some() => {}
                Role::Linear => {
                    let scaling = scaling.get(&weight.name).copied().unwrap_or_default();
                    let dtype = match scaling {
                        Scaling::Matrix | Scaling::Row => Dtype::F32,
                        Scaling::Group => group_scales,
                    };
                    push(scale, dtype, scaling.shape(weight.rows, weight.columns));
                }
                Role::Table if table(weight) == TableType::Ternary => {
                    let shape = Scaling::Group.shape(weight.rows, weight.columns);
                    push(scale, group_scales, shape);
                }
                Role::Table => {
                    let planes = table(weight).planes();
                    if planes > 0 {
                        push(scale, Dtype::F32, vec![weight.rows]);
                    }
                    if table(weight).has_low_plane() {
                        let shape = vec![weight.rows, planes::NORMS];
                        push(norms_name(&weight.name), Dtype::F32, shape);
                        let shape = vec![weight.rows, size_of::<u32>()];
                        push(exception_ends_name(&weight.name), Dtype::U8, shape);
                    } else if planes > 1 {
                        let shape = vec![weight.rows, planes - 1];
                        push(remainders_name(&weight.name), Dtype::F32, shape);
                    }
                }
            }
        }
        // F16 last: an odd number of its values would leave the tensors after them unaligned.
        vectors.sort_by_key(|(_, dtype, _)| *dtype == Dtype::F16);
        for (name, dtype, shape) in vectors {
            layout.vector(name, dtype, shape);
        }
        for (name, len) in files {
            layout.vector(name.clone(), Dtype::U8, vec![*len]);
        }
        layout
    }

    /// Bytes of all tensors.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |e| e.offset + e.len)
    }

    /// Whether the layout has no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tensor of that name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.index.get(name).map(|i| &self.entries[*i])
    }

    fn table(&mut self, weight: &Weight, table: TableType, exceptions: usize) {
        let (rows, columns) = (weight.rows, weight.columns);
        let dtype = match table {
            TableType::F32 => Dtype::F32,
            TableType::F16 => Dtype::F16,
            TableType::Bf16 => Dtype::Bf16,
            TableType::Ternary => {
                let row_bytes = trits::PACKING.row_bytes(columns);
                return self.matrix(&weight.name, Dtype::U8, [rows, row_bytes], columns);
            }
            TableType::Q8
            | TableType::Q6
            | TableType::Q4
            | TableType::F32Planes
            | TableType::F16Planes
            | TableType::Bf16Planes => {
                let groups = table::groups(columns);
                for (plane, bytes) in table::PLANE_BYTES[..table.planes()].iter().enumerate() {
                    let name = plane_name(&weight.name, plane);
                    self.matrix(&name, Dtype::U8, [rows, bytes * groups], columns);
                }
                let name = multipliers_name(&weight.name);
                self.matrix(&name, Dtype::U8, [rows, groups], columns);
                if let (true, Some(number)) = (table.has_low_plane(), table.numbers()) {
                    // Before the low plane, as there may be none: a matrix is not empty at the end.
                    self.push(exceptions_name(&weight.name), number, vec![exceptions], 1);
                    self.pad();
                    let width = planes::correction_bytes(number) * columns;
                    let name = low_plane_name(&weight.name);
                    self.matrix(&name, Dtype::U8, [rows, width], columns);
                }
                return;
            }
        };
        self.matrix(&weight.name, dtype, [rows, columns], columns);
    }

    /// Adds a matrix whose rows have `columns` weights, then pads to the alignment.
    fn matrix(&mut self, name: &str, dtype: Dtype, shape: [usize; 2], columns: usize) {
        self.push(name.to_owned(), dtype, shape.to_vec(), columns);
        self.pad();
    }

    fn vector(&mut self, name: String, dtype: Dtype, shape: Vec<usize>) {
        let columns = shape.last().copied().unwrap_or(0);
        self.push(name, dtype, shape, columns);
    }

    fn push(&mut self, name: String, dtype: Dtype, shape: Vec<usize>, columns: usize) {
        let len = shape.iter().product::<usize>() * dtype.bytes();
        self.index.insert(name.clone(), self.entries.len());
        self.entries.push(Entry {
            name,
            dtype,
            shape,
            columns,
            offset: self.len(),
            len,
        });
    }

    fn pad(&mut self) {
        let missing = self.len().next_multiple_of(ALIGNMENT) - self.len();
        if missing > 0 {
            let name = format!("padding.{}", self.entries.len());
            self.vector(name, Dtype::U8, vec![missing]);
        }
    }
}

//! The packed file: one self-contained file per model, memory-mapped or in memory.
//!
//! `PACKED_FILE.md` in this crate is the specification. [`PackedFile::open`] checks the header,
//! shapes, vectors and embedded files once; all data is then used in place. The matrices are most
//! of the file. They are checked only on request ([`PackedFile::verify`]), so opening does not read
//! the weights.

mod expected;
mod writer;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};

use crate::header;
use crate::layout::{self, Dtype, EMBEDDING, Entry, HEAD, Layout, Role};
use crate::memory::{AlignedBytes, FileBytes, Memory};
use crate::packing::{Dense, DenseRows};
use crate::planes::{Numbers, Planes};
use crate::scales::ScaleValues;
use crate::table::Codes;
use crate::trits::Trits;
use crate::{Activations, Config, Error, LinearType, Result, Scaling, TableType, sha256};

use expected::{compare, expected_layout, read_config, seldom_read};
pub use writer::{Description, PackedWriter};

/// The files of a Hugging Face folder that a packed file embeds, in this order.
pub const FILES: [&str; 5] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// A model in a packed file, in memory and checked.
#[derive(Debug)]
pub struct PackedFile {
    path: PathBuf,
    map: FileBytes,
    data_start: usize,
    matrices_sha256: String,
    layout: Layout,
    /// Parts that are read a few rows at a time.
    seldom: Vec<Range<usize>>,
    /// Rows of these parts that were read so far.
    seldom_rows: AtomicUsize,
    /// Shapes and constants, from the embedded config.json.
    pub config: Config,
    /// Packing of the linear layers.
    pub packing: LinearType,
    /// How inputs of ternary linear layers are rounded. A dense packing implies its own rounding.
    pub activations: Activations,
    /// Type of the group scales: F32 or F16.
    pub group_scales: Dtype,
    /// Storage type of the embedding.
    pub embedding_type: TableType,
    /// Storage type of the head.
    pub head_type: TableType,
}

/// A ternary matrix, used in place.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// `rows` × `packing.row_bytes(columns)` bytes.
    pub data: &'a [u8],
    /// Which weights share a scale. Weight = trit × scale.
    pub scaling: Scaling,
    /// The scales, in the shape of [`Scaling::shape`].
    pub scales: ScaleValues<'a>,
}

/// A matrix of a dense packing, used in place.
#[derive(Debug, Clone, Copy)]
pub struct DenseMatrix<'a> {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// The values.
    pub values: DenseRows<'a>,
}

/// The embedding or the head, used in place; row-major.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// Vocabulary size.
    pub rows: usize,
    /// Width of the residual stream.
    pub columns: usize,
    /// The values of all rows.
    pub values: Values<'a>,
}

/// Values of a [`Table`].
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// Codes of 8, 6 or 4 bits.
    Codes(Codes<'a>),
    /// Trits with one scale per group of 128 columns.
    Trits(Trits<'a>),
    /// Numbers in planes.
    Planes(Planes<'a>),
}

impl PackedFile {
    /// Maps and checks a file. The file must not change while it is mapped.
    pub fn open(path: &Path) -> Result<PackedFile> {
        PackedFile::open_in(path, Memory::Map)
    }

    /// [`PackedFile::open`] with a choice between mapping and copying.
    pub fn open_in(path: &Path, memory: Memory) -> Result<PackedFile> {
        if !path.metadata().map_err(Error::io(path))?.is_file() {
            return Err(Error::NotPacked {
                path: path.to_owned(),
                why: "it is not a file".into(), // opening a pipe would wait forever
            });
        }
        let file = File::open(path).map_err(Error::io(path))?;
        let map = FileBytes::map(&file).map_err(Error::io(path))?;
        let load = |map: FileBytes, seldom: &[Range<usize>]| map.load(&file, memory, seldom);
        PackedFile::checked(path, map, load)
    }

    /// Checks a file that is in memory already, such as one that came over the network. Errors
    /// call it `name`. It needs no file system, no threads and no mapping.
    pub fn from_bytes(name: &Path, bytes: AlignedBytes) -> Result<PackedFile> {
        PackedFile::checked(name, FileBytes::Owned(bytes), |bytes, _| Ok(bytes))
    }

    /// Checks a file. `load` moves it to where it stays; it gets the parts that are seldom read.
    fn checked(
        path: &Path,
        map: FileBytes,
        load: impl FnOnce(FileBytes, &[Range<usize>]) -> std::io::Result<FileBytes>,
    ) -> Result<PackedFile> {
        let header = header::decode(path, &map)?;
        let config = read_config(path, &map[header.data_start..], &header)?;
        if config.tie_word_embeddings && header.form.tables[0] != header.form.tables[1] {
            return Err(Error::NotPacked {
                path: path.to_owned(),
                why: "the model is tied, but its embedding type is not its head type".into(),
            });
        }
        let layout = expected_layout(path, &config, &header)?;
        compare(path, &layout, &header)?;
        let (expected, found) = ((header.data_start + layout.len()) as u64, map.len() as u64);
        if expected != found {
            return Err(Error::Length {
                path: path.to_owned(),
                expected,
                found,
            });
        }
        let seldom = seldom_read(&config, &layout, header.data_start);
        let map = load(map, &seldom).map_err(Error::io(path))?;
        let vectors = &map[header.data_start + layout.matrices_len..];
        header::check_sum(
            path,
            "part with vectors and files",
            vectors,
            &header.vectors_sha256,
        )?;
        let file = PackedFile {
            path: path.to_owned(),
            map,
            data_start: header.data_start,
            matrices_sha256: header.matrices_sha256,
            layout,
            seldom,
            seldom_rows: AtomicUsize::new(0),
            config,
            packing: header.form.packing,
            activations: header.form.activations,
            group_scales: header.form.group_scales,
            embedding_type: header.form.tables[0],
            head_type: header.form.tables[1],
        };
        file.check_vectors()?;
        file.check_exceptions()?;
        Ok(file)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file was copied into this process's memory.
    pub fn is_copied(&self) -> bool {
        self.map.is_copied()
    }

    /// Size of the file in bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Always false: an empty file cannot be opened.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The SHA-256 of the header, which holds the sums of all other parts, so that two files with
    /// the same sum have the same bytes. Nothing else is read; [`PackedFile::verify`] compares the
    /// sum of the matrices with their bytes.
    pub fn sum(&self) -> String {
        sha256::of(&self.map[..self.data_start])
    }

    /// The whole file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.map
    }

    /// Names, types, shapes and offsets of all tensors.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Reads the whole file: compares the checksum of the matrices and decodes every row of trits
    /// and codes.
    pub fn verify(&self) -> Result<()> {
        for name in [EMBEDDING, HEAD] {
            self.will_read(name);
        }
        self.check_sum()?;
        for weight in layout::weights(&self.config)
            .iter()
            .filter(|w| w.role == Role::Linear)
        {
            match self.packing {
                LinearType::Ternary(packing) => {
                    let matrix = self.matrix(&weight.name);
                    let mut trits = vec![0; matrix.columns];
                    let rows = matrix.data.chunks_exact(packing.row_bytes(matrix.columns));
                    for row in rows {
                        packing.unpack_row(row, &mut trits)?;
                    }
                }
                LinearType::Dense(_) => self.check_dense(&weight.name)?,
            }
        }
        for name in [EMBEDDING, HEAD] {
            if self.layout.find(name).is_none() {
                continue;
            }
            let table = self.table(name);
            let (mut rows, columns) = (0..table.rows, table.columns);
            let (bad, expected) = match table.values {
                Values::Trits(trits) => {
                    rows.try_for_each(|row| trits.check(row, columns))?;
                    continue;
                }
                Values::Codes(codes) => (
                    rows.find(|row| !codes.is_consistent(*row, columns)),
                    "remainders that follow from the codes",
                ),
                Values::Planes(planes) => (
                    rows.find(|row| !planes.is_consistent(*row, columns)),
                    "planes, norms and exceptions that follow from the values",
                ),
                Values::F32(_) | Values::F16(_) | Values::Bf16(_) => continue,
            };
            if let Some(row) = bad {
                return Err(Error::Tensor {
                    path: self.path.clone(),
                    tensor: name.into(),
                    expected: expected.into(),
                    found: format!("others in row {row}"),
                });
            }
        }
        Ok(())
    }

    /// Compares the checksum of the matrices with their bytes. Those of all other parts were
    /// compared when the file was opened.
    pub fn check_sum(&self) -> Result<()> {
        let matrices = &self.data()[..self.layout.matrices_len];
        let (part, sum) = ("part with matrices", &self.matrices_sha256);
        header::check_sum(&self.path, part, matrices, sum)
    }

    /// Checks that a dense matrix has only finite values.
    fn check_dense(&self, name: &str) -> Result<()> {
        let matrix = self.dense(name);
        let mut values = vec![0.0; matrix.columns];
        for row in 0..matrix.rows {
            matrix.values.decode(row, &mut values);
            if let Some(column) = values.iter().position(|x| !x.is_finite()) {
                return Err(Error::Value {
                    path: self.path.clone(),
                    tensor: name.to_owned(),
                    index: row * matrix.columns + column,
                    value: values[column],
                });
            }
        }
        Ok(())
    }

    /// A dense linear layer by its name in [`layout::weights`].
    ///
    /// # Panics
    /// If the model has no such layer, or the layer is ternary.
    pub fn dense(&self, name: &str) -> DenseMatrix<'_> {
        let entry = self.entry(name);
        let bytes = self.bytes(entry);
        let dense = self.packing.dense().expect("a dense packing");
        let values = match dense {
            Dense::F16 => DenseRows::of_numbers(entry.dtype, bytes),
            Dense::Q8_0 => Some(DenseRows::Q8_0(bytes.as_chunks().0)),
            Dense::Q4_0 => Some(DenseRows::Q4_0(bytes.as_chunks().0)),
        };
        DenseMatrix {
            rows: entry.shape[0],
            columns: entry.columns,
            values: values.expect("the layout gives numbers a type of numbers"),
        }
    }

    /// A ternary linear layer by its name in [`layout::weights`].
    ///
    /// # Panics
    /// If the model has no such layer, or its packing is dense.
    pub fn matrix(&self, name: &str) -> Matrix<'_> {
        let weights = self.entry(name);
        let columns = weights.columns;
        let (rows, scales) = (weights.shape[0], self.entry(&layout::scale_name(name)));
        let scaling = Scaling::from_shape(&scales.shape, rows, columns);
        Matrix {
            rows,
            columns,
            data: self.bytes(weights),
            scaling: scaling.expect("the layout shapes the scales"),
            scales: self.scale_values(scales),
        }
    }

    /// The values of an F32 or F16 tensor of [`PackedFile::layout`] that is not a matrix.
    pub fn scale_values(&self, entry: &Entry) -> ScaleValues<'_> {
        let bytes = self.bytes(entry);
        match entry.dtype {
            Dtype::F16 => ScaleValues::F16(bytemuck::cast_slice(bytes)),
            _ => ScaleValues::F32(bytemuck::cast_slice(bytes)),
        }
    }

    /// A norm or another F32 vector.
    ///
    /// # Panics
    /// If the model has no such tensor.
    pub fn vector(&self, name: &str) -> &[f32] {
        bytemuck::cast_slice(self.bytes(self.entry(name)))
    }

    /// The embedding.
    pub fn embedding(&self) -> Table<'_> {
        self.table(EMBEDDING)
    }

    /// The head. In a tied model this is the embedding.
    pub fn head(&self) -> Table<'_> {
        self.table(if self.config.tie_word_embeddings {
            EMBEDDING
        } else {
            HEAD
        })
    }

    /// Exceptions of embedding and head, which are the same table in a tied model; 0 for types
    /// without a low plane.
    pub fn exceptions(&self) -> [usize; 2] {
        let head = match self.config.tie_word_embeddings {
            true => EMBEDDING,
            false => HEAD,
        };
        [EMBEDDING, head].map(|name| {
            let entry = self.layout.find(&layout::exceptions_name(name));
            entry.map_or(0, |entry| entry.shape[0])
        })
    }

    /// An embedded file, one of [`FILES`].
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        FILES
            .contains(&name)
            .then(|| self.layout.find(name))?
            .map(|entry| self.bytes(entry))
    }

    fn table(&self, name: &str) -> Table<'_> {
        let entry = self.entry(name);
        let bytes = self.bytes(entry);
        let values = match entry.dtype {
            Dtype::F32 => Values::F32(bytemuck::cast_slice(bytes)),
            Dtype::F16 => Values::F16(bytemuck::cast_slice(bytes)),
            Dtype::Bf16 => Values::Bf16(bytemuck::cast_slice(bytes)),
            Dtype::U8 if self.table_type(name) == TableType::Ternary => Values::Trits(Trits {
                rows: entry.shape[0],
                bytes,
                scales: self.scale_values(self.entry(&layout::scale_name(name))),
            }),
            Dtype::U8 if self.table_type(name).has_low_plane() => Values::Planes(self.planes(name)),
            Dtype::U8 => Values::Codes(self.codes(name)),
        };
        Table {
            rows: entry.shape[0],
            columns: entry.columns,
            values,
        }
    }

    fn table_type(&self, name: &str) -> TableType {
        match name == EMBEDDING && !self.config.tie_word_embeddings {
            true => self.embedding_type,
            false => self.head_type,
        }
    }

    fn codes(&self, name: &str) -> Codes<'_> {
        let plane = |i| self.layout.find(&layout::plane_name(name, i));
        let planes = [0, 1, 2].map(plane);
        let remainders = self.layout.find(&layout::remainders_name(name));
        Codes {
            planes: planes.iter().flatten().count(),
            bits: planes.map(|plane| plane.map_or(&[][..], |plane| self.bytes(plane))),
            multipliers: self.bytes(self.entry(&layout::multipliers_name(name))),
            scales: self.vector(&layout::scale_name(name)),
            remainders: remainders.map_or(&[], |r| bytemuck::cast_slice(self.bytes(r))),
        }
    }

    fn planes(&self, name: &str) -> Planes<'_> {
        let exceptions = self.entry(&layout::exceptions_name(name));
        let bytes = self.bytes(exceptions);
        Planes {
            codes: self.codes(name),
            norms: self.vector(&layout::norms_name(name)),
            low: self.bytes(self.entry(&layout::low_plane_name(name))),
            exceptions: match exceptions.dtype {
                Dtype::F16 => Numbers::F16(bytemuck::cast_slice(bytes)),
                Dtype::Bf16 => Numbers::Bf16(bytemuck::cast_slice(bytes)),
                Dtype::F32 | Dtype::U8 => Numbers::F32(bytemuck::cast_slice(bytes)),
            },
            ends: bytemuck::cast_slice(self.bytes(self.entry(&layout::exception_ends_name(name)))),
        }
    }

    /// Checks that the exceptions of every row of the tables in planes lie one after the other.
    fn check_exceptions(&self) -> Result<()> {
        for name in [EMBEDDING, HEAD] {
            let Some(exceptions) = self.layout.find(&layout::exceptions_name(name)) else {
                continue;
            };
            let tensor = layout::exception_ends_name(name);
            let (ends, all) = (self.planes(name).ends, exceptions.shape[0]);
            let columns = self.entry(name).columns;
            let mut start = 0;
            for (row, end) in ends.iter().map(|end| *end as usize).enumerate() {
                let is_last = row + 1 == ends.len();
                if end < start || end - start > columns || (is_last && end != all) {
                    return Err(Error::Tensor {
                        path: self.path.clone(),
                        tensor,
                        expected: format!(
                            "at most {columns} exceptions per row, {all} in all, in order of rows"
                        ),
                        found: format!("{start} to {end} for row {row}"),
                    });
                }
                start = end;
            }
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> &Entry {
        self.layout
            .find(name)
            .unwrap_or_else(|| panic!("the model has no tensor {name}"))
    }

    /// The data part of the file. Offsets in [`PackedFile::layout`] count from its start.
    pub fn data(&self) -> &[u8] {
        &self.map[self.data_start..]
    }

    /// Releases the memory of a matrix or table. The next access reads it again from the file.
    pub fn release(&self, name: &str) {
        let parts = self.layout.entries.iter();
        for entry in
            parts.filter(|e| e.name.starts_with(name) && e.offset < self.layout.matrices_len)
        {
            let start = self.data_start + entry.offset;
            self.map.release(start..start + entry.len);
        }
    }

    /// Announces that a whole matrix or table is read soon.
    pub fn will_read(&self, name: &str) {
        let parts = self.layout.entries.iter();
        for entry in parts.filter(|e| e.name.starts_with(name)) {
            let start = self.data_start + entry.offset;
            self.map.will_read(start..start + entry.len);
        }
    }

    /// Counts one row that was read of a low plane, or of an embedding that is not the head. Every
    /// few rows it releases the memory of these parts.
    pub fn count_seldom_read(&self) {
        /// With a row, the system maps its neighbours too: 64 KiB, or up to a huge page where it
        /// caches the file in such pieces.
        const ROWS: usize = 8;
        let before = self.seldom_rows.fetch_add(1, Ordering::Relaxed);
        if before % ROWS == ROWS - 1 {
            for part in &self.seldom {
                self.map.release(part.clone());
            }
        }
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.data()[entry.offset..entry.offset + entry.len]
    }

    fn check_vectors(&self) -> Result<()> {
        for entry in self
            .layout
            .entries
            .iter()
            .filter(|e| e.offset >= self.layout.matrices_len)
        {
            if entry.dtype == Dtype::U8 {
                continue;
            }
            let is_scale = entry.name.ends_with("_scale");
            let values = self.scale_values(entry);
            let is_norm = ["_remainders", "_norms"]
                .iter()
                .any(|end| entry.name.ends_with(end));
            let bad = |x: f32| !x.is_finite() || (is_scale && x <= 0.0) || (is_norm && x < 0.0);
            if let Some(index) = (0..values.len()).find(|i| bad(values.at(*i))) {
                return Err(Error::Value {
                    path: self.path.clone(),
                    tensor: entry.name.clone(),
                    index,
                    value: values.at(index),
                });
            }
        }
        Ok(())
    }
}

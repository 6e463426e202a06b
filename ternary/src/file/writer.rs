//! Writes a packed file as a stream: first the matrices in order, then all other tensors.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use half::f16;

use crate::header::{self, Form};
use crate::layout::{self, Contents, Dtype, Layout};
use crate::planes::PlaneRow;
use crate::scales::check_scaling;
use crate::sha256::{self, Digest, Sha256};
use crate::table::CodedRow;
use crate::trits::TritRow;
use crate::{Activations, Config, Error, LinearType, Result, Scaling, TableType, durable};

/// Contents of a packed file that must be known before the first weight.
#[derive(Debug, Clone)]
pub struct Description {
    /// Shapes and constants. The embedded config.json must agree with them.
    pub config: Config,
    /// Packing of the linear layers.
    pub packing: LinearType,
    /// How the runtime rounds inputs of ternary linear layers.
    pub activations: Activations,
    /// Type of the embedding. In a tied model it must equal the type of the head.
    pub embedding: TableType,
    /// Type of the head.
    pub head: TableType,
    /// Exceptions of embedding and head, [`crate::planes`]; 0 for other types. For a tied model the
    /// second number counts.
    pub exceptions: [usize; 2],
    /// Scaling of each matrix that has more than one scale.
    pub scaling: HashMap<String, Scaling>,
    /// Types of the matrices in [`crate::Dense::F16`] that are not F16.
    pub numbers: HashMap<String, Dtype>,
    /// Type of the group scales: F16 if it represents all of them exactly, F32 if not.
    pub group_scales: Dtype,
    /// Embedded files: a subset of [`super::FILES`] in that order, including `config.json`.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Writes a packed file as a stream: matrices in layout order, vectors in any order.
pub struct PackedWriter<'a> {
    path: &'a Path,
    layout: Layout,
    out: &'a mut BufWriter<File>,
    matrices: Sha256,
    /// Index of the next matrix and the number of its bytes already written.
    due: (usize, usize),
    /// Parts of the current table that follow its first plane or its trits.
    after_rows: AfterRows,
    /// All tensors after the matrices.
    vectors: Vec<u8>,
    have: Vec<bool>,
}

/// The parts that follow the first plane of a coded table, or the scales of a ternary table, row by
/// row.
#[derive(Default)]
struct AfterRows {
    /// Second plane, third plane, multipliers.
    bytes: [Vec<u8>; 3],
    scales: Vec<f32>,
    remainders: Vec<f32>,
    norms: Vec<f32>,
    low: Vec<u8>,
    exceptions: Vec<u8>,
    /// Bytes of the exceptions up to the end of each row.
    exception_ends: Vec<usize>,
}

impl PackedWriter<'_> {
    /// Creates `path` durably. `fill` writes every tensor; then the file gets its name.
    ///
    /// # Errors
    /// Errors of `fill`, I/O errors, and [`Error::Order`] if `fill` omits or repeats a tensor.
    pub fn write<E: From<Error>>(
        path: &Path,
        description: &Description,
        fill: impl FnOnce(&mut PackedWriter) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        durable::write_with(
            path,
            |e| Error::io(path)(e).into(),
            |out| write_all(path, description, out, fill),
        )
    }

    /// [`PackedWriter::write`] into an existing file, without fsync. Use it for a temporary file
    /// that is verified before it gets its name.
    pub fn fill<E: From<Error>>(
        path: &Path,
        description: &Description,
        fill: impl FnOnce(&mut PackedWriter) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        durable::fill(
            path,
            |e| Error::io(path)(e).into(),
            |out| write_all(path, description, out, fill),
        )
    }

    /// Appends bytes to the matrix or table `name`. Matrices must come in the order of
    /// [`Layout::entries`].
    pub fn rows(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let entry = &self.layout.entries[self.due.0];
        let is_matrix = entry.offset < self.layout.matrices_len;
        if !is_matrix || entry.name != name || self.due.1 + bytes.len() > entry.len {
            return Err(self.order(name));
        }
        self.due.1 += bytes.len();
        if self.due.1 == entry.len {
            self.have[self.due.0] = true;
            self.due = (self.due.0 + 1, 0);
        }
        self.append(bytes)?;
        self.append_padding()
    }

    /// Appends rows to the coded table `name`. The second and third planes stay in memory until the
    /// table is complete.
    pub fn coded_rows(&mut self, name: &str, rows: &[CodedRow]) -> Result<()> {
        let at = self.due.0;
        for row in rows {
            self.code(name, row)?;
        }
        match self.have[at] {
            true => self.finish_codes(name),
            false => Ok(()),
        }
    }

    /// Appends rows to the table `name` in planes. What follows the first plane stays in memory
    /// until the table is complete.
    pub fn plane_rows(&mut self, name: &str, rows: &[PlaneRow]) -> Result<()> {
        let at = self.due.0;
        for row in rows {
            let after_rows = &mut self.after_rows;
            after_rows.norms.extend(row.norms);
            after_rows.low.extend(&row.low);
            after_rows.exceptions.extend(&row.exceptions);
            after_rows.exception_ends.push(after_rows.exceptions.len());
            self.code(name, &row.code)?;
        }
        match self.have[at] {
            true => self.finish_codes(name),
            false => Ok(()),
        }
    }

    /// Appends the first plane of a row and keeps the rest of its code.
    fn code(&mut self, name: &str, row: &CodedRow) -> Result<()> {
        let after_rows = &mut self.after_rows;
        for (bytes, plane) in after_rows.bytes.iter_mut().zip(&row.planes[1..]) {
            bytes.extend(plane);
        }
        after_rows.bytes[2].extend(&row.multipliers);
        after_rows.scales.push(row.scale);
        after_rows.remainders.extend(&row.remainders);
        self.rows(name, &row.planes[0])
    }

    /// Writes what follows the first plane of a table.
    fn finish_codes(&mut self, name: &str) -> Result<()> {
        let AfterRows {
            bytes: [second, third, multipliers],
            scales,
            remainders,
            norms,
            low,
            exceptions,
            exception_ends,
        } = std::mem::take(&mut self.after_rows);
        for (plane, bytes) in [(1, second), (2, third)] {
            if !bytes.is_empty() {
                self.rows(&layout::plane_name(name, plane), &bytes)?;
            }
        }
        self.rows(&layout::multipliers_name(name), &multipliers)?;
        if !exception_ends.is_empty() {
            self.rows(&layout::exceptions_name(name), &exceptions)?;
            self.rows(&layout::low_plane_name(name), &low)?;
            let number = self.layout.find(&layout::exceptions_name(name));
            let width = number.map_or(1, |entry| entry.dtype.bytes());
            let ends = exception_ends.iter().map(|end| (end / width) as u32);
            let ends: Vec<u8> = ends.flat_map(u32::to_le_bytes).collect();
            self.place(&layout::exception_ends_name(name), &ends)?;
            self.vector(&layout::norms_name(name), &norms)?;
        }
        self.vector(&layout::scale_name(name), &scales)?;
        match remainders.is_empty() {
            true => Ok(()),
            false => self.vector(&layout::remainders_name(name), &remainders),
        }
    }

    /// Appends rows to the ternary table `name`.
    pub fn trit_rows(&mut self, name: &str, rows: &[TritRow]) -> Result<()> {
        let at = self.due.0;
        for row in rows {
            self.after_rows.scales.extend(&row.scales);
            self.rows(name, &row.bytes)?;
        }
        if !self.have[at] {
            return Ok(());
        }
        let of_rows = std::mem::take(&mut self.after_rows).scales; // (rows, groups)
        let rows = self.layout.entries[at].shape[0];
        let groups = of_rows.len() / rows;
        let of_groups = (0..groups).flat_map(|g| of_rows.iter().skip(g).step_by(groups));
        let scales: Vec<f32> = of_groups.copied().collect();
        self.vector(&layout::scale_name(name), &scales)
    }

    /// Writes a norm or the scales of a matrix. The order is free.
    ///
    /// # Panics
    /// If group scales are to be stored in F16 and a value is not representable.
    pub fn vector(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let half = |x: &f32| {
            let half = f16::from_f32(*x);
            assert_eq!(half.to_f32(), *x, "{name}: F16 holds every scale");
            half.to_le_bytes()
        };
        let dtype = self.layout.find(name).map(|entry| entry.dtype);
        let bytes: Vec<u8> = match dtype {
            Some(Dtype::F16) => values.iter().flat_map(half).collect(),
            _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        self.place(name, &bytes)
    }

    /// Writes a vector as the bytes that another file of the same form has. The order is free.
    pub fn copied(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.place(name, bytes)
    }

    fn place(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let index = self
            .layout
            .entries
            .iter()
            .position(|e| e.name == name && e.len == bytes.len());
        let index = index
            .filter(|i| !self.have[*i])
            .ok_or_else(|| self.order(name))?;
        let offset = self.layout.entries[index]
            .offset
            .checked_sub(self.layout.matrices_len);
        let offset = offset.ok_or_else(|| self.order(name))?;
        self.vectors[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.have[index] = true;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.matrices.update(bytes);
        self.out.write_all(bytes).map_err(Error::io(self.path))
    }

    fn append_padding(&mut self) -> Result<()> {
        let entry = &self.layout.entries[self.due.0];
        if self.due.1 == 0 && entry.name.starts_with("padding.") {
            let zeros = [0; layout::ALIGNMENT];
            let len = entry.len;
            self.have[self.due.0] = true;
            self.due.0 += 1;
            self.append(&zeros[..len])?;
        }
        Ok(())
    }

    fn order(&self, found: &str) -> Error {
        let missing = self.have.iter().position(|have| !have);
        let expected = missing.map_or("nothing".into(), |i| self.layout.entries[i].name.clone());
        Error::Order {
            path: self.path.to_owned(),
            expected,
            found: found.to_owned(),
        }
    }
}

fn write_all<E: From<Error>>(
    path: &Path,
    description: &Description,
    out: &mut BufWriter<File>,
    fill: impl FnOnce(&mut PackedWriter) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let Description {
        config,
        packing,
        activations,
        embedding,
        head,
        exceptions,
        scaling,
        numbers,
        group_scales,
        files,
    } = description;
    check_scaling(path, *packing, scaling)?;
    // A tied model has one table, stored in the type of the head.
    let embedding = match config.tie_word_embeddings {
        true => head,
        false => embedding,
    };
    let sizes: Vec<_> = files
        .iter()
        .map(|(name, bytes)| (name.clone(), bytes.len()))
        .collect();
    let form = Form {
        packing: *packing,
        activations: *activations,
        group_scales: *group_scales,
        tables: [*embedding, *head],
    };
    let layout = Layout::new(&Contents {
        config,
        packing: *packing,
        tables: form.tables,
        exceptions: *exceptions,
        scaling,
        numbers,
        group_scales: *group_scales,
        files: &sizes,
    });
    // The sums of the data are known at the end, but the header comes first. So a header of the
    // same length with sums of zeros holds its place.
    let blank = "0".repeat(64);
    let place_holder = header::encode(&layout, &form, &blank, &blank);
    out.write_all(&place_holder).map_err(Error::io(path))?;
    let mut writer = PackedWriter {
        path,
        matrices: Sha256::new(),
        due: (0, 0),
        after_rows: AfterRows::default(),
        vectors: vec![0; layout.len() - layout.matrices_len],
        have: vec![false; layout.entries.len()],
        layout,
        out,
    };
    fill(&mut writer)?;
    // Embedded files follow the vectors; both are held until the matrices are written.
    for (name, bytes) in files {
        writer.place(name, bytes)?;
    }
    if writer.have.contains(&false) {
        return Err(writer.order("the end").into());
    }
    let PackedWriter {
        layout,
        out,
        matrices,
        vectors,
        ..
    } = writer;
    let header = header::encode(
        &layout,
        &form,
        &sha256::of(&vectors),
        &sha256::hex(&matrices.finalize()),
    );
    out.write_all(&vectors)
        .and_then(|()| out.seek(SeekFrom::Start(0)))
        .and_then(|_| out.write_all(&header))
        .map_err(Error::io(path))?;
    Ok(())
}

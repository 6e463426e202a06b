//! Slices that several threads write at a time, each its own part: by chunks, or by tiles of a
//! matrix.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice that several threads write, each its own chunks.
pub(super) struct Chunks<'a, T> {
    base: *mut T,
    len: usize,
    chunk: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: threads take disjoint parts, each as a unique reference, which may be sent since T is
// Send.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    pub(super) fn of(slice: &'a mut [T], chunk: usize) -> Chunks<'a, T> {
        assert!(chunk > 0, "chunks have elements");
        Chunks {
            base: slice.as_mut_ptr(),
            len: slice.len(),
            chunk,
            lifetime: PhantomData,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    /// # Safety
    /// `i` is below [`Chunks::count`], and no two references to one chunk are alive at a time.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn chunk(&self, i: usize) -> &mut [T] {
        let start = i * self.chunk;
        let len = self.chunk.min(self.len - start);
        // SAFETY: in bounds, and unique by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), len) }
    }
}

/// A row-major matrix that several threads write, each its own tiles.
pub(super) struct Tiles<'a, T> {
    base: *mut T,
    rows: usize,
    columns: usize,
    height: usize,
    width: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: as for `Chunks`.
unsafe impl<T: Send> Sync for Tiles<'_, T> {}

impl<'a, T> Tiles<'a, T> {
    /// Cuts a matrix of `rows` rows into tiles of at most `height` rows and `width` columns.
    pub(super) fn of(matrix: &'a mut [T], rows: usize, (height, width): (usize, usize)) -> Self {
        assert!(rows > 0 && matrix.len().is_multiple_of(rows));
        assert!(height > 0 && width > 0, "tiles have elements");
        Tiles {
            base: matrix.as_mut_ptr(),
            rows,
            columns: matrix.len() / rows,
            height,
            width,
            lifetime: PhantomData,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.down() * self.columns.div_ceil(self.width)
    }

    fn down(&self) -> usize {
        self.rows.div_ceil(self.height)
    }

    /// Tile `i`, counted downwards first.
    ///
    /// # Safety
    /// `i` is below [`Tiles::count`], and no two tiles of one number are alive at a time.
    pub(super) unsafe fn tile(&self, i: usize) -> Tile<'_, T> {
        let (row, column) = (i % self.down() * self.height, i / self.down() * self.width);
        Tile {
            base: self.base,
            stride: self.columns,
            rows: row..self.rows.min(row + self.height),
            columns: column..self.columns.min(column + self.width),
            lifetime: PhantomData,
        }
    }
}

/// A part of a row-major matrix, for one thread.
pub struct Tile<'a, T> {
    base: *mut T,
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<T> Tile<'_, T> {
    /// The rows of the matrix that are in it.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The columns of the matrix that are in it.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The tile's part of row `i` of the matrix.
    ///
    /// # Panics
    /// If the tile has no row `i`.
    pub fn row(&mut self, i: usize) -> &mut [T] {
        assert!(self.rows.contains(&i));
        let start = i * self.stride + self.columns.start;
        // SAFETY: inside the matrix, since its rows contain i and columns end at most at the
        // stride; unique since tiles are disjoint and each is alive once, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), self.columns.len()) }
    }
}

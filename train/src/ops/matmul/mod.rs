//! Serial f32 matrix product on strided slices, by the `gemm` crate.

/// A matrix in a slice: element (r, c) is at `start + r * row_stride + c * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<S> {
    pub data: S,
    pub start: usize,
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<S> Mat<S> {
    /// A whole row-major matrix.
    pub fn new(data: S, rows: usize, columns: usize) -> Self {
        Mat {
            data,
            start: 0,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// A row-major block whose rows are `row_stride` elements apart.
    pub fn block(data: S, start: usize, rows: usize, columns: usize, row_stride: usize) -> Self {
        Mat {
            data,
            start,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Mat {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// The end of the last element in the slice.
    fn end(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return self.start;
        }
        self.start + (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// out = keep · out + factor · a · b, with a (m, k), b (k, n) and out (m, n).
pub(crate) fn matmul(out: Mat<&mut [f32]>, keep: f32, factor: f32, a: Mat<&[f32]>, b: Mat<&[f32]>) {
    assert_eq!(
        (out.rows, out.columns, a.columns),
        (a.rows, b.columns, b.rows)
    );
    assert!(out.end() <= out.data.len() && a.end() <= a.data.len() && b.end() <= b.data.len());
    let stride = |s: usize| s as isize;
    // SAFETY: the assertions above keep every element that `gemm` reads or writes inside its slice.
    // The output is borrowed mutably, so it overlaps neither input. Its elements are distinct,
    // because rows are at least `columns` apart, or columns at least `rows` apart if it is
    // transposed.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.data.as_mut_ptr().add(out.start),
            stride(out.column_stride),
            stride(out.row_stride),
            keep != 0.0,
            a.data.as_ptr().add(a.start),
            stride(a.column_stride),
            stride(a.row_stride),
            b.data.as_ptr().add(b.start),
            stride(b.column_stride),
            stride(b.row_stride),
            keep,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_and_factors() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // (2, 3)
        let b = [1.0, 0.0, 2.0, 1.0, 0.0, 1.0]; // (2, 3), used transposed
        let mut out = [1.0; 4];
        let product = Mat::new(&mut out[..], 2, 2);
        matmul(
            product,
            10.0,
            0.5,
            Mat::new(&a[..], 2, 3),
            Mat::new(&b[..], 2, 3).t(),
        );
        // a bᵀ = [[7, 4], [16, 10]]
        assert_eq!(out, [13.5, 12.0, 18.0, 15.0]);
    }
}

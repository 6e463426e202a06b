//! Arrays of numpy.

use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

/// An array of numbers; numpy is imported first, whose absence is then an ImportError.
pub fn array(py: Python<'_>, numbers: Vec<f32>) -> PyResult<Bound<'_, PyArray1<f32>>> {
    py.import("numpy")?;
    Ok(PyArray1::from_vec(py, numbers))
}

/// An array of (rows, columns) numbers.
pub fn table(
    py: Python<'_>,
    numbers: Vec<f32>,
    rows: usize,
    columns: usize,
) -> PyResult<Bound<'_, PyArray2<f32>>> {
    array(py, numbers)?.reshape([rows, columns])
}

/// Room for this many numbers.
pub fn room(numbers: Option<usize>) -> PyResult<Vec<f32>> {
    let mut room = Vec::new();
    match numbers.map(|numbers| room.try_reserve_exact(numbers)) {
        Some(Ok(())) => Ok(room),
        _ => Err(PyMemoryError::new_err("there is no memory for the logits")),
    }
}

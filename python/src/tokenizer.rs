//! `Tokenizer`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sterna_runtime::Tokenizer as Runtime;

use crate::errors::Fault;
use crate::values;

/// The tokenizer of a model, with the ids of transformers.
///
/// >>> ids = model.tokenizer.encode("Once upon a time")
/// >>> model.tokenizer.decode(ids)
/// 'Once upon a time'
#[pyclass(frozen, module = "sterna")]
pub struct Tokenizer {
    tokenizer: Arc<Runtime>,
    /// Rows of the model's embedding.
    rows: usize,
}

impl Tokenizer {
    pub fn new(tokenizer: Arc<Runtime>, rows: usize) -> Tokenizer {
        Tokenizer { tokenizer, rows }
    }
}

#[pymethods]
impl Tokenizer {
    /// Token ids of a text.
    #[pyo3(signature = (text, *, add_special_tokens=true))]
    fn encode(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        add_special_tokens: bool,
    ) -> PyResult<Vec<u32>> {
        let text = values::text("text", text)?;
        let ids = py.detach(|| self.tokenizer.encode(&text, add_special_tokens));
        Ok(ids.map_err(Fault::from)?)
    }

    /// The text of token ids. Bytes that are not UTF-8 become U+FFFD.
    #[pyo3(signature = (ids, *, skip_special_tokens=true))]
    fn decode(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        skip_special_tokens: bool,
    ) -> PyResult<String> {
        let ids = values::ids("ids", ids, self.rows)?;
        let text = py.detach(|| match skip_special_tokens {
            true => self.tokenizer.decode(&ids),
            false => self.tokenizer.decode_with_special(&ids),
        });
        Ok(text.map_err(Fault::from)?)
    }

    /// The bytes that a token stands for; none for an id without a token.
    fn token_bytes<'py>(
        &self,
        py: Python<'py>,
        id: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let id = values::id("id", id, self.rows)?;
        Ok(PyBytes::new(py, self.tokenizer.bytes(id)))
    }

    /// A token as the vocabulary writes it.
    fn id_to_token(&self, id: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
        let id = values::id("id", id, self.rows)?;
        Ok(self.tokenizer.token(id).map(|(text, _)| text))
    }

    /// The id of a token by its name, such as `<|eot_id|>`.
    fn token_to_id(&self, token: &Bound<'_, PyAny>) -> PyResult<Option<u32>> {
        let token = values::text("token", token)?;
        Ok(self.tokenizer.token_to_id(&token))
    }

    /// Whether texts do not show a token.
    fn is_special(&self, id: &Bound<'_, PyAny>) -> PyResult<bool> {
        let id = values::id("id", id, self.rows)?;
        Ok(self.tokenizer.is_special(id))
    }

    /// Tokens that end a text, ascending.
    #[getter]
    fn eos_token_ids(&self) -> Vec<u32> {
        self.tokenizer.eos().to_vec()
    }

    /// Number of tokens, special ones included.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.tokenizer.len()
    }

    /// Number of tokens, special ones included.
    fn __len__(&self) -> usize {
        self.tokenizer.len()
    }
}

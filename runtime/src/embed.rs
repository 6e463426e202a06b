//! Vectors of texts: the hidden state of the last token, after the last norm.

use crate::{KvCache, Logits, Model, Part, Result};

/// A vector (hidden_size) for each of the texts, which are computed together.
///
/// # Errors
/// A text without tokens, or with more than the model takes.
pub fn vectors(model: &Model, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
    let caches = texts.iter().map(|ids| model.new_cache(ids.len()));
    let mut caches = caches.collect::<Result<Vec<KvCache>>>()?;
    let parts = caches.iter_mut().zip(texts).map(|(cache, ids)| Part {
        cache,
        ids,
        logits: Logits::Last,
    });
    let hidden = model.hidden_many(&mut parts.collect::<Vec<_>>())?;
    let vectors = hidden.chunks_exact(model.config().hidden_size);
    Ok(vectors.map(<[f32]>::to_vec).collect())
}

/// Most tokens of a batch; a longer text is a batch of its own.
const BATCH: usize = 1024;

/// Texts whose vectors are computed together. The bits of a vector do not depend on it.
pub struct Batch<'a> {
    model: &'a Model,
    texts: Vec<Vec<u32>>,
}

/// A vector (hidden_size) and the number of tokens of its text.
pub type Embedded = (Vec<f32>, usize);

impl<'a> Batch<'a> {
    /// No texts.
    pub fn new(model: &'a Model) -> Batch<'a> {
        Batch {
            model,
            texts: Vec::new(),
        }
    }

    /// Adds a text. Returns the vectors of those before it, if it does not fit beside them.
    ///
    /// # Errors
    /// Those of [`vectors`].
    pub fn push(&mut self, ids: Vec<u32>) -> Result<Vec<Embedded>> {
        let waiting: usize = self.texts.iter().map(Vec::len).sum();
        let done = match waiting + ids.len() > BATCH {
            true => self.finish()?,
            false => Vec::new(),
        };
        self.texts.push(ids);
        Ok(done)
    }

    /// The vectors of the texts that wait.
    ///
    /// # Errors
    /// Those of [`vectors`].
    pub fn finish(&mut self) -> Result<Vec<Embedded>> {
        let texts = std::mem::take(&mut self.texts);
        let vectors = vectors(self.model, &texts)?;
        Ok(vectors
            .into_iter()
            .zip(texts.iter().map(Vec::len))
            .collect())
    }
}

/// Scales a vector to length one. A vector of zeros does not change.
pub fn normalize(vector: &mut [f32]) {
    let squares: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
    if squares > 0.0 {
        let length = squares.sqrt();
        vector
            .iter_mut()
            .for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn vectors_get_length_one() {
        let mut vector = [3.0, 0.0, -4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.0, -0.8]);
        let mut large = [f32::MAX, f32::MAX];
        normalize(&mut large);
        assert_eq!(large, [0.5f32.sqrt(); 2]);
        let mut zeros = [0.0; 3];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }
}

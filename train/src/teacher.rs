//! A teacher: a model whose predictions another model learns together with the text (knowledge
//! distillation).
//!
//! It runs forward only, with the operations of its device, and keeps no activations. Its weights
//! are hashed, so a run records its teacher and refuses to continue with another one.

use sterna_ternary::sha256::{Digest, Sha256, hex};

use crate::model::{Expected, Pass, Prepared, values_of};
use crate::ops::Distillation;
use crate::sequences::Sequences;
use crate::{Model, Result};

/// A model whose weights do not change, and the share of its predictions in the loss.
pub struct Teacher {
    model: Model,
    prepared: Prepared,
    /// How its predictions are mixed with the text.
    pub settings: Distillation,
    /// SHA-256 of its weights, in hexadecimal.
    pub sum: String,
}

impl Teacher {
    /// A teacher for students with the same vocabulary. It computes as the exported model will:
    /// fully quantized, independent of the λ of its student.
    pub fn new(model: Model, settings: Distillation) -> Result<Teacher> {
        Ok(Teacher {
            prepared: model.prepare_blended(1.0)?,
            sum: weights_sum(&model)?,
            model,
            settings,
        })
    }

    /// Its hidden states after each token (tokens, hidden_size) and its head, both without a graph.
    pub(crate) fn expects(&self, sequences: &Sequences) -> Result<Expected> {
        let model = &self.model;
        let pass = Pass {
            prepared: &self.prepared,
            sequences,
            slots: None,
        };
        let mut x = model.embed(pass)?.detach();
        for i in 0..model.config.num_hidden_layers {
            x = model.layer(pass, i, &x)?.detach();
        }
        Ok(Expected {
            hidden: model.final_norm(pass, &x)?.detach(),
            head: model.head(pass).value.detach(),
            settings: self.settings,
        })
    }
}

/// SHA-256 of all weights of a model in the order of its parameters, in hexadecimal.
pub(crate) fn weights_sum(model: &Model) -> Result<String> {
    let mut sum = Sha256::new();
    for (_, var) in model.parameters() {
        sum.update(bytemuck::cast_slice::<f32, u8>(&values_of(var)?));
    }
    Ok(hex(&sum.finalize()))
}

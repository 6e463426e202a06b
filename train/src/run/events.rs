//! What a run reports while it goes on, and how it ended.

use std::path::{Path, PathBuf};

use sterna_datasets::chat::ConversationCounts;

use super::statistics::LayerStatistics;
use crate::{Error, Step};

/// What the loop reports while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// The tokenizer and the shards are being made.
    Preparing,
    /// Conversations were written into rows: those to train on, and those that are held out.
    Packed([ConversationCounts; 2]),
    /// Training begins, or goes on, at this step.
    Started {
        /// Values that are trained.
        parameters: usize,
        /// First step.
        step: u64,
        /// Times that the data will be seen.
        epochs: f64,
        /// Multiplications and additions of a step, per token.
        flops_per_token: f64,
    },
    /// There are more ranks than a step has parts.
    Idle {
        /// Ranks without work.
        ranks: usize,
        /// Parts of a step.
        shards: usize,
    },
    /// A damaged checkpoint was passed over.
    Warning(&'a Error),
    /// A step was taken.
    Step {
        /// Its index, counted from 1.
        step: u64,
        /// Loss and gradient.
        of: Step,
        /// Its learning rate.
        learning_rate: f64,
        /// Tokens in it.
        tokens: usize,
    },
    /// Held-out text was scored.
    Evaluated {
        /// After this step.
        step: u64,
        /// What was found.
        of: &'a Evaluation,
    },
    /// A checkpoint was written.
    Saved(&'a Path),
}

/// How good a model is, always as it will be exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean loss on held-out text, nats per token.
    pub loss: f64,
    /// The same per byte of text, which does not depend on the tokenizer.
    pub bits_per_byte: f64,
    /// Every matrix of a linear layer.
    pub layers: Vec<LayerStatistics>,
    /// The beginning of a held-out text and what the model writes after it; none if the recipe wants none.
    pub sample: Option<(String, String)>,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// To the next step.
    Continue,
    /// Save a checkpoint and return.
    Stop,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps taken in all.
    pub step: u64,
    /// Held-out loss at the end, nats per token; none if the run was stopped.
    pub held_out_loss: Option<f64>,
    /// The Hugging Face folder: of the finished model or, if it was stopped, of the model as it was then.
    pub model: PathBuf,
}

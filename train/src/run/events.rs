//! The events of a run, and its result.

use std::path::{Path, PathBuf};

use sterna_datasets::chat::Packed;

use super::statistics::LayerStatistics;
use crate::Step;

/// An event that the training loop reports.
#[derive(Debug)]
pub enum Event<'a> {
    /// The tokenizer and the shards are being made.
    Preparing {
        /// The part of this work.
        what: Preparing,
        /// Bytes of files that were read.
        done: u64,
        /// Bytes of all files; 0 if they are not known.
        total: u64,
    },
    /// Something that a person should know about the data.
    Note(&'a str),
    /// Conversations were packed into rows.
    Packed(&'a Packed),
    /// Training starts or resumes after this step.
    Started {
        /// Values that are trained.
        parameters: usize,
        /// Steps taken before.
        step: u64,
        /// Number of passes over the data in the whole run.
        epochs: f64,
        /// Multiplications and additions of a step, per token.
        flops_per_token: f64,
    },
    /// There are more ranks than shards in a step.
    Idle {
        /// Number of ranks without work.
        ranks: usize,
        /// Number of shards of a step.
        shards: usize,
    },
    /// Something that a person may not want: a damaged checkpoint was skipped, records were left
    /// out.
    Warning(&'a str),
    /// A step was taken.
    Step {
        /// Its index, counted from 1.
        step: u64,
        /// Loss and gradient.
        of: Step,
        /// The learning rate of the step.
        learning_rate: f64,
        /// Number of tokens in the step.
        tokens: usize,
    },
    /// Held-out text was scored.
    Evaluated {
        /// Steps taken before the evaluation.
        step: u64,
        /// The result.
        of: &'a Evaluation,
    },
    /// A checkpoint was written.
    Saved(&'a Path),
}

/// A part of the work before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparing {
    /// All of it: the data are generated or are conversations.
    Data,
    /// The words of the texts are counted for the tokenizer.
    Words,
    /// The merges of the tokenizer are computed.
    Merges,
    /// Texts become tokens.
    Tokens,
}

impl Preparing {
    /// The work in a few words.
    pub fn name(self) -> &'static str {
        match self {
            Preparing::Data => "preparing the data",
            Preparing::Words => "counting words",
            Preparing::Merges => "training the tokenizer",
            Preparing::Tokens => "encoding",
        }
    }
}

/// An evaluation of the model as it will be exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean loss on held-out text, nats per token.
    pub loss: f64,
    /// Bits per byte of the held-out text, which does not depend on the tokenizer.
    pub bits_per_byte: f64,
    /// Statistics of every matrix of a linear layer.
    pub layers: Vec<LayerStatistics>,
    /// The beginning of a held-out text and the continuation by the model; none if the recipe wants
    /// no sample.
    pub sample: Option<(String, String)>,
}

/// The answer to an event: whether training continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Continue with the next step.
    Continue,
    /// Save a checkpoint and return.
    Stop,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps taken in all.
    pub step: u64,
    /// Held-out loss at the end, nats per token; none if the run was stopped.
    pub held_out_loss: Option<f64>,
    /// The exported Hugging Face folder. It holds the finished model, or the current one if the run
    /// was stopped.
    pub model: PathBuf,
}

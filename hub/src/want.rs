//! The kinds of files that a caller needs from a repository.

/// The files of a repository that a caller needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    /// Safetensors with their config and tokenizer, or one GGUF file.
    Checkpoint,
    /// A packed file that `sterna convert` wrote, else a checkpoint, which can be packed.
    Runnable,
    /// A checkpoint, else a packed file.
    Either,
    /// The files of a data set that the trainer reads.
    Texts,
}

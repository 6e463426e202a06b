//! What a caller can use of a repository.

/// Which files of a repository are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    /// Safetensors with their config and tokenizer, or one GGUF file.
    Checkpoint,
    /// One file that `sterna convert` wrote.
    Packed,
    /// Either, a checkpoint first.
    Either,
    /// What the trainer reads, of a data set.
    Texts,
}

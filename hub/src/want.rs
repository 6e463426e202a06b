//! What a caller can use of a repository.

/// Which files of a repository are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    /// Safetensors with their config and tokenizer, or one GGUF file.
    Checkpoint,
    /// One file that `sterna convert` wrote, else a checkpoint, which can be packed.
    Runnable,
    /// A checkpoint, else a packed file.
    Either,
    /// Files of a data set that the trainer reads.
    Texts,
}

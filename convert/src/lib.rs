//! Checkpoints in, packed files out: readers, a stream of tensors, writers, proof

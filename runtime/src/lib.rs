//! Packed file to logits and text: kernels, threads, forward pass, KV cache, sampler

//! A GGUF file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_fuzz::{read, write};

fuzz_target!(|bytes: &[u8]| {
    let mut file = b"GGUF".to_vec();
    file.extend(bytes);
    let _ = read(&write("model.gguf", &file));
});

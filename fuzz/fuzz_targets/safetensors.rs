//! `model.safetensors` of a folder. The first byte chooses how its config declares the weights.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sterna_fuzz::{config, read, write};

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, bytes)) = bytes.split_first() else {
        return;
    };
    let mut config = config();
    match mode % 3 {
        0 => {}
        1 => config["quantization_config"]["quantization_mode"] = "offline".into(),
        _ => config["quantization_config"] = Value::Null,
    }
    write("folder/config.json", config.to_string().as_bytes());
    let path = write("folder/model.safetensors", bytes);
    let _ = read(path.parent().expect("it lies in a folder"));
});

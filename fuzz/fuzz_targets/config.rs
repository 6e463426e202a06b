//! config.json, and the layout that it calls for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_ternary::{Config, json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(json) = json::parse(bytes) else {
        return;
    };
    let _ = Config::storage(&json);
    if let Ok(config) = Config::from_json(&json) {
        let again = Config::from_json(&config.to_json());
        assert_eq!(
            again.expect("what is written can be read").hidden_size,
            config.hidden_size
        );
        config.rope.inverse_frequencies(config.head_dim.min(256));
    }
});

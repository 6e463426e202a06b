//! tokenizer.json inside a packed file, and a text through it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_fuzz::packed;
use sterna_runtime::Tokenizer;

fuzz_target!(init: {
    // The tokenizer library panics on some files. Sterna catches that, but the fuzzer would stop.
    std::panic::set_hook(Box::new(|_| {}));
}, |bytes: &[u8]| {
    let file = packed(&[("tokenizer.json", bytes)]);
    let Ok(tokenizer) = Tokenizer::open(&file) else {
        return;
    };
    if let Ok(ids) = tokenizer.encode("The tern, 12345 naïve 北極 <s>\n", true) {
        let _ = tokenizer.decode(&ids);
    }
});

//! A chat template inside a packed file, and a conversation through it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_fuzz::packed;
use sterna_runtime::{ChatTemplate, Message};

fuzz_target!(|bytes: &[u8]| {
    let file = packed(&[("chat_template.jinja", bytes)]);
    let messages =
        ["system", "user", "assistant", "user"].map(|role| Message::new(role, "{{ x }} Hi"));
    let _ = ChatTemplate::open(&file).and_then(|template| template.render(&messages, true));
});

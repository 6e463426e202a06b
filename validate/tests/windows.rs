//! A long text is encoded in pieces, and its windows are those of the text as a whole.

use std::path::Path;

use sterna_convert::HeadType;
use sterna_runtime::Model;
use sterna_ternary::Packing;
use sterna_validate::{Convention, Text};

/// A text of this many bytes or more, with what tokenizers have rules about.
fn long(bytes: usize) -> String {
    let mut text = String::from(" Begins.\n");
    for i in 0u64.. {
        let word = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let special = match i % 500 {
            0 => "<|end_of_text|>",
            250 => "</s>\n\n   ",
            _ => " ",
        };
        text += &format!(
            "tern {word}{special}é{}",
            ["\n", ", 中文 ", "   "][i as usize % 3]
        );
        if text.len() >= bytes {
            return text;
        }
    }
    unreachable!()
}

#[test]
fn windows_of_a_long_text_are_those_of_the_whole() {
    for name in [
        "llama-shards",
        "bitnet-packed-bf16-scales",
        "gemma3-embedding",
    ] {
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("model.sterna");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints");
        let options = sterna_convert::PackedOptions {
            packing: Packing::I2.into(),
            head: HeadType::Lossless,
            activations: None,
            allow_missing: false,
        };
        sterna_convert::convert(&fixtures.join(name), &path, &options, &mut |_, _| {}).unwrap();
        let model = Model::open(&path, sterna_runtime::Options::default()).unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let documents = vec![long(700_000), long(600_000), "The end.".to_owned()];
        let expected = tokenizer.encode(&documents.join("\n\n"), true).unwrap();
        let text = Text {
            name: "long".into(),
            documents,
        };
        let convention = Convention::Strided {
            context: 64,
            stride: 64,
        };
        let windows = convention.windows(&text, &model, &tokenizer).unwrap();
        let found: Vec<u32> = windows.into_iter().flat_map(|window| window.ids).collect();
        assert!(found == expected, "{name}");
    }
}

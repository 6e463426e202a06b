//! Refusals of a conversion name the file, the tensor, what was expected and found, and what to do.

mod checkpoint;

use std::fs;
use std::path::Path;

use checkpoint::{Checkpoint, OPTIONS, Storage, convert, shard_name, store};
use safetensors::Dtype;
use serde_json::{Value, json};
use sterna_convert::{Error, HeadType, PackedOptions};
use sterna_ternary::layout::{EMBEDDING, HEAD};

const Q: &str = "model.layers.0.self_attn.q_proj.weight";

/// The message holds all parts.
fn check(error: Error, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn new(storage: Storage) -> Checkpoint {
    Checkpoint::new(storage, Dtype::F32, true)
}

#[test]
fn sources_that_are_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| sterna_convert::open(path, false).err().unwrap();
    let readable = "Hugging Face folder";
    check(open(folder.path()), &["no config.json", readable]);
    let file = folder.path().join("config.json");
    fs::write(&file, new(Storage::Divide).config.to_string()).unwrap();
    check(
        open(&file),
        &["config.json", "is a file of another kind", readable],
    );
    check(open(folder.path()), &["neither model.safetensors nor"]);
    assert!(matches!(
        open(&folder.path().join("absent")),
        Error::Io { .. }
    ));
    fs::create_dir(folder.path().join("model.safetensors")).unwrap();
    check(open(folder.path()), &["model.safetensors", "not a file"]);
}

#[test]
fn places_that_cannot_take_the_result() {
    let folder = new(Storage::Divide).folder();
    let before = fs::read_dir(folder.path()).unwrap().count();
    let to = |out: &Path| {
        let error = sterna_convert::convert(folder.path(), out, &OPTIONS, &mut |_, _| {});
        let error = error.unwrap_err();
        assert!(
            matches!(error, Error::Packed(sterna_ternary::Error::Output { .. })),
            "{error}"
        );
        error
    };
    check(
        to(&folder.path().join("no/model")),
        &["no does not exist", "make it"],
    );
    check(to(folder.path()), &["is a folder"]);
    for name in [
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ] {
        check(to(&folder.path().join(name)), &[name, "is the input"]);
        check(
            to(&folder
                .path()
                .join("..")
                .join(folder.path().file_name().unwrap())
                .join(name)),
            &["is the input"],
        );
    }
    let inside = folder.path().join("model.safetensors/model");
    check(to(&inside), &["does not exist"]);
    #[cfg(unix)]
    {
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("model.safetensors"), &link).unwrap();
        check(to(&link), &["is the input"]);
        fs::remove_file(link).unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before);
}

#[test]
fn files_that_are_missing_or_broken() {
    for (file, consequence) in [
        ("tokenizer.json", "not on text"),
        ("tokenizer_config.json", "special tokens"),
        ("generation_config.json", "past its end"),
    ] {
        let folder = new(Storage::Divide).folder();
        fs::remove_file(folder.path().join(file)).unwrap();
        let error = convert(folder.path(), &OPTIONS).unwrap_err();
        check(error, &[file, consequence, "--allow-missing"]);
        let options = PackedOptions {
            allow_missing: true,
            ..OPTIONS
        };
        let (report, _) = convert(folder.path(), &options).unwrap();
        assert_eq!(report.warnings.len(), 1);
        assert!(report.warnings[0].contains(consequence));
        for broken in ["{", "[]", ""] {
            fs::remove_file(folder.path().join("model.sterna")).ok();
            fs::write(folder.path().join(file), broken).unwrap();
            check(
                convert(folder.path(), &options).unwrap_err(),
                &[file, "JSON"],
            );
        }
    }
    let folder = new(Storage::Divide).folder();
    fs::write(folder.path().join("chat_template.jinja"), b"\xff").unwrap();
    check(
        convert(folder.path(), &OPTIONS).unwrap_err(),
        &["chat_template.jinja", "UTF-8"],
    );
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    convert(folder.path(), &OPTIONS).unwrap();
}

#[test]
fn masters_that_nothing_declares_ternary() {
    let mut checkpoint = new(Storage::Online);
    checkpoint.config["quantization_config"] = Value::Null;
    let parts = [
        "128 columns",
        "declares",
        "--masters",
        "online",
        "--packing f16",
    ];
    check(checkpoint.error(), &[Q]);
    check(checkpoint.error(), &parts);
}

#[test]
fn configs_that_are_not_supported() {
    let with = |key: &str, value: Value| {
        let mut checkpoint = new(Storage::Online);
        checkpoint.config[key] = value;
        let error = checkpoint.error();
        assert!(matches!(error, Error::Config { .. }), "{error}");
        error
    };
    check(
        with("architectures", json!(["MambaForCausalLM"])),
        &["MambaForCausalLM", "known families"],
    );
    check(
        with("quantization_config", json!({"quant_method": "gptq"})),
        &["gptq"],
    );
    check(with("rms_norm_eps", Value::Null), &["rms_norm_eps"]);
    let mut checkpoint = new(Storage::Online);
    checkpoint.config["num_hidden_layers"] = 9000.into();
    check(checkpoint.error(), &["model.layers.8999", "9000 layers"]);
}

#[test]
fn storage_that_contradicts_the_config() {
    let masters = new(Storage::Online);
    let packed = new(Storage::Divide);
    let mut checkpoint = masters.clone();
    checkpoint.config = packed.config.clone();
    check(
        checkpoint.error(),
        &[
            Q,
            "expected U8 [2, 10]",
            "found F32 [6, 10]",
            "quantization_config",
        ],
    );
    let mut checkpoint = packed.clone();
    checkpoint.config = masters.config.clone();
    check(
        checkpoint.error(),
        &[Q, "expected F32, F16 or BF16 [6, 10]", "found U8 [2, 10]"],
    );
    let mut checkpoint = masters.clone();
    checkpoint.add(&format!("{Q}_scale"), &[1]);
    check(
        checkpoint.error(),
        &["q_proj.weight_scale", "no such tensor"],
    );
}

#[test]
fn tensors_that_are_missing_or_misshapen() {
    let complete = new(Storage::Divide);
    for name in complete.tensors.keys() {
        let mut checkpoint = complete.clone();
        checkpoint.tensors.remove(name);
        check(checkpoint.error(), &[name, "found nothing", "incomplete"]);
        let mut checkpoint = complete.clone();
        checkpoint.add(name, &[3, 3]);
        check(
            checkpoint.error(),
            &["model.safetensors", name, "expected", "found F32 [3, 3]"],
        );
    }
    let mut checkpoint = Checkpoint::new(Storage::Divide, Dtype::F32, false);
    checkpoint.tensors.remove(HEAD);
    check(checkpoint.error(), &[HEAD, "tie_word_embeddings"]);
    let mut checkpoint = Checkpoint::new(Storage::Divide, Dtype::F32, false);
    checkpoint.config["vocab_size"] = 12.into();
    checkpoint.add(HEAD, &[12, 10]);
    check(
        checkpoint.error(),
        &[HEAD, "[11, 10]", "[12, 10]", "vocab_size"],
    );
}

#[test]
fn tensors_that_would_be_dropped() {
    for name in [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.self_attn.inner_attn_ln.weight",
        "model.layers.1.mlp.down_proj.rms_norm.weight",
        "model.layers.2.input_layernorm.weight",
        "rotary_emb.inv_freq.weight",
    ] {
        let mut checkpoint = new(Storage::Multiply);
        checkpoint.add(name, &[10]);
        let error = checkpoint.error();
        assert!(matches!(error, Error::UnknownTensor { .. }));
        check(error, &[name, "bitnet", "computed without it"]);
    }
    let mut checkpoint = new(Storage::Multiply);
    checkpoint.add(HEAD, &[11, 10]);
    check(
        checkpoint.error(),
        &[HEAD, "they differ", "`tie_word_embeddings` to false"],
    );
    checkpoint.add(HEAD, &[11]);
    check(checkpoint.error(), &[HEAD, "they differ"]);
}

#[test]
fn values_that_no_model_has() {
    let norm = "model.layers.1.mlp.ffn_sub_norm.weight";
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            for (name, index) in [(Q, 59), (EMBEDDING, 107), (norm, 6)] {
                let mut checkpoint = Checkpoint::new(Storage::Online, dtype, true);
                checkpoint.set(name, index, bad);
                let value = format!("value {index} is {bad}");
                check(
                    checkpoint.error(),
                    &["model.safetensors", name, &value, "finite"],
                );
            }
        }
    }
    for (storage, scale) in [
        (Storage::Divide, 0.0),
        (Storage::Divide, -1.0),
        (Storage::Divide, f32::INFINITY),
        (Storage::Divide, 1e-45),
        (Storage::Multiply, 0.0),
        (Storage::Multiply, -2.0),
        (Storage::Multiply, f32::NAN),
    ] {
        let mut checkpoint = new(storage);
        let name = format!("{Q}_scale");
        checkpoint.set(&name, 0, scale);
        check(checkpoint.error(), &[&name, "value 0", "above zero"]);
    }
}

#[test]
fn codes_that_stand_for_no_trit() {
    for field in 0..4 {
        let mut checkpoint = new(Storage::Multiply);
        checkpoint.tensors.get_mut(Q).unwrap().bytes[13] |= 3 << (2 * field);
        let error = checkpoint.error();
        assert!(matches!(error, Error::Code { index: 13, .. }));
        check(
            error,
            &["model.safetensors", Q, "byte 13", "codes from 0 to 2"],
        );
    }
}

#[test]
fn an_f16_head_does_not_overflow() {
    let mut checkpoint = new(Storage::Divide);
    checkpoint.set(EMBEDDING, 42, -65520.0);
    let options = PackedOptions {
        head: HeadType::F16,
        ..OPTIONS
    };
    let error = checkpoint.convert(&options).unwrap_err();
    check(error, &[EMBEDDING, "value 42", "-65520", "--head lossless"]);
    checkpoint.set(EMBEDDING, 42, -65519.0);
    checkpoint.convert(&options).unwrap();
}

#[test]
fn indexes_that_lie() {
    let mut checkpoint = new(Storage::Divide);
    checkpoint.shards = 2;
    let with = |edit: &dyn Fn(&mut Value)| {
        let folder = checkpoint.folder();
        let path = folder.path().join("model.safetensors.index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut index);
        fs::write(&path, index.to_string()).unwrap();
        fs::copy(
            folder.path().join(shard_name(0, 2)),
            folder.path().join("copy"),
        )
        .unwrap();
        convert(folder.path(), &OPTIONS).unwrap_err()
    };
    for outside in ["../x", "/etc/passwd", "a/b", "..", ""] {
        let error = with(&|index| index["weight_map"][EMBEDDING] = outside.into());
        assert!(matches!(error, Error::Index { .. }));
        check(error, &["index.json", EMBEDDING, outside, "in this folder"]);
    }
    check(
        with(&|index| index["weight_map"][EMBEDDING] = 1.into()),
        &["weight_map", "in this folder"],
    );
    check(
        with(&|index| index["weight_map"] = json!([])),
        &["weight_map"],
    );
    check(with(&|index| *index = json!(1)), &["weight_map"]);
    let error = with(&|index| index["weight_map"]["no.such.tensor"] = shard_name(0, 2).into());
    check(error, &["no.such.tensor should be in", "is not"]);
    let error = with(&|index| {
        index["weight_map"]
            .as_object_mut()
            .unwrap()
            .shift_remove(EMBEDDING);
    });
    check(error, &[EMBEDDING, "not listed"]);
    let error = with(&|index| index["weight_map"]["again"] = "copy".into());
    check(error, &["again should be in copy"]);
    check(
        with(&|index| index["weight_map"][Q] = "gone".into()),
        &["gone", "which is not in the folder"],
    );
    let empty = with(&|index| index["weight_map"] = json!({}));
    check(empty, &["empty"]);
}

#[test]
fn an_integer_table_is_refused() {
    let mut checkpoint = new(Storage::Online);
    let (mut tensor, _) = store(Dtype::F32, &[11, 10], &[0.0; 110]);
    tensor.dtype = Dtype::I32;
    checkpoint.tensors.insert(EMBEDDING.into(), tensor);
    check(checkpoint.error(), &[EMBEDDING, "found I32 [11, 10]"]);
}

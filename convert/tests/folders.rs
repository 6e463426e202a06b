//! Folders as people have them: an index from before, names with the wrappers of PyTorch, adapters.

mod checkpoint;

use checkpoint::{Checkpoint, OPTIONS, Storage, convert};
use safetensors::Dtype;
use serde_json::json;
use sterna_convert::Error;
use sterna_ternary::layout::EMBEDDING;

const INDEX: &str = "model.safetensors.index.json";

fn new() -> Checkpoint {
    Checkpoint::new(Storage::Online, Dtype::F32, false)
}

fn check(error: &Error, parts: &[&str]) {
    let error = error.to_string();
    for part in parts {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn a_whole_file_comes_before_an_index() {
    let checkpoint = new();
    let folder = checkpoint.folder();
    let map = json!({EMBEDDING: "model-00001-of-00002.safetensors"});
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(folder.path().join(INDEX), index).unwrap();
    let (report, out) = convert(folder.path(), &OPTIONS).unwrap();
    checkpoint.check(&sterna_ternary::PackedFile::open(&out).unwrap());
    assert!(
        report.warnings.iter().any(|w| w.contains(INDEX)),
        "{:?}",
        report.warnings
    );
}

#[test]
fn wrappers_of_pytorch_are_left_out_of_names() {
    let plain = new();
    for shards in [1, 2] {
        for around in ["_orig_mod.", "module.", "model.", "base_model.model."] {
            let mut wrapped = plain.clone();
            wrapped.shards = shards;
            let tensors = std::mem::take(&mut wrapped.tensors).into_iter();
            let tensors = tensors.map(|(name, tensor)| (format!("{around}{name}"), tensor));
            wrapped.tensors = tensors.collect();
            let (report, packed, _folder) = wrapped.convert(&OPTIONS).unwrap();
            plain.check(&packed);
            let is_said = |warning: &String| warning.contains(around);
            assert!(report.warnings.iter().any(is_said), "{:?}", report.warnings);
        }
    }
}

#[test]
fn two_tensors_of_one_name_are_refused() {
    let mut checkpoint = new();
    let copy = checkpoint.tensors[EMBEDDING].clone();
    checkpoint
        .tensors
        .insert(format!("_orig_mod.{EMBEDDING}"), copy);
    check(&checkpoint.error(), &["_orig_mod", EMBEDDING, "keep one"]);
}

#[test]
fn an_adapter_is_not_a_model_and_not_ignored() {
    let adapter = json!({"peft_type": "LORA", "base_model_name_or_path": "org/base"}).to_string();
    let without = |names: &[&str]| {
        let folder = new().folder();
        std::fs::write(folder.path().join("adapter_config.json"), &adapter).unwrap();
        for name in names {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        convert(folder.path(), &OPTIONS)
    };
    let (report, _) = without(&[]).unwrap();
    let is_said = |w: &String| w.contains("LORA") && w.contains("org/base") && w.contains("merge");
    assert!(report.warnings.iter().any(is_said), "{:?}", report.warnings);
    let parts = [
        "an adapter (LORA) of org/base",
        "not the model",
        "merge_and_unload",
    ];
    check(&without(&["model.safetensors"]).unwrap_err(), &parts);
    let error = without(&["model.safetensors", "config.json"]).unwrap_err();
    check(&error, &parts);
    // One advice, not also that of other folders.
    assert!(
        !error.to_string().contains("give a") && error.is_bad_input(),
        "{error}"
    );

    let mut unmerged = new();
    unmerged.add("model.layers.0.mlp.up_proj.lora_A.weight", &[2, 10]);
    check(
        &unmerged.error(),
        &["lora_A", "not merged", "merge_and_unload"],
    );
}

#[test]
fn a_pickle_is_named_with_what_to_do() {
    let folder = new().folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::rename(at("model.safetensors"), at("pytorch_model.bin")).unwrap();
    let parts = ["pytorch_model.bin", "pickle", "safe_serialization"];
    check(&convert(folder.path(), &OPTIONS).unwrap_err(), &parts);
}

//! A Hugging Face folder, which `transformers` loads and `sterna convert` packs.
//!
//! With one scale per matrix the folder holds the master weights, and config.json declares that
//! linear layers are ternarized online with absmean. The forward pass of the folder is then that of
//! the trainer. No key that readers know declares master weights with several scales per matrix;
//! they would be ternarized with one. Such layers are written as the products trit × scale, which
//! are correct in every program that loads floats. `input_bits` says that activations were int8, as
//! in the models of 1bitLLM. The master weights stay in the checkpoints of the run.

use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use sterna_datasets::Tokenizer;
use sterna_ternary::{Role, durable};

use crate::model::{has_products, values_of};
use crate::{Error, Model, Precision, Result, ops};

const GENERATION: &str = "generation_config.json";

/// Writes config.json, model.safetensors, generation_config.json and the files of the tokenizer
/// into `folder`, which is created.
///
/// `files` are those of the checkpoint that the tokenizer comes from, and are copied unchanged,
/// except that generation_config.json names every token that ends a text in the config. There are
/// none for a tokenizer that the run trained. `template` is the chat template of a model that was
/// trained from scratch.
pub fn huggingface(
    model: &Model,
    tokenizer: &Tokenizer,
    files: Option<&[(String, Vec<u8>)]>,
    template: Option<&str>,
    folder: &Path,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let config = &model.config;
    for (name, bytes) in files.unwrap_or_default() {
        write(&folder.join(name), bytes)?;
    }
    write(&folder.join("model.safetensors"), &weights(model)?)?;
    // Only master weights are quantized again by readers; floats and products are not.
    let mut json = config.to_json();
    if model.precision == Precision::Full || has_products(model) {
        let keys = json.as_object_mut().expect("a config is an object");
        keys.shift_remove("quantization_config");
    }
    if has_products(model) {
        json["input_bits"] = 8.into();
    }
    write_json(&folder.join("config.json"), &json)?;
    // A tokenizer and generation settings of our own, unless the checkpoint's were copied.
    if let Some(template) = template {
        write(&folder.join("chat_template.jinja"), template.as_bytes())?;
    }
    if files.is_none() {
        tokenizer.save(folder, config.max_position_embeddings)?;
    }
    if let Some((_, bytes)) = files
        .unwrap_or_default()
        .iter()
        .find(|(name, _)| name == GENERATION)
    {
        return match with_ends(bytes, &config.eos_token_id) {
            Some(settings) => write_json(&folder.join(GENERATION), &settings),
            None => Ok(()),
        };
    }
    let mut generation = json!({
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "max_length": config.max_position_embeddings,
    });
    // The most probable answer of a small model is its best one. A text that it writes on its own
    // repeats itself unless it is sampled.
    if template.is_none() {
        generation["do_sample"] = true.into();
        generation["temperature"] = 0.8.into();
        generation["top_p"] = 0.95.into();
    }
    write_json(&folder.join(GENERATION), &generation)
}

/// Generation settings with these tokens among those that end a text; none if they are there.
fn with_ends(settings: &[u8], ends: &[u32]) -> Option<Value> {
    let mut settings: Value = serde_json::from_slice(settings).ok()?;
    let mut listed = match settings.get("eos_token_id") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(ids)) => ids.clone(),
        Some(id) => vec![id.clone()],
    };
    let before = listed.len();
    let new = ends.iter().map(|id| Value::from(*id));
    let new: Vec<Value> = new.filter(|id| !listed.contains(id)).collect();
    listed.extend(new);
    let is_changed = listed.len() > before;
    settings["eos_token_id"] = listed.into();
    is_changed.then_some(settings)
}

fn weights(model: &Model) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for (weight, var) in model.parameters() {
        let mut values = values_of(var)?;
        if weight.role == Role::Linear && has_products(model) {
            values = ops::products(&values, weight.columns, model.scaling);
        }
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.push((&weight.name, var.dims().to_vec(), bytes));
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name, view.expect("the shape is that of the values"))
    });
    // transformers reads from `format` which framework named the tensors.
    let metadata = [("format".to_owned(), "pt".to_owned())];
    Ok(safetensors::serialize(views, Some(metadata.into())).expect("valid views serialize"))
}

fn write_json(path: &Path, json: &Value) -> Result<()> {
    write(path, format!("{json:#}\n").as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    durable::write(path, |w| w.write_all(bytes)).map_err(Error::io(path))
}

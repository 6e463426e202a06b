//! The model card of a run, from its recipe, its record and its last evaluation.
//!
//! A path is shortened to its last part, or to the name of the repository on the hub, because the
//! card is made to be published.

use std::path::Path;

use serde_json::Value as Json;
use sterna_ternary::card::{Card, hub_name};
use toml::Value;

use crate::model::has_products;
use crate::{Error, Model, Precision, Pretrained, Result, Run};

/// Writes README.md into the exported folder `out` of the run in `folder`.
pub fn write(
    run: &Run,
    model: &Model,
    folder: &Path,
    held_out_loss: Option<(f64, u64)>,
    out: &Path,
) -> Result<()> {
    let data = &run.recipe().data;
    let texts = data.text.iter().flatten().map(|text| text.path());
    let texts = texts.chain(data.chat.iter().flatten().map(|path| path.as_path()));
    let mut datasets: Vec<String> = texts
        .filter_map(|path| hub_name(path, "datasets"))
        .collect();
    datasets.sort();
    datasets.dedup();
    let card = Card {
        title: last(folder),
        base_model: run.base().and_then(|base| base.hub_name.clone()),
        datasets,
        is_quantized: model.precision == Precision::Ternary && !has_products(model),
        about: about(run, model),
        recipe: values(run),
        data: hashes(folder),
        held_out_loss,
        ..Card::default()
    };
    card.write(out, &model.config).map_err(Error::io(out))
}

fn about(run: &Run, model: &Model) -> String {
    let kind = match model.precision {
        Precision::Ternary => {
            "A ternary (1.58-bit) language model: each weight of its linear layers is -1, 0 or +1"
        }
        Precision::Full => "A language model in full precision",
    };
    let scales = match model.precision {
        Precision::Ternary => " times a scale",
        Precision::Full => "",
    };
    let version = env!("CARGO_PKG_VERSION");
    let origin = match run.base() {
        Some(base) => format!("with Sterna {version}, starting from {}", named(base)),
        None => format!("from scratch with Sterna {version}"),
    };
    let teacher = run
        .teacher()
        .map(|(teacher, _)| format!(" Its teacher was {}.", named(teacher)));
    format!(
        "{kind}{scales}. It was trained {origin}.{}",
        teacher.unwrap_or_default()
    )
}

/// The name of a checkpoint on the hub, or the last part of its path.
fn named(base: &Pretrained) -> String {
    base.hub_name.clone().unwrap_or_else(|| last(&base.path))
}

/// All values of the recipe; those of checkpoints as [`named`].
fn values(run: &Run) -> Vec<(String, String)> {
    let teacher = run.teacher().map(|(teacher, _)| teacher);
    let value = |(key, value): (String, Value)| {
        let checkpoint = match &*key {
            "model.from" => run.base(),
            "teacher.from" => teacher,
            _ => None,
        };
        let text = checkpoint.map_or_else(|| without_folders(value).to_string(), named);
        (key, text)
    };
    run.recipe().flat().into_iter().map(value).collect()
}

/// A value whose paths are reduced to their last part, or to a name of the hub.
fn without_folders(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains(['/', '\\']) => {
            let path = Path::new(&text);
            hub_name(path, "datasets")
                .unwrap_or_else(|| last(path))
                .into()
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_folders).collect()),
        Value::Table(values) => {
            let values = values.into_iter();
            Value::Table(
                values
                    .map(|(key, value)| (key, without_folders(value)))
                    .collect(),
            )
        }
        value => value,
    }
}

/// Name and SHA-256 of each file that run.json lists.
fn hashes(folder: &Path) -> Vec<(String, String)> {
    let record = std::fs::read(folder.join("run.json")).unwrap_or_default();
    let record: Json = serde_json::from_slice(&record).unwrap_or_default();
    let files = record["data"].as_object().into_iter().flatten();
    files
        .filter_map(|(path, sum)| Some((last(Path::new(path)), sum.as_str()?.to_owned())))
        .collect()
}

fn last(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = absolute.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

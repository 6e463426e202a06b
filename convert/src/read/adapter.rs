//! Adapters of peft, such as LoRA, which are changes to a model and not models.

use std::path::Path;

use serde_json::Value;
use sterna_ternary::json::shown;

use crate::read::embedded;
use crate::{Error, Result};

/// File name of an adapter's description.
const CONFIG: &str = "adapter_config.json";

const ADVICE: &str = "merge it with peft (`PeftModel.from_pretrained(base, adapter)\
                      .merge_and_unload().save_pretrained(folder)`) and convert that folder";

/// An adapter in a folder.
pub(super) struct Adapter {
    /// Its method and the model that it changes, as far as they are known.
    described: String,
}

impl Adapter {
    /// The adapter of a folder, if it has one.
    pub fn find(folder: &Path) -> Result<Option<Adapter>> {
        let Some(bytes) = embedded::read(&folder.join(CONFIG))? else {
            return Ok(None);
        };
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let method = json["peft_type"].as_str().unwrap_or("unknown type");
        let base = json["base_model_name_or_path"].as_str();
        let base = base.map_or(String::new(), |base| format!(" of {}", shown(base)));
        Ok(Some(Adapter {
            described: format!("an adapter ({}){base}", shown(method)),
        }))
    }

    /// Why a folder without a model is refused.
    pub fn alone(&self, folder: &Path) -> Error {
        Error::Adapter {
            path: folder.to_owned(),
            why: format!(
                "there is {} and not the model that it changes; {ADVICE}",
                self.described
            ),
        }
    }

    /// What is said where the folder has a model too.
    pub fn beside(&self) -> String {
        format!(
            "the folder also has {}, which is not applied; {ADVICE}",
            self.described
        )
    }
}

/// Whether a tensor belongs to an adapter that is saved together with its model and not merged.
pub(super) fn is_unmerged(name: &str) -> bool {
    let parts = [
        "lora_A",
        "lora_B",
        "base_layer",
        "lora_magnitude_vector",
        "modules_to_save",
    ];
    name.split('.').any(|part| parts.contains(&part))
}

/// Why such a checkpoint is refused.
pub(super) fn unmerged(path: &Path, name: &str) -> Error {
    let name = shown(name);
    Error::Adapter {
        path: path.to_owned(),
        why: format!(
            "tensor {name} is a part of an adapter that is not merged into its model; {ADVICE}"
        ),
    }
}

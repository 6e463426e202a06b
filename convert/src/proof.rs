//! The proof of a conversion: the written model equals the source when the source is read again.

use std::path::Path;

use sterna_ternary::{Output, sha256};

use crate::compare::{Comparison, Rule, compare};
use crate::progress::ProgressCounter;
use crate::{Error, Result, Source, ValueType};

/// Compares every trit, scale, value and embedded file of a result with its source.
///
/// `files` are the files that the result must contain; `scales` is the type in which it stores
/// scales.
///
/// # Errors
/// [`Error::Differs`] with the number of differences and the first tensor that differs. `out` is
/// the final name of the file.
pub(crate) fn prove(
    source: &dyn Source,
    result: &dyn Source,
    files: &[(String, Vec<u8>)],
    out: &Path,
    scales: ValueType,
    progress: &mut ProgressCounter,
) -> Result<Comparison> {
    let is_made = true;
    let found = compare(source, result, Rule { scales, is_made }, progress)?;
    let file = |name: &str| result.files().iter().find(|(n, _)| n == name);
    let files = files.iter().filter(|f| file(&f.0) != Some(f));
    let files: Vec<&String> = files.map(|(name, _)| name).collect();
    let config = found.config_differs.iter().map(|key| key.to_string());
    let first = found
        .first
        .clone()
        .or(config.chain(files.iter().map(|f| f.to_string())).next());
    match first {
        None => Ok(found),
        Some(tensor) => Err(Error::Differs {
            path: out.to_owned(),
            tensor,
            differ: found.differ
                + found.scales_differ
                + found.values_differ
                + (found.config_differs.len() + files.len()) as u64,
        }),
    }
}

/// Makes the file `out`. It gets its name after `make` has written and proved it. Also returns size
/// and checksum.
pub(crate) fn proven<T>(
    out: &Output,
    make: impl FnOnce(&Path) -> Result<T>,
) -> Result<(T, u64, String)> {
    out.make(|unproven| {
        let made = make(unproven)?;
        let bytes = unproven.metadata().map_err(Error::io(unproven))?.len();
        let sha256 = sha256::of_file(unproven).map_err(Error::io(unproven))?;
        Ok((made, bytes, sha256))
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::PathBuf;

    use serde_json::json;
    use sterna_ternary::layout::{self, Weight};
    use sterna_ternary::{Config, Dtype, Packing, Scaling};

    use super::*;
    use crate::{HeadType, PackedOptions, Scales, StoredScale, Ternary, write_packed};

    /// A source in which one reading of one tensor differs from the other readings.
    struct Fickle {
        config: Config,
        files: Vec<(String, Vec<u8>)>,
        /// The name of the tensor that changes, or `scale`.
        what: &'static str,
        reads: Cell<usize>,
        /// Index of the reading that differs.
        odd: usize,
    }

    impl Fickle {
        fn is_odd(&self, name: &str) -> bool {
            let reads = self.reads.get() + usize::from(name == self.what);
            self.reads.set(reads);
            name == self.what && reads == self.odd
        }
    }

    impl Source for Fickle {
        fn path(&self) -> &Path {
            Path::new("fickle")
        }
        fn config(&self) -> &Config {
            &self.config
        }
        fn files(&self) -> &[(String, Vec<u8>)] {
            &self.files
        }
        fn warnings(&self) -> &[String] {
            &[]
        }
        fn inputs(&self) -> Vec<PathBuf> {
            Vec::new()
        }
        fn bytes(&self) -> u64 {
            0
        }
        fn dtype(&self, _: &Weight) -> Dtype {
            Dtype::F32
        }
        fn scaling(&self, _: &Weight) -> Result<Scaling> {
            Ok(Scaling::Matrix)
        }
        fn linear(&self, weight: &Weight) -> Result<Ternary> {
            let mut trits = vec![1; weight.rows * weight.columns];
            trits[3] = if self.is_odd(&weight.name) { 0 } else { -1 };
            let scale = if self.is_odd("scale") { 2.0 } else { 0.5 };
            Ok(Ternary {
                trits,
                scales: Scales::one(scale),
                stored: StoredScale::Multiply(scale),
            })
        }
        fn rows(&self, weight: &Weight, _: usize, values: &mut [f32]) -> Result<()> {
            let odd = self.is_odd(&weight.name);
            values.fill(0.3);
            values[1] = if odd { -0.3 } else { 0.4 };
            Ok(())
        }
        fn vector(&self, weight: &Weight) -> Result<Vec<f32>> {
            let mut values = vec![0.0; weight.columns];
            self.rows(weight, 0, &mut values)?;
            Ok(values)
        }
    }

    #[test]
    fn whatever_differs_is_found_and_nothing_is_kept() {
        let json = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 5, "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
            "tie_word_embeddings": false,
        });
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model");
        let convert = |what, odd, head| {
            let source = Fickle {
                config: Config::from_json(&json).unwrap(),
                files: vec![("config.json".into(), json.to_string().into_bytes())],
                what,
                reads: Cell::new(0),
                odd,
            };
            let options = PackedOptions {
                packing: Packing::T5.into(),
                head,
                activations: None,
                allow_missing: false,
            };
            write_packed(&source, &Output::new(&out)?, &options, &mut |_, _| {})
        };
        let matrix = "model.layers.0.mlp.up_proj.weight";
        for head in HeadType::ALL
            .into_iter()
            .filter(|h| *h != HeadType::Ternary)
        {
            // A table is read once to three times for the plan, then to write it and to prove it.
            // Other tensors are read twice.
            let in_planes = head == HeadType::Lossless;
            for (what, odd) in [
                (matrix, 2),
                ("scale", 1),
                ("model.norm.weight", 2),
                (layout::EMBEDDING, 3),
                (layout::HEAD, if in_planes { 4 } else { 3 }),
            ] {
                let error = convert(what, odd, head).expect_err("a difference");
                assert!(matches!(error, Error::Differs { .. }), "{what}: {error}");
                let named = if what == "scale" { "q_proj" } else { what };
                assert!(error.to_string().contains(named), "{error}");
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
            }
        }
        convert("nothing", 0, HeadType::Lossless).unwrap();
        assert!(out.exists());
    }
}

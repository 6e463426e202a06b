//! The proof of a conversion: what was written equals what the source gives when it is read again.

use std::path::Path;

use half::f16;
use sterna_ternary::PackedFile;
use sterna_ternary::file::{Table, Values};
use sterna_ternary::layout::{self, EMBEDDING, Role, Weight};
use sterna_ternary::table::CodedRow;

use crate::packed::Progress;
use crate::table::{self, Plan, is_same};
use crate::{Error, Result, Source, parallel};

/// How much was compared and found equal.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Proof {
    pub weights: u64,
    pub scales: u64,
    pub values: u64,
}

/// Compares every trit, the bits of every scale, every value of norms and tables, and the embedded files.
///
/// # Errors
/// [`Error::Differs`] with the number of differences and the first tensor that has any; `out` is the name
/// that the file would have got.
pub(crate) fn prove(
    source: &dyn Source,
    packed: &PackedFile,
    out: &Path,
    plans: &[Plan],
    progress: &mut Progress,
) -> Result<Proof> {
    let mut proof = Proof::default();
    let mut first = None;
    let mut differ = 0;
    let mut count = |name: &str, n: u64| {
        if n > 0 {
            first.get_or_insert_with(|| name.to_owned());
            differ += n;
        }
    };
    for weight in layout::weights(source.config()) {
        let size = weight.rows * weight.columns;
        match weight.role {
            Role::Linear => {
                count(&weight.name, compare_matrix(source, packed, &weight)?);
                proof.weights += size as u64;
                proof.scales += 1;
            }
            Role::Norm => {
                let (a, b) = (source.vector(&weight)?, packed.vector(&weight.name));
                let n = count_different(a.into_iter(), b.iter().copied());
                count(&weight.name, n as u64);
                proof.values += size as u64;
            }
            Role::Table => {
                let plan = plans.iter().find(|p| p.name == weight.name);
                let plan = plan.expect("every table has a plan");
                count(&weight.name, compare_table(source, packed, &weight, plan)?);
                proof.values += size as u64;
            }
        }
        progress.add(size);
    }
    for (name, bytes) in source.files() {
        count(name, u64::from(packed.file(name) != Some(bytes)));
    }
    match first {
        None => Ok(proof),
        Some(tensor) => Err(Error::Differs {
            path: out.to_owned(),
            tensor,
            differ,
        }),
    }
}

/// How many trits differ, plus one if the scale does.
fn compare_matrix(source: &dyn Source, packed: &PackedFile, weight: &Weight) -> Result<u64> {
    let expected = source.linear(weight)?;
    let matrix = packed.matrix(&weight.name);
    let columns = weight.columns;
    let row_bytes = packed.packing.row_bytes(columns);
    let mut differ = vec![0u64; weight.rows];
    parallel::rows(expected.trits.len(), &mut differ, 1, |first, differ| {
        let mut trits = vec![0; columns];
        for (row, differ) in (first..).zip(differ) {
            let bytes = &matrix.data[row * row_bytes..][..row_bytes];
            packed.packing.unpack_row(bytes, &mut trits)?;
            let expected = &expected.trits[row * columns..][..columns];
            *differ = trits.iter().zip(expected).filter(|(a, b)| a != b).count() as u64;
        }
        Ok(())
    })?;
    let scale_differs = u64::from(!is_same(matrix.scale, expected.scale));
    Ok(differ.iter().sum::<u64>() + scale_differs)
}

/// How many values differ from the source, or from the source rounded again if the type rounds.
fn compare_table(
    source: &dyn Source,
    packed: &PackedFile,
    weight: &Weight,
    plan: &Plan,
) -> Result<u64> {
    let table = if weight.name == EMBEDDING {
        packed.embedding()
    } else {
        packed.head()
    };
    let columns = weight.columns;
    let rounds = plan.max_error > 0.0;
    let mut differ = 0;
    table::for_each_chunk(source, weight, |first_row, values| {
        let mut rows = vec![0u64; values.len() / columns];
        parallel::rows(values.len(), &mut rows, 1, |first, rows| {
            for (i, differ) in (first..).zip(rows) {
                let values = &values[i * columns..][..columns];
                *differ = compare_row(&table, first_row + i, values, rounds) as u64;
            }
            Ok(())
        })?;
        differ += rows.iter().sum::<u64>();
        Ok(())
    })?;
    Ok(differ)
}

fn compare_row(table: &Table, row: usize, expected: &[f32], rounds: bool) -> usize {
    let columns = row * table.columns..(row + 1) * table.columns;
    let exact = expected.iter().copied();
    match table.values {
        Values::F32(v) => count_different(v[columns].iter().copied(), exact),
        Values::Bf16(v) => count_different(v[columns].iter().map(|x| x.to_f32()), exact),
        Values::F16(v) if rounds => {
            let rounded = exact.map(|x| f16::from_f32(x).to_f32());
            count_different(v[columns].iter().map(|x| x.to_f32()), rounded)
        }
        Values::F16(v) => count_different(v[columns].iter().map(|x| x.to_f32()), exact),
        Values::Codes(codes) => {
            let again = CodedRow::encode(expected, codes.planes);
            match codes.row(row) == again {
                true => 0,
                false => {
                    let (mut a, mut b) = (vec![0.0; table.columns], vec![0.0; table.columns]);
                    codes.decode(row, &mut a);
                    again.decode(&mut b);
                    count_different(a.into_iter(), b.into_iter()).max(1)
                }
            }
        }
    }
}

fn count_different(a: impl Iterator<Item = f32>, b: impl Iterator<Item = f32>) -> usize {
    a.zip(b).filter(|(a, b)| !is_same(*a, *b)).count()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::PathBuf;

    use serde_json::json;
    use sterna_ternary::{Config, Dtype, Packing};

    use super::*;
    use crate::{HeadType, Options, StoredScale, Ternary, packed};

    /// A source whose first reading of one thing differs from its second.
    struct Fickle {
        config: Config,
        files: Vec<(String, Vec<u8>)>,
        /// What changes: the name of a tensor, or `scale`.
        what: &'static str,
        reads: Cell<usize>,
        /// The reading that differs from the others.
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
        fn linear(&self, weight: &Weight) -> Result<Ternary> {
            let mut trits = vec![1; weight.rows * weight.columns];
            trits[3] = if self.is_odd(&weight.name) { 0 } else { -1 };
            let scale = if self.is_odd("scale") { 2.0 } else { 0.5 };
            Ok(Ternary {
                trits,
                scale,
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
            "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2,
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
            let options = Options {
                packing: Packing::T5,
                head,
                allow_missing: false,
            };
            packed::write(&source, &out, &options, &mut |_, _| {})
        };
        let matrix = "model.layers.0.mlp.up_proj.weight";
        for head in HeadType::ALL {
            // A table is read to plan it, to write it and to prove it; everything else twice.
            for (what, odd) in [
                (matrix, 2),
                ("scale", 1),
                ("model.norm.weight", 2),
                (layout::EMBEDDING, 3),
                (layout::HEAD, 2),
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

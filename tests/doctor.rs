//! `sterna doctor` and `sterna inspect`: a trained model is damaged in each of the known ways, and
//! exactly that damage must be named. Healthy models are reported as healthy, untrained models as
//! untrained.

mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use program::{fixture, sterna, text};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The report of `sterna doctor` and its exit code.
fn examine(model: &Path) -> (i32, Value) {
    let output = sterna(&["doctor", text(model), "--json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|e| panic!("{}: {e}: {stderr}", model.display()));
    (output.status.code().unwrap(), report)
}

/// The names of the checks with this verdict.
fn with_verdict<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().unwrap().iter();
    let found = checks.filter(|c| c["verdict"] == verdict);
    found.map(|c| c["check"].as_str().unwrap()).collect()
}

fn why<'a>(report: &'a Value, check: &str) -> &'a str {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|c| c["check"] == check).unwrap();
    found["why"].as_str().unwrap()
}

/// Asserts that only this check finds the damage, and that it has a fix.
#[track_caller]
fn is_broken(model: &Path, check: &str, expected: &str) {
    let (code, report) = examine(model);
    assert_eq!(with_verdict(&report, "broken"), [check], "{report:#}");
    assert_eq!(code, 1);
    assert!(why(&report, check).contains(expected), "{report:#}");
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|c| {
        let is_bad = c["verdict"] == "broken" || c["verdict"] == "suspect";
        is_bad == c["fix"].is_string()
    }));
}

/// Asserts that something is suspect and nothing is broken.
#[track_caller]
fn is_suspect(model: &Path, check: &str, expected: &str) {
    let (code, report) = examine(model);
    assert_eq!(with_verdict(&report, "suspect"), [check], "{report:#}");
    assert_eq!((code, &report["broken"]), (0, &json!(0)), "{report:#}");
    assert!(why(&report, check).contains(expected), "{report:#}");
}

/// A copy of a trained model that a test damages.
struct Model {
    folder: TempDir,
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

impl Model {
    fn of(family: &str) -> Model {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(fixture("trained").join(family)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Model { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn json(self, file: &str, change: impl FnOnce(&mut Value)) -> Model {
        let path = self.path().join(file);
        let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(path, json.to_string()).unwrap();
        self
    }

    fn config(self, change: impl FnOnce(&mut Value)) -> Model {
        self.json("config.json", change)
    }

    fn template(self, template: &str) -> Model {
        std::fs::write(self.path().join("chat_template.jinja"), template).unwrap();
        self
    }

    fn tensors(self, change: impl FnOnce(&mut Tensors)) -> Model {
        let path = self.path().join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Tensors = file
            .iter()
            .map(|(name, t)| {
                (
                    name.to_owned(),
                    (t.dtype(), t.shape().to_vec(), t.data().to_vec()),
                )
            })
            .collect();
        change(&mut tensors);
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
        self
    }

    /// The same model in another format, in the same folder.
    fn converted(&self, to: &str) -> PathBuf {
        let out = self.path().join(format!("converted.{to}"));
        let output = sterna(&[
            "convert",
            text(self.path()),
            "--to",
            to,
            "--out",
            text(&out),
        ]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        out
    }
}

fn names(tensors: &Tensors, part: &str) -> Vec<String> {
    tensors
        .keys()
        .filter(|name| name.ends_with(part))
        .cloned()
        .collect()
}

/// The trits of a packed matrix, row by row.
fn unpack((_, shape, bytes): &(Dtype, Vec<usize>, Vec<u8>)) -> Vec<Vec<i8>> {
    let [quarter, columns] = shape[..] else {
        panic!("{shape:?}")
    };
    let row = |row: usize| {
        let bytes = &bytes[row % quarter * columns..][..columns];
        bytes
            .iter()
            .map(|b| (b >> (2 * (row / quarter)) & 3) as i8 - 1)
            .collect()
    };
    (0..4 * quarter).map(row).collect()
}

fn pack(rows: &[Vec<i8>]) -> Vec<u8> {
    let (quarter, columns) = (rows.len() / 4, rows[0].len());
    let byte = |r: usize, c: usize| {
        (0..4)
            .map(|i| ((rows[i * quarter + r][c] + 1) as u8) << (2 * i))
            .sum::<u8>()
    };
    (0..quarter * columns)
        .map(|i| byte(i / columns, i % columns))
        .collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn read_floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

/// Writes master weights for a packed model: trit × scale × `factor`, plus `noise` that depends on
/// the position.
fn unpacked(model: Model, factor: f32, noise: f32) -> Model {
    let model = model.tensors(|tensors| {
        for name in names(tensors, "_proj.weight") {
            let scale = tensors.remove(&format!("{name}_scale")).unwrap();
            let scale = read_floats(&scale.2)[0];
            let rows = unpack(&tensors[&name]);
            let shape = vec![rows.len(), rows[0].len()];
            let wave = |i: usize| noise * scale * (i as f32 * 1.7).sin();
            let trits = rows.concat().into_iter().enumerate();
            let values: Vec<f32> = trits
                .map(|(i, t)| f32::from(t) * factor * scale + wave(i))
                .collect();
            tensors.insert(name, (Dtype::F32, shape, floats(&values)));
        }
    });
    model.config(|c| c["quantization_config"]["quantization_mode"] = "online".into())
}

#[test]
fn healthy_models_are_healthy_in_every_format() {
    for family in ["bitnet", "llama"] {
        let model = Model::of(family);
        let mut paths = vec![model.path().to_owned()];
        paths.extend(["native", "iq2_bn"].map(|to| model.converted(to)));
        for path in paths {
            let (code, report) = examine(&path);
            assert_eq!(code, 0, "{report:#}");
            let bad = (&report["broken"], &report["suspect"]);
            assert_eq!(bad, (&json!(0), &json!(0)), "{report:#}");
            assert_eq!(report["family"], family);
            for check in [
                "prediction",
                "scale direction",
                "q and k order",
                "double quantization",
            ] {
                assert!(with_verdict(&report, "ok").contains(&check), "{report:#}");
            }
        }
    }
}

#[test]
fn untrained_models_are_called_untrained() {
    for case in [
        "bitnet-packed-bf16-scales",
        "falcon3-packed",
        "qwen3-packed",
    ] {
        is_suspect(
            &fixture("checkpoints").join(case),
            "prediction",
            "no better than chance",
        );
    }
}

#[test]
fn the_direction_of_scales() {
    for family in ["bitnet", "llama"] {
        let model = Model::of(family);
        let model = model.config(|c| c["quantization_config"]["linear_class"] = "bitlinear".into());
        is_broken(model.path(), "scale direction", "with scales inverted");
    }
}

#[test]
fn the_activation() {
    // The trained bitnet model, declared as the family with SiLU and other names of norms.
    let model = Model::of("bitnet").tensors(|tensors| {
        for (is, becomes) in [
            ("attn_sub_norm", "inner_attn_ln"),
            ("ffn_sub_norm", "ffn_layernorm"),
        ] {
            for name in names(tensors, &format!("{is}.weight")) {
                let tensor = tensors.remove(&name).unwrap();
                tensors.insert(name.replace(is, becomes), tensor);
            }
        }
    });
    let model = model.config(|c| {
        c["architectures"] = json!(["BitnetForCausalLM"]);
        c["model_type"] = "llama".into();
        c["hidden_act"] = "silu".into();
    });
    is_broken(model.path(), "activation", "with relu2");
    let model = Model::of("bitnet").config(|c| c["hidden_act"] = "silu".into());
    is_broken(
        model.path(),
        "activation",
        "`hidden_act` silu in the bitnet family",
    );
}

#[test]
fn sub_norms() {
    let as_llama = |c: &mut Value| {
        c["architectures"] = json!(["LlamaForCausalLM"]);
        c["model_type"] = "llama".into();
        c["hidden_act"] = "silu".into();
    };
    let model = Model::of("bitnet").config(as_llama);
    is_broken(
        model.path(),
        "sub-norms",
        "the llama family has no such tensor",
    );
    let model = Model::of("llama").config(|c| {
        c["architectures"] = json!(["BitNetForCausalLM"]);
        c["model_type"] = "bitnet".into();
        c["hidden_act"] = "relu2".into();
    });
    is_broken(model.path(), "sub-norms", "attn_sub_norm");
}

#[test]
fn the_order_of_q_and_k() {
    for family in ["bitnet", "llama"] {
        let model = Model::of(family).tensors(|tensors| {
            for name in [
                names(tensors, "q_proj.weight"),
                names(tensors, "k_proj.weight"),
            ]
            .concat()
            {
                let tensor = tensors.get_mut(&name).unwrap();
                let heads = unpack(tensor);
                let heads = heads.chunks_exact(16); // head_dim
                let interleaved = |head: &[Vec<i8>]| {
                    let from = |row: usize| head[row % 2 * 8 + row / 2].clone();
                    (0..16).map(from).collect::<Vec<_>>()
                };
                tensor.2 = pack(&heads.flat_map(interleaved).collect::<Vec<_>>());
            }
        });
        is_broken(model.path(), "q and k order", "de-interleaved");
        // The same in GGUF, where llama has them interleaved and the reader undoes that.
        is_broken(
            &model.converted("iq2_bn"),
            "q and k order",
            "de-interleaved",
        );
    }
}

#[test]
fn the_tie_of_the_head() {
    let model = Model::of("llama").config(|c| c["tie_word_embeddings"] = false.into());
    is_broken(model.path(), "tied head", "lm_head.weight");
    let model = Model::of("llama").tensors(|tensors| {
        let mut head = tensors["model.embed_tokens.weight"].clone();
        head.2.rotate_left(4 * 64);
        tensors.insert("lm_head.weight".into(), head);
    });
    is_broken(model.path(), "tied head", "they differ");
    let model = Model::of("llama").config(|c| c["tie_word_embeddings"] = false.into());
    let model = model.tensors(|tensors| {
        let head = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".into(), head);
    });
    is_suspect(model.path(), "tied head", "repeats the embedding");
}

#[test]
fn quantized_twice() {
    let model = unpacked(Model::of("bitnet"), 1.0, 0.0);
    is_broken(model.path(), "double quantization", "-s, 0 and +s already");
    // The resulting scales, in a file that does not show how they were computed.
    let packed = model.converted("native");
    let (_, report) = examine(&packed);
    let bad = [
        with_verdict(&report, "broken"),
        with_verdict(&report, "suspect"),
    ]
    .concat();
    assert_eq!(bad, ["double quantization"], "{report:#}");
}

#[test]
fn weights_that_nothing_declares_ternary() {
    // Two thirds of the trits are not zero: mean|W| is the scale again.
    let model = unpacked(Model::of("llama"), 1.45, 0.2).config(|c| {
        c.as_object_mut().unwrap().remove("quantization_config");
    });
    is_broken(model.path(), "declaration", "quantization_config");
}

#[test]
fn zeros_and_values() {
    let model = Model::of("llama").tensors(|tensors| {
        let (_, _, bytes) = tensors
            .get_mut("model.layers.1.mlp.up_proj.weight")
            .unwrap();
        bytes.fill(0b0101_0101);
    });
    is_broken(
        model.path(),
        "zeros",
        "model.layers.1.mlp.up_proj.weight is zero",
    );
    let model = Model::of("llama").tensors(|tensors| {
        let tensor = tensors
            .get_mut("model.layers.0.mlp.up_proj.weight")
            .unwrap();
        let mut rows = unpack(tensor);
        rows[..6].iter_mut().for_each(|row| row.fill(0));
        tensor.2 = pack(&rows);
    });
    is_suspect(model.path(), "zeros", "6 of 192 rows");
    let with_norm = |value: f32| {
        Model::of("bitnet").tensors(|tensors| {
            let norm = tensors
                .get_mut("model.layers.0.input_layernorm.weight")
                .unwrap();
            norm.0 = Dtype::F32;
            norm.2 = floats(&[value; 64]);
        })
    };
    is_broken(with_norm(f32::NAN).path(), "values", "NaN");
    let (code, report) = examine(with_norm(0.0).path());
    assert_eq!((code, with_verdict(&report, "broken")), (1, vec!["values"]));
    let (code, report) = examine(with_norm(3e38).path());
    assert_eq!((code, with_verdict(&report, "broken")), (1, vec!["logits"]));
}

#[test]
fn keys_that_are_absent() {
    let model = Model::of("bitnet").config(|c| {
        c.as_object_mut().unwrap().remove("rope_theta");
    });
    is_broken(model.path(), "rope theta", "rope_theta");
}

#[test]
fn the_vocabulary() {
    // The tables themselves say how many tokens there are.
    let model = Model::of("bitnet").config(|c| c["vocab_size"] = 299.into());
    let (code, report) = examine(model.path());
    assert_eq!((code, with_verdict(&report, "broken").len()), (0, 0));
    let model = Model::of("bitnet").json("tokenizer.json", |t| {
        t["model"]["vocab"]["more"] = json!(777);
    });
    let (code, report) = examine(model.path());
    assert_eq!(
        (code, with_verdict(&report, "broken")),
        (1, vec!["vocabulary size"])
    );
}

/// Replaces the only occurrence of some bytes.
fn patch(file: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = std::fs::read(file).unwrap();
    let at: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|i| bytes[*i..].starts_with(from))
        .collect();
    assert_eq!((at.len(), from.len()), (1, to.len()));
    bytes[at[0]..][..to.len()].copy_from_slice(to);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn the_split_rule_of_a_gguf_file() {
    let model = Model::of("bitnet");
    let file = model.converted("iq2_bn");
    patch(
        &file,
        b"\x09\0\0\0\0\0\0\0starcoder",
        b"\x09\0\0\0\0\0\0\0llama-bpe",
    );
    is_broken(&file, "split rule", "tokenizer.ggml.pre is llama-bpe");
    patch(&file, b"tokenizer.ggml.pre", b"tokenizer.ggml.xyz");
    is_suspect(&file, "split rule", "there is no tokenizer.ggml.pre");
}

const CHATML: &str =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

#[test]
fn templates_and_the_ends_of_turns() {
    let model = Model::of("bitnet").template(CHATML);
    is_broken(
        model.path(),
        "chat template",
        "no <|im_start|>, no <|im_end|>",
    );
    let model = Model::of("bitnet").template("{% for m in %}");
    is_broken(model.path(), "chat template", "chat_template.jinja");
    let ends = |token| {
        let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}TOKEN{% endfor %}";
        Model::of("bitnet").template(&template.replace("TOKEN", token))
    };
    is_suspect(
        ends("<|begin_of_text|>").path(),
        "end of turn",
        "<|begin_of_text|> (0)",
    );
    let (code, report) = examine(ends("<|end_of_text|>").path());
    assert_eq!((code, &report["suspect"]), (0, &json!(0)), "{report:#}");
    let silent = |g: &mut Value| g["eos_token_id"] = Value::Null;
    let model = ends("<|end_of_text|>").json("generation_config.json", silent);
    is_suspect(model.path(), "end of turn", "other programs may run on");
}

#[test]
fn what_cannot_be_read_is_no_finding() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    std::fs::write(&file, "not a model").unwrap();
    for path in [folder.path(), &file] {
        let output = sterna(&["doctor", text(path)]);
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_baseline_gets_the_checks_that_apply() {
    let folder = tempfile::tempdir().unwrap();
    for packing in ["f16", "q8_0", "q4_0"] {
        let out = folder.path().join(packing);
        let source = fixture("trained/bitnet");
        let args = ["convert", text(&source), "--out", text(&out)];
        program::stdout(&[&args[..], &["--packing", packing]].concat());
        let (code, report) = examine(&out);
        assert_eq!(code, 0, "{report:#}");
        for (check, expected) in [
            ("declaration", "a baseline"),
            ("values", "layers, norms and tables are not zero"),
            ("zeros", "% of the numbers are zero"),
            ("logits", "finite for"),
            ("scale direction", "the layers are numbers"),
            ("double quantization", "the layers are numbers"),
        ] {
            assert!(
                why(&report, check).contains(expected),
                "{check}: {report:#}"
            );
        }
    }
}

#[test]
fn the_text_names_check_reason_and_fix() {
    let model = Model::of("bitnet").template(CHATML);
    let output = sterna(&["doctor", text(model.path())]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("broken   chat template"), "{shown}");
    assert!(shown.contains("fix: take chat_template.jinja"), "{shown}");
    assert!(shown.ends_with("1 broken, 0 suspect\n"), "{shown}");
}

#[test]
fn inspect_says_the_same_of_every_format() {
    let inspect = |path: &Path| -> Value {
        let output = sterna(&["inspect", text(path), "--json"]);
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let ending = "<|end_of_text|>";
    let model = Model::of("bitnet").template(&format!("{{{{ messages[0].content }}}}{ending}"));
    let folder = inspect(model.path());
    assert_eq!(
        folder["bits_per_ternary_weight"].as_f64().unwrap().round(),
        2.0
    );
    assert_eq!(folder["tokenizer"]["split_rule"], "starcoder");
    assert_eq!(folder["eos"], json!([{"id": 1, "token": ending}]));
    assert!(
        folder["chat_template"]["first_line"]
            .as_str()
            .unwrap()
            .contains(ending)
    );
    assert_eq!(folder["remarks"], json!([]));
    assert_eq!(folder["layers"].as_array().unwrap().len(), 2);
    for to in ["native", "iq2_bn"] {
        let facts = inspect(&model.converted(to));
        for key in [
            "zeros",
            "layers",
            "matrices",
            "eos",
            "chat_template",
            "parameters",
        ] {
            assert_eq!(facts[key], folder[key], "{to} {key}");
        }
        let rule = &facts["tokenizer"]["split_rule"];
        assert_eq!((rule, &facts["remarks"]), (&json!("starcoder"), &json!([])));
    }
    let model = model.tensors(|tensors| {
        let (_, _, bytes) = tensors
            .get_mut("model.layers.1.mlp.up_proj.weight")
            .unwrap();
        bytes.fill(0b0101_0101);
        let norm = tensors.get_mut("model.norm.weight").unwrap();
        norm.0 = Dtype::F32;
        norm.2 = floats(&[f32::NAN; 64]);
    });
    let remarks = inspect(model.path())["remarks"].to_string();
    assert!(
        remarks.contains("up_proj.weight: every weight is zero"),
        "{remarks}"
    );
    assert!(
        remarks.contains("model.norm.weight: value 0 is NaN"),
        "{remarks}"
    );
}

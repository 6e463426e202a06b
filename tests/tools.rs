//! `sterna synthesize`, `bench` and `cpu` on tiny shapes.

mod program;

use std::path::Path;

use program::{json, refused, stdout};
use serde_json::{Value, json};
use sterna_ternary::PackedFile;
use tempfile::TempDir;

/// A folder with shapes: no width is a multiple of a block, and no number of rows of four.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (model_type, architecture, act, tied) in [
            ("bitnet", "BitNetForCausalLM", "relu2", true),
            ("llama", "LlamaForCausalLM", "silu", false),
            ("qwen3", "Qwen3ForCausalLM", "silu", false),
        ] {
            let config = json!({
                "architectures": [architecture], "model_type": model_type, "hidden_act": act,
                "hidden_size": 100, "intermediate_size": 333, "num_hidden_layers": 2,
                "num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 22,
                "vocab_size": 301, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
                "rope_theta": 10000.0,
                "tie_word_embeddings": tied,
            });
            std::fs::write(folder.path(model_type), config.to_string()).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A model of the shape in file `shape`.
    fn synthesize(&self, shape: &str, name: &str, options: &[&str]) -> String {
        let (shape, out) = (self.path(shape), self.path(name));
        let args = ["synthesize", &shape, "--out", &out];
        stdout(&[&args, options].concat());
        out
    }
}

#[test]
fn a_synthetic_model_is_whole_and_runs() {
    let folder = Folder::new();
    for shape in ["bitnet", "llama", "qwen3"] {
        for (packing, head) in [("i2", "f32"), ("i2", "q8"), ("t5", "bf16"), ("t5", "f16")] {
            let options = ["--packing", packing, "--head", head];
            let model = folder.synthesize(shape, "model", &options);
            let facts = json(&["inspect", &model, "--verify", "--json"]);
            assert_eq!(
                (&facts["packing"], &facts["head"]),
                (&json!(packing), &json!(head))
            );
            for matrix in facts["matrices"].as_array().unwrap() {
                let count = |key: &str| matrix[key].as_f64().unwrap();
                let zeros = count("zero") / (count("rows") * count("columns"));
                assert!((0.35..0.50).contains(&zeros), "{matrix}");
            }
            let text = json(&[
                "generate", &model, "--prompt", "the tern", "-n", "12", "--json",
            ]);
            let ids = text["ids"].as_array().unwrap();
            assert!(!ids.is_empty() && ids.len() <= 12, "{text}");
        }
    }
}

#[test]
fn logits_of_a_synthetic_model_are_of_ordinary_size() {
    let folder = Folder::new();
    for shape in ["bitnet", "llama"] {
        let model = folder.synthesize(shape, "model", &[]);
        let out = folder.path("logits");
        stdout(&["logits", &model, "--ids", "0,70,200,300", "--out", &out]);
        let bytes = std::fs::read(out).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let values = file.tensor("logits").unwrap().data().as_chunks().0.iter();
        let logits: Vec<f32> = values.map(|x| f32::from_le_bytes(*x)).collect();
        let mean = logits.iter().sum::<f32>() / logits.len() as f32;
        let variance = logits.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / logits.len() as f32;
        // Embedding rows of norm 0.018 · √100 against a normed state: a standard deviation of 0.18.
        assert!((0.1..0.4).contains(&variance.sqrt()), "{shape}: {variance}");
    }
}

#[test]
fn both_forms_of_a_seed_are_the_same_model() {
    let folder = Folder::new();
    for shape in ["bitnet", "llama", "qwen3"] {
        let hf = folder.synthesize(
            shape,
            &format!("{shape}.hf"),
            &["--as", "hf", "--seed", "7"],
        );
        let packed = folder.synthesize(shape, "packed", &["--seed", "7"]);
        let converted = folder.path("converted");
        stdout(&["convert", &hf, "--out", &converted]);
        let same = std::fs::read(&packed).unwrap() == std::fs::read(&converted).unwrap();
        assert!(same, "{shape}: the converted folder is not the packed file");
    }
    let of_seed = |seed| {
        let path = folder.synthesize("bitnet", "seed", &["--seed", seed]);
        PackedFile::open(Path::new(&path)).unwrap().data().to_vec()
    };
    assert!(of_seed("1") == of_seed("1") && of_seed("1") != of_seed("2"));
}

#[test]
fn synthesize_refuses_what_it_cannot_make() {
    let folder = Folder::new();
    let out = folder.path("out");
    let unknown = refused(2, &["synthesize", "gpt-2", "--out", &out]);
    for shape in [
        "bitnet-2b4t",
        "falcon-e-1b",
        "falcon3-1b",
        "falcon3-7b",
        "llama3-8b",
        "bitnet-100b",
    ] {
        assert!(unknown.contains(shape), "{unknown}");
    }
    refused(
        2,
        &[
            "synthesize",
            &folder.path("bitnet"),
            "--out",
            &out,
            "--as",
            "hf",
            "--head",
            "q8",
        ],
    );
    std::fs::write(folder.path("broken"), "{\"model_type\": \"bitnet\"").unwrap();
    refused(3, &["synthesize", &folder.path("broken"), "--out", &out]);
    let small = std::fs::read_to_string(folder.path("bitnet"))
        .unwrap()
        .replace("301", "100");
    std::fs::write(folder.path("small"), small).unwrap();
    let small = refused(3, &["synthesize", &folder.path("small"), "--out", &out]);
    assert!(
        small.contains("`vocab_size` is 100, expected at least 258"),
        "{small}"
    );
    let whole = folder.path("");
    let full = refused(
        1,
        &[
            "synthesize",
            &folder.path("bitnet"),
            "--out",
            &whole,
            "--as",
            "hf",
        ],
    );
    assert!(full.contains("is not empty"), "{full}");
    assert!(!Path::new(&out).exists());
}

#[test]
fn every_embedded_shape_is_one_that_runs() {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/shapes");
    for entry in std::fs::read_dir(shapes).unwrap() {
        let path = entry.unwrap().path();
        let json = std::fs::read(&path).unwrap();
        sterna_convert::Synthetic::new(&path, &json, 0).unwrap();
    }
}

/// Runs `bench` with small tests.
fn bench(args: &[&str]) -> String {
    let small = ["--pp", "16", "--tg", "4", "--repetitions", "2"];
    stdout(&[&["bench"], args, &small].concat())
}

fn check_results(report: &Value, expected: &[(&str, &str, u64)]) {
    let results = report["results"].as_array().unwrap();
    let key = |r: &Value| {
        (
            r["packing"].clone(),
            r["test"].clone(),
            r["threads"].clone(),
        )
    };
    let found: Vec<_> = results.iter().map(key).collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(p, t, n)| (json!(p), json!(t), json!(n)))
        .collect();
    assert_eq!(found, expected);
    for result in results {
        let speed = result["tokens_per_second"].as_f64().unwrap();
        let spread = [0, 1].map(|i| result["spread"][i].as_f64().unwrap());
        assert!(
            0.0 < spread[0] && spread[0] <= speed && speed <= spread[1],
            "{result}"
        );
        // A model of the tests stays in the caches, and reading these has no limit.
        assert_eq!(
            result["limit_fraction"].is_null(),
            result["limit"] == "cache",
            "{result}"
        );
        for optional in [
            "limit_fraction",
            "limit_tokens_per_second",
            "peak_bytes",
            "joules_per_token",
        ] {
            let value = result.get(optional).unwrap();
            assert!(value.is_null() || value.as_f64().unwrap() > 0.0, "{result}");
        }
    }
    for limits in report["machine"]["limits"].as_array().unwrap() {
        for rate in [
            "read_bytes_per_second",
            "int8_macs_per_second",
            "f32_macs_per_second",
        ] {
            assert!(limits[rate].as_f64().unwrap() > 0.0, "{limits}");
        }
    }
}

#[test]
fn bench_reports_every_test_and_number_of_threads() {
    let folder = Folder::new();
    let model = folder.synthesize("bitnet", "model", &[]);
    let args = [
        model.as_str(),
        "--threads",
        "1,2",
        "--kernels",
        "scalar",
        "--depth",
        "100",
        "--json",
    ];
    let report: Value = serde_json::from_str(&bench(&args)).unwrap();
    assert_eq!(report["kernels"], "scalar");
    let tests = [
        ("i2", "pp16@100", 1),
        ("i2", "tg4@100", 1),
        ("i2", "pp16@100", 2),
        ("i2", "tg4@100", 2),
    ];
    check_results(&report, &tests);

    let csv = bench(&[&model, "--threads", "1", "--csv"]);
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(columns, [15; 3], "{csv}");
    // A table that is slow enough for arithmetic to be the limit of a small model.
    let text = bench(&[&model, "--threads", "1", "--kernels", "scalar"]);
    assert!(
        text.contains("pp16") && text.contains("tg4") && text.contains(" % "),
        "{text}"
    );
}

#[test]
fn bench_draws_prompts_over_their_lengths() {
    let folder = Folder::new();
    let model = folder.synthesize("bitnet", "model", &[]);
    let svg = folder.path("prompts.svg");
    let fixed = [
        "bench",
        &model,
        "--threads",
        "1,2",
        "--tg",
        "0",
        "--repetitions",
        "1",
    ];
    stdout(&[&fixed[..], &["--pp", "9,3,1", "--plot", &svg]].concat());
    let text = std::fs::read_to_string(&svg).unwrap();
    for part in [
        "threads: 1<",
        "threads: 2<",
        "tokens of the prompt",
        "tokens per second",
    ] {
        assert!(text.contains(part), "{part}");
    }
    for (lengths, name, why) in [
        ("3", "one.svg", "expected --pp with several"),
        ("3,9", "one.png", "expected a .svg file"),
    ] {
        let args = [&fixed[..], &["--pp", lengths, "--plot", name]].concat();
        assert!(refused(2, &args).contains(why), "{name}");
    }
}

#[test]
fn bench_generates_several_sequences_with_either_head() {
    let folder = Folder::new();
    let model = folder.synthesize("bitnet", "model", &[]);
    let run = |options: &[&str]| {
        let args = [
            "bench",
            &model,
            "--threads",
            "1,2",
            "--repetitions",
            "2",
            "--batch",
            "1,3",
        ];
        stdout(&[&args, options].concat())
    };
    let report: Value = serde_json::from_str(&run(&["--tg", "4", "--json"])).unwrap();
    let tests: Vec<(&str, &str, u64)> = [1, 2]
        .into_iter()
        .flat_map(|threads| [1, 3, 1, 3].map(|n| ("i2", ["tg4", "tg4x3"][n / 3], threads)))
        .collect();
    check_results(&report, &tests);
    let results = report["results"].as_array().unwrap();
    for (result, i) in results.iter().zip(0..) {
        let head = if i % 4 < 2 { "screened" } else { "full" };
        assert_eq!(result["head"], head, "{result}");
        let sequences = 1 + 2 * (i % 2);
        assert_eq!(result["sequences"], sequences, "{result}");
        let times = result["times_one_sequence"].as_f64().unwrap();
        assert!(times > 0.0 && (sequences > 1 || times == 1.0), "{result}");
    }
    // 16 tokens of each sequence by default, cut to the context of 128.
    let csv = run(&["--depth", "120", "--csv"]);
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(columns, [15; 9], "{csv}");
    assert!(csv.contains("\"tg8x3@120\""), "{csv}");
    let text = run(&[]);
    assert!(
        text.contains("tg16x3 ") && text.contains("screened") && text.contains("x one"),
        "{text}"
    );
}

#[test]
fn bench_cuts_its_defaults_to_the_context_and_nothing_else() {
    let folder = Folder::new();
    let model = folder.synthesize("bitnet", "model", &[]);
    let run = |options: &[&str]| {
        let args = ["bench", &model, "--threads", "1", "--repetitions", "1"];
        json(&[&args[..], &["--json"], options].concat())
    };
    // The context has 128 tokens.
    check_results(&run(&[]), &[("i2", "pp128", 1), ("i2", "tg64", 1)]);
    let deep = [("i2", "pp28@100", 1), ("i2", "tg28@100", 1)];
    check_results(&run(&["--depth", "100"]), &deep);
    let chosen = [("i2", "pp4@100", 1), ("i2", "tg28@100", 1)];
    check_results(&run(&["--depth", "100", "--pp", "4"]), &chosen);
}

#[test]
fn bench_compares_packings_and_models() {
    let folder = Folder::new();
    let a = folder.synthesize("bitnet", "a", &["--packing", "t5"]);
    let report: Value = serde_json::from_str(&bench(&[
        &a,
        "--packing",
        "all",
        "--threads",
        "1",
        "--json",
    ]))
    .unwrap();
    check_results(
        &report,
        &[
            ("t5", "pp16", 1),
            ("t5", "tg4", 1),
            ("i2", "pp16", 1),
            ("i2", "tg4", 1),
        ],
    );
    for kind in ["prompts", "generation"] {
        assert!(["i2", "t5"].contains(&report["fastest"][kind].as_str().unwrap()));
    }
    let b = folder.synthesize("llama", "b", &["--packing", "i2"]);
    let report: Value =
        serde_json::from_str(&bench(&["--compare", &a, &b, "--threads", "1", "--json"])).unwrap();
    let comparisons = report["comparisons"].as_array().unwrap();
    assert_eq!(comparisons.len(), 2);
    for comparison in comparisons {
        assert_eq!(
            (&comparison["first"], &comparison["other"]),
            (&json!(a), &json!(b))
        );
        assert!(comparison["ratio"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn bench_refuses_broken_files_and_impossible_tests() {
    let folder = Folder::new();
    let model = folder.synthesize("bitnet", "model", &[]);
    let bytes = std::fs::read(&model).unwrap();
    std::fs::write(folder.path("short"), &bytes[..bytes.len() - 1]).unwrap();
    refused(3, &["bench", &folder.path("short")]);
    refused(3, &["bench", &folder.path("absent")]);
    refused(2, &["bench", &model, "--threads", "0"]);
    refused(2, &["bench", &model, "--pp", "0", "--tg", "0"]);
    refused(2, &["bench", &model, "--batch", "1,0"]);
    refused(2, &["bench", &model, "--batch", "two"]);
    refused(2, &["bench", &model, "--batch", "2", "--tg", "0"]);
    for other in [&["--pp", "16"][..], &["--full-head"], &["--packing", "all"]] {
        refused(2, &[&["bench", &model, "--batch", "2"], other].concat());
    }
    refused(2, &["bench", &model, "--kernels", "abacus"]);
    refused(2, &["bench"]);
    refused(
        2,
        &["bench", "--compare", &model, &model, "--packing", "all"],
    );
    let long = refused(1, &["bench", &model, "--pp", "200"]);
    assert!(long.contains("max_position_embeddings"), "{long}");
}

#[test]
fn cpu_lists_the_tables_and_the_chosen_one() {
    let report = json(&["cpu", "--json"]);
    let tables = report["tables"].as_array().unwrap();
    assert!(
        tables
            .iter()
            .any(|t| t["name"] == "scalar" && t["runs"] == true)
    );
    assert!(
        tables
            .iter()
            .any(|t| t["name"] == report["kernels"] && t["runs"] == true)
    );
    for table in tables {
        assert_eq!(
            table["runs"] == true,
            table["missing"] == json!([]),
            "{table}"
        );
    }
    assert!(report["machine"]["usable_cores"].as_u64().unwrap() >= 1);
    assert!(stdout(&["cpu"]).contains("scalar"));
}

#[test]
fn repacking_there_and_back_gives_the_same_file() {
    let folder = Folder::new();
    let first = folder.synthesize("qwen3", "first", &["--head", "q8"]);
    let (there, back) = (folder.path("there"), folder.path("back"));
    let repack = |from: &str, packing, to: &str| {
        let file = PackedFile::open(Path::new(from)).unwrap();
        let out = sterna_ternary::Output::new(Path::new(to)).unwrap();
        sterna_convert::repack(&file, packing, &out).unwrap();
    };
    repack(&first, sterna_ternary::Packing::T5, &there);
    assert!(std::fs::read(&first).unwrap() != std::fs::read(&there).unwrap());
    repack(&there, sterna_ternary::Packing::I2, &back);
    assert!(std::fs::read(&first).unwrap() == std::fs::read(&back).unwrap());
}

#[test]
fn inspect_says_what_a_context_costs() {
    let folder = Folder::new();
    let model = folder.synthesize("llama", "model", &[]);
    let facts = |args: &[&str]| -> Value {
        serde_json::from_str(&stdout(&[&["inspect", &model, "--json"], args].concat())).unwrap()
    };
    let config = PackedFile::open(Path::new(&model)).unwrap().config.clone();
    let per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim;
    let memory = &facts(&["--context", "128"])["memory"];
    let cache = |kv: &str| memory["cache"][kv].as_u64().unwrap() as usize;
    assert!(cache("f32") >= 4 * 128 * per_token && cache("f32") == 2 * cache("f16"));
    assert!(cache("q8") < cache("f16"));
    assert_eq!(
        memory["weights"].as_u64().unwrap(),
        std::fs::metadata(&model).unwrap().len()
    );
    let all = facts(&[]);
    assert_eq!(all["memory"]["context"], all["max_position_embeddings"]);
}

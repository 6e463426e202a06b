//! Training that starts from a checkpoint: continued training, training from full precision, and
//! the exported models.

#[path = "finetune/chat.rs"]
mod chat;
mod program;

use std::path::Path;

use program::{refused, stdout, text};
use serde_json::{Value, json};
use sterna_convert as convert;
use sterna_datasets::rows;
use sterna_runtime::{self as runtime, Logits};
use sterna_ternary::layout::{self, Role};
use sterna_ternary::{Activations, Scaling, quantize};
use sterna_train::run::{data, sample};
use sterna_train::{Device, Model, Precision, Recipe};

/// A small shape of Falcon-E.
fn shape() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 1000042.0,
        "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1,
    })
}

/// A recipe without a shape; the checkpoint has one.
const RECIPE: &str = "
    [model]
    from = 'base'
    [data]
    mix = 'addition2=1'
    documents = 300
    [train]
    steps = 40
    batch = 2
    context = 48
    learning_rate = 2e-3
    warmup = 2
    sample_tokens = 8
";

/// A folder with a synthesized checkpoint `base` and a recipe `r.toml` that starts from it.
fn start(recipe: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("shape.json"), shape().to_string()).unwrap();
    let (shape, base) = (path("shape.json"), path("base"));
    let args = [
        "synthesize",
        text(&shape),
        "--as",
        "hf",
        "--out",
        text(&base),
    ];
    stdout(&args);
    let template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}\
        {% if add_generation_prompt %}[assistant]{% endif %}";
    std::fs::write(base.join("chat_template.jinja"), template).unwrap();
    std::fs::write(path("r.toml"), recipe).unwrap();
    folder
}

fn train(folder: &Path, out: &str, more: &[&str]) {
    let (recipe, out) = (folder.join("r.toml"), folder.join(out));
    let args = ["train", "--config", text(&recipe), "--out", text(&out)];
    stdout(&[&args[..], more].concat());
}

/// The ids that a converted checkpoint writes greedily after a prompt.
fn written_by_runtime(checkpoint: &Path, prompt: &str, count: usize) -> Vec<u32> {
    let packed = checkpoint.with_extension("sterna");
    let args = ["convert", text(checkpoint), "--out", text(&packed)];
    stdout(&[&args[..], &["--head", "lossless"]].concat());
    let count = count.to_string();
    let args = ["generate", text(&packed), "--prompt", prompt, "-n", &count];
    let found: Value =
        serde_json::from_str(&stdout(&[&args[..], &["--kv", "f32", "--json"]].concat())).unwrap();
    serde_json::from_value(found["ids"].clone()).unwrap()
}

/// The same ids by the trainer's own forward pass over the checkpoint's weights.
fn written_by_trainer(checkpoint: &Path, prompt: &str, count: usize) -> Vec<u32> {
    let source = convert::open(checkpoint, false).unwrap();
    let config = source.config().clone();
    let weights = layout::weights(&config);
    let values = weights.iter().map(|weight| match weight.role {
        Role::Linear => source.masters(weight).unwrap(),
        Role::Norm => source.vector(weight).unwrap(),
        Role::Table => {
            let mut values = vec![0.0; weight.rows * weight.columns];
            source.rows(weight, 0, &mut values).unwrap();
            values
        }
    });
    let (values, cpu) = (values.collect(), Device::Cpu);
    let model = Model::from_values(config, Precision::Ternary, 128, values, &cpu).unwrap();
    // The synthetic tokenizer: BOS, then two special tokens before the bytes.
    let prompt: Vec<u32> = [0]
        .into_iter()
        .chain(prompt.bytes().map(|b| u32::from(b) + 2))
        .collect();
    sample::greedy(&model, &prompt, count, 128, &[1]).unwrap()
}

#[test]
fn a_packed_checkpoint_goes_on_exactly_and_comes_out_with_its_files() {
    let folder = start(RECIPE);
    let (base, run) = (folder.path().join("base"), folder.path().join("run"));
    for prompt in ["12+34=", "tern"] {
        let ids = written_by_runtime(&base, prompt, 12);
        assert_eq!(ids.len(), 12);
        assert_eq!(
            ids,
            written_by_trainer(&base, prompt, 12),
            "before training"
        );
    }
    train(folder.path(), "run", &[]);
    let trained = run.join("model");
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
    ] {
        let bytes = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert!(bytes(&base) == bytes(&trained), "{name}");
    }
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let config: Value = serde_json::from_str(&read(&trained.join("config.json"))).unwrap();
    for (key, value) in shape().as_object().unwrap() {
        assert_eq!(&config[key], value, "{key}");
    }
    let metrics = read(&run.join("metrics.jsonl"));
    let losses: Vec<f64> = metrics
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64())
        .collect();
    assert!(losses[39] < losses[0] - 0.5, "{losses:?}");
    for prompt in ["12+34=", "tern"] {
        let ids = written_by_runtime(&trained, prompt, 12);
        assert!(!ids.is_empty());
        assert_eq!(ids, written_by_trainer(&trained, prompt, 12), "{prompt}");
    }
    // The recipe of the run says what the checkpoint decided.
    let recipe = read(&run.join("recipe.toml"));
    assert!(recipe.contains("num_key_value_heads = 2"), "{recipe}");
    let facts: Value = serde_json::from_str(&read(&run.join("run.json"))).unwrap();
    assert_eq!(
        facts["values"]["model.hidden_size"]["from"],
        "the checkpoint"
    );
    assert_eq!(facts["values"]["model.from"]["value"], text(&base));
}

#[test]
fn steps_of_rate_zero_keep_every_trit() {
    let folder = start(RECIPE);
    let set = ["--set", "train.learning_rate=0", "--steps", "1"];
    train(folder.path(), "run", &set);
    let open = |name: &str| convert::open(&folder.path().join(name), false).unwrap();
    let (before, after) = (open("base"), open("run/model"));
    for weight in layout::weights(before.config()) {
        if weight.role == Role::Linear {
            let [a, b] = [&before, &after].map(|source| source.linear(&weight).unwrap());
            assert!(a.trits == b.trits, "{}", weight.name);
            let ratio = a.scales.single().unwrap() / b.scales.single().unwrap();
            assert!((ratio - 1.0).abs() < 1e-6, "{}: {ratio}", weight.name);
        }
    }
}

#[test]
fn full_precision_becomes_ternary_with_norms_that_it_did_not_have() {
    let folder = start(RECIPE);
    let path = |name: &str| folder.path().join(name);
    train(folder.path(), "full", &["--set", "train.precision=full"]);
    let full = path("full/model");
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap()
    };
    assert!(read(&full).get("quantization_config").is_none());

    let ramp = ["--from", text(&full), "--set", "train.ternary_ramp=4"];
    let norms = ["--set", "model.insert_sub_norms=true"];
    train(folder.path(), "run", &[&ramp[..], &norms].concat());
    let trained = path("run/model");
    assert_eq!(
        read(&trained)["architectures"],
        json!(["BitnetForCausalLM"])
    );
    let ids = written_by_runtime(&trained, "12+34=", 12);
    assert_eq!(ids, written_by_trainer(&trained, "12+34=", 12));
}

/// A width of two groups of columns, the second one short.
const SCALED: &str = "
    [model]
    family = 'bitnet'
    hidden_size = 160
    intermediate_size = 192
    num_hidden_layers = 1
    num_attention_heads = 2
    initializer_range = 0.1
    [data]
    mix = 'addition2=1'
    documents = 300
    vocab_size = 300
    [train]
    steps = 20
    batch = 2
    context = 48
    learning_rate = 2e-3
    warmup = 2
    sample_tokens = 8
";

/// The loss of a packed file on the held-out rows of a run, nats per token.
fn loss_by_runtime(packed: &Path, run: &Path) -> f64 {
    let recipe = run.join("recipe.toml");
    let recipe = Recipe::parse(&std::fs::read_to_string(&recipe).unwrap(), &recipe).unwrap();
    let held_out = data::held_out(&recipe, &run.join("data")).unwrap();
    let model = runtime::Model::open(packed, runtime::Options::default()).unwrap();
    let (context, vocabulary) = (recipe.train.context, model.config().vocab_size);
    let (mut sum, mut count) = (0.0, 0);
    for row in held_out.chunks_exact(context + 1) {
        let ids: Vec<u32> = row.iter().copied().map(rows::id).collect();
        let mut cache = model.new_cache(context).unwrap();
        let logits = model
            .forward(&mut cache, &ids[..context], Logits::All)
            .unwrap();
        for (i, logits) in logits.chunks_exact(vocabulary).enumerate() {
            if row[i + 1] & rows::UNSCORED == 0 {
                let terms = logits.iter().map(|x| f64::from(*x).exp());
                sum += terms.sum::<f64>().ln() - f64::from(logits[ids[i + 1] as usize]);
                count += 1;
            }
        }
    }
    sum / f64::from(count)
}

#[test]
fn scales_of_rows_and_groups_are_those_of_the_trainer_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("r.toml"), SCALED).unwrap();
    for (name, scaling) in [("row", Scaling::Row), ("group", Scaling::Group)] {
        let set = format!("model.scaling={name}");
        train(folder.path(), name, &["--set", &set]);
        let (run, packed) = (path(name), path(&format!("{name}.sterna")));
        let trained = run.join("model");
        let args = ["convert", text(&trained), "--out", text(&packed)];
        stdout(&[&args[..], &["--head", "lossless", "--packing", "i2"]].concat());

        let bytes = std::fs::read(run.join("checkpoints/step-00000020.safetensors")).unwrap();
        let checkpoint = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let source = convert::open(&packed, false).unwrap();
        assert_eq!(source.activations(), Activations::Int8);
        for weight in layout::weights(source.config()) {
            if weight.role != Role::Linear {
                continue;
            }
            let masters = checkpoint.tensor(&weight.name).unwrap();
            let masters = masters.data().as_chunks::<4>().0.iter();
            let masters: Vec<f32> = masters.map(|b| f32::from_le_bytes(*b)).collect();
            let mut trits = vec![0; masters.len()];
            let scales = quantize::ternarize_parts(&masters, weight.columns, scaling, &mut trits);
            let found = source.linear(&weight).unwrap();
            assert!(found.trits == trits, "{}", weight.name);
            assert_eq!(found.scales.scaling, scaling, "{}", weight.name);
            assert_eq!(found.scales.values, scales, "{}", weight.name);
        }

        let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
        let expected = last["held_out_loss"].as_f64().unwrap();
        let found = loss_by_runtime(&packed, &run);
        assert!(
            (found - expected).abs() < 1e-3,
            "{name}: {found} {expected}"
        ); // perplexity by 0.1 %

        // A model that was trained with these scales continues with them, and is unchanged after
        // zero steps.
        let more = format!("more-{name}");
        let args = [
            "--from",
            text(&trained),
            "--steps",
            "1",
            "--set",
            "train.learning_rate=0",
        ];
        train(folder.path(), &more, &args);
        let again = convert::open(&path(&more).join("model"), false).unwrap();
        for weight in layout::weights(source.config()) {
            if weight.role == Role::Linear {
                let [a, b] = [&source, &again].map(|source| source.linear(&weight).unwrap());
                assert!(a.trits == b.trits, "{}", weight.name);
                let scales = a.scales.values.iter().zip(&b.scales.values);
                let off = scales.map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f32::max);
                assert!(
                    a.scales.scaling == b.scales.scaling && off < 1e-6,
                    "{}",
                    weight.name
                );
            }
        }
    }
}

/// A narrow student from scratch; its tokenizer is the teacher's.
const STUDENT: &str = "
    [model]
    family = 'bitnet'
    hidden_size = 32
    intermediate_size = 48
    num_hidden_layers = 1
    num_attention_heads = 2
    [data]
    mix = 'addition2=1'
    documents = 300
    [train]
    steps = 12
    batch = 2
    context = 48
    learning_rate = 2e-3
    warmup = 2
    checkpoint_every = 4
    keep_last = 9
    sample_tokens = 8
    [teacher]
    from = 'full/model'
    weight = 0.7
    temperature = 2
";

#[test]
fn a_student_has_its_teachers_tokenizer_and_goes_on_exactly_with_no_other_teacher() {
    let folder = start(RECIPE);
    let path = |name: &str| folder.path().join(name);
    train(folder.path(), "full", &["--set", "train.precision=full"]);
    std::fs::write(path("r.toml"), STUDENT).unwrap();
    train(folder.path(), "run", &[]);
    let files = ["model/model.safetensors", "metrics.jsonl"];
    let results = || files.map(|name| std::fs::read(path("run").join(name)).unwrap());
    let before = results();
    for step in [8, 12] {
        let name = format!("run/checkpoints/step-{step:08}.safetensors");
        std::fs::remove_file(path(&name)).unwrap();
    }
    train(folder.path(), "run", &["--threads", "1"]);
    assert!(results() == before);
    let bytes = |run: &str, name: &str| std::fs::read(path(run).join("model").join(name)).unwrap();
    let tokenizer = "tokenizer.json";
    assert!(bytes("run", tokenizer) == bytes("full", tokenizer));
    assert_eq!(written_by_runtime(&path("run/model"), "12+34=", 8).len(), 8);
    let facts = std::fs::read(path("run/run.json")).unwrap();
    let facts: Value = serde_json::from_slice(&facts).unwrap();
    for key in ["began", "teacher"] {
        assert_eq!(facts["weights"][key].as_str().unwrap().len(), 64, "{key}");
    }

    std::fs::remove_file(path("run/checkpoints/step-00000012.safetensors")).unwrap();
    let weights = "full/model/model.safetensors";
    let mut other = std::fs::read(path(weights)).unwrap();
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(path(weights), other).unwrap();
    let (recipe, out) = (path("r.toml"), path("run"));
    let args = ["train", "--config", text(&recipe), "--out", text(&out)];
    let message = refused(3, &args);
    let expected = "not those of the teacher";
    assert!(
        message.contains(expected) && message.contains("full/model"),
        "{message}"
    );

    let (base, out) = (path("base"), path("other"));
    std::fs::write(
        base.join(tokenizer),
        [bytes("full", tokenizer), b"\n".to_vec()].concat(),
    )
    .unwrap();
    let args = [
        "train",
        "--config",
        text(&recipe),
        "--out",
        text(&out),
        "--from",
        text(&base),
    ];
    let message = refused(3, &args);
    assert!(
        message.contains("a teacher needs the tokenizer.json"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_started_from_is_refused() {
    let folder = start(RECIPE);
    let path = |name: &str| folder.path().join(name);
    let (recipe, out) = (path("r.toml"), path("run"));
    let args = ["train", "--config", text(&recipe), "--out", text(&out)];
    let with = |more: &[&str]| refused(3, &[&args[..], more].concat());
    let message = with(&["--from", "./nothing"]);
    assert!(message.contains("nothing"), "{message}");
    let base = path("base");
    std::fs::rename(base.join("tokenizer.json"), path("tokenizer.json")).unwrap();
    let message = with(&[]);
    assert!(
        message.contains("base") && message.contains("no tokenizer.json"),
        "{message}"
    );
    std::fs::rename(path("tokenizer.json"), base.join("tokenizer.json")).unwrap();
    let config = std::fs::read_to_string(base.join("config.json")).unwrap();
    let qwen3 = config
        .replace("LlamaFor", "Qwen3For")
        .replace("\"llama\"", "\"qwen3\"");
    std::fs::write(base.join("config.json"), qwen3).unwrap();
    let message = with(&["--set", "model.insert_sub_norms=true"]);
    assert!(message.contains("q_norm"), "{message}");
}

#[test]
fn a_token_without_a_row_may_be_in_no_text() {
    let folder = start(RECIPE);
    let base = folder.path().join("base");
    let edit = |name: &str, change: &dyn Fn(&mut Value)| {
        let path = base.join(name);
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut file);
        std::fs::write(path, file.to_string()).unwrap();
    };
    // Every row has a token, so the token for padding gets none.
    edit("tokenizer.json", &|file| {
        let used = file["added_tokens"].as_array().unwrap().iter();
        let used = used.filter_map(|token| token["id"].as_u64()).max().unwrap();
        let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
        let in_vocabulary = vocabulary.values().filter_map(Value::as_u64).max().unwrap();
        for id in used.max(in_vocabulary) + 1..300 {
            vocabulary.insert(format!("more{id}"), id.into());
        }
    });
    edit("tokenizer_config.json", &|file| {
        file["pad_token"] = "<pad>".into()
    });
    train(folder.path(), "run", &["--steps", "3"]);
    let packed = folder.path().join("run.sterna");
    let model = folder.path().join("run/model");
    stdout(&["convert", text(&model), "--out", text(&packed)]);
    stdout(&["generate", text(&packed), "-p", "1+2=", "-n", "2"]);
    // The template of a conversation writes the token.
    let template = "{% for m in messages %}<pad>{{ m.content }}{{ eos_token }}{% endfor %}";
    std::fs::write(base.join("chat_template.jinja"), template).unwrap();
    let chat = folder.path().join("chat.jsonl");
    let line = json!({"messages": [{"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"}]});
    std::fs::write(&chat, format!("{line}\n").repeat(20)).unwrap();
    let (recipe, out) = (folder.path().join("r.toml"), folder.path().join("chat"));
    let args = ["train", "--config", text(&recipe), "--out", text(&out)];
    let message = refused(3, &[&args[..], &["--chat", text(&chat)]].concat());
    let told = "the token \"<pad>\" with id 300, but the model's embedding has 300 rows";
    assert!(message.contains(told), "{message}");
    // Any text can contain a token of the vocabulary.
    edit("tokenizer.json", &|file| {
        file["model"]["vocab"]["more"] = 300.into()
    });
    let message = refused(3, &args);
    assert!(
        message.contains("\"more\"") && message.contains("300"),
        "{message}"
    );
}

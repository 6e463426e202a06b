//! GGUF files of other programs, with their omissions and errors.

mod gguf_file;

use gguf_file::{File, text, value};
use serde_json::Value;
use sterna_convert::{
    Error, GgufHints, HeadType, LutKernels, PackedOptions, Source, open, open_with, verify,
    write_packed,
};
use sterna_ternary::{Activations, Dense, Dtype, Output, PackedFile, Packing, Scaling};

fn read(file: &File) -> Result<Box<dyn Source>, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    open(&path, false)
}

fn embedded(source: &dyn Source, name: &str) -> Option<String> {
    let file = source.files().iter().find(|(n, _)| n == name);
    file.map(|(_, bytes)| String::from_utf8(bytes.clone()).unwrap())
}

fn json(source: &dyn Source, name: &str) -> Value {
    serde_json::from_str(&embedded(source, name).unwrap()).unwrap()
}

/// The first upload of BitNet b1.58 2B4T, in small: no split rule, a wrong template, the end of
/// turn missing.
fn bitnet(architecture: &str) -> File {
    let mut file = File::good();
    for (key, _, _) in &mut file.pairs {
        *key = key.replace("llama.", &format!("{architecture}."));
    }
    file.set("general.architecture", 8, text(architecture));
    for norm in ["blk.0.attn_sub_norm.weight", "blk.0.ffn_sub_norm.weight"] {
        file.push(norm, vec![1.0; 4]);
    }
    file.remove("tokenizer.ggml.pre");
    let wrong = "{{ bos_token }}Human: {{ messages[0] }}\n\nBITNETAssistant: {{ eos_token }}";
    file.set("tokenizer.chat_template", 8, text(wrong));
    file
}

#[test]
fn the_defects_of_published_files_are_repaired_and_reported() {
    for architecture in ["bitnet-b1.58", "bitnet-25"] {
        let source = read(&bitnet(architecture)).unwrap();
        assert_eq!(source.config().family.architecture, "BitNetForCausalLM");
        assert_eq!(source.config().family.activation.name(), "relu2");
        let tokenizer = json(&*source, "tokenizer.json");
        let split = &tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"];
        assert!(split.as_str().unwrap().contains(r"\p{N}{1,3}"), "{split}");
        assert_eq!(tokenizer["model"]["ignore_merges"], true);
        let template = embedded(&*source, "chat_template.jinja").unwrap();
        assert!(template.ends_with("Assistant: {% endif %}") && !template.contains("Human"));
        let generation = json(&*source, "generation_config.json");
        assert_eq!(generation["eos_token_id"], serde_json::json!([4, 3]));
        let warnings = source.warnings().join("\n");
        for part in [
            "tokenizer.ggml.pre",
            "chat template",
            "<|eot_id|>",
            "rebuilt",
        ] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
    }
}

#[test]
fn the_models_of_1bitllm_are_no_other_family() {
    // The same tensors as BitNet b1.58 2B4T and another activation.
    let source = read(&bitnet("bitnet")).unwrap();
    let family = source.config().family;
    assert_eq!((family.name, family.activation.name()), ("1bitllm", "silu"));
}

/// An embedding model as bitnet.cpp's converter writes it, in small: norms in half
/// precision, one before every linear layer.
fn embedding_model(architecture: &str) -> File {
    let mut file = File::good();
    for (key, _, _) in &mut file.pairs {
        *key = key.replace("llama.", &format!("{architecture}."));
    }
    file.set("general.architecture", 8, text(architecture));
    file.set("tokenizer.ggml.pre", 8, text("qwen2"));
    file.set("tokenizer.ggml.add_eos_token", 7, vec![1]);
    let mut push = |name: String, gain: f32, width: usize| {
        let gain = half::f16::from_f32(gain).to_le_bytes();
        file.append(gguf_file::Tensor {
            name,
            dimensions: vec![width as u64],
            type_id: 1,
            offset: 0,
            bytes: gain.repeat(width),
        });
    };
    for linear in [
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    ] {
        push(format!("blk.0.{linear}_norm_in.weight"), 1.25, 4);
    }
    for head in ["attn_q_norm", "attn_k_norm"] {
        push(format!("blk.0.{head}.weight"), 1.5, 2);
    }
    if architecture == "gemma3" {
        for norm in ["post_attention_norm", "post_ffw_norm"] {
            push(format!("blk.0.{norm}.weight"), 2.5, 4);
        }
    }
    file
}

#[test]
fn embedding_models_have_norms_in_front_of_linear_layers() {
    for (architecture, family) in [("qwen3", "qwen3"), ("gemma3", "gemma3")] {
        let mut file = embedding_model(architecture);
        let source = read(&file).unwrap();
        let config = source.config();
        assert_eq!(
            (config.family.name, config.linear_norm_eps),
            (family, Some(1e-5))
        );
        assert_eq!(config.sliding, None);
        let template = &json(&*source, "tokenizer.json")["post_processor"]["single"];
        let last = template.as_array().unwrap().last().unwrap();
        assert_eq!(last["SpecialToken"]["id"], "<|end_of_text|>");
        assert_eq!(
            json(&*source, "tokenizer_config.json")["add_eos_token"],
            true
        );
        let again = json(&*source, "config.json");
        assert_eq!(sterna_ternary::Config::from_json(&again).unwrap(), *config);
        file.set(&format!("{architecture}.pooling_type"), 4, value::u32(1));
        let warnings = read(&file).unwrap().warnings().join("\n");
        assert!(warnings.contains("pooling_type is 1"), "{warnings}");
        file.find("blk.0.ffn_up_norm_in.weight").name = "blk.0.other.weight".into();
        let error = read(&file).err().unwrap().to_string();
        assert!(error.contains("blk.0.ffn_up_norm_in.weight"), "{error}");
    }
}

#[test]
fn gains_of_gemma_are_whole_and_windows_are_every_sixth() {
    let mut file = embedding_model("gemma3");
    file.set("gemma3.attention.sliding_window", 4, value::u32(7));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    let source = open(&path, false).unwrap();
    let gain = |name: &str| {
        let weights = sterna_ternary::layout::weights(source.config());
        let weight = weights.iter().find(|w| w.name == name).unwrap().clone();
        source.vector(&weight).unwrap()[0]
    };
    assert_eq!(
        gain("model.layers.0.post_feedforward_layernorm.weight"),
        2.5
    );
    assert_eq!(gain("model.layers.0.pre_feedforward_layernorm.weight"), 1.0);
    assert_eq!(gain("model.layers.0.self_attn.q_norm.weight"), 1.5);
    assert_eq!(gain("model.layers.0.mlp.up_proj.rms_norm.weight"), 1.25);
    let sliding = source.config().sliding.as_ref().unwrap();
    assert_eq!((sliding.window, sliding.rope.theta), (7, 10000.0));
    file.set("gemma3.attention.sliding_window_pattern", 4, value::u32(1));
    assert_eq!(read(&file).unwrap().config().sliding, None);
    file.set("gemma3.attention.sliding_window", 4, value::u32(u32::MAX));
    file.set("gemma3.attention.sliding_window_pattern", 4, value::u32(0));
    let error = read(&file).err().unwrap().to_string();
    assert!(error.contains("sliding_window"), "{error}");
}

#[test]
fn a_byte_level_tokenizer_is_rebuilt() {
    let source = read(&File::good()).unwrap();
    let tokenizer = json(&*source, "tokenizer.json");
    let vocab = &tokenizer["model"]["vocab"];
    assert_eq!((&vocab["ab"], &vocab["<|eot_id|>"]), (&2.into(), &3.into()));
    assert_eq!(
        tokenizer["model"]["merges"],
        serde_json::json!([["a", "b"]])
    );
    let added: Vec<_> = tokenizer["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    assert_eq!(added.len(), 2);
    assert!(added.iter().all(|t| t["special"] == true));
    assert_eq!(
        tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"],
        "<|end_of_text|>"
    );
    let settings = json(&*source, "tokenizer_config.json");
    assert_eq!(settings["eos_token"], "<|end_of_text|>");
    assert_eq!(settings["add_bos_token"], true);
}

#[test]
fn a_tokenizer_of_scores_is_rebuilt() {
    let source = read(&File::sentence_piece()).unwrap();
    let tokenizer = json(&*source, "tokenizer.json");
    assert_eq!(
        tokenizer["model"]["merges"],
        serde_json::json!([["▁", "a"]])
    );
    assert_eq!(tokenizer["model"]["byte_fallback"], true);
    assert_eq!(tokenizer["model"]["unk_token"], "<unk>");
    assert_eq!(tokenizer["normalizer"]["normalizers"][0]["prepend"], "▁");
}

#[test]
fn the_tokenizer_json_of_a_file_is_taken_whole() {
    let mut file = File::good();
    let whole = r#"{"model": {"type": "BPE"}, "mine": 1}"#;
    file.set("tokenizer.huggingface.json", 8, text(whole));
    assert_eq!(json(&*read(&file).unwrap(), "tokenizer.json")["mine"], 1);
}

#[test]
fn a_factor_beside_a_matrix_multiplies_its_scale() {
    let mut file = File::good();
    file.push("blk.0.ffn_up.scale", vec![3.0]);
    let source = read_all(&file, "model.layers.0.mlp.up_proj.weight");
    assert_eq!(source.scales.single(), Some(1.5));
    assert_eq!(source.trits[..8], [-1, 0, 0, -1, 0, 1, 0, 1]);
}

#[test]
fn scaling_by_one_and_settings_that_change_nothing_are_accepted() {
    let mut file = File::good();
    file.set("llama.rope.scaling.type", 8, text("linear"));
    file.set("llama.rope.scaling.factor", 6, value::f32(1.0));
    file.set("llama.expert_count", 4, value::u32(0));
    file.set("llama.logit_scale", 6, value::f32(1.0));
    read(&file).unwrap();
    file.set("llama.rope.scaling.factor", 6, value::f32(4.0));
    let source = read(&file).unwrap();
    assert_ne!(
        source.config().rope.scaling,
        sterna_ternary::rope::RopeScaling::None
    );
    file.remove("llama.rope.freq_base");
    let warnings = read(&file).unwrap().warnings().join("\n");
    assert!(warnings.contains("rope.freq_base"), "{warnings}");
}

/// A matrix of a file.
fn read_all(file: &File, name: &str) -> sterna_convert::Ternary {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    let source = open(&path, false).unwrap();
    let weights = sterna_ternary::layout::weights(source.config());
    source
        .linear(weights.iter().find(|w| w.name == name).unwrap())
        .unwrap()
}

/// Replaces a matrix by rows of 64 codes of Q2_0 with a scale for each row.
fn coded<const ROWS: usize>(file: &mut File, name: &str, scales: [u16; ROWS]) {
    let tensor = file.find(name);
    tensor.type_id = 42;
    tensor.dimensions = vec![64, ROWS as u64];
    tensor.bytes = scales
        .iter()
        .flat_map(|scale| [scale.to_le_bytes().to_vec(), vec![0b00_01_10_01; 16]].concat())
        .collect();
}

/// A model with matrices of 4 × 64 or 64 × 4 numbers.
fn wide() -> File {
    let mut file = File::good();
    file.set("llama.embedding_length", 4, value::u32(64));
    for key in ["head_count", "head_count_kv"] {
        file.set(&format!("llama.attention.{key}"), 4, value::u32(1));
    }
    file.set("llama.attention.key_length", 4, value::u32(4));
    file.set("llama.rope.dimension_count", 4, value::u32(4));
    let mut made = file.clone();
    made.tensors.clear();
    for mut tensor in file.tensors {
        let is_out = tensor.name.contains("attn_output") || tensor.name.contains("ffn_down");
        tensor.dimensions[usize::from(is_out)] = 64;
        tensor.bytes = tensor.bytes.repeat(16);
        made.append(tensor);
    }
    made
}

/// The same with offsets that follow from its tensors.
fn relaid(mut file: File) -> File {
    let tensors = std::mem::take(&mut file.tensors);
    tensors.into_iter().for_each(|tensor| file.append(tensor));
    file
}

#[test]
fn rows_keep_their_scales_and_zero_scales_are_zeros() {
    let made = wide();
    read(&made).unwrap();
    let relaid = |scales: [u16; 4]| {
        let mut file = made.clone();
        coded(&mut file, "blk.0.ffn_up.weight", scales);
        coded(&mut file, "blk.0.attn_q.weight", scales);
        relaid(file)
    };
    let up = "model.layers.0.mlp.up_proj.weight";
    let half = half::f16::from_f32(0.5).to_bits();
    let found = read_all(&relaid([half, 0, half, half]), up);
    assert_eq!(found.scales.single(), Some(0.5));
    assert_eq!(found.trits[..4], [0, 1, 0, -1]);
    assert_eq!(found.trits[64..128], [0; 64]);
    let rows = relaid([half, half + 1, half, half]);
    let found = read_all(&rows, up);
    assert_eq!(found.scales.scaling, Scaling::Row);
    assert_eq!(found.scales.values, [0.5, 0.5004883, 0.5, 0.5]);
    // Rows of q are in the order for rotating neighbours, and their scales with them.
    let found = read_all(&rows, "model.layers.0.self_attn.q_proj.weight");
    assert_eq!(found.scales.values, [0.5, 0.5, 0.5004883, 0.5]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for (scale, part) in [(0xb800, "finite scale"), (0x7e00, "NaN")] {
        std::fs::write(&path, relaid([half, half, scale, half]).bytes()).unwrap();
        let source = open(&path, false).unwrap();
        let weights = sterna_ternary::layout::weights(source.config());
        let error = source
            .linear(weights.iter().find(|w| w.name == up).unwrap())
            .unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// Lookup kernels of bitnet.cpp read weights in an order that no file tells.
#[test]
fn a_matrix_in_tl1_is_read_with_the_blocks_of_its_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let [path, ini] = ["model.gguf", "kernel_config.ini"].map(|name| folder.path().join(name));
    let mut file = wide();
    file.set("llama.feed_forward_length", 4, value::u32(16));
    for tensor in &mut file.tensors {
        let is_wider = tensor.name.contains("ffn");
        let dimension = usize::from(!tensor.name.contains("down"));
        if is_wider && tensor.dimensions.len() == 2 {
            tensor.dimensions[dimension] = 16;
            tensor.bytes = tensor.bytes.repeat(4);
        }
    }
    let up = file.find("blk.0.ffn_up.weight");
    up.type_id = 38;
    up.bytes = [&[0x81; 256][..], &0.5f32.to_le_bytes(), &[0; 28]].concat();
    let file = relaid(file);
    std::fs::write(&path, file.bytes()).unwrap();
    let error = open(&path, false).err().unwrap().to_string();
    assert!(
        error.contains("TL1") && error.contains("--kernel-config"),
        "{error}"
    );

    let open_as = |sections: &str| {
        std::fs::write(&ini, sections).unwrap();
        let hints = GgufHints {
            kernels: Some(LutKernels::open(&ini).unwrap()),
            ..GgufHints::default()
        };
        open_with(&path, &hints, false)
    };
    let error = open_as("[K]\nm = 64\nk = 16\nbm = 16\nbk = 16\nbmm = 16\n")
        .err()
        .unwrap();
    assert!(error.to_string().contains("m = 16, k = 64"), "{error}");
    let right = "[K]\nm = 16\nk = 64\nbm = 16\nbk = 32\nbmm = 16\n";
    let source = open_as(right).unwrap();
    assert!(
        source
            .warnings()
            .iter()
            .any(|w| w.contains("kernel configuration"))
    );
    let weights = sterna_ternary::layout::weights(source.config());
    let up = weights.iter().find(|w| w.name.contains("up_proj")).unwrap();
    let found = source.linear(up).unwrap();
    assert_eq!(found.scales.single(), Some(0.5));
    assert_eq!(found.trits, [1, 1, -1, 0].repeat(256));
    let mut bad = file;
    bad.find("blk.0.ffn_up.weight").bytes[77] = 0x9f;
    std::fs::write(&path, bad.bytes()).unwrap();
    let error = open_as(right).unwrap().linear(up).unwrap_err();
    assert!(error.to_string().contains("codes of trits"), "{error}");
}

/// Bonsai in small: matrices and embedding ternary, trained without quantized activations.
#[test]
fn a_model_in_q2_0_keeps_its_activations_and_its_ternary_tables() {
    let plain = read(&wide()).unwrap();
    assert_eq!(plain.activations(), Activations::Int8);
    let mut file = wide();
    let [half, quarter] = [0.5, 0.25].map(|s| half::f16::from_f32(s).to_bits());
    coded(&mut file, "blk.0.ffn_up.weight", [half; 4]);
    coded(
        &mut file,
        "token_embd.weight",
        [half, quarter, 0, quarter, half],
    );
    let folder = tempfile::tempdir().unwrap();
    let [gguf, packed] = ["model.gguf", "model.sterna"].map(|name| folder.path().join(name));
    std::fs::write(&gguf, relaid(file).bytes()).unwrap();
    let source = open(&gguf, false).unwrap();
    assert_eq!(source.activations(), Activations::Int16);
    assert!(json(&*source, "config.json")["quantization_config"].is_null());
    let options = PackedOptions {
        packing: Packing::T5.into(),
        head: HeadType::Auto,
        activations: None,
        allow_missing: false,
    };
    let report = write_packed(
        &*source,
        &Output::new(&packed).unwrap(),
        &options,
        &mut |_, _| {},
    )
    .unwrap();
    assert_eq!(
        (report.tables[0].dtype, report.tables[0].max_error),
        ("ternary", 0.0)
    );
    let found = verify(&gguf, &packed, &mut |_, _| {}).unwrap();
    assert!(found.is_equal(), "{found:?}");
    let packed = PackedFile::open(&packed).unwrap();
    packed.verify().unwrap();
    assert_eq!(packed.activations, Activations::Int16);
    assert_eq!(packed.group_scales, Dtype::F16);
}

/// Blocks of a file become the same blocks of a baseline; trits they are not.
#[test]
fn blocks_of_a_file_are_the_blocks_of_a_baseline() {
    const UP: &str = "blk.0.ffn_up.weight";
    for (packing, type_id) in [(Dense::Q8_0, 8), (Dense::Q4_0, 2)] {
        let size = packing.block_bytes().unwrap();
        let x: Vec<f32> = (0..4 * 64)
            .map(|i| ((i * 37 % 61) as f32 - 30.0) / 7.0)
            .collect();
        let mut blocks = vec![0; 4 * 2 * size];
        for (x, row) in x.chunks(64).zip(blocks.chunks_mut(2 * size)) {
            assert!(packing.pack_row(x, row));
        }
        let mut file = wide();
        let up = file.find(UP);
        (up.type_id, up.bytes) = (type_id, blocks.clone());
        up.dimensions = vec![64, 4];
        let folder = tempfile::tempdir().unwrap();
        let [gguf, packed] = ["model.gguf", "model.sterna"].map(|name| folder.path().join(name));
        std::fs::write(&gguf, relaid(file).bytes()).unwrap();
        let source = open(&gguf, false).unwrap();
        let mut options = PackedOptions {
            packing: Packing::I2.into(),
            head: HeadType::Auto,
            activations: None,
            allow_missing: false,
        };
        let error = write_packed(
            &*source,
            &Output::new(&packed).unwrap(),
            &options,
            &mut |_, _| {},
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("--packing f16, q8_0 or q4_0"),
            "{error}"
        );
        options.packing = packing.into();
        let report = write_packed(
            &*source,
            &Output::new(&packed).unwrap(),
            &options,
            &mut |_, _| {},
        )
        .unwrap();
        let name = "model.layers.0.mlp.up_proj.weight";
        let of_up = report.dense.iter().find(|m| m.name == name).unwrap();
        assert_eq!((of_up.dtype, of_up.max_error), (packing.name(), 0.0));
        let file = PackedFile::open(&packed).unwrap();
        let held = file.layout().find(name).unwrap();
        assert_eq!(file.data()[held.offset..][..held.len], blocks);
        assert!(verify(&gguf, &packed, &mut |_, _| {}).unwrap().is_equal());
    }
}

//! Tests with published configs and with hostile ones.

use super::*;

fn bitnet() -> Value {
    json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 30,
        "num_attention_heads": 20, "num_key_value_heads": 5, "vocab_size": 128256,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": true, "bos_token_id": 128000, "eos_token_id": 128001,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
            "quantization_mode": "offline"},
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut json = bitnet();
    json[key] = value;
    json
}

#[test]
fn reads_2b4t_and_reads_back_what_it_writes() {
    let config = Config::from_json(&bitnet()).unwrap();
    assert_eq!(
        (config.head_dim, config.eos_token_id.as_slice()),
        (128, &[128001][..])
    );
    assert_eq!(Config::storage(&bitnet()).unwrap(), Storage::PackedMultiply);
    let written = config.to_json();
    assert_eq!(Config::from_json(&written).unwrap(), config);
    assert_eq!(Config::storage(&written).unwrap(), Storage::Online);
    assert_eq!(written["rms_norm_eps"], json!(1e-5));
}

#[test]
fn both_rope_spellings() {
    let old = with(
        "rope_scaling",
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
    );
    let old = Config::from_json(&old).unwrap();
    let mut new = bitnet();
    new["rope_parameters"] = old.to_json()["rope_scaling"].clone();
    new["rope_parameters"]["rope_theta"] = json!(500000.0);
    new.as_object_mut().unwrap().remove("rope_theta");
    assert_eq!(Config::from_json(&new).unwrap(), old);
    assert_eq!(Config::from_json(&old.to_json()).unwrap(), old);
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    let yarn = Config::from_json(&with("rope_scaling", yarn)).unwrap();
    assert_eq!(yarn.rope.amplitude(), 1.1386294);
    assert_eq!(Config::from_json(&yarn.to_json()).unwrap(), yarn);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    for key in bitnet().as_object().unwrap().keys() {
        if ["bos_token_id", "eos_token_id", "quantization_config"].contains(&key.as_str()) {
            continue;
        }
        let mut json = bitnet();
        json.as_object_mut().unwrap().remove(key);
        let error = Config::from_json(&json).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
    for (key, value) in [
        ("hidden_size", json!(-1)),
        ("vocab_size", json!("many")),
        ("num_hidden_layers", json!(1u64 << 60)),
        ("num_key_value_heads", json!(7)),
        ("head_dim", json!(3)),
        ("rms_norm_eps", json!(0)),
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(true)),
        ("use_sliding_window", json!(true)),
        ("partial_rotary_factor", json!(0.5)),
        ("layer_types", json!(["sliding_attention"])),
        ("eos_token_id", json!(["</s>"])),
        ("tie_word_embeddings", json!("yes")),
    ] {
        let error = Config::from_json(&with(key, value))
            .unwrap_err()
            .to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
}

fn gemma() -> Value {
    json!({
        "architectures": ["Gemma3TextModel"], "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 640, "intermediate_size": 2048,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
        "vocab_size": 262144, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 256,
        "sliding_window": 512, "torch_dtype": "bfloat16", "tie_word_embeddings": true,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    })
}

fn gemma_with(change: impl FnOnce(&mut Value)) -> Result<Config> {
    let mut json = gemma();
    change(&mut json);
    Config::from_json(&json)
}

#[test]
fn windows_scales_and_norms_of_gemma_and_back() {
    let config = Config::from_json(&gemma()).unwrap();
    assert_eq!(
        [0, 1, 2].map(|i| config.window(i)),
        [Some(512), None, Some(512)]
    );
    let sliding = config.sliding.as_ref().unwrap();
    assert_eq!((config.rope.theta, sliding.rope.theta), (1e6, 1e4));
    // √640 is 25.298.
    assert_eq!(config.embedding_multiplier, 25.25);
    assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    assert_eq!(config.to_json()["torch_dtype"], "bfloat16");
    let exact = gemma_with(|json| json["torch_dtype"] = "float32".into()).unwrap();
    assert_eq!(exact.embedding_multiplier, 640f32.sqrt());
    assert_eq!(exact.to_json()["torch_dtype"], "float32");
    let normed = gemma_with(|json| {
        json["quantization_config"] = json!({"use_rms_norm": true, "rms_norm_eps": 1e-5});
    });
    let normed = normed.unwrap();
    assert_eq!(normed.linear_norm_eps, Some(1e-5));
    assert_eq!(Config::from_json(&normed.to_json()).unwrap(), normed);
}

#[test]
fn both_spellings_of_layers_with_a_window() {
    let config = Config::from_json(&gemma()).unwrap();
    let pattern = |key: &str, json: &mut Value| {
        json.as_object_mut().unwrap().remove("layer_types");
        json[key] = 2.into();
    };
    for key in ["sliding_window_pattern", "_sliding_window_pattern"] {
        assert_eq!(gemma_with(|json| pattern(key, json)).unwrap(), config);
    }
    let nested = gemma_with(|json| {
        let object = json.as_object_mut().unwrap();
        object.remove("rope_theta");
        object.remove("rope_local_base_freq");
        json["rope_parameters"] = json!({
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        });
    });
    assert_eq!(nested.unwrap(), config);
    let full =
        gemma_with(|json| json["layer_types"] = json!([Config::FULL, Config::FULL, Config::FULL]))
            .unwrap();
    assert_eq!(full.sliding, None);
    assert_eq!(Config::from_json(&full.to_json()).unwrap(), full);
}

#[test]
fn hostile_windows_are_named() {
    for (key, value) in [
        ("sliding_window", json!(0)),
        ("sliding_window", json!(1u64 << 40)),
        ("sliding_window", Value::Null),
        ("layer_types", json!([Config::SLIDING])),
        (
            "layer_types",
            json!([Config::SLIDING, Config::FULL, "chunked_attention"]),
        ),
        ("layer_types", Value::Null),
        ("query_pre_attn_scalar", json!(-1)),
        ("query_pre_attn_scalar", Value::Null),
        ("rope_local_base_freq", json!(0)),
        ("torch_dtype", json!("int4")),
        ("use_bidirectional_attention", json!(true)),
        ("final_logit_softcapping", json!(30.0)),
        ("hidden_activation", json!("silu")),
    ] {
        let error = gemma_with(|json| json[key] = value.clone()).unwrap_err();
        assert!(error.to_string().contains(key), "{key}: {error}");
    }
    let zero = gemma_with(|json| {
        json.as_object_mut().unwrap().remove("layer_types");
        json["sliding_window_pattern"] = 0.into();
    });
    assert!(
        zero.unwrap_err()
            .to_string()
            .contains("sliding_window_pattern")
    );
    let scaled = json!({"sliding_attention": {"rope_type": "linear", "factor": 2.0}});
    let scaled = gemma_with(|json| json["rope_parameters"] = scaled);
    assert!(scaled.unwrap_err().to_string().contains("sliding window"));
    let odd = gemma_with(|json| json["quantization_config"] = json!({"use_rms_norm": 1}));
    assert!(odd.unwrap_err().to_string().contains("use_rms_norm"));
}

#[test]
fn unknown_things_are_refused_by_name() {
    let check = |json: Value, expected: &str| {
        let error = Config::from_json(&json).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(with("model_type", json!("mamba")), "known families: bitnet");
    check(
        with("architectures", json!(["MambaForCausalLM"])),
        "MambaForCausalLM",
    );
    let dynamic = json!({"rope_type": "dynamic", "factor": 2.0});
    check(with("rope_scaling", dynamic), "dynamic");
    let mscale = json!({"rope_type": "yarn", "factor": 2.0, "mscale": 1.0});
    check(with("rope_scaling", mscale), "mscale");
    check(json!([]), "model_type");
}

#[test]
fn storage_is_read_from_the_quantization_config() {
    let check = |quantization: Value, expected: Storage| {
        let json = json!({ "quantization_config": quantization });
        assert_eq!(Config::storage(&json).unwrap(), expected);
    };
    check(json!({"quant_method": "bitnet"}), Storage::PackedDivide);
    let online = json!({"quant_method": "bitnet", "linear_class": "autobitlinear",
        "quantization_mode": "online"});
    check(online, Storage::Online);
    let bits =
        |weight, input| Config::storage(&json!({"weight_bits": weight, "input_bits": input}));
    assert_eq!(bits(1, 8).unwrap(), Storage::Online);
    assert_eq!(bits(2, 8).unwrap(), Storage::Products);
    for refused in [
        json!({"quantization_config": {"quant_method": "gptq"}}),
        json!({"quantization_config": {"quant_method": "bitnet", "linear_class": "x"}}),
        json!({"quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": []}}),
        json!({"quantization_config": {"quant_method": "bitnet",
            "modules_to_not_convert": ["lm_head", "model.layers.0.mlp"]}}),
    ] {
        assert!(Config::storage(&refused).is_err(), "{refused}");
    }
}

//! Tokenizer and generation on a random model with a byte-level tokenizer.

mod random_model;

use std::path::Path;

use random_model::tokenizer::tokenizer_json;
use random_model::{odd, write};
use serde_json::{Value, json};
use sterna_runtime::{
    Error, Generation, Logits, Model, Options, Sampling, Settings, StopReason, TextStream,
    Tokenizer,
};
use sterna_ternary::{Packing, TableType};

/// A model with these embedded files.
fn model(folder: &Path, tokenizer: &[u8], config: &str, generation: &str) -> Model {
    let mut recipe = odd("bitnet", true, TableType::F16);
    recipe.config["vocab_size"] = 261.into();
    recipe.files = vec![
        ("tokenizer.json", tokenizer.to_vec()),
        ("tokenizer_config.json", config.as_bytes().to_vec()),
        ("generation_config.json", generation.as_bytes().to_vec()),
    ];
    let (path, _) = write(&recipe, Packing::T5, folder, "model");
    Model::open(
        &path,
        Options {
            threads: Some(2),
            ..Options::default()
        },
    )
    .unwrap()
}

fn plain_model(folder: &Path) -> Model {
    model(folder, tokenizer_json().to_string().as_bytes(), "{}", "{}")
}

fn tokenizer(config: &str, generation: &str) -> Result<Tokenizer, Error> {
    let folder = tempfile::tempdir().unwrap();
    model(
        folder.path(),
        tokenizer_json().to_string().as_bytes(),
        config,
        generation,
    )
    .tokenizer()
}

#[test]
fn a_bos_token_comes_first_where_the_config_says_so() {
    let check = |config: &str, text: &str, expected: &[u32]| {
        let ids = tokenizer(config, "{}").unwrap().encode(text, true).unwrap();
        assert_eq!(ids, expected, "{config}");
    };
    let with = r#"{"add_bos_token": true, "bos_token": "<s>"}"#;
    check("{}", "the", &[260]);
    check(
        r#"{"add_bos_token": false, "bos_token": "<s>"}"#,
        "the",
        &[260],
    );
    check(with, "the", &[0, 260]);
    check(with, "<s>the", &[0, 260]);
    check(with, "", &[0]);
    check(
        r#"{"add_bos_token": true, "bos_token": {"content": "</s>"}}"#,
        "the",
        &[1, 260],
    );
    // Without a name, config.json has the id.
    check(r#"{"add_bos_token": true}"#, "the", &[1, 260]);
    let chat = tokenizer(with, "{}").unwrap().encode("the", false).unwrap();
    assert_eq!(chat, [260]);
}

#[test]
fn an_eos_token_comes_last_where_the_config_says_so() {
    let with = r#"{"add_eos_token": true, "eos_token": "</s>"}"#;
    let tokenizer = |config| tokenizer(config, "{}").unwrap();
    assert_eq!(tokenizer(with).encode("the", true).unwrap(), [260, 1]);
    assert_eq!(tokenizer(with).encode("the</s>", true).unwrap(), [260, 1]);
    assert_eq!(tokenizer(with).encode("the", false).unwrap(), [260]);
    let unnamed = r#"{"add_eos_token": true}"#;
    assert_eq!(tokenizer(unnamed).encode("", true).unwrap(), [2]);
}

#[test]
fn the_end_is_whatever_any_file_calls_so() {
    let eos =
        |config: &str, generation: &str| tokenizer(config, generation).unwrap().eos().to_vec();
    assert_eq!(eos("{}", "{}"), [2]);
    assert_eq!(
        eos(r#"{"eos_token": "</s>"}"#, r#"{"eos_token_id": [5, 2, 0]}"#),
        [0, 1, 2, 5]
    );
    assert_eq!(
        eos(r#"{"eos_token": "unknown"}"#, r#"{"eos_token_id": 7}"#),
        [2, 7]
    );
}

#[test]
fn texts_come_back_and_pieces_are_whole_characters() {
    let tokenizer = tokenizer("{}", "{}").unwrap();
    for text in [
        "the tern flies south",
        "naïve café — 北極 🐦🐦",
        "\u{fffd}a",
        " \n\t the\u{301}",
    ] {
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        let mut stream = tokenizer.stream();
        let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        assert!(
            text.contains('\u{fffd}') || !pieces.concat().contains('\u{fffd}'),
            "{pieces:?}"
        );
        pieces.push(stream.finish().unwrap());
        assert_eq!(pieces.concat(), text);
    }
}

#[test]
fn bytes_that_are_no_text_do_not_stop_the_stream() {
    let tokenizer = tokenizer("{}", "{}").unwrap();
    // Half of a character, then letters; and forty bytes that begin a character each.
    for ids in [vec![3 + 0xe5, 3 + 0x8c, 3 + 97, 3 + 98], vec![3 + 0xf0; 40]] {
        let mut stream = tokenizer.stream();
        let mut text = String::new();
        for id in &ids {
            text += &stream.push(*id).unwrap();
        }
        assert!(!text.is_empty());
        text += &stream.finish().unwrap();
        assert_eq!(text, tokenizer.decode(&ids).unwrap());
    }
}

#[test]
fn files_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |tokenizer: &[u8], config: &str, generation: &str, expected: &str| {
        let error = model(folder.path(), tokenizer, config, generation)
            .tokenizer()
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    let good = tokenizer_json().to_string().into_bytes();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut json = tokenizer_json();
        change(&mut json);
        json.to_string().into_bytes()
    };
    for broken in [
        Vec::new(),
        b"[]".to_vec(),
        b"\xff\xfe".to_vec(),
        good[..good.len() / 2].to_vec(),
        changed(&|json| json["model"]["type"] = json!("Unknown")),
        changed(&|json| json["model"]["merges"] = json!(["nothing there"])),
        changed(&|json| json["model"]["merges"] = json!(["onlyone"])),
        changed(&|json| json["model"]["vocab"]["a"] = json!(-1)),
        changed(&|json| {
            json["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "("},
            "behavior": "Isolated", "invert": false})
        }),
    ] {
        check(&broken, "{}", "{}", "tokenizer.json in the packed file");
    }
    let large = changed(&|json| json["model"]["vocab"]["zebra"] = json!(261));
    check(
        &large,
        "{}",
        "{}",
        r#""zebra" has id 261: expected ids below vocab_size 261"#,
    );
    check(&good, "{", "{}", "tokenizer_config.json");
    check(&good, "{}", "[", "generation_config.json");
    check(&good, "{}", r#"{"eos_token_id": "two"}"#, "eos_token_id");
    let (path, _) = write(
        &odd("llama", true, TableType::F16),
        Packing::I2,
        folder.path(),
        "bare",
    );
    let error = Model::open(&path, Options::default())
        .unwrap()
        .tokenizer()
        .unwrap_err();
    assert!(error.to_string().contains("found nothing"), "{error}");
}

#[test]
fn a_token_without_a_row_is_named_where_a_text_has_it() {
    let mut json = tokenizer_json();
    let added = json["added_tokens"].as_array_mut().unwrap();
    for (id, content) in [(261, "<one>"), (262, "<two>"), (270, "<far>")] {
        added.push(
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}),
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), json.to_string().as_bytes(), "{}", "{}");
    let tokenizer = model.tokenizer().unwrap();
    tokenizer.encode("the tern", false).unwrap();
    let error = tokenizer.encode("the <two> tern", false).unwrap_err();
    let parts = [
        "\"<two>\" with id ",
        "has 261 rows",
        "leave the token out",
        "tokenizer.json",
    ];
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

/// Runs a generation to its end.
fn generate(model: &Model, settings: Settings) -> (String, Vec<u32>, sterna_runtime::Summary) {
    let tokenizer = model.tokenizer().unwrap();
    let mut cache = model.new_cache(100).unwrap();
    let prompt = tokenizer.encode("the tern", true).unwrap();
    let mut generation = Generation::new(model, &tokenizer, &mut cache, &prompt, settings).unwrap();
    let pieces: Vec<String> = generation.by_ref().map(|piece| piece.unwrap()).collect();
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    (
        pieces.concat(),
        generation.generated().to_vec(),
        generation.summary(),
    )
}

fn at_most(tokens: usize) -> Settings {
    Settings {
        max_tokens: Some(tokens),
        ..Settings::default()
    }
}

#[test]
fn greedy_generation_is_the_loop_over_forward() {
    let folder = tempfile::tempdir().unwrap();
    let model = plain_model(folder.path());
    let tokenizer = model.tokenizer().unwrap();
    let (text, tokens, summary) = generate(&model, at_most(20));
    assert_eq!(
        (summary.prompt_tokens, summary.generated_tokens),
        (6, tokens.len())
    );
    assert!(summary.prompt_time.as_nanos() > 0 && summary.generated_time.as_nanos() > 0);

    let mut cache = model.new_cache(100).unwrap();
    let mut new = tokenizer.encode("the tern", true).unwrap();
    let mut expected = Vec::new();
    for _ in 0..tokens.len() {
        let logits = model.forward(&mut cache, &new, Logits::Last).unwrap();
        new = vec![sterna_runtime::sampler::greedy(&logits)];
        expected.push(new[0]);
    }
    assert_eq!(tokens, expected);
    assert_eq!(text, tokenizer.decode(&tokens).unwrap());
}

#[test]
fn a_seed_gives_one_text() {
    let folder = tempfile::tempdir().unwrap();
    let model = plain_model(folder.path());
    let with = |seed| {
        let sampling = Sampling {
            temperature: 1.5,
            top_k: 50,
            seed,
            ..Sampling::default()
        };
        generate(
            &model,
            Settings {
                sampling,
                ..at_most(30)
            },
        )
        .1
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

#[test]
fn every_reason_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let model = plain_model(folder.path());
    let (text, tokens, summary) = generate(&model, at_most(20));
    assert_eq!((summary.stop, tokens.len()), (Some(StopReason::Length), 20));

    // The whole cache: 100 positions for 6 tokens of the prompt and all generated ones but the
    // last.
    let (_, tokens_to_the_end, summary) = generate(&model, Settings::default());
    assert_eq!(
        (summary.stop, tokens_to_the_end.len()),
        (Some(StopReason::Length), 95)
    );

    let stop: String = text.chars().skip(3).take(2).collect();
    let (stopped, _, summary) = generate(
        &model,
        Settings {
            stop: vec![stop.clone()],
            ..at_most(20)
        },
    );
    assert_eq!(summary.stop, Some(StopReason::StopText));
    assert_eq!(stopped, text[..text.find(&stop).unwrap()]);

    let last = tokens[19];
    let first = tokens.iter().position(|t| *t == last).unwrap();
    let generation = format!(r#"{{"eos_token_id": {last}}}"#);
    let json = tokenizer_json().to_string();
    let model = self::model(folder.path(), json.as_bytes(), "{}", &generation);
    let (_, ended, summary) = generate(&model, at_most(20));
    assert_eq!(
        (summary.stop, ended.as_slice()),
        (Some(StopReason::Eos), &tokens[..=first])
    );
}

#[test]
fn what_does_not_fit_is_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let model = plain_model(folder.path());
    let tokenizer = model.tokenizer().unwrap();
    let mut cache = model.new_cache(10).unwrap();
    let mut refused = |prompt: &[u32], settings: Settings| {
        Generation::new(&model, &tokenizer, &mut cache, prompt, settings)
            .err()
            .map(|e| e.to_string())
    };
    assert_eq!(refused(&[1; 6], at_most(5)), None);
    assert!(
        refused(&[1; 6], at_most(6))
            .unwrap()
            .contains("at most 10 together")
    );
    assert!(
        refused(&[1; 11], Settings::default())
            .unwrap()
            .contains("11 new ones")
    );
    assert!(
        refused(&[], Settings::default())
            .unwrap()
            .contains("no tokens")
    );
    let sampling = Sampling {
        top_p: 2.0,
        ..Sampling::default()
    };
    assert!(
        refused(
            &[1],
            Settings {
                sampling,
                ..at_most(1)
            }
        )
        .unwrap()
        .contains("top_p")
    );
}

#[test]
fn what_the_cache_holds_is_not_computed_again_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = plain_model(folder.path());
    let tokenizer = model.tokenizer().unwrap();
    let settings = Settings {
        max_tokens: Some(4),
        sampling: Sampling {
            repetition_penalty: 1.3,
            ..Sampling::default()
        },
        ..Settings::default()
    };
    let mut cache = model.new_cache(32).unwrap();
    let mut check = |text: &[u32], cached: usize| {
        let run = |cache: &mut sterna_runtime::KvCache| {
            let resumed = Generation::resume(&model, &tokenizer, cache, text, settings.clone());
            let mut resumed = resumed.unwrap();
            resumed.by_ref().for_each(|piece| drop(piece.unwrap()));
            (resumed.generated().to_vec(), resumed.summary())
        };
        let (ids, summary) = run(&mut cache);
        assert_eq!(
            (summary.cached_tokens, summary.prompt_tokens),
            (cached, text.len() - cached)
        );
        let (fresh, _) = run(&mut model.new_cache(32).unwrap());
        assert_eq!(ids, fresh);
        assert_eq!(cache.tokens(), [text, &ids[..ids.len() - 1]].concat());
        ids
    };
    let first = check(&[4, 5, 6], 0);
    let more = [&[4, 5, 6][..], &first[..3], &[9, 10]].concat();
    check(&more, 6);
    // Another continuation, and the same text once more: its last token is computed for the logits.
    check(&[4, 5, 7], 2);
    check(&[4, 5, 7], 2);
    check(&[8], 0);
}

#[test]
fn tokens_that_end_a_turn_end_an_answer() {
    let with = |name: &str, special: bool| {
        let mut json = tokenizer_json();
        json["added_tokens"][0]["content"] = name.into();
        json["added_tokens"][0]["special"] = special.into();
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        vocab.remove("<s>");
        vocab.insert(name.into(), 0.into());
        let folder = tempfile::tempdir().unwrap();
        let model = model(folder.path(), json.to_string().as_bytes(), "{}", "{}");
        model.tokenizer().unwrap().eos().to_vec()
    };
    assert_eq!(with("<|im_end|>", true), [0, 2]);
    assert_eq!(with("<|im_end|>", false), [2]);
    assert_eq!(with("<|im_start|>", true), [2]);
}

#[test]
fn the_template_says_which_token_ends_an_answer() {
    let eos = |template: &str| {
        let config = json!({"chat_template": template}).to_string();
        tokenizer(&config, "{}").unwrap().eos().to_vec()
    };
    let turns = |end: &str| {
        format!(
            "{{% for m in messages %}}[{{{{ m.role }}}}] {{{{ m.content }}}}{end}{{% endfor %}}"
        )
    };
    // config.json names 2, which is also an end of turns by its name.
    assert_eq!(eos(&turns("<s>")), [0, 2]);
    assert_eq!(eos(&turns(" \n</s>")), [1, 2]);
    assert_eq!(eos(&turns(".")), [2]);
    // Only after earlier answers; the last one counts where both end.
    let end = |last: &str, earlier: &str| {
        turns(&format!(
            "{{% if loop.last %}}{last}{{% else %}}{earlier}{{% endif %}}"
        ))
    };
    assert_eq!(eos(&end("", "<s>")), [0, 2]);
    assert_eq!(eos(&end("</s>", "<s>")), [1, 2]);
    assert_eq!(eos("{{ raise_exception('no') }}"), [2]);
}

#[test]
fn a_stop_text_may_name_a_special_token() {
    let with = |json: &Value, stop: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let model = model(folder.path(), json.to_string().as_bytes(), "{}", "{}");
        let tokenizer = model.tokenizer().unwrap();
        let settings = Settings {
            stop: stop.iter().map(|text| text.to_string()).collect(),
            ..at_most(30)
        };
        let mut cache = model.new_cache(64).unwrap();
        let generation = Generation::new(&model, &tokenizer, &mut cache, &[4, 5], settings);
        let mut generation = generation.map_err(|e| e.to_string())?;
        generation.by_ref().for_each(|piece| drop(piece.unwrap()));
        Ok::<_, String>((generation.generated().to_vec(), generation.summary().stop))
    };
    let mut json = tokenizer_json();
    let mixed = with(&json, &["a</s>"]).unwrap_err();
    assert!(mixed.contains("</s> is one"), "{mixed}");
    // A token that the model chooses becomes a special one.
    let (ids, stop) = with(&json, &[]).unwrap();
    assert_eq!(stop, Some(StopReason::Length));
    let mut vocab = json["model"]["vocab"].as_object().unwrap().iter();
    let name = vocab.find(|(_, id)| **id == ids[2]).unwrap().0.clone();
    let mut token = json["added_tokens"][0].clone();
    token["id"] = ids[2].into();
    token["content"] = name.as_str().into();
    json["added_tokens"].as_array_mut().unwrap().push(token);
    let (found, stop) = with(&json, &["never", &name]).unwrap();
    assert_eq!(stop, Some(StopReason::StopText));
    let first = ids.iter().position(|id| *id == ids[2]).unwrap();
    assert_eq!(found, ids[..=first]);
}

/// A tokenizer that writes spaces as `▁` and drops the one at the start of a text.
fn spaces_json() -> Value {
    let vocab = ["<s>", "</s>", "▁once", "▁upon", "a"];
    let vocab: serde_json::Map<String, Value> = vocab
        .iter()
        .zip(0..)
        .map(|(token, id)| (token.to_string(), json!(id)))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a"},
    })
}

#[test]
fn an_answer_keeps_the_space_after_its_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(
        folder.path(),
        spaces_json().to_string().as_bytes(),
        "{}",
        "{}",
    );
    let tokenizer = model.tokenizer().unwrap();
    let text = |mut stream: TextStream, ids: &[u32]| {
        let pieces = ids
            .iter()
            .map(|id| stream.push(*id).unwrap())
            .collect::<String>();
        pieces + &stream.finish().unwrap()
    };
    assert_eq!(text(tokenizer.stream(), &[3, 2]), "upon once");
    let after = |prompt: &[u32]| tokenizer.stream_after(prompt).unwrap();
    assert_eq!(text(after(&[2]), &[3, 2]), " upon once");
    assert_eq!(text(after(&[2; 20]), &[3, 2]), " upon once");
    assert_eq!(text(after(&[]), &[3, 2]), "upon once");
}

#[test]
fn an_answer_after_a_part_of_a_character_is_as_without_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let model = plain_model(folder.path());
    let tokenizer = model.tokenizer().unwrap();
    let ids = tokenizer.encode("é!", false).unwrap();
    let mut stream = tokenizer.stream_after(&ids[..1]).unwrap();
    let text = stream.push(ids[1]).unwrap() + &stream.push(ids[2]).unwrap();
    assert_eq!(text, "\u{fffd}!");
}

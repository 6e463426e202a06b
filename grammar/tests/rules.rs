//! Rules over small vocabularies, against all texts that they allow, and with every token drawn at
//! random: nothing but the mask makes an answer valid.

use serde_json::{Value, json};
use sterna_grammar::{Error, Grammars, LARGEST, Rule, unknown_keywords};
use sterna_runtime::{Allowed, Constraint, Tokenizer};
use sterna_ternary::Config;
use sterna_ternary::random::SplitMix64;

/// `<s>`, `</s>` and `<|eot_id|>`, the 256 bytes, then these words, as byte-level BPE spells them.
fn tokenizer(words: &[&str]) -> (Tokenizer, usize) {
    let printable = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256..;
    let spelled: Vec<char> = (0..256)
        .map(|b| match printable(&b) {
            true => char::from_u32(b).unwrap(),
            false => char::from_u32(others.next().unwrap()).unwrap(),
        })
        .collect();
    let word = |text: &str| -> String { text.bytes().map(|b| spelled[b as usize]).collect() };
    let specials = ["<s>", "</s>", "<|eot_id|>"];
    let bytes = spelled.iter().map(char::to_string);
    let texts = specials.map(str::to_owned).into_iter().chain(bytes);
    let texts: Vec<String> = texts.chain(words.iter().map(|text| word(text))).collect();
    let vocab: serde_json::Map<String, Value> = texts
        .iter()
        .zip(0..)
        .map(|(text, id)| (text.clone(), json!(id)))
        .collect();
    let added: Vec<Value> = (0..3)
        .map(|id| {
            json!({"id": id, "content": specials[id], "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    let vocab_size = texts.len();
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocab_size,
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true, "eos_token_id": [1, 2],
    });
    let config = Config::from_json(&config).unwrap();
    let bytes = tokenizer.to_string();
    let file = |name: &str| (name == "tokenizer.json").then_some(bytes.as_bytes());
    (Tokenizer::of_files(&config, file).unwrap(), vocab_size)
}

/// Words that JSON texts and regular expressions have in the middle, also parts of characters.
const WORDS: [&str; 12] = [
    "{\"", "\":", "\", \"", "true", "ab", "abc", "ba", "\"}", " \n", "12", "é", "aé",
];

fn grammars(words: &[&str]) -> (Grammars, Tokenizer, usize) {
    let (tokenizer, vocab_size) = tokenizer(words);
    let grammars = Grammars::new(&tokenizer, vocab_size).unwrap();
    (grammars, tokenizer, vocab_size)
}

fn allowed(constraint: &mut dyn Constraint, vocab_size: usize) -> Allowed {
    let mut allowed = Allowed::none(vocab_size);
    constraint.allow(&mut allowed).unwrap();
    allowed
}

/// Follows a constraint with tokens drawn from those it allows. `None` if the text is longer than
/// this number of tokens.
fn random_text(
    mut constraint: Box<dyn Constraint>,
    tokenizer: &Tokenizer,
    vocab_size: usize,
    random: &mut SplitMix64,
    most: usize,
) -> Option<String> {
    let mut bytes = Vec::new();
    for _ in 0..most {
        if constraint.is_complete() {
            return Some(String::from_utf8(bytes).unwrap());
        }
        let ids: Vec<u32> = allowed(&mut *constraint, vocab_size).ids().collect();
        let id = ids[random.next() as usize % ids.len()];
        constraint.accept(id).unwrap();
        if tokenizer.eos().contains(&id) {
            return Some(String::from_utf8(bytes).unwrap());
        }
        assert!(!tokenizer.is_special(id), "token {id} has no text");
        bytes.extend(tokenizer.bytes(id));
    }
    None
}

#[test]
fn masks_are_those_of_brute_force() {
    let (grammars, tokenizer, vocab_size) = grammars(&WORDS);
    let mut random = SplitMix64(5);
    let letters = ["a", "b", "c", "é", "1", "2", " "];
    let mut compared = 0;
    for _ in 0..60 {
        // A rule that allows some texts and no others.
        let mut text = || -> String {
            let length = 1 + random.next() as usize % 5;
            (0..length)
                .map(|_| letters[random.next() as usize % letters.len()])
                .collect()
        };
        let texts: Vec<String> = (0..6).map(|_| text()).collect();
        let mut constraint = grammars.compile(&Rule::Regex(texts.join("|"))).unwrap();
        let mut prefix = Vec::new();
        while !constraint.is_complete() {
            let found = allowed(&mut *constraint, vocab_size);
            let begins = |bytes: &[u8]| texts.iter().any(|t| t.as_bytes().starts_with(bytes));
            for id in 0..vocab_size as u32 {
                let expected = match tokenizer.eos().contains(&id) {
                    true => texts.iter().any(|t| t.as_bytes() == prefix),
                    false if tokenizer.is_special(id) => false,
                    false => begins(&[&prefix, tokenizer.bytes(id)].concat()),
                };
                assert_eq!(found.contains(id), expected, "{texts:?} {prefix:?} {id}");
                compared += 1;
            }
            let ids: Vec<u32> = found
                .ids()
                .filter(|id| !tokenizer.eos().contains(id))
                .collect();
            let Some(id) = ids.get(random.next() as usize % ids.len().max(1)) else {
                break;
            };
            constraint.accept(*id).unwrap();
            prefix.extend(tokenizer.bytes(*id));
        }
        assert!(
            texts.iter().any(|t| t.as_bytes() == prefix),
            "{texts:?} {prefix:?}"
        );
    }
    assert!(compared > 30_000, "{compared}");
}

#[test]
fn random_texts_keep_to_their_schema() {
    let (grammars, tokenizer, vocab_size) = grammars(&WORDS);
    type Check = fn(&Value) -> bool;
    let schemas: [(Value, Check); 6] = [
        (
            json!({"type": "object", "properties": {"a": {"type": "boolean"},
                "b": {"enum": ["x", 1, null]}}, "required": ["a", "b"],
                "additionalProperties": false}),
            |v| {
                let keys: Vec<&String> = v.as_object().unwrap().keys().collect();
                let is_listed = [json!("x"), json!(1), json!(null)].contains(&v["b"]);
                keys == ["a", "b"] && v["a"].is_boolean() && is_listed
            },
        ),
        (
            json!({"type": "array", "items": {"type": "integer", "minimum": -3, "maximum": 12},
                "minItems": 2, "maxItems": 4}),
            |v| {
                let items = v.as_array().unwrap();
                let is_fine = |i: &Value| i.as_f64().is_some_and(|i| (-3.0..=12.0).contains(&i));
                (2..=4).contains(&items.len()) && items.iter().all(is_fine)
            },
        ),
        (
            json!({"type": "string", "minLength": 2, "maxLength": 3}),
            |v| (2..=3).contains(&v.as_str().unwrap().chars().count()),
        ),
        (
            json!({"type": "string", "pattern": "^(ab|c)+$", "maxLength": 6}),
            |v| {
                v.as_str()
                    .unwrap()
                    .replace("ab", "")
                    .chars()
                    .all(|c| c == 'c')
            },
        ),
        (
            json!({"anyOf": [{"const": {"k": [1, 2]}}, {"type": "null"}]}),
            |v| *v == json!({"k": [1, 2]}) || v.is_null(),
        ),
        (
            json!({"$defs": {"tree": {"type": "object", "properties": {
                "left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
                "required": ["left"], "additionalProperties": false}},
                "$ref": "#/$defs/tree"}),
            |v| {
                let mut here = v;
                while here.as_object().is_some_and(|o| o.len() == 1) {
                    here = &here["left"];
                }
                here.is_null()
            },
        ),
    ];
    for (schema, check) in schemas {
        let constraint = grammars.compile(&Rule::JsonSchema(schema.clone())).unwrap();
        let mut random = SplitMix64(1);
        let mut finished = 0;
        for _ in 0..60 {
            let begun = constraint.clone();
            let Some(text) = random_text(begun, &tokenizer, vocab_size, &mut random, 400) else {
                continue;
            };
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(check(&value), "{schema}: {text}");
            finished += 1;
        }
        assert!(finished >= 20, "{schema}: {finished} texts ended");
    }
}

#[test]
fn objects_and_grammars_are_followed() {
    let (grammars, tokenizer, vocab_size) = grammars(&WORDS);
    let lark = "start: \"a\" (\"b\" | \"c\")+ \"!\"".to_owned();
    let rules = [Rule::Lark(lark), Rule::Regex("a[bc]+!".into())];
    let mut random = SplitMix64(3);
    for rule in rules {
        let constraint = grammars.compile(&rule).unwrap();
        for _ in 0..40 {
            let begun = constraint.clone();
            let text = random_text(begun, &tokenizer, vocab_size, &mut random, 200).unwrap();
            let middle = text
                .strip_prefix('a')
                .and_then(|t| t.strip_suffix('!'))
                .unwrap();
            assert!(
                !middle.is_empty() && middle.chars().all(|c| "bc".contains(c)),
                "{text}"
            );
        }
    }
    let object = grammars.compile(&Rule::JsonObject).unwrap();
    let mut first = object.clone();
    let found = allowed(&mut *first, vocab_size);
    let starts: Vec<&[u8]> = found.ids().map(|id| tokenizer.bytes(id)).collect();
    assert!(starts.iter().all(|bytes| bytes[0] == b'{'), "{starts:?}");
}

#[test]
fn copies_go_their_own_ways() {
    let (grammars, tokenizer, vocab_size) = grammars(&WORDS);
    let mut one = grammars.compile(&Rule::Regex("ab|ac".into())).unwrap();
    let id = |text: &str| (0..vocab_size as u32).find(|id| tokenizer.bytes(*id) == text.as_bytes());
    one.accept(id("a").unwrap()).unwrap();
    let mut other = one.clone();
    one.accept(id("b").unwrap()).unwrap();
    assert!(one.is_complete() && !other.is_complete());
    let found: Vec<u32> = allowed(&mut *other, vocab_size).ids().collect();
    assert_eq!(found, [id("b").unwrap(), id("c").unwrap()]);
    // What is not allowed is refused, too.
    other.accept(id("12").unwrap()).unwrap_err();
}

#[test]
fn what_cannot_be_enforced_is_refused_by_its_place() {
    let (grammars, ..) = grammars(&[]);
    let cases = [
        (
            json!({"type": "object", "properties": {"a/b": {"not": {"type": "null"}}}}),
            "#/properties/a~1b",
            "not",
        ),
        (
            json!({"type": "array", "items": {"type": "string", "format": "color"}}),
            "#/items",
            "color",
        ),
        (
            json!({"$defs": {"x": {"uniqueItems": true, "type": "array"}}, "type": "object",
            "properties": {"y": {"$ref": "#/$defs/x"}}}),
            "#/$defs/x",
            "uniqueItems",
        ),
        (
            json!({"properties": {"p": {"type": "string", "pattern": "(?=a)b"}}}),
            "#/properties/p",
            "look",
        ),
        (
            json!({"type": "object", "nullable": true}),
            "#/nullable",
            "nullable",
        ),
        (
            json!({"items": {"x-guidance": {"lenient": true}}}),
            "#/items/x-guidance",
            "x-guidance",
        ),
        (
            json!({"$ref": "https://example.org/s.json"}),
            "#/$ref",
            "example.org",
        ),
        (
            json!({"type": "string", "minLength": 3, "maxLength": 2}),
            "#",
            "",
        ),
        (json!(["not a schema"]), "#", ""),
    ];
    for (schema, place, word) in cases {
        let error = grammars
            .compile(&Rule::JsonSchema(schema.clone()))
            .unwrap_err();
        let Error::Schema { pointer, why } = &error else {
            panic!("{schema}: {error}");
        };
        assert!(pointer == place && why.contains(word), "{schema}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    for rule in [
        Rule::Regex("a(".into()),
        Rule::Regex("(?=a)b".into()),
        Rule::Lark("start: missing".into()),
        Rule::Lark(String::new()),
    ] {
        let error = grammars.compile(&rule).unwrap_err();
        assert!(matches!(error, Error::Text { .. }), "{rule:?}: {error}");
    }
}

#[test]
fn hostile_rules_end() {
    let (grammars, ..) = grammars(&[]);
    let mut nested = json!({"type": "null"});
    for _ in 0..100 {
        nested = json!({"type": "array", "items": nested, "minItems": 1});
    }
    let many: Vec<Value> = (0..20_000).map(|i| json!(format!("value {i}"))).collect();
    let rules = [
        Rule::JsonSchema(nested),
        Rule::JsonSchema(json!({"enum": many})),
        Rule::JsonSchema(json!({"type": "array", "minItems": 1_000_000_000u64})),
        Rule::JsonSchema(json!({"type": "string", "maxLength": 1_000_000_000u64})),
        Rule::JsonSchema(json!({"$ref": "#"})),
        Rule::JsonSchema(
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
            "$ref": "#/$defs/a"}),
        ),
        Rule::Regex("(a{1000}){1000}".into()),
        Rule::Regex("(((a*)*)*)*b".into()),
        Rule::Regex("x".repeat(LARGEST + 1)),
    ];
    for rule in rules {
        // Accepted or refused: it comes back, and does not panic.
        let _ended = grammars.compile(&rule);
    }
    let error = grammars
        .compile(&Rule::Regex("x".repeat(LARGEST + 1)))
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn keywords_without_effect_are_named() {
    let schema = json!({"type": "object", "titel": "T", "uniqueItems": true, "properties": {
        "minLenght": {"type": "string", "minLenght": 3}, "a": {"items": [{"x/y": 1}]}},
        "description": "d"});
    let found = unknown_keywords(&schema);
    let expected = [
        "#/titel",
        "#/properties/minLenght/minLenght",
        "#/properties/a/items/0/x~1y",
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    assert!(
        expected
            .iter()
            .all(|place| found.contains(&(*place).to_owned())),
        "{found:?}"
    );
}

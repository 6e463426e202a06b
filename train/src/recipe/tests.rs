//! A resolved recipe reads back, and mistakes are named.

use std::path::Path;

use super::*;
use crate::{Opened, Run};

/// A complete recipe.
pub(crate) const SMALL: &str = "
    [model]
    family = 'llama'
    hidden_size = 32
    intermediate_size = 64
    num_hidden_layers = 1
    num_attention_heads = 2
    [data]
    mix = 'addition2=1'
    vocab_size = 300
    [train]
    steps = 10
    batch = 2
    context = 16
    learning_rate = 1e-3
    warmup = 2
";

fn parse(text: &str) -> std::result::Result<Recipe, String> {
    Recipe::parse(text, Path::new("small.toml")).map_err(|e| e.to_string())
}

#[test]
fn a_resolved_recipe_reads_back() {
    let recipe = parse(SMALL).unwrap();
    assert_eq!(parse(&recipe.to_toml()).unwrap(), recipe);
    let run = Run::new(recipe, Origins::default(), Opened::default()).unwrap();
    let config = run.config(300, 0, &[1]).unwrap();
    assert_eq!((config.head_dim, config.num_key_value_heads), (16, 2));
}

#[test]
fn mistakes_are_named() {
    let check = |from: &str, to: &str, expected: &str| {
        let error = parse(&SMALL.replace(from, to)).unwrap_err();
        assert!(
            error.contains("small.toml") && error.contains(expected),
            "{error}"
        );
    };
    check("steps = 10", "stepz = 10", "stepz");
    check("steps = 10", "steps = 0", "`steps` is 0");
    check("mix = 'addition2=1'", "mix = 'chess=1'", "chess");
    check("mix = 'addition2=1'", "", "one of `mix`, `text` and `chat`");
    check("family = 'llama'", "", "[model] needs `family`, or `from`");
    check(
        "hidden_size = 32",
        "hidden_size = 0",
        "[model] needs `hidden_size`",
    );
    check("vocab_size = 300", "", "[data] needs `vocab_size`");
    check(
        "hidden_size = 32",
        "hidden_size = 32\ninsert_sub_norms = true",
        "`insert_sub_norms` needs `from`",
    );
    for (texts, expected) in [
        ("'a', {path = 'b', weight = 1}", "each path or to none"),
        ("{path = 'b', weight = 0}", "the weight 0"),
        ("{path = 'b', share = 1}", "text"),
    ] {
        let texts = format!("text = [{texts}]");
        check("mix = 'addition2=1'", &texts, expected);
    }
    check(
        "[data]",
        "[teacher]\nfrom = 'x'\n[data]\ntemplate = 'chatml'",
        "`template` is for models that are trained from scratch",
    );
    check(
        "mix = 'addition2=1'",
        "chat = ['a']\nspecial_tokens = ['<a>']",
        "`special_tokens` needs a `template`",
    );
    for (more, expected) in [
        ("", "missing field `from`"),
        ("from = 'x'\nweight = 1.5", "`weight` is 1.5"),
        ("from = 'x'\ntemperature = 0", "`temperature` is 0"),
    ] {
        let teacher = format!("warmup = 2\n[teacher]\n{more}");
        check("warmup = 2", &teacher, expected);
    }
    check("1e-3", "2.0", "`learning_rate` is 2");
    check(
        "warmup = 2",
        "warmup = 2\ndecay_from = 1.5",
        "`decay_from` is 1.5",
    );
    check(
        "warmup = 2",
        "warmup = 2\nternary_ramp = 10",
        "less than the 10 `steps`",
    );
    check(
        "warmup = 2",
        "warmup = 2\nprecision = 'full'\nternary_from = 1",
        "precision",
    );
    for family in ["gpt", "gemma3"] {
        let recipe = parse(&SMALL.replace("llama", family)).unwrap();
        let run = Run::new(recipe, Origins::default(), Opened::default()).unwrap();
        let error = run.config(300, 0, &[1]).unwrap_err().to_string();
        assert!(error.contains(family), "{error}");
    }
}

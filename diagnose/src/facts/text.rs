//! The facts as text.

use serde_json::Value;
use sterna_ternary::units;

/// The facts of [`of`](super::of), one subject per line, then one line per layer; with `matrices`, one
/// line per matrix instead.
pub fn describe(f: &Value, matrices: bool) -> String {
    let mut text = format!("{}: {}\n", plain(&f["path"]), bytes(&f["bytes"]));
    for (subject, line) in subjects(f) {
        text += &format!("{subject:<12} {line}\n");
    }
    let (key, line): (_, fn(&Value) -> String) = match matrices {
        true => ("matrices", matrix),
        false => ("layers", layer),
    };
    for value in list(&f[key]) {
        text += &format!("{}\n", line(value));
    }
    for remark in list(&f["remarks"]) {
        text += &format!("remark       {}\n", plain(remark));
    }
    text
}

fn subjects(f: &Value) -> Vec<(&'static str, String)> {
    let p = |key: &str| plain(&f[key]);
    let n = |key: &str| number(&f[key]);
    let is_dense = f["linear_types"].is_object();
    let tied = if f["tied"] == true {
        " (the same table)"
    } else {
        ""
    };
    let norms = match f["norms_before_linear_layers"].as_bool() {
        Some(true) => ", a norm before each linear layer",
        _ => "",
    };
    let window = match f["sliding_window"].as_u64() {
        Some(window) => format!(
            ", {} layers see the last {window} tokens",
            p("windowed_layers")
        ),
        None => String::new(),
    };
    let mut lines = vec![
        (
            "family",
            format!(
                "{} ({}), {}",
                p("family"),
                p("architecture"),
                p("hidden_act")
            ),
        ),
        (
            "parameters",
            format!(
                "{:.2} M, {:.2} M of them {}",
                n("parameters") / 1e6,
                n("linear_weights") / 1e6,
                if is_dense {
                    "in linear layers, none ternary"
                } else {
                    "ternary"
                }
            ),
        ),
        ("packing", p("packing")),
        ("activations", p("activations")),
        (
            "bits",
            format!(
                "{:.3} a {} weight, {:.2} a weight of the head, {:.2} a parameter in all",
                n("bits_per_ternary_weight"),
                if is_dense { "linear" } else { "ternary" },
                n("bits_per_head_weight"),
                n("bits_per_parameter")
            ),
        ),
        (
            "tables",
            format!("embedding {}, head {}{tied}", p("embedding"), p("head")),
        ),
        (
            "shape",
            format!(
                "{} layers, hidden {}, feed-forward {}, {} heads ({} kv) of {}{norms}",
                p("num_hidden_layers"),
                p("hidden_size"),
                p("intermediate_size"),
                p("num_attention_heads"),
                p("num_key_value_heads"),
                p("head_dim")
            ),
        ),
        ("vocabulary", p("vocab_size")),
        (
            "context",
            format!(
                "{}, rope theta {}{window}",
                p("max_position_embeddings"),
                p("rope_theta")
            ),
        ),
        ("tokenizer", tokenizer(&f["tokenizer"])),
        ("end of text", ends(&f["eos"])),
        ("template", template(&f["chat_template"])),
        (
            "files",
            list(&f["files"]).map(plain).collect::<Vec<_>>().join(", "),
        ),
    ];
    if f["memory"].is_object() {
        lines.push(("memory", memory(&f["memory"])));
    }
    if let Some(types) = f["linear_types"].as_object() {
        let types = types.iter().map(|(name, count)| format!("{count} {name}"));
        lines.push(("linear", types.collect::<Vec<_>>().join(", ")));
        return lines;
    }
    lines.push((
        "zeros",
        match f["zeros"].as_f64() {
            Some(share) => format!("{:.1} % of the trits", 100.0 * share),
            None => "not counted in a checkpoint of this size; --verify counts them".to_owned(),
        },
    ));
    lines
}

fn tokenizer(t: &Value) -> String {
    if t.is_null() {
        return "none: the model runs on token ids only".to_owned();
    }
    let rule = match t["split_rule"].as_str() {
        Some(rule) => format!("splits text as {rule}"),
        None => "a split rule of its own".to_owned(),
    };
    let pre = t["tokenizer.ggml.pre"].as_str();
    let pre = pre.map(|pre| format!(", tokenizer.ggml.pre {pre}"));
    match t["error"].as_str() {
        Some(error) => error.to_owned(),
        None => format!(
            "{}, {} tokens, {rule}{}",
            plain(&t["type"]),
            plain(&t["tokens"]),
            pre.unwrap_or_default()
        ),
    }
}

fn ends(eos: &Value) -> String {
    let ends = list(eos).map(|end| format!("{} ({})", plain(&end["token"]), end["id"]));
    let ends: Vec<String> = ends.collect();
    match ends.is_empty() {
        true => "no token".to_owned(),
        false => ends.join(", "),
    }
}

fn template(t: &Value) -> String {
    match (t["error"].as_str(), t["format"].as_str()) {
        (Some(error), _) => error.to_owned(),
        (None, Some(format)) => {
            let line = plain(&t["first_line"]);
            let short: String = line.chars().take(60).collect();
            let more = if short.len() < line.len() { "..." } else { "" };
            format!("{format}: {short}{more}")
        }
        (None, None) => "none: a base model".to_owned(),
    }
}

fn memory(m: &Value) -> String {
    format!(
        "{} of weights, with {} tokens of context {} more (f16), {} (q8)",
        bytes(&m["weights"]),
        m["context"],
        bytes(&m["cache"]["f16"]),
        bytes(&m["cache"]["q8"]),
    )
}

fn layer(l: &Value) -> String {
    format!(
        "layer {:<6} zeros {:.1} %, scales {:.6} to {:.6}",
        plain(&l["layer"]),
        100.0 * number(&l["zeros"]),
        number(&l["least_scale"]),
        number(&l["largest_scale"])
    )
}

fn matrix(m: &Value) -> String {
    let zeros = number(&m["zero"]) / (number(&m["rows"]) * number(&m["columns"]));
    let scale = match m["scales"].as_u64() {
        Some(1) => "scale".to_owned(),
        _ => format!("{} scales, mean", m["scales"]),
    };
    format!(
        "{:<45} {:>6} x {:<6} {scale} {:<12.6} zeros {:.1} %",
        plain(&m["name"]),
        m["rows"],
        m["columns"],
        number(&m["scale"]),
        100.0 * zeros
    )
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn bytes(value: &Value) -> String {
    units::bytes(value.as_u64().unwrap_or(0))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

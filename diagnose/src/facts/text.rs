//! The facts as text.

use sterna_ternary::units;

use super::{
    EndOfText, Facts, LayerFacts, MatrixFacts, MemoryFacts, TemplateFacts, TokenizerFacts,
};

impl Facts {
    /// The facts as text: one line per subject, then one line per layer; with `matrices`, one line
    /// per matrix instead.
    pub fn describe(&self, matrices: bool) -> String {
        let mut text = format!("{}: {}\n", self.path, units::bytes(self.bytes));
        for (subject, line) in self.subjects() {
            text += &format!("{subject:<12} {line}\n");
        }
        let lines: Vec<String> = match matrices {
            true => self.matrices.iter().flatten().map(matrix).collect(),
            false => self.layers.iter().flatten().map(layer).collect(),
        };
        let remarks = self
            .remarks
            .iter()
            .map(|remark| format!("remark       {remark}"));
        for line in lines.into_iter().chain(remarks) {
            text += &line;
            text += "\n";
        }
        text
    }

    fn subjects(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            (
                "family",
                format!(
                    "{} ({}), {}",
                    self.family, self.architecture, self.hidden_act
                ),
            ),
            ("parameters", self.parameters()),
            ("packing", self.packing.clone()),
            ("activations", self.activations.to_owned()),
            ("bits", self.bits()),
            ("tables", self.tables()),
            ("shape", self.shape()),
            ("vocabulary", self.vocab_size.to_string()),
            ("context", self.context()),
            ("tokenizer", tokenizer(self.tokenizer.as_ref())),
            ("end of text", ends(self.eos.as_deref().unwrap_or_default())),
            ("template", template(self.chat_template.as_ref())),
            ("files", self.files.join(", ")),
        ];
        lines.extend(self.memory.as_ref().map(|m| ("memory", memory(m))));
        lines.push(match &self.linear_types {
            Some(types) => {
                let types = types.iter().map(|(name, count)| format!("{count} {name}"));
                ("linear", types.collect::<Vec<_>>().join(", "))
            }
            None => ("zeros", self.zeros()),
        });
        lines
    }

    fn parameters(&self) -> String {
        let kind = match self.ternary_weights {
            0 => "in linear layers, none ternary",
            _ => "ternary",
        };
        let millions = |n: usize| n as f64 / 1e6;
        format!(
            "{:.2} M, {:.2} M of them {kind}",
            millions(self.parameters),
            millions(self.linear_weights)
        )
    }

    fn bits(&self) -> String {
        let kind = match self.ternary_weights {
            0 => "linear",
            _ => "ternary",
        };
        format!(
            "{:.3} per {kind} weight, {:.2} per weight of the head, {:.2} per parameter",
            self.bits_per_ternary_weight, self.bits_per_head_weight, self.bits_per_parameter
        )
    }

    fn tables(&self) -> String {
        let tied = if self.tied { " (the same table)" } else { "" };
        format!("embedding {}, head {}{tied}", self.embedding, self.head)
    }

    fn shape(&self) -> String {
        let norms = match self.norms_before_linear_layers {
            true => ", a norm before each linear layer",
            false => "",
        };
        format!(
            "{} layers, hidden {}, feed-forward {}, {} heads ({} kv) of {}{norms}",
            self.num_hidden_layers,
            self.hidden_size,
            self.intermediate_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim
        )
    }

    fn context(&self) -> String {
        let window = self.sliding_window.map(|window| {
            let layers = self.windowed_layers;
            format!(", {layers} layers see the last {window} tokens")
        });
        format!(
            "{}, rope theta {:?}{}",
            self.max_position_embeddings,
            self.rope_theta,
            window.unwrap_or_default()
        )
    }

    fn zeros(&self) -> String {
        match self.zeros {
            Some(share) => format!("{:.1} % of the trits", 100.0 * share),
            None if self.ternary_weights == 0 => "none counted: linear layers hold numbers".into(),
            None => "not counted in a checkpoint of this size; --verify counts them".to_owned(),
        }
    }
}

fn tokenizer(facts: Option<&TokenizerFacts>) -> String {
    let Some(facts) = facts else {
        return "none: the model runs on token ids only".to_owned();
    };
    if let Some(error) = &facts.error {
        return error.clone();
    }
    let rule = match facts.split_rule {
        Some(rule) => format!("splits text as {rule}"),
        None => "an unknown split rule".to_owned(),
    };
    let pre = facts.pre.as_ref();
    let pre = pre.map(|pre| format!(", tokenizer.ggml.pre {pre}"));
    format!(
        "{}, {} tokens, {rule}{}",
        facts.kind.as_deref().unwrap_or("unknown type"),
        facts.tokens.unwrap_or(0),
        pre.unwrap_or_default()
    )
}

fn ends(ends: &[EndOfText]) -> String {
    let name = |end: &EndOfText| match &end.token {
        Some(token) => format!("{token} ({})", end.id),
        None => end.id.to_string(),
    };
    match ends {
        [] => "no token".to_owned(),
        ends => ends.iter().map(name).collect::<Vec<_>>().join(", "),
    }
}

fn template(facts: Option<&TemplateFacts>) -> String {
    match facts {
        None => "none: a base model".to_owned(),
        Some(TemplateFacts::Broken { error }) => error.clone(),
        Some(TemplateFacts::Known { format, first_line }) => {
            let line = first_line.as_deref().unwrap_or_default();
            let short: String = line.chars().take(60).collect();
            let more = if short.len() < line.len() { "..." } else { "" };
            format!("{format}: {short}{more}")
        }
    }
}

fn memory(m: &MemoryFacts) -> String {
    let bytes = |n: usize| units::bytes(n as u64);
    format!(
        "{} of weights; {} tokens of context need {} more (f16), {} (q8)",
        bytes(m.weights),
        m.context,
        bytes(m.cache.f16),
        bytes(m.cache.q8),
    )
}

fn layer(l: &LayerFacts) -> String {
    format!(
        "layer {:<6} zeros {:.1} %, scales {:.6} to {:.6}",
        l.layer,
        100.0 * l.zeros,
        l.least_scale,
        l.largest_scale
    )
}

fn matrix(m: &MatrixFacts) -> String {
    let zeros = m.zero as f64 / (m.rows * m.columns) as f64;
    let scale = match m.scales {
        1 => "scale".to_owned(),
        scales => format!("{scales} scales, mean"),
    };
    format!(
        "{:<45} {:>6} x {:<6} {scale} {:<12.6} zeros {:.1} %",
        m.name,
        m.rows,
        m.columns,
        m.scale,
        100.0 * zeros
    )
}

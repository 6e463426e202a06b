//! Compares the unchanged model with the model in which a known mistake is undone. Every such
//! change is tried, and the one that predicts the built-in texts best is to blame. A damaged model
//! often gains a little by other changes as well.

use sterna_ternary::{Activation, Family, Scaling, family::FAMILIES};

use super::finding::Finding;
use super::patient::Body;
use super::stage::{OnProgress, Stage};
use super::texts::{self, Better, LossComparison};
use super::variants::{Change, RowOrder};
use crate::Result;

/// The trials of a model, or why there are none.
pub type Trials = std::result::Result<Vec<Trial>, String>;

/// One change and its result.
pub struct Trial {
    /// The check that it belongs to.
    pub check: &'static str,
    /// The two variants in words, unchanged and changed: "with silu", "with relu2".
    ways: [String; 2],
    pub compared: LossComparison,
}

impl Trial {
    fn gain(&self) -> f64 {
        match self.compared.better {
            Better::Second => self.compared.losses[0] - self.compared.losses[1],
            _ => 0.0,
        }
    }

    /// The verdict on the unchanged model. `trials` are all trials; `shown` is text with more
    /// numbers.
    pub fn judge(&self, trials: &[Trial], chance: f64, shown: &str) -> Finding {
        let nats = |x: f64| match x.is_finite() {
            true => format!("{x:.3} nats per token"),
            false => "no finite loss".to_owned(),
        };
        let ([a, b], [first, second]) = (self.compared.losses.map(nats), &self.ways);
        let text = self.compared.text;
        let text = format!("{text}: {a} {first}, {b} {second}{shown}");
        let worse = trials.iter().find(|other| other.gain() > self.gain());
        match (self.compared.better, worse) {
            (Better::First, _) => Finding::ok(text),
            (Better::CannotTell, _) => {
                let why = format!("losses cannot tell: {text}; guessing costs {chance:.2}");
                Finding::not_applicable(why)
            }
            (_, Some(other)) => {
                Finding::not_applicable(format!("see {} first: {text}", other.check))
            }
            (Better::PerhapsSecond, None) => Finding::suspect(text),
            (Better::Second, None) => Finding::broken(text),
        }
    }
}

/// Runs all trials that are possible with the model.
pub fn run(
    body: &Body,
    family: &'static Family,
    chance: f64,
    progress: OnProgress,
) -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    let mut run = |check, change: &Change, ways: [&str; 2]| -> Result<()> {
        progress(Stage::Running(ways[1]));
        let other = body.losses_with(change)?;
        trials.push(Trial {
            check,
            ways: ways.map(str::to_owned),
            compared: texts::compare(&body.losses, &other, chance),
        });
        Ok(())
    };
    let invert = |_: &str, scale: f32| (1.0 / scale).clamp(f32::MIN_POSITIVE, f32::MAX);
    let ways = ["with the scales given", "with scales inverted"];
    run("scale direction", &Change::Scales(&invert), ways)?;
    if has_single_scales(body) {
        let enlarge = |name: &str, scale: f32| larger(body, name, scale);
        let ways = ["with the scales given", "with larger scales"];
        run("double quantization", &Change::Scales(&enlarge), ways)?;
    }
    if let Some(other) = other_activation(family) {
        let ways = [family, other].map(|f| format!("with {}", Activation::name(f.activation)));
        let ways = ways.each_ref().map(String::as_str);
        run("activation", &Change::Family(other), ways)?;
    }
    for (order, name) in [
        (RowOrder::Deinterleave, "with q and k de-interleaved"),
        (RowOrder::Interleave, "with q and k interleaved"),
    ] {
        let ways = ["with q and k in the order given", name];
        run("q and k order", &Change::Rows(order), ways)?;
    }
    Ok(trials)
}

/// The family with the same norms and another activation.
fn other_activation(family: &Family) -> Option<&'static Family> {
    FAMILIES.iter().find(|other| {
        other.attn_sub_norm.is_some() == family.attn_sub_norm.is_some()
            && other.ffn_sub_norm.is_some() == family.ffn_sub_norm.is_some()
            && other.attn_post_norm.is_some() == family.attn_post_norm.is_some()
            && other.ffn_post_norm.is_some() == family.ffn_post_norm.is_some()
            && other.qk_norm == family.qk_norm
            && other.activation != family.activation
    })
}

fn has_single_scales(body: &Body) -> bool {
    let mut counts = body.counts.iter();
    counts.any(|c| body.file.matrix(&c.weight.name).scaling == Scaling::Matrix)
}

/// The scale before a second absmean made it smaller by the share of non-zeros.
fn larger(body: &Body, name: &str, scale: f32) -> f32 {
    let is_single = body.file.matrix(name).scaling == Scaling::Matrix;
    let counts = body.counts.iter().find(|c| c.weight.name == name);
    match counts.filter(|c| is_single && c.zero < c.all()) {
        Some(c) => (f64::from(scale) / (1.0 - c.zeros())) as f32,
        None => scale,
    }
}

//! Checks that run the model: as it is, and with what a known mistake did undone. The one that predicts the built-in
//! texts better is right. Where neither predicts anything, nothing can be told, and that is what they say.

use sterna_ternary::{Activation, Scaling, family::FAMILIES};

use super::finding::Finding;
use super::patient::{Body, Patient};
use super::texts::{self, Better, Comparison, KNOWS, TEXTS, mean};
use super::variants::{Change, Order};

/// Whether a forward pass stays finite.
pub fn logits(patient: &Patient) -> anyhow::Result<Finding> {
    Ok(match &patient.body {
        Err(why) => Finding::not_applicable(why),
        Ok(body) => match &body.losses {
            Ok(losses) if losses.iter().flatten().all(|x| x.is_finite()) => {
                let tokens: usize = losses.iter().map(|l| l.len() + 1).sum();
                Finding::ok(format!("finite for {tokens} tokens"))
            }
            Ok(_) => Finding::broken("the loss of a token is not finite"),
            Err(why) => Finding::broken(why),
        },
    })
}

/// Whether the model knows more than nothing.
pub fn prediction(patient: &Patient) -> anyhow::Result<Finding> {
    let body = match with_text(patient) {
        Ok(body) => body,
        Err(finding) => return Ok(finding),
    };
    let Ok(losses) = &body.losses else {
        return Ok(Finding::not_applicable("logits are not finite"));
    };
    let chance = patient.chance();
    let means: Vec<f64> = losses.iter().map(|l| mean(l)).collect();
    let shown = TEXTS.iter().zip(&means);
    let shown: Vec<String> = shown
        .map(|((name, _), x)| format!("{name} {x:.2}"))
        .collect();
    let shown = format!(
        "nats a token: {}; guessing costs {chance:.2}",
        shown.join(", ")
    );
    let best = means.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(match best {
        x if x <= KNOWS * chance => Finding::ok(shown),
        _ => Finding::suspect(format!(
            "predicts no better than chance: it is untrained, knows only other texts than the built-in ones, or is \
             damaged; checks that compare losses cannot tell. {shown}"
        )),
    })
}

/// Whether the reciprocals of the scales predict better.
pub fn scale_direction(patient: &Patient) -> anyhow::Result<Finding> {
    let body = match with_text(patient) {
        Ok(body) => body,
        Err(finding) => return Ok(finding),
    };
    let invert = |_: &str, scale: f32| (1.0 / scale).clamp(f32::MIN_POSITIVE, f32::MAX);
    let other = compare(
        body,
        patient,
        &Change::Scales(&invert),
        "with scales inverted",
    )?;
    let (gain, inverse) = gains(body);
    let shown =
        format!("a layer makes {gain:.3} of an input of size 1, {inverse:.3} with scales inverted");
    Ok(match other.better {
        // Layers of trained models make something between 0.1 and 100.
        Better::CannotTell if !(1e-3..=1e3).contains(&gain) => {
            Finding::suspect(format!("{shown}; losses cannot tell"))
        }
        _ => judge(&other, "as they are", "inverted", patient, &shown),
    })
}

/// Median over the layers of scale · √(columns · share of non-zeros), as it is and with the reciprocal.
fn gains(body: &Body) -> (f64, f64) {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let of = |scale: fn(f32) -> f64| {
        let counts = body.counts.iter();
        median(
            counts
                .map(|c| scale(c.scale) * (c.weight.columns as f64 * (1.0 - c.zeros())).sqrt())
                .collect(),
        )
    };
    (of(f64::from), of(|scale| 1.0 / f64::from(scale)))
}

/// Whether the other activation predicts better.
pub fn activation(patient: &Patient) -> anyhow::Result<Finding> {
    let body = match with_text(patient) {
        Ok(body) => body,
        Err(finding) => return Ok(finding),
    };
    let family = patient.source.config().family;
    let has_same_norms = |other: &&sterna_ternary::Family| {
        other.attn_sub_norm.is_some() == family.attn_sub_norm.is_some()
            && other.ffn_sub_norm.is_some() == family.ffn_sub_norm.is_some()
            && other.qk_norm == family.qk_norm
            && other.activation != family.activation
    };
    let name = Activation::name;
    let Some(other) = FAMILIES.iter().find(has_same_norms) else {
        return Ok(Finding::not_applicable(format!(
            "{}: no family with these norms has another activation",
            name(family.activation)
        )));
    };
    let (now, then) = (name(family.activation), name(other.activation));
    let compared = compare(
        body,
        patient,
        &Change::Family(other),
        &format!("with {then}"),
    )?;
    Ok(judge(
        &compared,
        &format!("with {now}"),
        &format!("with {then}"),
        patient,
        "",
    ))
}

/// Whether another order of the rows of q and k predicts better.
pub fn rotated_rows(patient: &Patient) -> anyhow::Result<Finding> {
    let body = match with_text(patient) {
        Ok(body) => body,
        Err(finding) => return Ok(finding),
    };
    let mut worst: Option<Finding> = None;
    for (order, name) in [
        (Order::Deinterleave, "de-interleaved"),
        (Order::Interleave, "interleaved"),
    ] {
        let what = format!("with q and k {name}");
        let compared = compare(body, patient, &Change::Rows(order), &what)?;
        let finding = judge(
            &compared,
            "with q and k in the order given",
            &what,
            patient,
            "",
        );
        if worst.as_ref().is_none_or(|w| w.verdict < finding.verdict) {
            worst = Some(finding);
        }
    }
    Ok(worst.expect("two orders were tried"))
}

/// Whether scales without the factor that a second absmean brings predict better.
pub fn larger_scales(patient: &Patient) -> anyhow::Result<Finding> {
    let body = match with_text(patient) {
        Ok(body) => body,
        Err(finding) => return Ok(finding),
    };
    let is_single = |c: &crate::inspect::trits::Counts| {
        body.file.matrix(&c.weight.name).scaling == Scaling::Matrix && c.zero < c.all()
    };
    if !body.counts.iter().any(is_single) {
        return Ok(Finding::not_applicable("no layer has one scale only"));
    }
    let enlarge = |name: &str, scale: f32| {
        let counts = body.counts.iter().find(|c| c.weight.name == name);
        match counts.filter(|c| is_single(c)) {
            Some(c) => (f64::from(scale) / (1.0 - c.zeros())) as f32,
            None => scale,
        }
    };
    let zeros = body.counts.iter().map(|c| c.zero).sum::<u64>() as f64;
    let share = 1.0 - zeros / body.counts.iter().map(|c| c.all()).sum::<u64>() as f64;
    let shown =
        format!("a second absmean makes scales smaller by the share of non-zeros, here {share:.3}");
    let compared = compare(
        body,
        patient,
        &Change::Scales(&enlarge),
        "with larger scales",
    )?;
    Ok(judge(
        &compared,
        "with the scales given",
        "with that undone",
        patient,
        &shown,
    ))
}

fn with_text(patient: &Patient) -> Result<&Body, Finding> {
    match &patient.body {
        Err(why) => Err(Finding::not_applicable(why)),
        Ok(body) if !body.has_text => Err(Finding::not_applicable("there is no tokenizer")),
        Ok(body) => Ok(body),
    }
}

fn compare(
    body: &Body,
    patient: &Patient,
    change: &Change,
    what: &str,
) -> anyhow::Result<Comparison> {
    let other = body.losses_with(change, what)?;
    Ok(texts::compare(&body.losses, &other, patient.chance()))
}

/// The verdict on the first of two ways to compute the model.
fn judge(
    compared: &Comparison,
    first: &str,
    second: &str,
    patient: &Patient,
    shown: &str,
) -> Finding {
    let nats = |x: f64| match x.is_finite() {
        true => format!("{x:.2} nats a token"),
        false => "no finite loss".to_owned(),
    };
    let [a, b] = compared.losses.map(nats);
    let shown = match shown {
        "" => String::new(),
        shown => format!("; {shown}"),
    };
    let text = format!(
        "the {} costs {a} {first}, {b} {second}{shown}",
        compared.text
    );
    match compared.better {
        Better::First => Finding::ok(text),
        Better::PerhapsSecond => Finding::suspect(text),
        Better::Second => Finding::broken(text),
        Better::CannotTell => Finding::not_applicable(format!(
            "losses cannot tell: {text}; guessing costs {:.2}",
            patient.chance()
        )),
    }
}

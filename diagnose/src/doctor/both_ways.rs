//! Checks that run the model twice: unchanged, and with a known mistake undone ([`super::trials`]).
//! If neither run predicts anything, the losses say nothing, and the finding says so.

use sterna_ternary::Activation;

use super::finding::Finding;
use super::patient::{Body, Patient};
use super::texts::{Better, KNOWS, TEXTS, mean};
use super::trials::{Trial, Trials};
use crate::Result;
use crate::trits::TritCounts;

/// Whether a forward pass stays finite.
pub fn logits(patient: &Patient) -> Result<Finding> {
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

/// Whether the model predicts a built-in text better than chance.
pub fn prediction(patient: &Patient, trials: &Trials) -> Result<Finding> {
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
        "nats per token: {}; guessing costs {chance:.2}",
        shown.join(", ")
    );
    let best = means.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(match best {
        x if x <= KNOWS * chance => Finding::ok(shown),
        _ => Finding::suspect(match explained(trials) {
            Some(check) => format!("predicts no better than chance, see {check}. {shown}"),
            None => format!(
                "predicts no better than chance: it is untrained, was trained on very different \
                 texts, or is damaged; checks that compare losses cannot tell. {shown}"
            ),
        }),
    })
}

/// The check of the first change with which the model predicts clearly better.
fn explained(trials: &Trials) -> Option<&'static str> {
    let mut trials = trials.as_deref().unwrap_or_default().iter();
    let helps = trials.find(|trial| trial.compared.better == Better::Second);
    helps.map(|trial| trial.check)
}

/// Whether the reciprocals of the scales predict better.
pub fn scale_direction(patient: &Patient, trials: &Trials) -> Result<Finding> {
    let body = match with_trits(patient, trials) {
        Ok(body) => body,
        Err(finding) => return Ok(finding),
    };
    let (gain, inverse) = gains(body);
    let shown = format!(
        "; a layer turns an input of size 1 into {gain:.3}, with scales inverted into {inverse:.3}"
    );
    let found = of_trials(patient, trials, "scale direction", &shown);
    let cannot_tell = |t: &Trial| t.compared.better == Better::CannotTell;
    Ok(
        match trials.as_ref().is_ok_and(|all| all.iter().all(cannot_tell)) {
            // In trained models this lies between 0.1 and 100.
            true if !(1e-3..=1e3).contains(&gain) => Finding::suspect(found.why),
            _ => found,
        },
    )
}

/// Median over the layers of scale · √(columns · share of non-zeros), for the given scales and for
/// their reciprocals. This is the size of an output for an input of size 1.
fn gains(body: &Body) -> (f64, f64) {
    let median = |of: fn(f32) -> f64| {
        let inputs = |c: &TritCounts| c.weight.columns as f64 * (1.0 - c.zeros());
        let gains = body.counts.iter().map(|c| of(c.scale) * inputs(c).sqrt());
        let mut gains: Vec<f64> = gains.collect();
        gains.sort_by(f64::total_cmp);
        gains[gains.len() / 2]
    };
    (median(f64::from), median(|scale| 1.0 / f64::from(scale)))
}

/// Whether the other activation predicts better.
pub fn activation(patient: &Patient, trials: &Trials) -> Result<Finding> {
    let name = Activation::name(patient.source.config().family.activation);
    let shown = format!("{name}: no family with these norms has another activation");
    Ok(match with_text(patient) {
        Ok(_) if of(trials, "activation").next().is_none() && trials.is_ok() => {
            Finding::not_applicable(shown)
        }
        Ok(_) => of_trials(patient, trials, "activation", ""),
        Err(finding) => finding,
    })
}

/// Whether another order of the rows of q and k predicts better.
pub fn rotated_rows(patient: &Patient, trials: &Trials) -> Result<Finding> {
    Ok(match with_text(patient) {
        Ok(_) => of_trials(patient, trials, "q and k order", ""),
        Err(finding) => finding,
    })
}

/// Whether the model predicts better with scales that undo a second absmean.
pub fn larger_scales(patient: &Patient, trials: &Trials) -> Result<Finding> {
    let body = match with_trits(patient, trials) {
        Ok(body) => body,
        Err(finding) => return Ok(finding),
    };
    let zeros = body.counts.iter().map(|c| c.zero).sum::<u64>() as f64;
    let share = 1.0 - zeros / body.counts.iter().map(|c| c.all()).sum::<u64>() as f64;
    let shown = format!("; a second absmean makes scales {share:.3} times as large here");
    Ok(of_trials(patient, trials, "double quantization", &shown))
}

fn of<'a>(trials: &'a Trials, check: &'a str) -> impl Iterator<Item = &'a Trial> {
    let trials = trials.as_deref().unwrap_or_default();
    trials.iter().filter(move |trial| trial.check == check)
}

/// The worst verdict of the trials that belong to a check.
fn of_trials(patient: &Patient, trials: &Trials, check: &str, shown: &str) -> Finding {
    let all = match trials {
        Ok(all) => all,
        Err(why) => return Finding::not_applicable(why),
    };
    let own = of(trials, check).map(|trial| trial.judge(all, patient.chance(), shown));
    let worst = own.max_by_key(|finding| finding.verdict);
    worst.unwrap_or_else(|| Finding::not_applicable("no layer has a single scale"))
}

fn with_text(patient: &Patient) -> std::result::Result<&Body, Finding> {
    match &patient.body {
        Err(why) => Err(Finding::not_applicable(why)),
        Ok(body) if !body.has_text => Err(Finding::not_applicable(patient.no_text())),
        Ok(body) => Ok(body),
    }
}

/// The body, if its trits were counted and there are texts to compare.
fn with_trits<'a>(patient: &'a Patient, trials: &Trials) -> std::result::Result<&'a Body, Finding> {
    match trials {
        Err(why) if patient.source.is_dense() => Err(Finding::not_applicable(why)),
        _ => with_text(patient),
    }
}

//! The values and the cost of a run, without running it.

use serde_json::json;
use sterna_ternary::units;
use sterna_train::Run;
use sterna_train::run::cost;
use sterna_train::run::preparation::Preparation;

use crate::output::outln;

/// Prints every value of a recipe and where it comes from: TOML with comments, or JSON.
pub fn values(run: &Run, as_json: bool) -> anyhow::Result<()> {
    let flat = run.recipe().flat();
    if as_json {
        let with_origin = |(key, value): &(String, _)| {
            (
                key.clone(),
                json!({"value": value, "from": run.origins().of(key)}),
            )
        };
        let values: serde_json::Map<_, _> = flat.iter().map(with_origin).collect();
        outln!("{}", serde_json::Value::from(values))?;
        return Ok(());
    }
    let mut current = "";
    for (key, value) in &flat {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        if section != current {
            let gap = if current.is_empty() { "" } else { "\n" };
            outln!("{gap}[{section}]")?;
            current = section;
        }
        outln!(
            "{:<40} # {}",
            format!("{name} = {value}"),
            run.origins().of(key)
        )?;
    }
    Ok(())
}

/// A line about the work before the first step.
fn prepared(of: &Preparation) -> String {
    let peak = match of.peak_bytes {
        Some(bytes) => format!(", {} at the peak", units::bytes(bytes)),
        None => String::new(),
    };
    let share = match of.measured_bytes == of.bytes {
        true => String::new(),
        false => format!(" on {} of them", units::bytes(of.measured_bytes)),
    };
    format!(
        "preparation  {}{peak}: {} of data to tokens, measured{share}\n",
        units::duration(of.seconds),
        units::bytes(of.bytes),
    )
}

/// Prints what a run will cost, from two timed steps and a sample of the data.
pub fn plan(run: &Run, as_json: bool) -> anyhow::Result<()> {
    let cost = cost::measure(run)?;
    let preparation = cost.preparation.as_ref();
    if as_json {
        let preparation = preparation.map(|of| {
            json!({"bytes": of.bytes, "measured_bytes": of.measured_bytes,
                "seconds": of.seconds, "peak_bytes": of.peak_bytes})
        });
        outln!(
            "{}",
            json!({"parameters": cost.parameters, "ternary_parameters": cost.ternary_parameters,
                "tokens": cost.tokens, "state_bytes": cost.state_bytes,
                "peak_bytes": cost.peak_bytes, "checkpoint_bytes": cost.checkpoint_bytes,
                "tokens_per_second": cost.tokens_per_second,
                "share_of_peak": cost.share_of_peak, "hours": cost.hours(),
                "preparation": preparation})
        )?;
        return Ok(());
    }
    let train = &run.recipe().train;
    let peak = match cost.peak_bytes {
        Some(bytes) => format!("{} at the peak, measured; ", units::bytes(bytes)),
        None => String::new(),
    };
    let prepared = preparation.map(prepared).unwrap_or_default();
    outln!(
        "parameters   {:.2} M, {:.2} M of them ternary\n\
         tokens       {:.1} M: {} steps of {}, {:.1} for each parameter\n\
         memory       {peak}{} are weights, moments and a gradient\n\
         checkpoints  {} each\n\
         {prepared}\
         speed        {:.0} tokens/s, {:.0} % of the peak of matrix products; \
         the better of two real steps\n\
         time         {}, without evaluations",
        cost.parameters as f64 / 1e6,
        cost.ternary_parameters as f64 / 1e6,
        cost.tokens / 1e6,
        train.steps,
        cost.step_tokens,
        cost.tokens / cost.parameters as f64,
        units::bytes(cost.state_bytes),
        units::bytes(cost.checkpoint_bytes),
        cost.tokens_per_second,
        100.0 * cost.share_of_peak,
        units::duration(3600.0 * cost.hours()),
    )?;
    Ok(())
}

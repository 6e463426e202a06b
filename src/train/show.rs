//! The values and the cost of a run, without running it.

use serde_json::json;
use sterna_ternary::units;
use sterna_train::Run;
use sterna_train::run::cost;

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

/// Prints what a run will cost, from two timed steps.
pub fn plan(run: &Run, as_json: bool) -> anyhow::Result<()> {
    let cost = cost::measure(run)?;
    if as_json {
        outln!(
            "{}",
            json!({"parameters": cost.parameters, "ternary_parameters": cost.ternary_parameters,
                "tokens": cost.tokens, "state_bytes": cost.state_bytes,
                "peak_bytes": cost.peak_bytes, "checkpoint_bytes": cost.checkpoint_bytes,
                "tokens_per_second": cost.tokens_per_second,
                "share_of_peak": cost.share_of_peak, "hours": cost.hours()})
        )?;
        return Ok(());
    }
    let train = &run.recipe().train;
    let peak = match cost.peak_bytes {
        Some(bytes) => format!("{} at the peak, measured; ", units::bytes(bytes)),
        None => String::new(),
    };
    outln!(
        "parameters   {:.2} M, {:.2} M of them ternary\n\
         tokens       {:.1} M: {} steps of {}, {:.1} for each parameter\n\
         memory       {peak}{} are weights, moments and a gradient\n\
         checkpoints  {} each\n\
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

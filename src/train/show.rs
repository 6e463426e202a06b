//! What a run would be, without running it: its values, its cost.

use serde_json::json;
use sterna_train::Run;
use sterna_train::run::plan;

use crate::output::outln;
use crate::terminal;

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

/// Prints what a run will cost, as two timed steps say.
pub fn plan(run: &Run, as_json: bool) -> anyhow::Result<()> {
    let plan = plan::plan(run)?;
    if as_json {
        outln!(
            "{}",
            json!({"parameters": plan.parameters, "ternary_parameters": plan.ternary_parameters,
                "tokens": plan.tokens, "state_bytes": plan.state_bytes, "peak_bytes": plan.peak_bytes,
                "checkpoint_bytes": plan.checkpoint_bytes, "tokens_per_second": plan.tokens_per_second,
                "share_of_peak": plan.share_of_peak, "hours": plan.hours()})
        )?;
        return Ok(());
    }
    let train = &run.recipe().train;
    let peak = match plan.peak_bytes {
        Some(bytes) => format!("{} at the peak, measured; ", terminal::bytes(bytes)),
        None => String::new(),
    };
    outln!(
        "parameters   {:.2} M, {:.2} M of them ternary\n\
         tokens       {:.1} M: {} steps of {}, {:.1} for each parameter\n\
         memory       {peak}{} are weights, moments and a gradient\n\
         checkpoints  {} each\n\
         speed        {:.0} tokens/s, {:.0} % of the peak of matrix products; the best of two real steps\n\
         time         {}, without evaluations",
        plan.parameters as f64 / 1e6,
        plan.ternary_parameters as f64 / 1e6,
        plan.tokens / 1e6,
        train.steps,
        plan.step_tokens,
        plan.tokens / plan.parameters as f64,
        terminal::bytes(plan.state_bytes),
        terminal::bytes(plan.checkpoint_bytes),
        plan.tokens_per_second,
        100.0 * plan.share_of_peak,
        terminal::duration(3600.0 * plan.hours()),
    )?;
    Ok(())
}

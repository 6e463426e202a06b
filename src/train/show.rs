//! The values and the cost of a run, without running it.

use sterna_train::Run;
use sterna_train::run::cost;

use crate::output::{out, outln};

/// Prints every value of a recipe and where it comes from: TOML with comments, or JSON.
pub fn values(run: &Run, as_json: bool) -> anyhow::Result<()> {
    match as_json {
        true => outln!("{}", run.values())?,
        false => out!("{}", run.annotated_toml())?,
    }
    Ok(())
}

/// Prints what a run will cost, from two timed steps and a sample of the data.
pub fn plan(run: &Run, as_json: bool) -> anyhow::Result<()> {
    let cost = cost::measure(run)?;
    match as_json {
        true => outln!("{}", cost.json())?,
        false => outln!("{}", cost.describe(&run.recipe().train))?,
    }
    Ok(())
}

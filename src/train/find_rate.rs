//! `sterna train --find-lr`: the learning rate, by short runs.

use serde_json::json;
use sterna_ternary::TemporaryFolder;
use sterna_train::Run;
use sterna_train::run::{data, range_test};

use crate::exit::Interrupted;
use crate::output::outln;
use crate::terminal::{self, Stoppable};
use crate::train::watch::Watch;

/// Rates that are tried, two per factor of three. BitNet's rates, from large to small models, are
/// in this range.
const LOWEST: f64 = 1e-4;
const HIGHEST: f64 = 3e-2;
const COUNT: usize = 11;

/// Trains `steps` steps with each rate and prints their losses and a suggestion.
pub fn run(run: &Run, steps: u64, as_json: bool) -> anyhow::Result<()> {
    let folder = TemporaryFolder::new()?;
    let mut watch = Watch::new(steps);
    data::prepare(run, folder.path(), &mut |event| watch.see(&event))?;
    watch.finish();
    let _stoppable = Stoppable::work();
    let data = data::open(run, folder.path())?;
    let mut trials = Vec::new();
    if !as_json {
        outln!("learning rate  loss")?;
    }
    for rate in range_test::rates(LOWEST, HIGHEST, COUNT) {
        if terminal::interrupted() {
            return Err(Interrupted.into());
        }
        let trial = range_test::trial(run, &data, rate, steps)?;
        if !as_json {
            let loss = trial
                .loss
                .map_or("diverged".into(), |loss| format!("{loss:.4}"));
            outln!("{rate:<13.1e}  {loss}")?;
        }
        trials.push(trial);
    }
    let best = range_test::best(&trials);
    if as_json {
        let trials = trials
            .iter()
            .map(|t| json!({"learning_rate": t.rate, "loss": t.loss}));
        let trials: Vec<_> = trials.collect();
        outln!(
            "{}",
            json!({"trials": trials, "suggestion": best.map(|best| best.rate)})
        )?;
    } else if let Some(best) = best {
        let rate = best.rate;
        outln!("lowest loss at {rate:.1e}: --set train.learning_rate={rate:.1e}")?;
        outln!("a run of many thousand steps is often best one or two rates lower")?;
    } else {
        outln!("every run diverged: the cause is the data or the recipe, not the rate")?;
    }
    Ok(())
}

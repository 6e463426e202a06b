//! The folder of a run: made once, and then used by the same recipe only.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use sterna_ternary::durable;

use super::build::schedule;
use super::checkpoint;
use super::data::{self, Data};
use super::events::{Control, Event, Preparing};
use super::opened::Run;
use super::sources;
use crate::ranks::Ranks;
use crate::schedule::Schedule;
use crate::{Error, Recipe, Result};

/// Opens the data of the run. The first rank makes them, the others wait.
///
/// # Errors
/// [`Error::RanksDiffer`] for ranks with different recipes, [`Error::Recipe`] for a folder of
/// another recipe, and those of [`data::prepare`].
pub(super) fn prepared(
    run: &Run,
    folder: &Path,
    ranks: &Ranks,
    observe: &mut impl FnMut(Event) -> Control,
) -> Result<Data> {
    ranks.agree("recipe", run.recipe().to_toml().as_bytes())?;
    if ranks.is_first() {
        claim(run, folder, observe)?;
    }
    ranks.barrier()?;
    data::open(run, &folder.join("data"))
}

/// Makes the data if the folder is new, and refuses a folder that belongs to another recipe. The
/// number of steps may change if the schedule of the steps taken stays the same, and files may have
/// moved.
fn claim(run: &Run, folder: &Path, observe: &mut impl FnMut(Event) -> Control) -> Result<()> {
    let recipe = run.recipe();
    let path = folder.join("recipe.toml");
    let there = std::fs::read_to_string(&path);
    match there {
        Ok(there) if checkpoint::has_any(&folder.join("checkpoints"))? => {
            if there != recipe.to_toml() {
                other_recipe(run, &there, folder)?;
                write(recipe, &path)?;
            }
            tell_changes(run, folder, observe)
        }
        // A folder without a step belongs to no recipe yet.
        _ => {
            for name in ["run.json", "metrics.jsonl"] {
                let path = folder.join(name);
                if path.exists() {
                    std::fs::remove_file(&path).map_err(Error::io(&path))?;
                }
            }
            observe(Event::Preparing {
                what: Preparing::Data,
                done: 0,
                total: 0,
            });
            // Before the texts are read: a change from then on is told when the run goes on.
            sources::record(recipe, &folder.join("data"))?;
            if let Some(packed) = data::prepare(run, &folder.join("data"), observe)? {
                observe(Event::Packed(&packed));
            }
            write(recipe, &path)
        }
    }
}

fn write(recipe: &Recipe, path: &Path) -> Result<()> {
    let text = recipe.to_toml();
    durable::write(path, |w| w.write_all(text.as_bytes())).map_err(Error::io(path))
}

/// Reports texts that changed since the run began. It goes on with the tokens that it made then.
fn tell_changes(
    run: &Run,
    folder: &Path,
    observe: &mut impl FnMut(Event) -> Control,
) -> Result<()> {
    let changes = sources::changes(run.recipe(), &folder.join("data"))?;
    if !changes.is_empty() {
        let changed = Error::SourcesChanged {
            changes,
            model: folder.join("model"),
        };
        observe(Event::Warning(&changed.to_string()));
    }
    Ok(())
}

/// The keys in which two recipes differ, with both values; ten at most.
fn differences(before: &Recipe, now: &Recipe) -> String {
    let values = |recipe: &Recipe| recipe.flat().into_iter().collect::<BTreeMap<_, _>>();
    let (before, now) = (values(before), values(now));
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let text = |value: Option<&toml::Value>| match value {
        Some(value) => value.to_string(),
        None => "absent".into(),
    };
    let differs = keys
        .into_iter()
        .filter(|key| before.get(*key) != now.get(*key));
    let differs: Vec<String> = differs
        .map(|key| {
            let (old, new) = (text(before.get(key)), text(now.get(key)));
            format!("`{key}` was {old} and is {new}")
        })
        .collect();
    match differs.len() {
        0 => String::new(),
        1..=10 => format!(": {}", differs.join(", ")),
        more => format!(": {}, and {} more", differs[..10].join(", "), more - 10),
    }
}

/// Checks that the run of the recipe text `there` can continue as this one.
fn other_recipe(run: &Run, there: &str, folder: &Path) -> Result<()> {
    let refused = |why| Error::Recipe {
        path: folder.join("recipe.toml"),
        why,
    };
    let another = |differs: String| {
        refused(format!(
            "this folder belongs to a run of another recipe{differs}; choose another folder, or \
             remove this one to start over"
        ))
    };
    let before = toml::from_str::<Recipe>(there).map_err(|_| another(String::new()))?;
    let mut same = run.recipe().clone();
    same.train.steps = before.train.steps;
    if same.clone().without_folders() != before.clone().without_folders() {
        return Err(another(differences(&before, &same)));
    }
    if !same.data_paths().eq(before.data_paths())
        && let Some(path) = sources::moved(&same, &folder.join("data"))?
    {
        let path = path.display();
        return Err(another(format!(
            "{}; the contents of {path} are not those that it began with",
            differences(&before, &same)
        )));
    }
    other_steps(run, &before, folder).map_err(refused)
}

/// Checks that the schedule of the steps taken is the same for both numbers of steps.
fn other_steps(run: &Run, before: &Recipe, folder: &Path) -> std::result::Result<(), String> {
    let recipe = run.recipe();
    let checkpoints = folder.join("checkpoints");
    let (found, _) = checkpoint::latest(run, &checkpoints).map_err(|e| e.to_string())?;
    let (taken, steps) = (found.map_or(0, |found| found.step), recipe.train.steps);
    let (old, new) = (schedule(&before.train), schedule(&recipe.train));
    let at = |s: &Schedule, step| (s.rate(step), s.weight_decay(step), s.lambda(step));
    let differs = |step: &u64| *step >= steps || at(&old, *step) != at(&new, *step);
    match (0..taken).find(differs) {
        None => Ok(()),
        Some(step) => Err(format!(
            "this run took {taken} steps of {}, and a schedule over {steps} is another one from \
             step {} on; remove the newer checkpoints to go on from an older one (`keep_every` \
             keeps some), choose the first number of steps again, or start another run from its \
             model with --from",
            before.train.steps,
            step + 1
        )),
    }
}

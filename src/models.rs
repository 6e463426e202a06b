//! `sterna models`: the models and data sets in the hub's cache.

use std::path::Path;

use clap::Subcommand;
use serde_json::json;
use sterna_hub::{self as hub, HubSettings, Name};
use sterna_ternary::units;

use crate::exit::Usage;
use crate::output::{note, out, outln};

/// List or remove the models and data sets in the hub's cache.
///
/// Other programs share this cache.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Verb {
    List(List),
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

/// List the models and data sets, as `sterna models` alone does.
#[derive(clap::Args)]
struct List {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Remove a model or data set from the cache, or only one revision of it.
#[derive(clap::Args)]
struct Remove {
    /// org/name or org/name@revision, of a data set hf:org/name
    name: String,
    /// Print one JSON object with the number of bytes freed.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let cache = HubSettings::from_env()?.cache;
    match &args.verb {
        None => list(&cache, args.json),
        Some(Verb::List(list_args)) => list(&cache, list_args.json),
        Some(Verb::Remove(args)) => remove(&cache, args),
    }
}

fn list(cache: &Path, as_json: bool) -> anyhow::Result<()> {
    let models = hub::list(cache)?;
    if as_json {
        outln!("{}", json!({"cache": cache, "models": models}))?;
    } else if models.is_empty() {
        note!("no models or data sets in {}", cache.display());
    }
    for model in models.iter().filter(|_| !as_json) {
        out!("{}", model.describe())?;
    }
    Ok(())
}

fn remove(cache: &Path, args: &Remove) -> anyhow::Result<()> {
    let name = Name::parse(&args.name)?;
    if name.file.is_some() {
        let why = format!(
            "{name}: single files cannot be removed; name the {} or a revision of it",
            name.kind
        );
        return Err(Usage(why).into());
    }
    let freed = hub::remove(cache, &name)?;
    if args.json {
        outln!(
            "{}",
            json!({"name": name.to_string(), "freed_bytes": freed})
        )?;
    } else {
        outln!("{name}: removed, {} freed", units::bytes(freed))?;
    }
    Ok(())
}

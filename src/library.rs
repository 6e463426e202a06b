//! What other programs call of the command line: the Python module.
//!
//! The arguments are those of the program, so every option is defined, checked and explained once.
//! The results are what `--json` prints.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;
use sterna_train::ranks::{Ranks, Reduction, Solo};
use sterna_train::run::tensorboard::Board;
use sterna_train::{Control, Draft, Event, Outcome, Place, Processor, Run};

use crate::exit::{self, Usage};
use crate::output::{self, Level};
use crate::train::start;
use crate::{Verb, convert, doctor, inspect, verify};

/// Why something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Arguments that cannot be used.
    Usage,
    /// A file that cannot be used.
    BadInput,
    /// Anything else.
    Other,
}

/// The cause of an error, and its message with those of the errors that led to it.
pub fn explain(error: &anyhow::Error) -> (Cause, String) {
    let cause = match exit::code(error) {
        exit::USAGE => Cause::Usage,
        exit::BAD_INPUT => Cause::BadInput,
        _ => Cause::Other,
    };
    (cause, exit::message(error))
}

/// Prints no progress from now on, only warnings.
pub fn silence() {
    output::set_level(Level::Quiet);
}

/// The result of `convert`, `verify`, `inspect` or `doctor` with these arguments, the first of
/// which is the verb. That of `verify` also says whether the models are `equal`.
///
/// # Errors
/// Those of the verb.
pub fn report(args: &[OsString]) -> anyhow::Result<Value> {
    Ok(match verb(args)? {
        Verb::Convert(args) => printed(&convert::proved(&args)?)?,
        Verb::Inspect(args) => serde_json::to_value(inspect::look(&args)?)?,
        Verb::Doctor(args) => printed(&doctor::examine(&args)?)?,
        Verb::Verify(args) => {
            let found = verify::compare(&args)?;
            let mut object = printed(&found)?;
            object["equal"] = found.is_equal().into();
            object
        }
        _ => return Err(Usage("this verb has no report".into()).into()),
    })
}

/// A report with the numbers that are printed: single precision with the fewest digits.
fn printed(report: &impl Serialize) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&serde_json::to_string(report)?)?)
}

/// The packed file of a model: a path or a name of the hub, in any format. What is not packed is
/// packed and kept.
///
/// # Errors
/// No such model, and one that cannot be read or packed.
pub fn packed(model: &Path) -> anyhow::Result<PathBuf> {
    crate::packed::packed(model)
}

/// A recipe with the checkpoints and data sets that it names; `origin` names it in errors.
///
/// # Errors
/// A value that is missing or out of range, and what cannot be opened.
pub fn open_run(draft: Draft, origin: &str) -> anyhow::Result<Run> {
    let (mut recipe, origins) = draft.finish(origin)?;
    start::datasets(&mut recipe)?;
    start::open(recipe, origins)
}

/// Trains on the CPU as `sterna train` does, with curves for TensorBoard. `observe` says after each
/// event whether training goes on.
///
/// # Errors
/// Those of [`sterna_train::train`].
pub fn train(
    run: &Run,
    folder: &Path,
    mut observe: impl FnMut(&Event) -> Control,
) -> anyhow::Result<Outcome> {
    let ranks = Ranks::new(Rc::new(Solo), Reduction::Fixed);
    let place = Place::new(ranks, Processor::Cpu)?;
    let mut board = Board::new(&folder.join("tensorboard"));
    let mut failed = None;
    let outcome = sterna_train::train(run, folder, &place, |event| {
        let control = observe(&event);
        if let Err(error) = board.see(&event) {
            failed.get_or_insert(error);
        }
        match failed {
            Some(_) => Control::Stop,
            None => control,
        }
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(outcome),
    }
}

/// A server that answers, and the names of its models.
#[cfg(feature = "serve")]
pub struct Serving {
    /// The server. It ends when its drain is begun.
    pub server: sterna_serve::http::Server,
    /// The names of the models.
    pub names: Vec<String>,
}

/// Starts `sterna serve` with these arguments, the first of which is the verb, in threads of this
/// process.
///
/// # Errors
/// Those of the verb, before it answers.
#[cfg(feature = "serve")]
pub fn serve(args: &[OsString]) -> anyhow::Result<Serving> {
    let Verb::Serve(args) = verb(args)? else {
        return Err(Usage("this verb does not serve".into()).into());
    };
    let (server, names) = crate::serve::start(&args)?;
    Ok(Serving { server, names })
}

/// The verb of arguments. The part of clap's message that explains is kept.
fn verb(args: &[OsString]) -> Result<Verb, Usage> {
    let parsed = crate::parse(args).map_err(|error| {
        let message = error.to_string();
        let ends = ["\n\nUsage:", "\n\nFor more information"];
        let end = ends.iter().filter_map(|end| message.find(end)).min();
        let why = message[..end.unwrap_or(message.len())].trim();
        Usage(why.strip_prefix("error: ").unwrap_or(why).to_owned())
    });
    Ok(parsed?.verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(args: &[&str]) -> String {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let error = report(&args).unwrap_err();
        let (cause, message) = explain(&error);
        assert_eq!(cause, Cause::Usage);
        message
    }

    #[test]
    fn arguments_are_explained_without_the_help_of_the_program() {
        let message = refusal(&["convert", "--out=x", "--packing=i9", "--", "model"]);
        assert!(
            message.starts_with("invalid value 'i9' for '--packing"),
            "{message}"
        );
        assert!(
            !message.contains("Usage") && !message.contains("--help"),
            "{message}"
        );
        let message = refusal(&["cpu"]);
        assert_eq!(message, "this verb has no report");
    }

    #[test]
    fn a_missing_file_is_bad_input() {
        let error = report(&["inspect".into(), "./absent".into()]).unwrap_err();
        assert_eq!(explain(&error).0, Cause::BadInput);
    }
}

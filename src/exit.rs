//! Errors to messages and exit codes.

use anyhow::Error;

use crate::output;

pub const FINE: u8 = 0;
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const BAD_INPUT: u8 = 3;
pub const INTERRUPTED: u8 = 130;

/// Ctrl-C ended the work after it was saved.
#[derive(Debug, thiserror::Error)]
#[error("stopped; the same command goes on from here")]
pub struct Interrupted;

/// The arguments fit the grammar but not each other.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Refuses what another build of the program does.
pub fn not_built_with(what: &str, feature: &str) -> Usage {
    Usage(format!(
        "{what}: this program was built without {feature}; build it with --features {feature}"
    ))
}

/// An input file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// Prints the error to stderr and says how the process ends.
pub fn report(error: &Error) -> u8 {
    let output: Option<&output::Error> = error.downcast_ref();
    if output.is_some_and(output::Error::is_closed_pipe) {
        return FINE; // `sterna ... | head` has all its lines
    }
    output::write_stderr(format_args!("error: {}", message(error)));
    code(error)
}

/// The error and its causes. A cause that the message already ends with is left out.
pub fn message(error: &Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !message.ends_with(&cause) {
            let between = if message.is_empty() { "" } else { ": " };
            message += &format!("{between}{cause}");
        }
    }
    message
}

/// The exit code of an error.
pub fn code(error: &Error) -> u8 {
    if error.is::<Interrupted>() {
        return INTERRUPTED;
    }
    let is_gate = matches!(
        error.downcast_ref(),
        Some(sterna_validate::Error::Gate { .. })
    );
    if error.is::<Usage>() || is_gate {
        return USAGE;
    }
    fn any<E: std::error::Error + Send + Sync + 'static>(
        error: &Error,
        is_bad_input: impl Fn(&E) -> bool,
    ) -> bool {
        error.downcast_ref().is_some_and(is_bad_input)
    }
    #[cfg(feature = "hub")]
    let is_bad_name = any(error, sterna_hub::Error::is_bad_input);
    #[cfg(not(feature = "hub"))]
    let is_bad_name = false;
    let is_bad_input = error.is::<BadInput>()
        || any(error, sterna_ternary::Error::is_bad_input)
        || any(error, sterna_convert::Error::is_bad_input)
        || any(error, sterna_runtime::Error::is_bad_input)
        || any(error, sterna_datasets::Error::is_bad_input)
        || any(error, sterna_train::Error::is_bad_input)
        || any(error, sterna_validate::Error::is_bad_input)
        || any(error, sterna_diagnose::Error::is_bad_input)
        || is_bad_name;
    if is_bad_input { BAD_INPUT } else { FAILED }
}

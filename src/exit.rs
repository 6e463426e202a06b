//! Errors to messages and exit codes.

use std::process::ExitCode;

use anyhow::Error;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const BAD_INPUT: u8 = 3;
const INTERRUPTED: u8 = 130;

/// Ctrl-C ended the work after it was saved.
#[derive(Debug, thiserror::Error)]
#[error("stopped; the same command goes on from here")]
pub struct Interrupted;

/// The arguments fit the grammar but not each other.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// An input file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

/// Prints the error to stderr and says how the process ends.
pub fn report(error: &Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS; // `sterna ... | head` has read all that it wanted
    }
    eprintln!("error: {}", message(error));
    ExitCode::from(code(error))
}

/// The error and its causes, but for those that the one before repeats.
fn message(error: &Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !message.ends_with(&cause) {
            let between = if message.is_empty() { "" } else { ": " };
            message += &format!("{between}{cause}");
        }
    }
    message
}

fn is_broken_pipe(error: &Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
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
    let bad_input = error.is::<BadInput>()
        || error.downcast_ref().is_some_and(of_ternary)
        || error.downcast_ref().is_some_and(of_convert)
        || error.downcast_ref().is_some_and(of_runtime)
        || error.downcast_ref().is_some_and(of_datasets)
        || error.downcast_ref().is_some_and(of_train)
        || error.downcast_ref().is_some_and(of_validate)
        || error.downcast_ref().is_some_and(of_diagnose)
        || of_hub(error);
    if bad_input { BAD_INPUT } else { FAILED }
}

#[cfg(feature = "hub")]
fn of_hub(error: &Error) -> bool {
    error
        .downcast_ref()
        .is_some_and(sterna_hub::Error::is_bad_input)
}

#[cfg(not(feature = "hub"))]
fn of_hub(_: &Error) -> bool {
    false
}

fn of_ternary(error: &sterna_ternary::Error) -> bool {
    use sterna_ternary::Error::*;
    match error {
        Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        Order { .. } => false,
        _ => true,
    }
}

fn of_convert(error: &sterna_convert::Error) -> bool {
    use sterna_convert::Error::*;
    match error {
        Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        Output { .. } | Differs { .. } | Shapes { .. } => false,
        Packed(error) => of_ternary(error),
        _ => true,
    }
}

fn of_runtime(error: &sterna_runtime::Error) -> bool {
    use sterna_runtime::Error::*;
    match error {
        Ternary(error) => of_ternary(error),
        Tokenizer { .. } | NoChatTemplate | ChatTemplate { .. } | NonFinite { .. } => true,
        _ => false,
    }
}

fn of_datasets(error: &sterna_datasets::Error) -> bool {
    use sterna_datasets::Error::*;
    match error {
        Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        UnknownTask { .. } | Mix { .. } | HeldOutShare { .. } | VocabSize { .. } => false,
        _ => true,
    }
}

fn of_train(error: &sterna_train::Error) -> bool {
    use sterna_train::Error::*;
    match error {
        Ternary(error) => of_ternary(error),
        Data(error) => of_datasets(error),
        Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        Recipe { .. } | Checkpoint { .. } | Start { .. } => true,
        _ => false,
    }
}

fn of_diagnose(error: &sterna_diagnose::Error) -> bool {
    use sterna_diagnose::Error::*;
    match error {
        Ternary(error) => of_ternary(error),
        Convert(error) => of_convert(error),
        Runtime(error) => of_runtime(error),
        NoTrits { .. } | Damaged { .. } => true,
    }
}

fn of_validate(error: &sterna_validate::Error) -> bool {
    use sterna_validate::Error::*;
    match error {
        Runtime(error) => of_runtime(error),
        Data(error) => of_datasets(error),
        Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        NoText { .. } | TooShort { .. } | NotFinite { .. } | NoPrefix | Task(_) => true,
        _ => false,
    }
}

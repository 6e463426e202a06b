//! The command line as a library: [`run`] is the program `sterna`, and [`library`] has those of its
//! verbs that other programs call.
//!
//! There is one thin file per verb, which parses, calls a crate and prints. Results go to stdout,
//! progress and logs to stderr. Exit codes: 0 fine, 1 failed, 2 usage, 3 a bad input file, 130
//! stopped by Ctrl-C.
// Help texts name sections of recipes, such as [data], which are not links.
#![allow(rustdoc::broken_intra_doc_links)]
#![deny(clippy::print_stdout, clippy::print_stderr)] // they panic; see `output`

mod bench;
mod chat;
mod choice;
mod completions;
mod convert;
mod cpu;
mod data;
mod doctor;
mod embed;
mod exit;
mod generate;
mod help;
mod hints;
mod inspect;
pub mod library;
mod locate;
mod logits;
mod man;
mod model;
#[cfg(feature = "hub")]
mod models;
mod output;
mod packed;
mod plot;
mod preparing;
#[cfg(feature = "hub")]
mod pull;
mod quickstart;
#[cfg(feature = "serve")]
mod ready;
#[cfg(feature = "serve")]
mod replay;
mod rule;
mod sampling;
#[cfg(feature = "serve")]
mod serve;
mod speculation;
mod synthesize;
mod terminal;
mod tokenizer;
mod train;
mod validate;
mod verify;

use std::ffi::OsString;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};
use output::Level;

/// Train, convert, run and judge ternary (1.58-bit) language models on ordinary CPUs.
#[derive(Parser)]
#[command(
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = help::WIDTH
)]
#[command(help_template = help::template(), after_help = AFTER)]
#[command(mut_subcommands = help::page)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Print no progress on stderr, only warnings and errors.
    #[arg(
        long,
        short,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Messages"
    )]
    quiet: bool,
    /// Also print what was chosen and found on the way.
    #[arg(long, short, global = true, help_heading = "Messages")]
    verbose: bool,
}

const AFTER: &str = "\
Begin with `sterna quickstart`. `sterna help VERB` explains a verb, `sterna VERB -h` is shorter.

Results go to stdout, progress to stderr; --json prints one JSON object on stdout.
Exit codes: 0 fine, 1 failed, 2 usage, 3 a bad input file, 130 stopped by Ctrl-C.";

#[derive(Subcommand)]
enum Verb {
    Quickstart(quickstart::Args),
    #[command(subcommand)]
    Data(data::Verb),
    #[command(subcommand)]
    Tokenizer(tokenizer::Verb),
    Train(train::Args),
    Plot(plot::Args),
    #[cfg(feature = "hub")]
    Pull(pull::Args),
    #[cfg(feature = "hub")]
    Models(models::Args),
    Convert(convert::Args),
    Verify(verify::Args),
    Inspect(inspect::Args),
    Doctor(doctor::Args),
    Generate(generate::Args),
    Chat(chat::Args),
    #[cfg(feature = "serve")]
    Serve(Box<serve::Args>),
    #[cfg(feature = "serve")]
    Ready(ready::Args),
    #[cfg(feature = "serve")]
    Replay(replay::Args),
    Embed(embed::Args),
    Logits(logits::Args),
    Bench(bench::Args),
    Validate(validate::Args),
    Cpu(cpu::Args),
    Synthesize(synthesize::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// The arguments of the program, without its name.
static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Runs the command line and returns its exit code. `args` are the arguments after the name of the
/// program.
///
/// A process calls it at most once, for it is the whole program: from then on Ctrl-C, SIGTERM and
/// SIGHUP end the process, and a text goes to the process's stdout. Training is only fast if the
/// environment variable `CANDLE_NUM_THREADS` is 1: candle reads it when it first adds two tensors,
/// and its own threads would compete with those of the trainer.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let verb = match verb(&args) {
        Ok(verb) => verb,
        Err(code) => return code,
    };
    let _first = ARGUMENTS.set(args);
    if let Err(error) = terminal::catch_signals() {
        return exit::report(&error);
    }
    let outcome = match verb {
        Verb::Quickstart(args) => quickstart::run(&args),
        Verb::Data(verb) => data::run(&verb),
        Verb::Tokenizer(verb) => tokenizer::run(&verb),
        Verb::Train(args) => train::run(&args),
        Verb::Plot(args) => plot::run(&args),
        #[cfg(feature = "hub")]
        Verb::Pull(args) => pull::run(&args),
        #[cfg(feature = "hub")]
        Verb::Models(args) => models::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Verify(args) => return verify::run(&args).unwrap_or_else(|e| exit::report(&e)),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Doctor(args) => return doctor::run(&args).unwrap_or_else(|e| exit::report(&e)),
        Verb::Generate(args) => generate::run(&args),
        Verb::Chat(args) => chat::run(&args),
        #[cfg(feature = "serve")]
        Verb::Serve(args) => serve::run(&args),
        #[cfg(feature = "serve")]
        Verb::Ready(args) => ready::run(&args),
        #[cfg(feature = "serve")]
        Verb::Replay(args) => replay::run(&args),
        Verb::Embed(args) => embed::run(&args),
        Verb::Logits(args) => logits::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Validate(args) => {
            return validate::run(&args).unwrap_or_else(|e| exit::report(&e));
        }
        Verb::Cpu(args) => cpu::run(&args),
        Verb::Synthesize(args) => synthesize::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    };
    match outcome {
        Ok(()) => exit::FINE,
        Err(error) => exit::report(&error),
    }
}

/// The verb of the command line. Help, version and errors of usage are printed here.
fn verb(args: &[OsString]) -> Result<Verb, u8> {
    let error = match parse(args) {
        Ok(cli) => {
            output::set_level(match (cli.quiet, cli.verbose) {
                (true, _) => Level::Quiet,
                (_, true) => Level::Verbose,
                _ => Level::Normal,
            });
            return Ok(cli.verb);
        }
        Err(error) => error,
    };
    if error.use_stderr() {
        let _ = error.print(); // stderr
        if let Some(hint) = hint(&error) {
            output::write_stderr(format_args!("{hint}"));
        }
        return Err(exit::USAGE);
    }
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let text = error.render();
    let printed = if is_terminal {
        output::write(format_args!("{}", text.ansi()))
    } else {
        output::write(format_args!("{text}"))
    };
    Err(match printed {
        Ok(()) => exit::FINE,
        Err(error) => exit::report(&error.into()),
    })
}

/// Reads arguments that follow the name of the program.
fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let name = OsString::from("sterna");
    Cli::try_parse_from(std::iter::once(&name).chain(args))
}

/// Verbs of other programs, and what does their work here.
const FOREIGN: [(&[&str], &str); 8] = [
    (
        &["run"],
        "`sterna chat MODEL` is a conversation, `sterna generate MODEL` continues a text",
    ),
    (
        &["list", "ls", "ps"],
        "`sterna models` lists the models of the hub's cache",
    ),
    (
        &["rm", "remove", "delete"],
        "`sterna models rm NAME` removes a model of the hub's cache",
    ),
    (
        &["eval", "evaluate", "perplexity", "ppl", "test"],
        "`sterna validate MODEL` judges a model",
    ),
    (
        &["quantize", "pack", "export"],
        "`sterna convert MODEL --out FILE` packs a model",
    ),
    (
        &["download", "get", "fetch"],
        "`sterna pull NAME` fetches a model of the hub",
    ),
    (
        &["finetune", "fine-tune", "sft"],
        "`sterna train --from MODEL --chat FILE` trains a model further",
    ),
    (
        &["server", "api", "listen"],
        "`sterna serve MODEL` answers programs over HTTP",
    ),
];

/// What to use instead of an unknown verb, if that is known.
fn hint(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let (_, hint) = FOREIGN.iter().find(|(names, _)| names.contains(&&**verb))?;
    Some(format!("\nhint: {hint}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }
}

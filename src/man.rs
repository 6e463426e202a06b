//! `sterna man`: manual pages, made from the same definitions as the help texts.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use sterna_ternary::durable;

/// Print the manual page of the program, or write those of all verbs.
#[derive(clap::Args)]
pub struct Args {
    /// The folder to write all pages into; created if it does not exist.
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut program = crate::Cli::command().disable_help_subcommand(true);
    program.build();
    let Some(out) = &args.out else {
        let mut page = Vec::new();
        Man::new(program).render(&mut page)?;
        return Ok(crate::output::write_bytes(&page)?);
    };
    std::fs::create_dir_all(out)
        .with_context(|| format!("{}: cannot be created", out.display()))?;
    write(&program, out)
}

/// Writes the page of a verb, named like `sterna-data-generate.1`, and those of the verbs in it.
fn write(verb: &Command, folder: &Path) -> anyhow::Result<()> {
    let man = Man::new(verb.clone());
    let path = folder.join(man.get_filename());
    durable::write(&path, |file| man.render(file))
        .with_context(|| format!("{}: cannot be written", path.display()))?;
    verb.get_subcommands()
        .try_for_each(|verb| write(verb, folder))
}

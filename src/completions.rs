//! `sterna completions`: a completion script for a shell.

use clap::CommandFactory;

/// Print a completion script for a shell.
#[derive(clap::Args)]
pub struct Args {
    /// The shell to complete in.
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut crate::Cli::command(),
        "sterna",
        &mut script,
    );
    crate::output::write_bytes(&script)?;
    Ok(())
}

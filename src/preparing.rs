//! Texts on the command line: the flags that say how they are read, and the progress of reading.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use sterna_datasets::read::{self, Parts, ReadOptions, TolerantParts};
use sterna_ternary::units;
use sterna_train::Preparing;

use crate::locate::texts;
use crate::output::{note, warning};
use crate::terminal::{self, LogLine};

/// How documents are found in files.
#[derive(clap::Args)]
pub struct ReadArgs {
    /// The line that separates the documents of a .txt file.
    #[arg(long, value_name = "LINE", help_heading = "Data")]
    separator: Option<String>,
    /// The key or column of records that holds the text [default: text]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    column: Option<String>,
}

/// Whether a record that cannot be used is left out.
#[derive(clap::Args)]
pub struct StrictArg {
    /// Refuse texts with a record that cannot be used.
    ///
    /// Without this flag such records are left out and counted, and only more than a tenth of them
    /// is an error.
    #[arg(long, help_heading = "Data")]
    pub strict: bool,
}

/// Says what was left out.
pub fn warn(parts: &TolerantParts) {
    for line in parts.warnings() {
        warning!("{line}");
    }
}

impl ReadArgs {
    pub fn options(&self) -> ReadOptions {
        ReadOptions {
            separator: self.separator.clone(),
            column: self.column.clone(),
        }
    }

    /// Opens files, folders and data sets of the hub, and names the files that are left out.
    pub fn parts(&self, paths: &[PathBuf]) -> anyhow::Result<Parts> {
        let paths = paths.iter().map(|path| texts(path));
        let paths: Vec<PathBuf> = paths.collect::<anyhow::Result<_>>()?;
        let parts = read::parts(&paths, &self.options())?;
        if let Some(left_out) = read::left_out(parts.left_out()) {
            note!("{left_out}");
        }
        Ok(parts)
    }
}

/// The progress of preparation: a bar on a terminal, a line every ten seconds in a log.
pub struct Progress {
    what: Preparing,
    bar: ProgressBar,
    start: Instant,
    log: LogLine,
}

impl Progress {
    /// Begins a part of the work that reads this many bytes; 0 if that is not known.
    pub fn new(what: Preparing, total: u64) -> Progress {
        let rate = "{decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ETA {eta}";
        let bar = match total {
            0 => terminal::bar(0, "  {spinner} {msg}"),
            total => terminal::bar(total, &format!("  {{msg}} {{wide_bar}} {rate}")),
        };
        bar.set_message(what.name());
        if total == 0 && terminal::is_terminal() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Progress {
            what,
            bar,
            start: Instant::now(),
            log: LogLine::new(),
        }
    }

    /// Shows the bytes that were read; another part of the work begins a new bar.
    pub fn show(&mut self, what: Preparing, done: u64, total: u64) {
        if what != self.what {
            self.bar.finish_and_clear();
            *self = Progress::new(what, total);
        }
        self.bar.set_position(done);
        if total > 0 && self.log.is_due() {
            let rate = done as f64 / self.start.elapsed().as_secs_f64();
            let left = units::duration((total - done.min(total)) as f64 / rate);
            let [done, total, rate] = [done, total, rate as u64].map(units::bytes);
            note!("{}: {done} of {total}, {rate}/s, ETA {left}", what.name());
        }
    }

    /// A watch for work that reads files.
    pub fn watch(&mut self, what: Preparing, total: u64) -> impl FnMut(u64) -> ControlFlow<()> {
        move |done| {
            self.show(what, done, total);
            ControlFlow::Continue(())
        }
    }

    /// The bar that is on the terminal.
    pub fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// Prints a line above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| note!("{line}"));
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

//! Progress of a measurement on stderr: a bar on a terminal, a line every ten seconds in a log.

use std::time::Instant;

use indicatif::ProgressBar;
use sterna_ternary::units;

use crate::output::note;
use crate::terminal::{self, LogLine};

pub struct Progress {
    bar: ProgressBar,
    what: String,
    start: Instant,
    log: LogLine,
    /// How much was done when this process began.
    first: Option<usize>,
    /// How much was done at the last call.
    last: usize,
}

impl Progress {
    /// Progress of work of which nothing is known yet.
    pub fn new() -> Progress {
        Progress::of("", ProgressBar::hidden())
    }

    /// Progress of work that is counted in `what`.
    fn of(what: &str, bar: ProgressBar) -> Progress {
        Progress {
            bar,
            what: what.to_owned(),
            start: Instant::now(),
            log: LogLine::new(),
            first: None,
            last: usize::MAX,
        }
    }

    /// Shows how much is done, and returns whether to go on: until Ctrl-C. Other work begins a new
    /// bar.
    pub fn see(&mut self, what: &str, done: usize, total: usize) -> bool {
        if what != self.what {
            self.bar.finish_and_clear();
            let bar = terminal::bar(0, "  {wide_bar} {pos}/{len} {msg}  ETA {eta}");
            bar.set_message(what.to_owned());
            *self = Progress::of(what, bar);
        }
        if done == self.last {
            return !terminal::interrupted(); // called per token of a measurement, so it is fast
        }
        self.last = done;
        let first = *self.first.get_or_insert(done);
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        if done > first && self.log.is_due() {
            let each = self.start.elapsed().as_secs_f64() / (done - first) as f64;
            let left = units::duration(each * total.saturating_sub(done) as f64);
            note!("{done}/{total} {}  ETA {left}", self.what);
        }
        !terminal::interrupted()
    }

    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

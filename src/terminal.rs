//! Progress bars, downloads and interrupts in the terminal.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
#[cfg(unix)]
use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
use sterna_train::Control;

use crate::output::note;

/// A bar of `len` units on stderr; hidden where stderr is not a terminal.
pub fn bar(len: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), target());
    let style = ProgressStyle::with_template(template).expect("the templates are constants");
    bar.set_style(style.progress_chars("━╾─"));
    bar
}

fn target() -> ProgressDrawTarget {
    if is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// Whether stderr is a terminal.
pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// A bar of the files that come from the hub, or one line per file if stderr is not a terminal.
#[cfg(feature = "hub")]
pub struct Download(ProgressBar);

#[cfg(feature = "hub")]
impl Download {
    pub fn new() -> Download {
        let rate = "{decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
        Download(bar(0, &format!("  {{msg}} {{wide_bar}} {rate}")))
    }

    pub fn finish(self) {
        self.0.finish_and_clear();
    }
}

#[cfg(feature = "hub")]
impl sterna_hub::Progress for Download {
    fn total(&self, bytes: u64) {
        self.0.set_length(bytes);
    }

    fn begin(&self, file: &str, size: u64) {
        self.0.reset_eta();
        self.0.set_message(file.to_owned());
        if !is_terminal() {
            note!("  {file} {}", sterna_ternary::units::bytes(size));
        }
    }

    fn advance(&self, done: u64) {
        self.0.set_position(done);
    }

    fn say(&self, line: &str) {
        self.0.suspend(|| note!("{line}"));
    }
}

/// A curve as one line of block characters, at most `width` of them.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let blocks = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let per = values.len().div_ceil(width.max(1)).max(1);
    let means = values
        .chunks(per)
        .map(|c| c.iter().sum::<f64>() / c.len() as f64);
    let means: Vec<f64> = means.collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let level = |x: &f64| ((x - low) / (high - low).max(1e-9) * 7.0).round() as usize;
    means.iter().map(|x| blocks[level(x).min(7)]).collect()
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes the first Ctrl-C (or SIGTERM) ask for a stop and the second end the process at once.
pub fn catch_interrupts() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note!("\nstopping after this step; again to stop at once");
    })?;
    Ok(())
}

/// Makes Ctrl-C remove a temporary folder, which may hold gigabytes, and end the process.
pub fn remove_on_interrupt(folder: PathBuf) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        let _ = std::fs::remove_dir_all(&folder); // the process ends anyway
        std::process::exit(130);
    })?;
    Ok(())
}

/// Whether Ctrl-C was pressed since [`catch_interrupts`].
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Whether training goes on.
pub fn control() -> Control {
    match interrupted() {
        true => Control::Stop,
        false => Control::Continue,
    }
}

/// Makes Ctrl-C stop an answer, and end the process while there is no answer.
pub struct Answering(());

static ANSWERING: AtomicBool = AtomicBool::new(false);

impl Answering {
    pub fn catch_interrupts() -> anyhow::Result<Answering> {
        // The line editor reads Ctrl-C as a key, so at its prompt only other signals arrive here.
        // The terminal is then in the editor's modes, which outlive the process.
        #[cfg(unix)]
        let modes = tcgetattr(std::io::stdin()).ok();
        ctrlc::set_handler(move || {
            // The second Ctrl-C during an answer does not wait for the next token.
            if !ANSWERING.load(Ordering::Relaxed) || INTERRUPTED.swap(true, Ordering::Relaxed) {
                #[cfg(unix)]
                if let Some(modes) = &modes {
                    let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, modes); // it ends anyway
                }
                std::process::exit(130);
            }
        })?;
        Ok(Answering(()))
    }

    pub fn begin(&self) {
        INTERRUPTED.store(false, Ordering::Relaxed);
        ANSWERING.store(true, Ordering::Relaxed);
    }

    pub fn end(&self) {
        ANSWERING.store(false, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        interrupted()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn curves() {
        assert_eq!(super::sparkline(&[7.0, 3.5, 0.0], 10), "█▅▁");
        assert_eq!(super::sparkline(&[], 10), "");
    }
}

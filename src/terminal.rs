//! Progress bars, downloads and interrupts in the terminal.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
#[cfg(unix)]
use nix::sys::signal::{SigHandler, Signal, signal};
#[cfg(unix)]
use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
use sterna_ternary::temporary;
use sterna_train::Control;

use crate::output::{self, Level, note};

/// A bar of `len` units on stderr; hidden where stderr is not a terminal.
pub fn bar(len: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), target());
    let style = ProgressStyle::with_template(template).expect("the templates are constants");
    bar.set_style(style.progress_chars("━╾─"));
    bar
}

fn target() -> ProgressDrawTarget {
    if is_terminal() && output::shows(Level::Normal) {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// Whether stderr is a terminal.
pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// When a line of progress is due in a log, where no terminal shows a bar.
pub struct LogLine(Instant);

impl LogLine {
    /// Time between two lines.
    const EVERY: Duration = Duration::from_secs(10);

    /// The first line is due after that time.
    pub fn new() -> LogLine {
        LogLine(Instant::now())
    }

    /// Whether a line is due now, which begins the wait for the next one.
    pub fn is_due(&mut self) -> bool {
        let is_due = !is_terminal() && self.0.elapsed() > LogLine::EVERY;
        if is_due {
            self.0 = Instant::now();
        }
        is_due
    }
}

/// As many of the parts, from the first, as fit into a line of the terminal beside `taken` columns
/// of a bar. Two spaces are between parts.
pub fn fitting(parts: &[String], taken: usize) -> String {
    let (_, columns) = console::Term::stderr().size();
    let fits = |n: &usize| {
        let text: usize = parts[..*n]
            .iter()
            .map(|part| part.chars().count() + 2)
            .sum();
        taken + text <= usize::from(columns)
    };
    let count = (0..=parts.len()).rev().find(fits).unwrap_or(0);
    parts[..count].join("  ")
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

/// What a signal does at the moment.
#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
enum OnSignal {
    /// It ends the process.
    End,
    /// The first asks for a stop after the current step, the second ends the process.
    FinishStep,
    /// The first asks for the end of the current answer, the second ends the process.
    StopAnswer,
    /// The first begins the drain of a server, the second ends the process.
    Drain,
}

static ON_SIGNAL: AtomicU8 = AtomicU8::new(OnSignal::End as u8);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// When the first signal came.
static FIRST: Mutex<Option<Instant>> = Mutex::new(None);
/// Signals that follow the first one in this time count as one: `timeout` sends two.
const ONE: Duration = Duration::from_secs(1);
/// The same for a server, to which a second signal is sent on purpose.
const ONE_DRAIN: Duration = Duration::from_millis(100);
/// What begins the drain of a server.
static BEGIN_DRAIN: Mutex<Option<Box<dyn Fn() + Send>>> = Mutex::new(None);

/// Catches Ctrl-C, SIGTERM and SIGHUP, on Windows Ctrl-C, Ctrl-Break and the end of the console, so
/// that a process that they end leaves no temporary files. A SIGHUP that is ignored, as under
/// nohup, stays ignored.
pub fn catch_signals() -> anyhow::Result<()> {
    // The editor of a conversation reads Ctrl-C as a key, so at its prompt only other signals
    // arrive. The terminal is then in the editor's modes, which outlive the process.
    #[cfg(unix)]
    let modes = tcgetattr(std::io::stdin()).ok();
    #[cfg(unix)]
    let is_hangup_ignored = ignore_hangup();
    ctrlc::set_handler(move || {
        if !is_end() {
            return;
        }
        #[cfg(unix)]
        if let Some(modes) = &modes {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, modes); // it ends anyway
        }
        end();
    })?;
    #[cfg(unix)]
    if is_hangup_ignored {
        ignore_hangup();
    }
    #[cfg(windows)]
    catch_close()?;
    Ok(())
}

/// Ends the process and leaves no temporary files.
fn end() -> ! {
    temporary::remove_all();
    let is_drained = ON_SIGNAL.load(Ordering::Relaxed) == OnSignal::Drain as u8;
    std::process::exit(match is_drained {
        true => i32::from(crate::exit::FAILED),
        false => i32::from(crate::exit::INTERRUPTED),
    });
}

/// Takes the end of a console, of a session or of Windows as a signal. Windows ends the process
/// when the handler returns, and the one of the crate `ctrlc` returns at once. So this one, which
/// is asked first, waits: Windows gives the process five seconds.
#[cfg(windows)]
fn catch_close() -> anyhow::Result<()> {
    use windows_sys::Win32::System::Console::{
        CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT, SetConsoleCtrlHandler,
    };

    unsafe extern "system" fn handle(event: u32) -> i32 {
        if !matches!(
            event,
            CTRL_CLOSE_EVENT | CTRL_LOGOFF_EVENT | CTRL_SHUTDOWN_EVENT
        ) {
            return 0; // the next handler is asked
        }
        if is_end() {
            end();
        }
        loop {
            std::thread::park();
        }
    }
    // SAFETY: the handler runs in a thread of its own, and is there until the process ends.
    let is_set = unsafe { SetConsoleCtrlHandler(Some(handle), 1) } != 0;
    anyhow::ensure!(is_set, std::io::Error::last_os_error());
    Ok(())
}

/// Whether the signal that came ends the process.
fn is_end() -> bool {
    let on_signal = ON_SIGNAL.load(Ordering::Relaxed);
    if on_signal == OnSignal::End as u8 {
        return true;
    }
    let mut first = FIRST
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if INTERRUPTED.swap(true, Ordering::Relaxed) {
        let one = match on_signal == OnSignal::Drain as u8 {
            true => ONE_DRAIN,
            false => ONE,
        };
        return first.is_none_or(|first| first.elapsed() > one);
    }
    *first = Some(Instant::now());
    if on_signal == OnSignal::FinishStep as u8 {
        note!("\nstopping after this step; again to stop at once");
    }
    if on_signal == OnSignal::Drain as u8 {
        note!("\nno new requests, waiting for answers; again to stop at once");
        let begin = BEGIN_DRAIN.lock();
        let begin = begin.unwrap_or_else(|poisoned| poisoned.into_inner());
        begin.as_ref().inspect(|begin| begin());
    }
    false
}

/// Ignores SIGHUP and returns whether it was ignored before.
#[cfg(unix)]
fn ignore_hangup() -> bool {
    // SAFETY: no handler is replaced that other code relies on, and ignoring runs no code.
    let before = unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) };
    matches!(before, Ok(SigHandler::SigIgn))
}

/// While it exists, the first signal asks for a stop; see [`interrupted`].
#[must_use]
pub struct Stoppable(());

impl Stoppable {
    /// Work that stops after its current step.
    pub fn work() -> Stoppable {
        ON_SIGNAL.store(OnSignal::FinishStep as u8, Ordering::Relaxed);
        Stoppable(())
    }

    /// A server, which drains.
    #[cfg(feature = "serve")]
    pub fn serving(begin: impl Fn() + Send + 'static) -> Stoppable {
        let drain = BEGIN_DRAIN.lock();
        *drain.unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Box::new(begin));
        ON_SIGNAL.store(OnSignal::Drain as u8, Ordering::Relaxed);
        Stoppable(())
    }

    /// An answer of a conversation, which stops after its current token.
    pub fn answer() -> Stoppable {
        INTERRUPTED.store(false, Ordering::Relaxed);
        ON_SIGNAL.store(OnSignal::StopAnswer as u8, Ordering::Relaxed);
        Stoppable(())
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        ON_SIGNAL.store(OnSignal::End as u8, Ordering::Relaxed);
    }
}

/// Whether a signal asked for a stop.
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

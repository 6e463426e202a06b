//! What a template may use. Steps are counted by the interpreter, but a step can double a value, so
//! sizes are watched as well: [`super::guard`] puts a call of [`BOUND`] after every tag that binds
//! a name, and printed bytes are counted. Between two such places the sizes of all values that
//! operators, methods and filters make are added up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Instructions of a rendering.
pub(super) const STEPS: u64 = 5_000_000;
/// Depth of macros and loops in one another.
pub(super) const RECURSION: usize = 100;
/// Bytes and elements of a value, and bytes of all output.
const MOST: usize = 4 << 20;
/// Bytes of plain text that loops and macros may repeat.
const MOST_REPEATED: usize = 256 << 20;
/// Bytes and elements that operators, methods and filters make between two checks.
const MOST_MADE: usize = 64 << 20;
/// Lists in lists.
const DEEPEST: usize = 64;
/// No honest template takes a hundredth of it.
const TIME: Duration = Duration::from_secs(2);

/// The function that checks values.
pub(super) const BOUND: &str = "__bound";

/// What a rendering has used.
#[derive(Debug)]
pub(super) struct RenderUsage {
    start: Mutex<Instant>,
    /// Bytes of the template, the most that a turn of a loop repeats.
    length: usize,
    repeated: AtomicUsize,
    made: AtomicUsize,
    output: AtomicUsize,
}

impl RenderUsage {
    pub(super) fn new(source: &str) -> RenderUsage {
        RenderUsage {
            start: Mutex::new(Instant::now()),
            length: source.len(),
            repeated: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            output: AtomicUsize::new(0),
        }
    }

    /// Begins another rendering.
    pub(super) fn begin(&self) {
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        for used in [&self.repeated, &self.made, &self.output] {
            used.store(0, Ordering::Relaxed);
        }
    }

    /// Checks values that got a name.
    pub(super) fn check(&self, values: &[Value]) -> Result<Value, Error> {
        let repeated = self.repeated.fetch_add(self.length, Ordering::Relaxed);
        if repeated > MOST_REPEATED {
            return Err(refuse("too many turns of loops and calls of macros"));
        }
        self.check_time()?;
        self.made.store(0, Ordering::Relaxed);
        let mut left = MOST;
        values.iter().try_for_each(|v| measure(v, &mut left, 0))?;
        Ok(Value::UNDEFINED)
    }

    /// Ends a rendering that takes too long.
    pub(super) fn check_time(&self) -> Result<(), Error> {
        let start = *self.start.lock().unwrap_or_else(PoisonError::into_inner);
        match start.elapsed() > TIME {
            true => Err(refuse("it takes more than two seconds")),
            false => Ok(()),
        }
    }

    /// Counts a value that an operator, a method or a filter made.
    pub(super) fn count(&self, value: &Value) -> Result<(), Error> {
        let items = value.len().unwrap_or(0).saturating_mul(size_of::<Value>());
        let size = value.as_str().map_or(items, str::len);
        match self.made.fetch_add(size, Ordering::Relaxed) > MOST_MADE {
            true => Err(refuse("one tag makes more than 64 MiB of values")),
            false => Ok(()),
        }
    }

    /// Counts bytes that are about to be printed.
    pub(super) fn print(&self, bytes: usize) -> Result<(), Error> {
        check_size(self.output.fetch_add(bytes, Ordering::Relaxed) + bytes)
    }
}

/// An error that names the limit.
pub(super) fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.to_owned())
}

/// Refuses texts that are about to become too large.
pub(super) fn check_size(bytes: usize) -> Result<(), Error> {
    match bytes {
        0..=MOST => Ok(()),
        _ => Err(too_large()),
    }
}

fn too_large() -> Error {
    refuse("a value or the text grows beyond 4 MiB")
}

/// Takes the size of a value from what is left.
fn measure(value: &Value, left: &mut usize, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(refuse("lists lie deeper than 64 in one another"));
    }
    let size = 1 + value.as_str().map_or(0, str::len);
    *left = left.checked_sub(size).ok_or_else(too_large)?;
    let is_map = value.kind() == ValueKind::Map;
    if is_map || matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        for item in value.try_iter()? {
            measure(&item, left, depth + 1)?;
            if is_map {
                measure(&value.get_item(&item)?, left, depth + 1)?;
            }
        }
    }
    Ok(())
}

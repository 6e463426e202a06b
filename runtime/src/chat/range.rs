//! The function `range` and its values, which are not lists in Python.

use std::sync::Arc;

use minijinja::Error;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};

use super::arguments::error;
use super::limits;

/// Numbers at equal distances.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    start: i64,
    stop: i64,
    step: i64,
}

impl Range {
    pub fn of(value: &Value) -> Option<&Range> {
        value.downcast_object_ref()
    }

    /// How many numbers there are.
    fn count(&self) -> i128 {
        let [start, stop, step] = [self.start, self.stop, self.step].map(i128::from);
        let span = stop - start;
        match (span > 0) == (step > 0) {
            true => (span + step - step.signum()) / step,
            false => 0,
        }
    }

    /// The number at an index.
    fn number(&self, at: usize) -> Option<i64> {
        let at = i64::try_from(at).ok()?;
        ((i128::from(at)) < self.count()).then(|| self.start + at * self.step)
    }

    /// The range of every `step`th index from `start` to before `stop`, which are clamped already.
    pub fn slice(&self, start: i64, stop: i64, step: i64) -> Result<Value, Error> {
        let number = |at: i64| self.start.checked_add(at.checked_mul(self.step)?);
        let made = || {
            Some(Range {
                start: number(start)?,
                stop: number(stop)?,
                step: self.step.checked_mul(step)?,
            })
        };
        let range = made().ok_or_else(|| error("a number of the range is too large"))?;
        Ok(Value::from_object(range))
    }

    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<i64> {
        match name {
            "start" => Some(self.start),
            "stop" => Some(self.stop),
            "step" => Some(self.step),
            _ => None,
        }
    }

    /// Python's `repr`.
    pub fn text(&self) -> String {
        let Range { start, stop, step } = self;
        match step {
            1 => format!("range({start}, {stop})"),
            _ => format!("range({start}, {stop}, {step})"),
        }
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.number(key.as_usize()?).map(Value::from)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.count() as usize)
    }
}

/// `range(stop)` or `range(start, stop, step)`, with the limit of Jinja's sandbox.
pub(super) fn range(first: i64, second: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    const LONGEST: i128 = 100_000;
    let (start, stop) = second.map_or((0, first), |stop| (first, stop));
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(error("range() arg 3 must not be zero"));
    }
    let range = Range { start, stop, step };
    match range.count() {
        0..=LONGEST => Ok(Value::from_object(range)),
        _ => Err(limits::refuse("range has more than 100000 numbers")),
    }
}

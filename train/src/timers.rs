//! Where the time of a step goes: timers around its parts, which are off until [`measured`] runs.
//!
//! A thread charges its time to one part at a time. A [`Timer`] begins a part, and its end returns
//! to the part around it. So parts never overlap, and what they leave of the time of all threads is
//! waiting. A timer that is off reads one flag.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A part of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Products of int8 activations with trits.
    TernaryProducts,
    /// Products of layers in full precision, or with blended quantization.
    FloatProducts,
    /// Gradients of linear layers to their inputs.
    InputGradients,
    /// Gradients of linear layers to their weights.
    WeightGradients,
    /// Logits, loss and their gradients.
    Head,
    /// Attention with its rotations, forward and backward.
    Attention,
    /// Embedding, norms, activation, rounding of activations and the residual stream.
    Elementwise,
    /// candle's graph: its own additions of gradients, and memory.
    Graph,
    /// The sums of gradients over shards.
    Sums,
    /// Rounding of weights to trits.
    Ternarize,
    /// Norms of the gradients.
    Norms,
    /// The update of weights and moments.
    Optimizer,
}

/// What limits the rate of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Multiply-adds of int8; work is counted in operations, two per multiply-add.
    Int8,
    /// Multiply-adds of f32; work is counted in operations, two per multiply-add.
    Float,
    /// Memory; work is counted in bytes that are read or written at least once.
    Memory,
}

impl Part {
    /// All parts.
    pub const ALL: [Part; 12] = [
        Part::TernaryProducts,
        Part::FloatProducts,
        Part::InputGradients,
        Part::WeightGradients,
        Part::Head,
        Part::Attention,
        Part::Elementwise,
        Part::Graph,
        Part::Sums,
        Part::Ternarize,
        Part::Norms,
        Part::Optimizer,
    ];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Part::TernaryProducts => "forward products, int8 × trit",
            Part::FloatProducts => "forward products, f32",
            Part::InputGradients => "gradients to inputs",
            Part::WeightGradients => "gradients of weights",
            Part::Head => "head and loss",
            Part::Attention => "attention",
            Part::Elementwise => "norms, activation, elementwise",
            Part::Graph => "graph and memory",
            Part::Sums => "sums of gradients",
            Part::Ternarize => "rounding of weights",
            Part::Norms => "statistics",
            Part::Optimizer => "optimizer",
        }
    }

    /// What limits its rate; none where work is not counted.
    pub fn limit(self) -> Option<Limit> {
        match self {
            Part::TernaryProducts => Some(Limit::Int8),
            Part::FloatProducts
            | Part::InputGradients
            | Part::WeightGradients
            | Part::Head
            | Part::Attention => Some(Limit::Float),
            Part::Elementwise | Part::Sums | Part::Ternarize | Part::Norms | Part::Optimizer => {
                Some(Limit::Memory)
            }
            Part::Graph => None,
        }
    }
}

/// What one part took and did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Charged {
    pub part: Part,
    /// The sum over all threads.
    pub time: Duration,
    /// Operations or bytes, as [`Part::limit`] says.
    pub work: u64,
}

#[derive(Default)]
struct Total {
    nanoseconds: AtomicU64,
    work: AtomicU64,
}

static IS_ON: AtomicBool = AtomicBool::new(false);
static TOTALS: [Total; Part::ALL.len()] = [const {
    Total {
        nanoseconds: AtomicU64::new(0),
        work: AtomicU64::new(0),
    }
}; Part::ALL.len()];

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current(None)) };
}

/// The part that a thread works on, and when its time was last charged.
#[derive(Clone, Copy)]
struct Current(Option<(Part, Instant)>);

impl Current {
    /// Turns to another part at this time. Returns the part that ran and the time since its last
    /// turn.
    fn turn(&mut self, next: Option<Part>, now: Instant) -> Option<(Part, Duration)> {
        let (part, start) = std::mem::replace(&mut self.0, next.map(|part| (part, now)))?;
        Some((part, now - start))
    }
}

/// Charges the time of its thread to a part until it is dropped.
#[must_use]
pub(crate) struct Timer(State);

enum State {
    Off,
    /// The part around this one, if there is one.
    Inside(Option<Part>),
}

/// Begins a part that does this work: operations or bytes, as [`Part::limit`] says.
#[inline]
pub(crate) fn timer(part: Part, work: usize) -> Timer {
    if !IS_ON.load(Ordering::Relaxed) {
        return Timer(State::Off);
    }
    let total = &TOTALS[part as usize];
    total.work.fetch_add(work as u64, Ordering::Relaxed);
    Timer(State::Inside(turn_to(Some(part))))
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let State::Inside(outer) = self.0 {
            turn_to(outer);
        }
    }
}

/// Charges the time since the last turn to the part that ran, and returns this part.
fn turn_to(next: Option<Part>) -> Option<Part> {
    let mut current = CURRENT.get();
    let ended = current.turn(next, Instant::now());
    CURRENT.set(current);
    let (part, time) = ended?;
    let total = &TOTALS[part as usize];
    let nanoseconds = time.as_nanos() as u64;
    total.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    Some(part)
}

/// Runs `f` with all timers on, and returns what each part took. One call runs at a time; timers of
/// other work in this process count too.
pub(crate) fn measured<R>(f: impl FnOnce() -> R) -> (R, [Charged; Part::ALL.len()]) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for total in &TOTALS {
        total.nanoseconds.store(0, Ordering::Relaxed);
        total.work.store(0, Ordering::Relaxed);
    }
    IS_ON.store(true, Ordering::Relaxed);
    let result = f();
    IS_ON.store(false, Ordering::Relaxed);
    let charged = Part::ALL.map(|part| {
        let total = &TOTALS[part as usize];
        Charged {
            part,
            time: Duration::from_nanos(total.nanoseconds.load(Ordering::Relaxed)),
            work: total.work.load(Ordering::Relaxed),
        }
    });
    (result, charged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_charged_to_the_innermost_part() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let charged = |part, milliseconds| Some((part, Duration::from_millis(milliseconds)));
        let mut current = Current(None);
        assert_eq!(current.turn(Some(Part::Graph), at(1)), None);
        // Attention begins inside of the graph, ends, and the graph goes on.
        let outer = current.turn(Some(Part::Attention), at(3));
        assert_eq!(outer, charged(Part::Graph, 2));
        let inner = current.turn(Some(Part::Graph), at(8));
        assert_eq!(inner, charged(Part::Attention, 5));
        assert_eq!(current.turn(None, at(9)), charged(Part::Graph, 1));
        // Outside of all parts nothing is charged.
        assert_eq!(current.turn(Some(Part::Head), at(20)), None);
    }

    /// Other tests of this process may work at the same time, so the bounds are one-sided.
    #[test]
    fn what_runs_under_timers_is_charged_with_its_work() {
        let time = Duration::from_millis(3);
        let ((), charged) = measured(|| {
            let _outer = timer(Part::Graph, 0);
            let _inner = timer(Part::Attention, 7);
            let start = Instant::now();
            while start.elapsed() < time {}
        });
        let attention = charged[Part::Attention as usize];
        assert!(attention.time >= time && attention.work >= 7);
        assert_eq!(
            Part::ALL.map(|part| part as usize),
            std::array::from_fn(|i| i)
        );
    }
}

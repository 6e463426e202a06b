//! The thread pool: short parallel regions, hundreds of them per token. It is written by hand, not
//! on `rayon`, because a region lasts microseconds: waking sleeping workers through a general
//! scheduler would cost more than the work, and each thread must read neighbouring memory.
//!
//! A region is cut into chunks of fixed size, whatever the number of threads, so the bits of a
//! result do not depend on which thread computed them. Each thread begins with an equal share of
//! neighbouring chunks, since memory is read fastest from front to back, and takes them one by one;
//! a thread that has none left takes over half of another's. So a thread that a busy neighbour
//! holds up is relieved of its chunks, all but the one it is in. The caller is one of the threads.
//! Workers spin for some microseconds between regions and then sleep. While they spin they ask for
//! memory that they will read later ([`Pool::will_read`]).
//!
//! A region does not wait for workers that come late: workers enter through a gate, the caller
//! closes it when no chunk is left and waits only for those inside.

mod ahead;
mod cores;
mod slices;

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;

use self::ahead::{Ahead, Reader};
use self::slices::{Chunks, Tiles};
use crate::{Error, Result};

pub use self::cores::physical_cores;
pub use self::slices::Tile;

/// A set of threads that run the phases of a forward pass.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a region runs.
    region: Mutex<()>,
}

type Job<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    /// [`OPEN`] while a region takes workers, plus the number of workers inside.
    gate: AtomicUsize,
    /// Counts regions, so that a worker enters each only once.
    epoch: AtomicUsize,
    /// What the open region runs; written only while the gate is closed and nobody is inside.
    task: UnsafeCell<Option<&'static Job<'static>>>,
    /// The chunks that each thread has left.
    shares: Vec<Share>,
    /// What each thread will read.
    ahead: Vec<Ahead>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `task` is the only field that is not Sync; the gate orders its accesses as described
// there.
unsafe impl Sync for Shared {}
// SAFETY: the task is Sync, so a reference to it may be sent.
unsafe impl Send for Shared {}

const OPEN: usize = 1 << (usize::BITS - 1);
/// Rounds of waiting before a worker sleeps: some tens of microseconds.
const SPINS: u32 = 2000;

impl Pool {
    /// A pool of `threads` threads, the caller included; by default one per physical core.
    pub fn new(threads: Option<usize>) -> Result<Pool> {
        let threads = threads.unwrap_or_else(physical_cores).max(1);
        let shared = Arc::new(Shared {
            gate: AtomicUsize::new(0),
            epoch: AtomicUsize::new(0),
            task: UnsafeCell::new(None),
            shares: (0..threads).map(|_| Share::default()).collect(),
            ahead: (0..threads).map(|_| Ahead::default()).collect(),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = Pool {
            shared,
            workers: Vec::new(),
            region: Mutex::new(()),
        };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("sterna-{worker}"));
            let spawned = builder.spawn(move || shared.work(worker));
            pool.workers
                .push(spawned.map_err(|source| Error::Threads { threads, source })?);
        }
        Ok(pool)
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Says what a region reads soon: these slices, one after the other, in equal shares. Workers
    /// that wait ask for the beginning of theirs, so that memory does not rest while the caller
    /// computes alone.
    pub fn will_read(&self, slices: &[&[u8]]) {
        if !self.workers.is_empty() {
            ahead::share_out(&self.shared.ahead, slices);
        }
    }

    /// Calls `f(i)` for every i below `n`.
    pub fn for_each(&self, n: usize, f: impl Fn(usize) + Sync) {
        self.run(n, |_, i| f(i));
    }

    /// Calls `f(i, chunk i)` for the chunks of `len` elements of `out`; the last one may be
    /// shorter.
    pub fn chunks_mut<T: Send>(
        &self,
        out: &mut [T],
        len: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let chunks = Chunks::of(out, len);
        self.run(chunks.count(), |_, i| {
            // SAFETY: `run` passes each i below the count once.
            f(i, unsafe { chunks.chunk(i) })
        });
    }

    /// [`Pool::chunks_mut`] over two slices with equally many chunks.
    ///
    /// # Panics
    /// If one slice has more chunks than the other.
    pub fn zip_chunks_mut<A: Send, B: Send>(
        &self,
        (a, a_len): (&mut [A], usize),
        (b, b_len): (&mut [B], usize),
        f: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        let (a, b) = (Chunks::of(a, a_len), Chunks::of(b, b_len));
        assert_eq!(a.count(), b.count());
        self.run(a.count(), |_, i| {
            // SAFETY: `run` passes each i below the count once.
            let (a, b) = unsafe { (a.chunk(i), b.chunk(i)) };
            f(i, a, b);
        });
    }

    /// [`Pool::chunks_mut`] with working memory: each thread has its own equal part of `scratch`.
    pub fn chunks_mut_with<T: Send, S: Send>(
        &self,
        out: &mut [T],
        len: usize,
        scratch: &mut [S],
        f: impl Fn(usize, &mut [T], &mut [S]) + Sync,
    ) {
        let chunks = Chunks::of(out, len);
        let part = scratch.len() / self.threads();
        let scratch = Chunks::of(scratch, part.max(1));
        assert!(part > 0, "working memory for every thread");
        self.run(chunks.count(), |thread, i| {
            // SAFETY: `run` passes each i below the count once, and a thread runs one call at a
            // time.
            let (chunk, scratch) = unsafe { (chunks.chunk(i), scratch.chunk(thread)) };
            f(i, chunk, scratch);
        });
    }

    /// Cuts matrices of `rows` rows into tiles of `height` rows and `width` columns and calls
    /// `f(matrix, tile, scratch)` for each: several matrices in one region. Each thread has its own
    /// equal part of `scratch`.
    ///
    /// # Panics
    /// If a matrix is not a multiple of `rows` long.
    pub fn tiles_mut<T: Send, S: Send, const N: usize>(
        &self,
        rows: usize,
        (height, width): (usize, usize),
        matrices: [&mut [T]; N],
        scratch: &mut [S],
        f: impl Fn(usize, Tile<T>, &mut [S]) + Sync,
    ) {
        let matrices = matrices.map(|matrix| Tiles::of(matrix, rows, (height, width)));
        let part = scratch.len() / self.threads();
        let scratch = Chunks::of(scratch, part.max(1));
        assert!(part > 0, "working memory for every thread");
        let counts = matrices.each_ref().map(Tiles::count);
        self.run(counts.iter().sum(), |thread, mut i| {
            let mut matrix = 0;
            while i >= counts[matrix] {
                i -= counts[matrix];
                matrix += 1;
            }
            // SAFETY: `run` passes each i below the sum once, and a thread runs one call at a time.
            let (tile, scratch) = unsafe { (matrices[matrix].tile(i), scratch.chunk(thread)) };
            f(matrix, tile, scratch);
        });
    }

    /// Calls `f(thread, i)` for every i below `n`, each once.
    fn run(&self, n: usize, f: impl Fn(usize, usize) + Sync) {
        // A region inside a region, or beside one of another thread, runs on its caller alone.
        let region = match self.region.try_lock() {
            Ok(region) => Some(region),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if n <= 1 || self.workers.is_empty() || region.is_none() {
            return (0..n).for_each(|i| f(0, i));
        }
        let n = u32::try_from(n).expect("a region has fewer than 2³² chunks");
        let shares = &self.shared.shares;
        for (thread, share) in (0..).zip(shares) {
            let cut = |i: u64| (i * u64::from(n) / shares.len() as u64) as u32;
            share.set(cut(thread)..cut(thread + 1));
        }
        let claim = |thread: usize| {
            while let Some(i) = shares[thread].next().or_else(|| take_over(shares, thread)) {
                f(thread, i as usize);
            }
        };
        *lock(&self.shared.panic) = None;
        // SAFETY: this region's lock is held; `gate` closes before `claim` ends, also on unwinding.
        unsafe { self.shared.open(&claim) };
        let gate = CloseOnDrop(&self.shared);
        claim(0);
        drop(gate);
        if let Some(panic) = lock(&self.shared.panic).take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.next_epoch();
        for worker in self.workers.drain(..) {
            let joined = worker.join();
            debug_assert!(joined.is_ok(), "workers catch the panics of their tasks");
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_tuple("Pool").field(&self.threads()).finish()
    }
}

impl Shared {
    /// Opens a region.
    ///
    /// # Safety
    /// No other region is open, and `task` lives until [`Shared::close`] has returned.
    unsafe fn open(&self, task: &Job) {
        // SAFETY: only the lifetime changes. The reference is used by workers inside the gate
        // alone, and `close` waits for those.
        let task = unsafe { std::mem::transmute::<&Job, &'static Job<'static>>(task) };
        // SAFETY: the gate is closed and empty, so no worker reads the task.
        unsafe { *self.task.get() = Some(task) };
        self.gate.store(OPEN, Ordering::Release);
        self.next_epoch();
    }

    fn close(&self) {
        self.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while self.gate.load(Ordering::Acquire) != 0 {
            pause(&mut spins);
        }
    }

    fn next_epoch(&self) {
        // Sequentially consistent with `wait`: either the sleeper sees the epoch or we see the
        // sleeper.
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
    }

    fn work(&self, thread: usize) {
        let (mut seen, mut reader) = (0, Reader::default());
        loop {
            seen = self.wait(seen, || reader.ask(&self.ahead[thread]));
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if self.enter() {
                // SAFETY: inside the gate the task is set and stays.
                let task = unsafe { *self.task.get() }.expect("an open region has a task");
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(thread))) {
                    *lock(&self.panic) = Some(panic);
                }
                self.gate.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Whether the gate was open and this worker is now inside.
    fn enter(&self) -> bool {
        let inside = |gate| (gate & OPEN != 0).then_some(gate + 1);
        self.gate
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, inside)
            .is_ok()
    }

    /// Waits for an epoch other than `seen`. Meanwhile `ask` asks for memory, and returns whether
    /// there is more to ask for.
    fn wait(&self, seen: usize, mut ask: impl FnMut() -> bool) -> usize {
        for _ in 0..SPINS {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != seen {
                return epoch;
            }
            if !ask() {
                std::hint::spin_loop();
            }
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut guard = lock(&self.sleep);
        let epoch = loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != seen {
                break epoch;
            }
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        };
        drop(guard);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        epoch
    }
}

/// A range of chunks that one thread takes from the front and others cut at the end: its start in
/// the high and its end in the low half. Shares of different threads lie in different cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Share(AtomicU64);

impl Share {
    fn set(&self, range: Range<u32>) {
        let packed = u64::from(range.start) << 32 | u64::from(range.end);
        self.0.store(packed, Ordering::Relaxed);
    }

    fn unpack(packed: u64) -> Range<u32> {
        (packed >> 32) as u32..packed as u32
    }

    /// Takes the first chunk.
    fn next(&self) -> Option<u32> {
        let rest = |packed| (!Share::unpack(packed).is_empty()).then(|| packed + (1 << 32));
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        taken.ok().map(|packed| Share::unpack(packed).start)
    }

    /// Takes the second half, the larger one.
    fn take_half(&self) -> Option<Range<u32>> {
        let mut half = 0..0;
        let first = |packed| {
            let Range { start, end } = Share::unpack(packed);
            half = start + (end - start.min(end)) / 2..end;
            (!half.is_empty()).then(|| packed - u64::from(end) + u64::from(half.start))
        };
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, first);
        taken.is_ok().then_some(half)
    }
}

/// Makes half of the first share that is not empty this thread's own and takes its first chunk.
fn take_over(shares: &[Share], thread: usize) -> Option<u32> {
    let others = (1..shares.len()).map(|i| &shares[(thread + i) % shares.len()]);
    let half = others.into_iter().find_map(Share::take_half)?;
    shares[thread].set(half.start + 1..half.end);
    Some(half.start)
}

/// Ends a region, also when the caller's own chunk panics.
struct CloseOnDrop<'a>(&'a Shared);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Locks; what these mutexes guard stays valid when a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spins at first, then lets others run: the thread that is waited for may not have a core.
fn pause(spins: &mut u32) {
    *spins += 1;
    if *spins < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(visits: &AtomicUsize) {
        visits.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn every_chunk_is_visited_once_whatever_the_number_of_threads() {
        for threads in 1..5 {
            let pool = Pool::new(Some(threads)).unwrap();
            for n in [0, 1, 2, 7, 100] {
                let mut out = vec![0; n];
                for _ in 0..50 {
                    pool.chunks_mut(&mut out, 3, |i, chunk| {
                        chunk.iter_mut().for_each(|x| *x += i + 1);
                    });
                }
                let expected: Vec<usize> = (0..n).map(|i| 50 * (i / 3 + 1)).collect();
                assert_eq!(out, expected, "{threads} threads");
            }
        }
    }

    #[test]
    fn tiles_of_several_matrices() {
        let pool = Pool::new(Some(3)).unwrap();
        for height in [1, 3, 4, 9] {
            let (mut a, mut b) = (vec![0; 4 * 10], vec![0; 4 * 3]);
            let matrices = [&mut a[..], &mut b[..]];
            pool.tiles_mut(
                4,
                (height, 4),
                matrices,
                &mut [0; 3],
                |matrix, mut tile, scratch| {
                    for t in tile.rows() {
                        scratch[0] = 1000 * (matrix + 1) + 100 * t;
                        let columns = tile.columns();
                        for (x, c) in tile.row(t).iter_mut().zip(columns) {
                            *x += scratch[0] + c;
                        }
                    }
                },
            );
            assert!(
                (0..40).all(|i| a[i] == 1000 + 100 * (i / 10) + i % 10),
                "{a:?}"
            );
            assert!(
                (0..12).all(|i| b[i] == 2000 + 100 * (i / 3) + i % 3),
                "{b:?}"
            );
        }
    }

    #[test]
    fn two_slices_and_working_memory() {
        let pool = Pool::new(Some(2)).unwrap();
        let (mut a, mut b) = (vec![0; 9], vec![0; 3]);
        pool.zip_chunks_mut((&mut a, 3), (&mut b, 1), |i, a, b| {
            a.fill(i);
            b[0] = 10 * i;
        });
        assert_eq!((a, b), (vec![0, 0, 0, 1, 1, 1, 2, 2, 2], vec![0, 10, 20]));
        let mut sums = vec![0; 20];
        pool.chunks_mut_with(&mut sums, 1, &mut [0; 8], |i, sum, scratch| {
            scratch.fill(i);
            sum[0] = scratch.iter().sum();
        });
        assert!(sums.iter().enumerate().all(|(i, sum)| *sum == 4 * i));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(Some(3)).unwrap();
        for bad in 0..20 {
            let run = || pool.for_each(20, |i| assert!(i != bad, "chunk {bad}"));
            let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(
                panic.downcast_ref::<String>(),
                Some(&format!("chunk {bad}"))
            );
        }
        let visits = AtomicUsize::new(0);
        pool.for_each(20, |_| count(&visits));
        assert_eq!(visits.into_inner(), 20);
    }

    #[test]
    fn regions_inside_and_beside_regions() {
        let pool = Pool::new(Some(3)).unwrap();
        let visits = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.for_each(5, |_| {
                            pool.for_each(2, |_| count(&visits));
                        });
                    }
                });
            }
        });
        assert_eq!(visits.into_inner(), 4 * 100 * 10);
    }

    #[test]
    fn sleeping_workers_are_woken() {
        let pool = Pool::new(Some(2)).unwrap();
        for _ in 0..3 {
            // Each of two chunks waits for the other, so both threads must take part.
            while pool.shared.sleepers.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let barrier = std::sync::Barrier::new(2);
            pool.for_each(2, |_| {
                barrier.wait();
            });
        }
    }

    #[test]
    fn there_is_at_least_one_core() {
        assert!(physical_cores() >= 1);
        assert_eq!(Pool::new(Some(0)).unwrap().threads(), 1);
    }
}

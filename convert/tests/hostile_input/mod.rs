//! Reads and damages hostile files, and limits the time and memory that one may take.
#![allow(dead_code)] // each test binary uses a part

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sterna_convert::{Error, open};
use sterna_ternary::layout::{self, Role};
use tempfile::TempDir;

use crate::checkpoint::Random;

/// What a hostile file may take beside its own size.
const MEMORY: usize = 16 << 20;
const TIME: Duration = Duration::from_millis(100);

/// Time of this thread on a processor, so that other programs do not count; by the clock where the
/// system does not tell.
fn time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let mut text = [0; 64];
    let file = File::open("/proc/thread-self/schedstat");
    let read = file.and_then(|mut file| file.read(&mut text)).unwrap_or(0);
    let text = str::from_utf8(&text[..read]).unwrap_or("");
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok());
    nanoseconds.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

/// Runs `f` on an input of `bytes` bytes. Fails if it takes too much memory, or too much time in
/// each of three tries, because a machine may pause.
pub fn watched<T>(name: &str, bytes: usize, f: impl Fn() -> T) -> T {
    let mut tries = 0;
    loop {
        let (mut result, start) = (None, time());
        // The memory of this thread. No other thread reads.
        let memory = allocation_counter::measure(|| result = Some(f())).bytes_max;
        let time = time() - start;
        assert!(
            memory <= (bytes + MEMORY) as u64,
            "{name}: {memory} bytes for {bytes}"
        );
        tries += 1;
        if time <= TIME {
            return result.expect("it ran");
        }
        assert!(tries < 3, "{name}: {time:?}");
    }
}

/// A place for files: memory is faster than a disk, where there is such a place.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Place(folder.unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}

/// Opens a model as the command line does and reads all of it.
pub fn read(path: &Path) -> Result<(), Error> {
    let source = open(path, true)?;
    for weight in layout::weights(source.config()) {
        match weight.role {
            Role::Linear if source.is_dense() => drop(source.dense(&weight)?),
            Role::Linear => drop(source.linear(&weight)?),
            Role::Norm => drop(source.vector(&weight)?),
            Role::Table => {
                let mut values = vec![0.0; weight.rows * weight.columns];
                source.rows(&weight, 0, &mut values)?;
            }
        }
    }
    Ok(())
}

/// What is wrong with a refusal: a part that it lacks, too much text, or text that steers a
/// terminal.
pub fn complaint(name: &str, result: Result<(), Error>, parts: &[&str]) -> Option<String> {
    let error = result.err().map_or("nothing".into(), |e| e.to_string());
    if let Some(part) = parts.iter().find(|part| !error.contains(**part)) {
        return Some(format!("{name}: {part:?} is not in: {error}"));
    }
    let plain = error.len() <= 2000 && !error.chars().any(char::is_control);
    (!plain).then(|| format!("{name}: {error:?}"))
}

/// Overwrites, repeats, removes or swaps some bytes, mostly near the start, in the header.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut below = |n: usize| (random.next() * n as f32) as usize;
    for _ in 0..1 + below(4) {
        let reach = [64, 512, 2048, bytes.len()][below(4)].min(bytes.len());
        let at = below(reach.max(1)).min(bytes.len().saturating_sub(1));
        let len = (1 + below(8)).min(bytes.len() - at);
        match below(7) {
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at..at + len].fill([0, 1, 0x7f, 0x80, 0xff][below(5)]),
            2 => drop(bytes.drain(at..at + len)),
            3 => {
                let part = bytes[at..at + len].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let to = below(bytes.len() - len + 1);
                bytes.copy_within(at..at + len, to);
            }
            5 => bytes[at..at + len].fill(b"0189-[{}]\",:.eE"[below(15)]),
            _ => bytes[at] = below(256) as u8,
        }
        if bytes.is_empty() {
            return;
        }
    }
}

/// Runs `turn` with the numbers `0..all` on two threads, each with its own place and random stream.
/// Returns the number of turns that gave true.
pub fn turns(all: usize, turn: impl Fn(usize, &Place, &mut Random) -> bool + Sync) -> usize {
    const THREADS: usize = 2;
    let run = |thread: usize| {
        let (place, mut random) = (Place::new(), Random(thread as u64 + 1));
        let mine = (0..all).skip(thread).step_by(THREADS);
        mine.filter(|i| turn(*i, &place, &mut random)).count()
    };
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..THREADS).map(|t| scope.spawn(move || run(t))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    })
}

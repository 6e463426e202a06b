//! The program `sterna`.

use std::process::ExitCode;

/// musl's own allocator takes one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // SAFETY: no other thread runs yet. `sterna::run` says what reads the variable.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    run().into()
}

#[cfg(not(windows))]
fn run() -> u8 {
    sterna::run(std::env::args_os().skip(1))
}

/// The first thread of Windows has a stack of 1 or 2 MiB, the others have what is asked for. Linux
/// gives 8 MiB.
#[cfg(windows)]
fn run() -> u8 {
    let run = || sterna::run(std::env::args_os().skip(1));
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(run);
    let joined = thread.expect("a process can begin a thread").join();
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

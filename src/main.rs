//! The program `sterna`.

use std::process::ExitCode;

/// musl's own allocator takes one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // SAFETY: no other thread runs yet. `sterna::run` says what reads the variable.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    sterna::run(std::env::args_os().skip(1)).into()
}

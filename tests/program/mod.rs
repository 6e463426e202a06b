//! The program under test, run as people run it.
#![allow(dead_code)] // each test binary uses a part

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub fn sterna(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_sterna");
    Command::new(program).args(args).output().unwrap()
}

/// Runs a command that must succeed and returns its stdout.
pub fn stdout(args: &[&str]) -> String {
    let output = sterna(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sterna {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one JSON object that a command prints.
pub fn json(args: &[&str]) -> Value {
    serde_json::from_str(stdout(args).trim()).unwrap()
}

/// Runs a command that must end with this exit code and an error, and returns what it says.
pub fn refused(code: i32, args: &[&str]) -> String {
    let output = sterna(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(code),
        "sterna {args:?}: {stderr}"
    );
    let is_error = |line: &str| line.starts_with("error: ");
    assert!(
        stderr.lines().any(is_error) && !stderr.contains("panicked"),
        "{stderr}"
    );
    stderr
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file or folder of `tests/fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures").join(name)
}

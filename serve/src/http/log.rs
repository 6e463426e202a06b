//! The log of requests and answers: one JSON object per line, which `replay` can compute again.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::answers::Answers;
use super::error::{ApiError, ApiResult};
use super::job::Job;

/// A log of requests. Prompts and answers are in it, and no keys.
#[derive(Debug)]
pub struct RequestLog(Mutex<File>);

impl RequestLog {
    /// Appends to a file, which only its owner can read if it is new.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: &Path) -> io::Result<RequestLog> {
        let mut options = File::options();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(RequestLog(Mutex::new(options.open(path)?)))
    }

    /// Writes a request and its answer.
    ///
    /// # Errors
    /// 500: an answer that cannot be logged is not given.
    pub fn write(&self, job: &Job, answers: &Answers) -> ApiResult<()> {
        let line = entry(job, answers).to_string() + "\n";
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.write_all(line.as_bytes());
        written.map_err(|error| ApiError::internal(format!("the log of requests: {error}")))
    }
}

/// The line of a request.
pub fn entry(job: &Job, answers: &Answers) -> Value {
    json!({
        "fingerprint": job.served.fingerprint,
        "model": job.served.name,
        "route": job.route,
        "body": job.body,
        "answer": answers.promised(),
    })
}

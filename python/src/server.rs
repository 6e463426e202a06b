//! `Server`: a server in threads of this process.

use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use sterna::library::Serving;

use crate::errors::{Fault, Kind};

/// How often Ctrl-C is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A server that answers over HTTP, in threads of this process.
#[pyclass(frozen, module = "sterna")]
pub struct Server {
    /// Empty after `stop`.
    serving: Mutex<Option<sterna_serve::http::Server>>,
    address: SocketAddr,
    names: Vec<String>,
    /// A fork has none of its threads.
    process: u32,
}

impl Server {
    pub fn new(serving: Serving) -> Server {
        Server {
            address: serving.server.address(),
            names: serving.names,
            serving: Mutex::new(Some(serving.server)),
            process: std::process::id(),
        }
    }

    fn take(&self) -> Option<sterna_serve::http::Server> {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        serving.take()
    }
}

#[pymethods]
impl Server {
    /// Its address, like http://127.0.0.1:8080.
    #[getter]
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address it listens on.
    #[getter]
    fn host(&self) -> String {
        self.address.ip().to_string()
    }

    /// The port.
    #[getter]
    fn port(&self) -> u16 {
        self.address.port()
    }

    /// The names of the models.
    #[getter]
    fn models(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Waits for answers in progress and ends the server.
    ///
    /// Returns the number of requests that took too long and were cut off. A second call does
    /// nothing.
    fn stop(&self, py: Python<'_>) -> PyResult<usize> {
        if std::process::id() != self.process {
            let why = "the server runs in the process that started it, which was forked";
            return Err(Fault::closed(why).into());
        }
        let Some(server) = self.take() else {
            return Ok(0);
        };
        let drain = server.drain();
        drain.begin();
        let (end, mut ended) = channel();
        let thread = std::thread::Builder::new().name("sterna-stop".into());
        let started = thread.spawn(move || end.send(server.wait()));
        started.map_err(|error| Fault::new(Kind::Error, format!("stopping: {error}")))?;
        loop {
            // A receiver belongs to one thread at a time, and so does a unique reference to it.
            let receiver = &mut ended;
            match py.detach(move || receiver.recv_timeout(LOOK)) {
                Ok(cut) => return Ok(cut),
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
    }

    /// The server itself.
    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    /// Stops the server.
    #[pyo3(signature = (exc_type, exc, traceback))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_type, exc, traceback);
        self.stop(py).map(|_| ())
    }

    fn __repr__(&self) -> String {
        format!("Server({})", self.url())
    }
}

impl Drop for Server {
    /// Ends the server in a thread of its own: a program that forgets it does not wait.
    fn drop(&mut self) {
        let Some(server) = self.take() else {
            return;
        };
        match std::process::id() == self.process {
            true => {
                server.drain().begin();
                let thread = std::thread::Builder::new().name("sterna-stop".into());
                // Without a thread the server ends at once.
                let _at_once = thread.spawn(move || server.wait());
            }
            false => std::mem::forget(server),
        }
    }
}

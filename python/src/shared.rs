//! A model in memory with its engine, which all objects made from it share.

use std::ops::Deref;
use std::sync::Arc;

use pyo3::prelude::*;
use sterna_serve::http::Served;

use crate::errors::Fault;

/// A model and its engine. The last handle ends the engine.
pub struct Shared {
    /// Empty only while it is dropped.
    served: Option<Arc<Served>>,
    /// The process that opened the model. A fork has its memory and none of its threads.
    process: u32,
}

impl Shared {
    pub fn new(served: Served) -> Shared {
        Shared {
            served: Some(Arc::new(served)),
            process: std::process::id(),
        }
    }

    /// Refuses what needs threads in a process that has none of them.
    pub fn check_process(&self) -> Result<(), Fault> {
        match std::process::id() == self.process {
            true => Ok(()),
            false => Err(Fault::closed(
                "the model was opened before this process was forked, and the threads of a model \
                 do not survive that; open it in each process",
            )),
        }
    }
}

impl Deref for Shared {
    type Target = Served;

    fn deref(&self) -> &Served {
        self.served.as_deref().expect("it is there until the drop")
    }
}

impl Clone for Shared {
    fn clone(&self) -> Shared {
        Shared {
            served: self.served.clone(),
            process: self.process,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(served) = self.served.take() else {
            return;
        };
        if std::process::id() != self.process {
            // It would wait for threads that are not there.
            std::mem::forget(served);
        } else if Arc::strong_count(&served) > 1 {
            drop(served);
        } else {
            // The engine ends its step first; other threads of Python go on meanwhile.
            let mut served = Some(served);
            Python::try_attach(|py| py.detach(|| drop(served.take())));
        }
    }
}

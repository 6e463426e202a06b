//! The page of `--watch`.

use std::path::Path;

use sterna_train::{Feed, Run};

/// Opens a page about a run; returns what fills its curves, and the page. If it cannot be opened,
/// training goes on without it, after a warning.
#[cfg(feature = "serve")]
pub fn open(port: u16, run: &Run, folder: &Path) -> Option<(Feed, sterna_serve::http::Live)> {
    let (feed, mut curves) = sterna_train::curves(folder, run.recipe().train.steps);
    match sterna_serve::http::Live::open(port, move || curves.json()) {
        Ok(live) => {
            crate::output::note!("watch at http://{}/", live.address());
            Some((feed, live))
        }
        Err(error) => {
            crate::output::warning!("no page to watch: {error}; training goes on without");
            None
        }
    }
}

/// Nothing, since `--watch` was refused.
#[cfg(not(feature = "serve"))]
pub fn open(_: u16, _: &Run, _: &Path) -> Option<(Feed, ())> {
    None
}

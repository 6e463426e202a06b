//! `/local`: a page that runs the models in the browser, and their packed files for it.
//!
//! The page is a folder that `web/build` makes, because WebAssembly needs a compiler of its own.
//! The routes are off unless the operator names the folder: with them, weights leave the server.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use super::app::App;
use super::error::{ApiError, ApiResult};
use super::reply;
use super::served::Served;

/// The files of the page and their media types.
const FILES: [(&str, &str); 6] = [
    ("index.html", "text/html; charset=utf-8"),
    ("page.js", "text/javascript; charset=utf-8"),
    ("sterna.js", "text/javascript; charset=utf-8"),
    ("sterna.wasm", "application/wasm"),
    ("style.css", "text/css; charset=utf-8"),
    ("worker.js", "text/javascript; charset=utf-8"),
];
/// What the page may do: run its own files, and read models from any address.
const POLICY: &str = "default-src 'none'; connect-src *; img-src data:; style-src 'self'; \
                      script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
/// What a name of a model ends with in addresses.
const END: &str = ".sterna";

/// The page.
#[derive(Debug)]
pub struct LocalPage([Bytes; FILES.len()]);

/// A folder that is not the page.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}: {source}; the folder of --local is what `web/build` of the repository makes, \
     target/web"
)]
pub struct BadPage {
    file: String,
    source: std::io::Error,
}

impl LocalPage {
    /// Reads the files of a folder.
    ///
    /// # Errors
    /// The first one that cannot be read.
    pub fn read(folder: &Path) -> Result<LocalPage, BadPage> {
        let mut files = [const { Bytes::new() }; FILES.len()];
        for (file, (name, _)) in files.iter_mut().zip(FILES) {
            let path = folder.join(name);
            *file = std::fs::read(&path).map(Bytes::from).map_err(|source| {
                let file = path.display().to_string();
                BadPage { file, source }
            })?;
        }
        Ok(LocalPage(files))
    }
}

fn of(app: &App) -> ApiResult<&LocalPage> {
    let page = app.settings.local.as_ref();
    page.ok_or_else(ApiError::no_local_page)
}

/// Leads to the page, whose files are beside it.
///
/// # Errors
/// 404 where it is off.
pub fn page(app: &App) -> ApiResult<Response> {
    of(app)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static("local/"));
    Ok(response)
}

/// A file of the page, one of [`FILES`].
///
/// # Errors
/// 404 where it is off.
pub fn file(app: &App, name: &str) -> ApiResult<Response> {
    let mut files = FILES.iter().zip(&of(app)?.0);
    let file = files.find(|((known, _), _)| *known == name);
    let ((_, media), bytes) = file.expect("a route names a file of the page");
    let mut response = reply::of_type(StatusCode::OK, media, bytes.clone());
    let headers = response.headers_mut();
    let mut say = |name, value| headers.insert(name, HeaderValue::from_static(value));
    say(header::CONTENT_SECURITY_POLICY, POLICY);
    say(header::REFERRER_POLICY, "no-referrer");
    // Files of two versions do not fit together.
    say(header::CACHE_CONTROL, "no-cache");
    Ok(response)
}

/// The models that the page can load.
///
/// # Errors
/// 404 where it is off, 503.
pub fn models(app: &App) -> ApiResult<Response> {
    of(app)?;
    let models = app.models()?.iter().map(|served| {
        json!({
            "name": served.name,
            "address": format!("models/{}{END}", escaped(&served.name)),
            "bytes": served.model.file().len(),
            "fingerprint": served.fingerprint,
        })
    });
    let models: Value = models.collect();
    Ok(reply::json(StatusCode::OK, &models))
}

/// The packed file of a model.
///
/// # Errors
/// 404, 503.
pub fn model(app: &App, name: &str) -> ApiResult<Response> {
    of(app)?;
    let name = name.strip_suffix(END).unwrap_or(name);
    let whole = Whole(Arc::clone(app.named(name)?));
    let bytes = Bytes::from_owner(whole);
    let media = "application/octet-stream";
    Ok(reply::of_type(StatusCode::OK, media, bytes))
}

/// The file of a model, sent from where it lies in memory.
struct Whole(Arc<Served>);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self.0.model.file().as_bytes()
    }
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let bytes = name.bytes().map(|byte| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_paths() {
        assert_eq!(escaped("org/a b-1.5é"), "org%2Fa%20b-1.5%C3%A9");
    }

    #[test]
    fn a_folder_without_the_page_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), "").unwrap();
        let error = LocalPage::read(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("page.js") && error.contains("web/build"),
            "{error}"
        );
    }
}

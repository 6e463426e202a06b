//! What all connections share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};

use super::body::LARGE_BODIES;
use super::error::{ApiError, ApiResult};
use super::served::Served;
use super::settings::Settings;

/// Requests that are read, templates and tokenizers at work, at the same time.
const READERS: usize = 2;
/// Longest time of one step of an engine.
const STUCK: Duration = Duration::from_secs(30);

/// What all connections share.
pub struct App {
    /// What the operator chose.
    pub settings: Settings,
    /// When the server started, as seconds since 1970.
    pub started: u64,
    models: OnceLock<Vec<Arc<Served>>>,
    is_draining: AtomicBool,
    /// Requests that are being answered.
    requests: Arc<watch::Sender<usize>>,
    readers: Semaphore,
    large_bodies: Arc<Semaphore>,
    /// Replies by route and status.
    replies: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl App {
    /// A server without models.
    pub fn new(settings: Settings) -> App {
        App {
            settings,
            started: super::clock::unix(),
            models: OnceLock::new(),
            is_draining: AtomicBool::new(false),
            requests: Arc::default(),
            readers: Semaphore::new(READERS),
            large_bodies: Arc::new(Semaphore::new(LARGE_BODIES)),
            replies: Mutex::default(),
        }
    }

    /// Answers requests for these models from now on. Models that came before stay.
    pub fn serve(&self, models: Vec<Served>) {
        self.models
            .get_or_init(|| models.into_iter().map(Arc::new).collect());
    }

    /// The models.
    ///
    /// # Errors
    /// 503 while they are loaded.
    pub fn models(&self) -> ApiResult<&[Arc<Served>]> {
        let models = self.models.get().map(Vec::as_slice);
        models.ok_or_else(|| ApiError::unavailable("loading", "the model is being loaded"))
    }

    /// The model that a request names, or the only one.
    ///
    /// # Errors
    /// 400 and 404.
    pub fn model(&self, body: &Map<String, Value>) -> ApiResult<&Arc<Served>> {
        match body.get("model") {
            None | Some(Value::Null) => {
                let models = self.models()?;
                if models.len() == 1 {
                    return Ok(&models[0]);
                }
                let known = self.names().join(", ");
                let message = format!("model is missing, expected one of {known}");
                Err(ApiError::invalid("model", message))
            }
            Some(Value::String(name)) => self.named(name),
            Some(other) => Err(super::read::wrong("model", other, "a string")),
        }
    }

    /// The model of a name.
    ///
    /// # Errors
    /// 404.
    pub fn named(&self, name: &str) -> ApiResult<&Arc<Served>> {
        let models = self.models()?;
        // Ollama's clients add the tag that stands for any.
        let bare = name.strip_suffix(":latest").unwrap_or(name);
        for name in [name, bare] {
            if let Some(found) = models.iter().find(|model| model.name == name) {
                return Ok(found);
            }
        }
        match models {
            [only] if self.settings.any_model => Ok(only),
            _ => Err(ApiError::model(name, &self.names())),
        }
    }

    fn names(&self) -> Vec<&str> {
        let models = self.models.get().into_iter().flatten();
        models.map(|model| &*model.name).collect()
    }

    /// Refuses new work from now on.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether new work is refused.
    ///
    /// # Errors
    /// 503.
    pub fn check_open(&self) -> ApiResult<()> {
        match self.is_draining.load(Ordering::Relaxed) {
            true => {
                let message = "the server shuts down and takes no new requests";
                Err(ApiError::unavailable("draining", message))
            }
            false => Ok(()),
        }
    }

    /// Refuses where an engine has not begun a step for a long time.
    ///
    /// # Errors
    /// 503.
    pub fn check_alive(&self) -> ApiResult<()> {
        let mut models = self.models.get().into_iter().flatten();
        match models.find(|model| !model.engine.load().is_alive(STUCK)) {
            None => Ok(()),
            Some(model) => {
                let message = format!("the engine of {} has stopped", model.name);
                Err(ApiError::unavailable("stuck", &message))
            }
        }
    }

    /// Counts a request as being answered until the result is dropped.
    pub fn begin(&self) -> InFlight {
        self.requests.send_modify(|count| *count += 1);
        InFlight(Arc::clone(&self.requests))
    }

    /// Waits until no request is being answered.
    pub async fn finished(&self) {
        let mut requests = self.requests.subscribe();
        // `self` has the sender, so there is no error.
        let _zero = requests.wait_for(|count| *count == 0).await;
    }

    /// Requests that are being answered.
    pub fn in_flight(&self) -> usize {
        *self.requests.borrow()
    }

    /// Ends what the engines compute.
    pub fn stop(&self) {
        let models = self.models.get().into_iter().flatten();
        models.for_each(|model| model.engine.stop());
    }

    /// Reads a request on a thread that may be busy for long, of which there are few.
    ///
    /// # Errors
    /// Those of `read`, and 500 where it panics.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        let permit = self.readers.acquire().await;
        let result = tokio::task::spawn_blocking(read).await;
        drop(permit);
        result.unwrap_or_else(|_| Err(ApiError::internal("reading the request failed")))
    }

    /// Places of large bodies.
    pub fn large_bodies(&self) -> Arc<Semaphore> {
        Arc::clone(&self.large_bodies)
    }

    /// Counts a reply.
    pub fn count(&self, route: &'static str, status: u16) {
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        *replies.entry((route, status)).or_default() += 1;
    }

    /// Replies by route and status.
    pub fn replies(&self) -> BTreeMap<(&'static str, u16), u64> {
        let replies = self.replies.lock();
        replies.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A request that is being answered.
pub struct InFlight(Arc<watch::Sender<usize>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

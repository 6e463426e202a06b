//! Requests to the hub: redirects, the token and retries.
//!
//! `hf_hub` makes the addresses and the request for the description of a repository. This file
//! follows redirects itself, for two reasons: the token must go only to the endpoint's own origin,
//! and the hash of a file in large storage is a header of the redirect that leads away from the
//! hub.

use std::io::Read;
use std::time::Duration;

use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::{HeaderMap, Response, StatusCode, Uri, header};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, Proxy, RequestBuilder};

use super::hash::Hash;
use super::listing::Listing;
use super::name::Name;
use super::settings::HubSettings;
use super::{Error, Progress, Result};

/// Successive attempts without progress before an error.
pub const TRIES: u32 = 5;
/// A longer wait is an error. The hub counts requests in windows of five minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
const REDIRECTS: usize = 6;
/// Limit of the bytes of a description; the largest repositories need less.
const LONGEST_REPLY: u64 = 64 << 20;
/// Everything that is not plain in a path is percent-encoded; in names of files a slash is plain.
const IN_REVISION: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
const IN_FILE: &AsciiSet = &IN_REVISION.remove(b'/');

pub struct Client<'a> {
    api: Api,
    /// Fetches files. The agent of `api` follows redirects and is not public.
    agent: Agent,
    pub proxy: Option<Proxy>,
    endpoint: String,
    token: Option<String>,
    pub progress: &'a dyn Progress,
    pub pause: fn(Duration),
}

/// A successful reply: its headers, and its body to be read.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The hash of the content according to the endpoint, even if another server sends the content.
    pub hash: Option<Hash>,
    pub body: Body,
}

/// Why an attempt gave no result.
pub enum Failure {
    /// Another attempt would fail too.
    Final(Box<Error>),
    /// Another attempt may succeed.
    Again(Box<Again>),
}

pub struct Again {
    /// The error if no later attempt succeeds.
    pub error: Error,
    /// The cause, as a message for the user.
    pub note: String,
    /// How long the server asks to wait.
    pub after: Option<Duration>,
    /// Whether the attempt received a part of the content.
    pub progress: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Final(Box::new(error))
    }
}

impl Again {
    fn failure(error: Error, note: String, after: Option<Duration>) -> Failure {
        Failure::Again(Box::new(Again {
            error,
            note,
            after,
            progress: false,
        }))
    }
}

impl<'a> Client<'a> {
    pub fn new(settings: &HubSettings, progress: &'a dyn Progress) -> Client<'a> {
        let api = ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_user_agent("sterna", env!("CARGO_PKG_VERSION"));
        Client {
            api: api.build().expect("only native TLS can fail here"),
            agent: Agent::new_with_defaults(),
            proxy: Proxy::try_from_env(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            progress,
            pause: std::thread::sleep,
        }
    }

    /// The commit of a revision, and its files.
    pub fn revision(&self, name: &Name) -> Result<(String, Listing)> {
        let revision = utf8_percent_encode(name.revision(), IN_REVISION).to_string();
        let repo = name.kind.repo(&name.repo, &revision);
        let url = format!("{}/api/{}", self.endpoint, repo.api_url());
        let repo = self.api.repo(repo);
        let json = self.persist(|| {
            let request = repo.info_request().query("blobs", "true");
            let reply = self.follow(url.clone(), request, 0, name)?;
            let mut json = Vec::new();
            match reply
                .body
                .into_reader()
                .take(LONGEST_REPLY)
                .read_to_end(&mut json)
            {
                Ok(_) => Ok(json),
                Err(e) => Err(self.unreachable(&url, e.to_string(), true)),
            }
        })?;
        Listing::from_reply(&json).map_err(|why| Error::Reply { url, why })
    }

    /// The address of a file of a commit.
    pub fn url(&self, name: &Name, commit: &str, file: &str) -> String {
        let repo = self.api.repo(name.kind.repo(&name.repo, commit));
        repo.url(&utf8_percent_encode(file, IN_FILE).to_string())
    }

    /// Calls `attempt` until it succeeds, fails for good, or makes no progress [`TRIES`] times in a
    /// row.
    pub fn persist<T>(
        &self,
        mut attempt: impl FnMut() -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut fruitless = 0;
        loop {
            let failed = match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(*error),
                Err(Failure::Again(failed)) => *failed,
            };
            fruitless = if failed.progress { 0 } else { fruitless + 1 };
            let back_off = Duration::from_secs((1 << fruitless) / 2); // 0, 1, 2, 4, 8
            let wait = failed.after.unwrap_or(back_off);
            if fruitless == TRIES || wait > LONGEST_WAIT {
                return Err(failed.error);
            }
            self.progress.say(&format!(
                "{}; trying again{}",
                failed.note,
                in_seconds(wait)
            ));
            (self.pause)(wait);
        }
    }

    /// Requests the content of `url` from byte `from` on, and follows redirects.
    pub fn get(&self, url: &str, from: u64, name: &Name) -> std::result::Result<Reply, Failure> {
        self.follow(url.to_owned(), self.request(url, from), from, name)
    }

    /// A request for a file, with the token if the address is the endpoint's.
    fn request(&self, url: &str, from: u64) -> RequestBuilder<WithoutBody> {
        let mut request = self.agent.get(url);
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        match &self.token {
            Some(token) if self.is_endpoint(url) => {
                request.header(header::AUTHORIZATION, format!("Bearer {token}"))
            }
            _ => request,
        }
    }

    fn is_endpoint(&self, url: &str) -> bool {
        origin(url).is_some() && origin(url) == origin(&self.endpoint)
    }

    /// Sends `request`, which is for `url`, and a further one for each redirect.
    fn follow(
        &self,
        mut url: String,
        mut request: RequestBuilder<WithoutBody>,
        from: u64,
        name: &Name,
    ) -> std::result::Result<Reply, Failure> {
        let mut hash = None;
        for _ in 0..REDIRECTS {
            let is_endpoint = self.is_endpoint(&url);
            let reply = patient(request, self.proxy.clone()).call();
            let reply = reply.map_err(|e| self.transport(&url, &e))?;
            let status = reply.status();
            if is_endpoint {
                hash = hash.or_else(|| announced(reply.headers(), status.is_success()));
            }
            if status.is_redirection() {
                let why = |why: &str| Error::Reply {
                    url: bare(&url),
                    why: why.into(),
                };
                let next = text(reply.headers(), "location").and_then(|to| join(&url, to));
                let next = next.ok_or_else(|| why("a redirect to nowhere"))?;
                if url.starts_with("https:") && !next.starts_with("https:") {
                    return Err(why("a redirect from https to http").into());
                }
                request = self.request(&next, from);
                url = next;
            } else if status.is_success() {
                let (parts, body) = reply.into_parts();
                let headers = parts.headers;
                return Ok(Reply {
                    status,
                    headers,
                    hash,
                    body,
                });
            } else {
                return Err(self.status(&url, is_endpoint, reply, name));
            }
        }
        let why = format!("more than {REDIRECTS} redirects");
        Err(Error::Reply {
            url: bare(&url),
            why,
        }
        .into())
    }

    /// The error that a status other than success means.
    fn status(&self, url: &str, is_endpoint: bool, reply: Response<Body>, name: &Name) -> Failure {
        let status = reply.status();
        let headers = reply.headers().clone();
        let said = text(&headers, "x-error-message")
            .map(str::to_owned)
            .or_else(|| json_error(reply));
        let why = match said {
            Some(message) => format!("{}, {}", status.as_u16(), message.escape_debug()),
            None => format!("{status}"),
        };
        let host = host(url);
        let code = text(&headers, "x-error-code").unwrap_or_default();
        match status.as_u16() {
            429 => {
                let after = retry_after(&headers);
                let wait = after.map_or("a while".into(), |a| format!("{} s", a.as_secs()));
                let note = format!("{host}: too many requests");
                let error = Error::RateLimited { host, wait };
                Again::failure(error, note, after)
            }
            408 | 500..=599 => {
                let note = format!("{host}: {why}");
                Again::failure(Error::Server { host, why }, note, retry_after(&headers))
            }
            404 if is_endpoint && code == "RevisionNotFound" => Error::NoRevision {
                repo: name.repo.clone(),
                revision: name.revision().to_owned(),
                page: self.page(name),
            }
            .into(),
            404 if is_endpoint && code != "EntryNotFound" => Error::Absent {
                kind: name.kind,
                repo: name.repo.clone(),
                endpoint: self.endpoint.clone(),
                why,
            }
            .into(),
            401 | 403 if is_endpoint => Error::Denied {
                kind: name.kind,
                repo: name.repo.clone(),
                why,
                page: self.page(name),
                token: self.token_advice(),
            }
            .into(),
            _ => Error::Server { host, why }.into(),
        }
    }

    fn page(&self, name: &Name) -> String {
        format!("{}/{}", self.endpoint, name.kind.repo(&name.repo, "").url())
    }

    fn token_advice(&self) -> String {
        match self.token {
            Some(_) => {
                "with the account of the token that is set, and let the token read it".into()
            }
            None => format!(
                "make a token at {}/settings/tokens and set HF_TOKEN",
                self.endpoint
            ),
        }
    }

    fn transport(&self, url: &str, error: &ureq::Error) -> Failure {
        use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
        use ureq::Error::{Io, Protocol, Timeout};
        let may_pass = match error {
            Timeout(_) | Protocol(_) => true,
            Io(e) => matches!(
                e.kind(),
                ConnectionReset | ConnectionAborted | TimedOut | UnexpectedEof
            ),
            _ => false,
        };
        self.unreachable(url, error.to_string(), may_pass)
    }

    fn unreachable(&self, url: &str, why: String, may_pass: bool) -> Failure {
        let host = host(url);
        let note = format!("{host}: {why}");
        let error = Error::Unreachable { host, why };
        match may_pass {
            true => Again::failure(error, note, None),
            false => error.into(),
        }
    }
}

/// A request that returns every status and follows no redirect. Its time limits are for silence of
/// the server, not for the whole file, which may take hours.
fn patient(
    request: RequestBuilder<WithoutBody>,
    proxy: Option<Proxy>,
) -> RequestBuilder<WithoutBody> {
    request
        .header(header::ACCEPT_ENCODING, "identity")
        .config()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("sterna/", env!("CARGO_PKG_VERSION")))
        .proxy(proxy)
        .timeout_resolve(Some(Duration::from_secs(20)))
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(30)))
        .build()
}

/// The hash in the headers of the endpoint. An `ETag` counts only if the reply has the content.
fn announced(headers: &HeaderMap, is_content: bool) -> Option<Hash> {
    let linked = text(headers, "x-linked-etag").and_then(Hash::parse);
    linked.or_else(|| {
        text(headers, "etag")
            .filter(|_| is_content)
            .and_then(Hash::parse)
    })
}

/// The wait that the server asks for: the seconds of `Retry-After`, or else the `t` of the hub's
/// header `RateLimit: "api";r=0;t=55`, the seconds until its window ends.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let window = || {
        text(headers, "ratelimit")?
            .split(';')
            .find_map(|part| part.trim().strip_prefix("t="))
    };
    let seconds = text(headers, "retry-after").or_else(window)?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

fn in_seconds(wait: Duration) -> String {
    match wait.as_secs() {
        0 => String::new(),
        n => format!(" in {n} s"),
    }
}

/// The message in a body like `{"error": "..."}`.
fn json_error(reply: Response<Body>) -> Option<String> {
    let mut body = Vec::new();
    reply
        .into_body()
        .into_reader()
        .take(1 << 16)
        .read_to_end(&mut body)
        .ok()?;
    let json: Value = serde_json::from_slice(&body).ok()?;
    Some(json["error"].as_str()?.to_owned())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_owned();
    let default = if scheme == "https" { 443 } else { 80 };
    Some((
        scheme,
        uri.host()?.to_lowercase(),
        uri.port_u16().unwrap_or(default),
    ))
}

/// The target of a redirect; `None` if it is not a web address. The crate `url` joins addresses
/// too, but it adds the tables of international domain names.
fn join(url: &str, location: &str) -> Option<String> {
    let base: Uri = url.parse().ok()?;
    let target = match location {
        l if l.starts_with("//") => format!("{}:{l}", base.scheme_str()?),
        l if l.starts_with('/') => format!("{}://{}{l}", base.scheme_str()?, base.authority()?),
        l => l.to_owned(),
    };
    let is_web = target.starts_with("https://") || target.starts_with("http://");
    (is_web && origin(&target).is_some()).then_some(target)
}

/// The host, with the port if the address has one.
fn host(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    let authority = uri.as_ref().and_then(Uri::authority).map(|a| a.as_str());
    let host = authority.and_then(|a| a.rsplit('@').next()); // a password may stand before the host
    host.map_or_else(|| bare(url), str::to_owned)
}

/// The address without its query, which can hold a signature.
fn bare(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or(url).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined() {
        let check = |location: &str, expected: Option<&str>| {
            assert_eq!(
                join("https://a.co/x/y?z", location).as_deref(),
                expected,
                "{location}"
            );
        };
        check("/b?c", Some("https://a.co/b?c"));
        check("//cdn.co/b", Some("https://cdn.co/b"));
        check("https://cdn.co/b", Some("https://cdn.co/b"));
        for nowhere in ["b", "file:///etc/passwd", "https://", ""] {
            check(nowhere, None);
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("https://HF.co/a"), origin("https://hf.co:443/b?c"));
        for other in [
            "http://hf.co",
            "https://hf.co:80",
            "https://hf.co.evil.com",
            "https://hf.co@evil.com/",
        ] {
            assert_ne!(origin(other), origin("https://hf.co"), "{other}");
        }
    }

    #[test]
    fn servers_say_how_long_to_wait() {
        let check = |name: &'static str, value: &str, expected: Option<u64>| {
            let headers = HeaderMap::from_iter([(
                header::HeaderName::from_static(name),
                value.parse().unwrap(),
            )]);
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs));
        };
        check("retry-after", "120", Some(120));
        check("ratelimit", "\"api\";r=0;t=55", Some(55));
        check("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT", None);
    }

    #[test]
    fn paths_are_encoded() {
        let encode = |text, set| utf8_percent_encode(text, set).to_string();
        assert_eq!(encode("refs/pr/1", IN_REVISION), "refs%2Fpr%2F1");
        assert_eq!(
            encode("a b/ü?#%.gguf", IN_FILE),
            "a%20b/%C3%BC%3F%23%25.gguf"
        );
    }
}

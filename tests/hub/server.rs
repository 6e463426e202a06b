//! A server that speaks the protocol of the hub, on two ports: the hub itself, and the store that
//! large files are redirected to. It logs the requests and fails where a test tells it to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;
use sha1::{Digest, Sha1};
use sterna_ternary::sha256::{self, hex};

pub type Files = BTreeMap<String, Vec<u8>>;

/// The repository that the server has.
pub const REPO: &str = "org/name";
/// The commit of `main`.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub struct Server {
    /// For `HF_ENDPOINT`.
    pub url: String,
    state: Arc<State>,
}

struct State {
    store: String,
    /// Revision → commit.
    revisions: Mutex<BTreeMap<String, String>>,
    /// Commit → files.
    commits: Mutex<BTreeMap<String, Files>>,
    /// Without it the repository is gated.
    token: Mutex<Option<String>>,
    /// Part of a path → what to do to the next request for it, in this order.
    faults: Mutex<Vec<(String, Fault)>>,
    log: Mutex<Vec<Request>>,
}

/// What goes wrong, once.
#[allow(dead_code)] // each of the two test programs uses its own
pub enum Fault {
    /// A status with a header line.
    Status(u16, &'static str),
    /// The body breaks off after this number of bytes.
    Cut(usize),
    /// A byte of the body is another.
    Flip,
    /// The body has this number of bytes, and so does `Content-Length`.
    Resize(usize),
    /// A body without length that goes on after its end.
    Endless,
    /// `Range` is ignored.
    Whole,
    /// The hub announces another hash.
    Announce(&'static str),
    /// A redirect.
    Redirect(String),
}

#[derive(Debug, Clone)]
pub struct Request {
    /// Whether it came to the store of large files.
    pub to_store: bool,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

impl Server {
    pub fn start(files: Files) -> Server {
        let (hub, store) = (listen(), listen());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let url = address(&hub);
        let state = Arc::new(State {
            store: address(&store),
            revisions: Mutex::new([("main".into(), COMMIT.into())].into()),
            commits: Mutex::new([(COMMIT.into(), files)].into()),
            token: Mutex::default(),
            faults: Mutex::default(),
            log: Mutex::default(),
        });
        for (listener, to_store) in [(hub, false), (store, true)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    std::thread::spawn(move || state.serve(stream, to_store));
                }
            });
        }
        Server { url, state }
    }

    /// Adds a branch or tag.
    pub fn set_revision(&self, name: &str, commit: &str, files: Files) {
        lock(&self.state.revisions).insert(name.into(), commit.into());
        lock(&self.state.commits).insert(commit.into(), files);
    }

    pub fn require_token(&self, token: &str) {
        *lock(&self.state.token) = Some(token.into());
    }

    /// Lets the next request for a path that contains `path` fail.
    pub fn fault(&self, path: &str, fault: Fault) {
        lock(&self.state.faults).push((path.into(), fault));
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *lock(&self.state.log))
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream, to_store: bool) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let Some(Ok(first)) = lines.next() else {
            return;
        };
        let path = first.split(' ').nth(1).unwrap_or("").to_owned();
        let mut headers = BTreeMap::new();
        for line in lines
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
        {
            let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let request = Request {
            to_store,
            path,
            range: headers.remove("range"),
            authorization: headers.remove("authorization"),
        };
        lock(&self.log).push(request.clone());
        let reply = match to_store {
            true => self.store(&request),
            false => self.hub(&request),
        };
        let _ = stream.write_all(&reply); // a client may hang up early
    }

    fn hub(&self, request: &Request) -> Vec<u8> {
        let fault = self.take_fault(&request.path);
        if let Some(reply) = fault.as_ref().and_then(whole_reply) {
            return reply;
        }
        let expected = lock(&self.token)
            .as_ref()
            .map(|token| format!("Bearer {token}"));
        if expected.is_some() && expected != request.authorization {
            let why = "X-Error-Code: GatedRepo\r\n\
                       X-Error-Message: Access to this model is restricted\r\n";
            return reply("401 Unauthorized", why, b"");
        }
        // A repository of either kind.
        let api = ["models", "datasets"].map(|kind| format!("/api/{kind}/{REPO}/revision/"));
        if let Some(revision) = api.iter().find_map(|api| request.path.strip_prefix(api)) {
            let revision = revision.trim_end_matches("?blobs=true").replace("%2F", "/");
            return self.listing(&revision);
        }
        let path = request.path.strip_prefix("/datasets");
        let path = path.unwrap_or(&request.path);
        let Some(file) = path.strip_prefix(&format!("/{REPO}/resolve/")) else {
            if let Some(file) = request.path.strip_prefix("/api/resolve-cache/") {
                return self.small(file, request, fault);
            }
            return reply("404 Not Found", "X-Error-Code: RepoNotFound\r\n", b"");
        };
        let Some(content) = self.content(file) else {
            return reply("404 Not Found", "X-Error-Code: EntryNotFound\r\n", b"");
        };
        let mut hash = hash(file, &content);
        if let Some(Fault::Announce(other)) = fault {
            hash = other.into();
        }
        let location = match is_large(file) {
            true => format!("{}/{file}?signature=secret", self.store),
            false => format!("/api/resolve-cache/{file}"),
        };
        let headers = format!(
            "X-Repo-Commit: {COMMIT}\r\nX-Linked-Size: {}\r\n\
             X-Linked-Etag: \"{hash}\"\r\nETag: \"0\"\r\n\
             Location: {location}\r\n",
            content.len()
        );
        reply("302 Found", &headers, b"")
    }

    fn listing(&self, revision: &str) -> Vec<u8> {
        let commits = lock(&self.commits);
        let commit = lock(&self.revisions)
            .get(revision)
            .cloned()
            .unwrap_or(revision.to_owned());
        let Some(files) = commits.get(&commit) else {
            return reply("404 Not Found", "X-Error-Code: RevisionNotFound\r\n", b"");
        };
        let sibling = |(file, content): (&String, &Vec<u8>)| match is_large(file) {
            true => json!({"rfilename": file, "size": content.len(), "blobId": git(b"pointer"),
                "lfs": {"sha256": sha256::of(content), "size": content.len(), "pointerSize": 7}}),
            false => json!({"rfilename": file, "size": content.len(), "blobId": git(content)}),
        };
        let siblings: Vec<_> = files.iter().map(sibling).collect();
        let json = json!({"id": REPO, "sha": commit, "siblings": siblings}).to_string();
        reply(
            "200 OK",
            "Content-Type: application/json\r\n",
            json.as_bytes(),
        )
    }

    fn small(&self, file: &str, request: &Request, fault: Option<Fault>) -> Vec<u8> {
        let content = self.content(file).unwrap();
        let etag = format!("ETag: \"{}\"\r\n", git(&content));
        body(&content, request, fault, &etag)
    }

    fn store(&self, request: &Request) -> Vec<u8> {
        let fault = self.take_fault(&format!("store{}", request.path));
        let file = request
            .path
            .trim_start_matches('/')
            .trim_end_matches("?signature=secret");
        match (fault.as_ref().and_then(whole_reply), self.content(file)) {
            (Some(reply), _) => reply,
            (None, Some(content)) => body(&content, request, fault, "ETag: \"of-the-store\"\r\n"),
            (None, None) => reply("404 Not Found", "", b""),
        }
    }

    /// The content of `commit/file`.
    fn content(&self, path: &str) -> Option<Vec<u8>> {
        let (commit, file) = path.split_once('/')?;
        lock(&self.commits).get(commit)?.get(file).cloned()
    }

    fn take_fault(&self, path: &str) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let at = faults
            .iter()
            .position(|(part, _)| path.contains(part.as_str()))?;
        Some(faults.remove(at).1)
    }
}

fn body(content: &[u8], request: &Request, fault: Option<Fault>, headers: &str) -> Vec<u8> {
    let mut content = content.to_vec();
    match fault {
        Some(Fault::Flip) => content[0] ^= 1,
        Some(Fault::Resize(len)) => content.resize(len, 0),
        Some(Fault::Endless) => {
            content.push(0);
            let mut bytes =
                format!("HTTP/1.1 200 OK\r\n{headers}Connection: close\r\n\r\n").into_bytes();
            bytes.extend(content);
            return bytes;
        }
        _ => {}
    }
    let from = request
        .range
        .as_ref()
        .filter(|_| !matches!(fault, Some(Fault::Whole)));
    let from: Option<usize> = from.map(|r| r["bytes=".len()..r.len() - 1].parse().unwrap());
    let mut bytes = match from {
        Some(from) if from < content.len() => {
            let range = format!("{from}-{}/{}", content.len() - 1, content.len());
            let headers = format!("{headers}Content-Range: bytes {range}\r\n");
            reply("206 Partial Content", &headers, &content[from..])
        }
        Some(_) => reply("416 Range Not Satisfiable", headers, b""),
        None => reply("200 OK", headers, &content),
    };
    if let Some(Fault::Cut(after)) = fault {
        let head = bytes.len() - (content.len() - from.unwrap_or(0));
        bytes.truncate(head + after);
    }
    bytes
}

/// The reply of a fault that does not depend on the content.
fn whole_reply(fault: &Fault) -> Option<Vec<u8>> {
    match fault {
        Fault::Status(status, header) => {
            let json = br#"{"error": "told to fail"}"#;
            Some(reply(
                &format!("{status} Told To"),
                &format!("{header}\r\n"),
                json,
            ))
        }
        Fault::Redirect(to) => Some(reply("302 Found", &format!("Location: {to}\r\n"), b"")),
        _ => None,
    }
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {len}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn is_large(file: &str) -> bool {
    [".safetensors", ".gguf", ".sterna"]
        .iter()
        .any(|ending| file.ends_with(ending))
}

/// The name that the hub gives a content.
pub fn hash(file: &str, content: &[u8]) -> String {
    if is_large(file) {
        sha256::of(content)
    } else {
        git(content)
    }
}

fn git(content: &[u8]) -> String {
    hex(&Sha1::digest(
        [format!("blob {}\0", content.len()).as_bytes(), content].concat(),
    ))
}

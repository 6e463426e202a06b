//! A server with a small trained model, and a client that writes bytes to a socket.
#![allow(dead_code)] // each test binary uses a part

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use sterna_convert::PackedOptions;
use sterna_runtime::{KvPage, Model};
use sterna_serve::engine::{Guesses, Limits};
use sterna_serve::http::{Keys, LocalPage, Options, Served, Server, Settings};

/// A template under which the model, which knows stories only, goes on with what the user says.
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}\
    {{ raise_exception('no tools') }}{% elif m.role == 'user' %}{{ m.content }}{% else %}\
    {{ '\\n' + m.role + ': ' + m.content + '\\n' }}{% endif %}{% endfor %}\
    {% if add_generation_prompt and messages[-1].role == 'assistant' %}assistant:{% endif %}";
/// Longest wait for a byte of a reply. It only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The model of `tests/fixtures/trained/llama`, packed, with a chat template.
pub fn model() -> Arc<Model> {
    static FILE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    open(&FILE.get_or_init(|| packed(Some(TEMPLATE))).1)
}

/// The same without a chat template.
pub fn plain_model() -> Arc<Model> {
    static FILE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    open(&FILE.get_or_init(|| packed(None)).1)
}

fn packed(template: Option<&str>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fixture = root.join("../tests/fixtures/trained/llama");
    for entry in fixture.read_dir().unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), source.join(entry.file_name())).unwrap();
    }
    if let Some(template) = template {
        std::fs::write(source.join("chat_template.jinja"), template).unwrap();
    }
    let path = folder.path().join("model.sterna");
    let options = PackedOptions::default();
    sterna_convert::convert(&source, &path, &options, &mut |_, _| {}).unwrap();
    (folder, path)
}

fn open(path: &Path) -> Arc<Model> {
    let options = sterna_runtime::Options {
        threads: Some(2),
        ..Default::default()
    };
    Arc::new(Model::open(path, options).unwrap())
}

/// Bounds that no test reaches by accident.
pub fn limits() -> Limits {
    Limits {
        parallel: 8,
        step: Some(Duration::from_millis(50)),
        pages: 64,
        queue: 64,
        queue_tokens: 10_000,
        queue_timeout: Duration::from_secs(600),
        timeout: Duration::from_secs(600),
        weights: vec![1.0],
        guesses: Guesses::Worth,
    }
}

/// The route of most tests that do not care about it.
pub const COMPLETIONS: &str = "/v1/completions";

/// A request for it that is soon answered.
pub fn short() -> Value {
    json!({"prompt": "Once Mia", "max_tokens": 3, "temperature": 0})
}

/// A body with more fields.
pub fn over(mut body: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Sets two keys.
pub fn with_keys(settings: &mut Settings) {
    settings.keys = Keys::parse("the-first-key\nthe-second-key").unwrap();
}

/// Bounds of a server with two keys.
pub fn two_keys() -> Limits {
    Limits {
        weights: vec![1.0, 2.0],
        ..limits()
    }
}

/// The model under a name.
pub fn served(name: &str, limits: Limits) -> Served {
    served_as(name, model(), limits)
}

/// Any model under a name.
pub fn served_as(name: &str, model: Arc<Model>, limits: Limits) -> Served {
    let options = Options {
        name: name.into(),
        context: None,
        limits,
        draft: None,
    };
    Served::start(model, options).unwrap()
}

/// A server on a free port.
pub struct Test {
    pub server: Server,
    pub address: SocketAddr,
}

impl Test {
    /// With one model, called `stories`.
    pub fn start() -> Test {
        Test::with(|_| {}, vec![served("stories", limits())])
    }

    /// With other settings and models.
    pub fn with(change: impl FnOnce(&mut Settings), models: Vec<Served>) -> Test {
        let test = Test::loading(change);
        test.server.serve(models);
        test
    }

    /// Without a model yet.
    pub fn loading(change: impl FnOnce(&mut Settings)) -> Test {
        let mut settings = Settings::new("127.0.0.1:0".parse().unwrap());
        settings.drain = Duration::from_secs(60);
        change(&mut settings);
        let server = Server::start(settings).unwrap();
        Test {
            address: server.address(),
            server,
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes and reads until the server closes the connection.
    pub fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // The server may close the connection before it has read all.
        let _closed = stream.write_all(bytes);
        Reply::read(&mut stream)
    }

    /// A request with these header lines.
    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        self.raw(head(method, path, headers, body).as_bytes())
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_text(path, &body.to_string())
    }

    pub fn post_text(&self, path: &str, body: &str) -> Reply {
        self.request("POST", path, &["content-type: application/json"], body)
    }

    /// The JSON of a reply that must be fine.
    pub fn json(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
        reply.json()
    }

    /// The error of a request that must have this status.
    pub fn error(&self, path: &str, body: &Value, status: u16) -> Value {
        let reply = self.post(path, body);
        assert_eq!(reply.status, status, "{path} {body}: {}", reply.body);
        reply.error()
    }

    /// The events of a stream that must be fine, without the last one, which says that it is done.
    pub fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let reply = self.post(path, body);
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        events(&reply.body)
    }
}

/// The events of a stream that ends with `[DONE]`.
pub fn events(text: &str) -> Vec<Value> {
    let events = text
        .strip_suffix("\n\n")
        .unwrap_or_else(|| panic!("{text:?}"));
    let mut events: Vec<&str> = events.split("\n\n").collect();
    assert_eq!(events.pop(), Some("data: [DONE]"), "{text}");
    let events = events.iter().map(|event| {
        let data = event
            .strip_prefix("data: ")
            .unwrap_or_else(|| panic!("{event:?}"));
        serde_json::from_str(data).unwrap()
    });
    events.collect()
}

/// The events of a stream whose events have names.
pub fn named_events(text: &str) -> Vec<(String, Value)> {
    let events = text.strip_suffix("\n\n");
    let events = events.unwrap_or_else(|| panic!("{text:?}"));
    let event = |event: &str| {
        let (name, data) = event
            .split_once('\n')
            .unwrap_or_else(|| panic!("{event:?}"));
        let name = name.strip_prefix("event: ").unwrap();
        let data = data.strip_prefix("data: ").unwrap();
        (name.to_owned(), serde_json::from_str(data).unwrap())
    };
    events.split("\n\n").map(event).collect()
}

/// The bytes of a request after which the connection is closed.
pub fn head(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let mut lines = vec![format!("{method} {path} HTTP/1.1")];
    let has_host = headers
        .iter()
        .any(|line| line.to_lowercase().starts_with("host:"));
    if !has_host {
        lines.push("host: localhost".into());
    }
    lines.push("connection: close".into());
    lines.extend(headers.iter().map(|line| line.to_string()));
    if !body.is_empty() {
        lines.push(format!("content-length: {}", body.len()));
    }
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}

/// A reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// 0 if the connection was closed without one.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// The body, if it is not a text and has a length.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// Reads until the connection is closed.
    pub fn read(stream: &mut TcpStream) -> Reply {
        Reply::read_after(b"", stream)
    }

    /// The same where the first bytes were read before.
    pub fn read_after(first: &[u8], stream: &mut TcpStream) -> Reply {
        let mut bytes = first.to_vec();
        let read = stream.read_to_end(&mut bytes);
        // A reset ends a reply, too.
        if let Err(error) = read {
            assert_ne!(
                error.kind(),
                std::io::ErrorKind::WouldBlock,
                "the server hangs"
            );
        }
        Reply::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Reply {
        let text = String::from_utf8_lossy(bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return Reply {
                status: 0,
                headers: Vec::new(),
                body: text.into_owned(),
                bytes: Vec::new(),
            };
        };
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_lowercase(), value.trim().to_owned())
        };
        let mut reply = Reply {
            status,
            headers: lines.map(header).collect(),
            body: body.to_owned(),
            bytes: bytes[head.len() + 4..].to_vec(),
        };
        let is_text = reply.header("content-type") != Some("application/octet-stream");
        assert!(!is_text || str::from_utf8(bytes).is_ok(), "{head}");
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = dechunked(body);
        }
        reply
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The error in it, in the one form that all errors have.
    pub fn error(&self) -> Value {
        let json = self.json();
        let members: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(members, ["error"], "{json}");
        let error = &json["error"];
        let members: Vec<&String> = error.as_object().unwrap().keys().collect();
        assert_eq!(members, ["message", "type", "param", "code"], "{json}");
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "{json}"
        );
        error.clone()
    }
}

fn dechunked(mut rest: &str) -> String {
    let mut text = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text += &after[..size];
        rest = &after[size + 2..];
    }
    text
}

/// Positions of a page of keys and values.
pub const PAGE: usize = KvPage::TOKENS;

/// The parts of the page that runs models in the browser, each with its name as content.
pub fn local_page() -> LocalPage {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "index.html",
        "page.js",
        "sterna.js",
        "sterna.wasm",
        "style.css",
        "worker.js",
    ];
    for name in names {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    LocalPage::read(folder.path()).unwrap()
}

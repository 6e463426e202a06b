//! The server as a program: its start, what it prints, its signals, and its log computed again.
#![cfg(unix)]

mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use program::{fixture, json, refused, stdout, text};
use serde_json::Value;

/// A running server.
struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Server {
    /// Starts it on a free port and waits until it says that it listens.
    fn start(args: &[&str]) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sterna"))
            .args(["serve", "--port", "0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("http://")
            .unwrap_or_default()
            .to_owned();
        let mut server = Server {
            child,
            stdout,
            address,
        };
        if server.address.is_empty() {
            panic!("no address: {line:?} {}", server.stderr());
        }
        server
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        text
    }

    /// What it printed until the line that can be tried.
    fn printed(&mut self) -> String {
        let mut text = String::new();
        while !text.contains("-d '") {
            assert_ne!(self.stdout.read_line(&mut text).unwrap(), 0, "{text}");
        }
        text
    }

    fn connect(&self, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// Status and body of a reply.
    fn ask(&self, path: &str, body: &str) -> (u16, String) {
        reply(self.connect(path, body))
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &id])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _ended_before = self.child.wait();
    }
}

fn reply(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn packed(folder: &Path) -> String {
    let path = folder.join("tern.sterna");
    let source = fixture("trained/llama");
    stdout(&["convert", text(&source), "--out", text(&path)]);
    text(&path).to_owned()
}

const PROMPT: &str = r#"{"prompt": "Once Mia", "max_tokens": 8, "seed": 3}"#;

#[test]
fn a_server_says_what_it_serves_and_its_log_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let model = packed(folder.path());
    let log = folder.path().join("log.jsonl");
    let mut server = Server::start(&[&model, "--log-requests", text(&log)]);
    let printed = server.printed();
    for expected in [
        "tern: context 96",
        "fingerprint st-",
        "curl http://127.0.0.1:",
        "/v1/completions",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    for body in [
        PROMPT.to_owned(),
        r#"{"prompt": [3, 4, 5], "max_tokens": 5, "temperature": 2, "logprobs": 2, "echo": true}"#
            .into(),
        r#"{"prompt": "Once", "max_tokens": 5, "n": 2, "stream": true}"#.into(),
    ] {
        let (status, reply) = server.ask("/v1/completions", &body);
        assert_eq!(status, 200, "{reply}");
    }
    let (status, reply) = server.ask("/v1/embeddings", r#"{"input": ["Once", "Mia"]}"#);
    assert_eq!(status, 200, "{reply}");
    server.signal("TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));

    let replayed = json(&["replay", text(&log), &model, "--json"]);
    assert_eq!(
        replayed,
        serde_json::json!({"same": 4, "different": 0, "foreign": 0})
    );
    // An answer that was changed is found, and the exit code says so.
    let lines = std::fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().count(), 4);
    let changed = lines.replacen("\"text\":\"", "\"text\":\"X", 1);
    std::fs::write(&log, changed).unwrap();
    let error = refused(1, &["replay", text(&log), &model]);
    assert!(
        error.contains("line 1") && error.contains("1 answers differ"),
        "{error}"
    );
    // Another type of the cache is another fingerprint.
    let error = refused(1, &["replay", text(&log), &model, "--kv", "f32"]);
    assert!(error.contains("no answer was compared"), "{error}");
}

#[test]
fn the_first_signal_drains_and_the_second_ends() {
    let folder = tempfile::tempdir().unwrap();
    let model = packed(folder.path());
    // A request whose body does not come is one in progress.
    let mut server = Server::start(&[&model, "--drain", "600"]);
    server.printed();
    let (status, _) = server.ask("/ready", "");
    assert_eq!(status, 200);
    let mut open = TcpStream::connect(&server.address).unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-type: application/json\r\ncontent-length: ";
    write!(open, "{head}{}\r\n\r\n{{", PROMPT.len()).unwrap();
    // It is known to the server when it is counted.
    while !server
        .ask("/metrics", "")
        .1
        .contains("sterna_requests_open 2")
    {}
    server.signal("TERM");
    while server.ask("/ready", "").0 == 200 {}
    let (status, body) = server.ask("/v1/completions", PROMPT);
    assert_eq!(status, 503);
    let error: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(error["error"]["code"], "draining");
    // The one in progress is answered, and then the server ends.
    open.write_all(&PROMPT.as_bytes()[1..]).unwrap();
    assert_eq!(reply(open).0, 200);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));

    let mut server = Server::start(&[&model, "--drain", "600"]);
    server.printed();
    let mut open = TcpStream::connect(&server.address).unwrap();
    write!(open, "{head}9\r\n\r\n{{").unwrap();
    while !server
        .ask("/metrics", "")
        .1
        .contains("sterna_requests_open 2")
    {}
    server.signal("TERM");
    while server.ask("/ready", "").0 == 200 {}
    // Two signals of one moment are one, so the second one is sent until it counts.
    while server.child.try_wait().unwrap().is_none() {
        server.signal("TERM");
    }
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
}

#[test]
fn answers_that_the_drain_cuts_off_are_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let model = packed(folder.path());
    let mut server = Server::start(&[&model, "--drain", "0"]);
    server.printed();
    let mut open = TcpStream::connect(&server.address).unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n";
    write!(open, "{head}content-type: application/json\r\n\r\n{{").unwrap();
    while !server
        .ask("/metrics", "")
        .1
        .contains("sterna_requests_open 2")
    {}
    server.signal("TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
    let stderr = server.stderr();
    assert!(stderr.contains("cut off, not finished in 0 s"), "{stderr}");
}

/// A launcher may close the pipe as soon as it has the address, and a log's device may be full.
#[test]
fn a_server_answers_whether_its_lines_can_be_printed_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let model = packed(folder.path());
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let mut outputs = vec![Stdio::from(closed)];
    if let Ok(full) = std::fs::File::options().write(true).open("/dev/full") {
        outputs.push(full.into());
    }
    for stdout in outputs {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sterna"))
            .args(["serve", "--port", "0", &model])
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("http://") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended");
        }
        assert!(
            line.starts_with("warning: standard output cannot be written"),
            "{line}"
        );
        let address = line.trim().rsplit_once("http://").unwrap().1;
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /ready HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
        assert_eq!(reply(stream).0, 200);
        let id = child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        assert!(sent.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn what_cannot_be_served_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = packed(folder.path());
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        text(&path).to_owned()
    };
    let error = refused(1, &["serve", &model, "--host", "0.0.0.0", "--port", "0"]);
    assert!(
        error.contains("--api-key-file") && error.contains("--no-key"),
        "{error}"
    );
    let config = file("typo.toml", "prot = 1\n");
    let error = refused(3, &["serve", &model, "--config", &config]);
    assert!(
        error.contains("typo.toml") && error.contains("prot"),
        "{error}"
    );
    let keys = file("keys", "short\n");
    let error = refused(3, &["serve", &model, "--api-key-file", &keys]);
    assert!(
        error.contains("key 1") && !error.contains("short\n"),
        "{error}"
    );
    let error = refused(2, &["serve", &model, "--port", "0", "--kv-memory", "1kB"]);
    assert!(error.contains("--kv-memory"), "{error}");
    let error = refused(2, &["serve", &model, "--port", "0", "--kv-memory", "much"]);
    assert!(error.contains("expected a size"), "{error}");
    let error = refused(2, &["serve", &model, &model, "--port", "0"]);
    assert!(error.contains("--name"), "{error}");
    let error = refused(1, &["serve", &model, "--port", "0", "--context", "97"]);
    assert!(error.contains("expected 1 to 96"), "{error}");
}

#[test]
fn options_come_from_a_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let model = packed(folder.path());
    let config = folder.path().join("serve.toml");
    let content = format!("models = ['{model}']\nnames = ['gull']\nkv = 'q8'\ncontext = 50\n");
    std::fs::write(&config, content).unwrap();
    let mut server = Server::start(&["--config", text(&config), "--context", "60"]);
    let printed = server.printed();
    assert!(printed.contains("gull: context 60"), "{printed}");
    let (_, props) = server.ask("/props", "");
    let props: Value = serde_json::from_str(&props).unwrap();
    assert_eq!(props["kv_type"], "q8");
}

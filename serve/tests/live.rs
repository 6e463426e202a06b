//! The page of a run that is trained: what is answered, and to whom.

mod support;

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};
use sterna_serve::http::{BadServer, Live};
use support::{Reply, head};

/// A page whose curves are the number of times that they were asked for.
fn page() -> Live {
    let mut asked = 0;
    Live::open(0, move || {
        asked += 1;
        json!({"step": asked})
    })
    .unwrap()
}

fn raw(address: SocketAddr, bytes: &[u8]) -> Reply {
    Reply::read(&mut sent(address, bytes))
}

fn sent(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    // The page may close the connection before it has read all.
    let _closed = stream.write_all(bytes);
    stream
}

fn ask(page: &Live, method: &str, path: &str, headers: &[&str]) -> Reply {
    raw(page.address(), head(method, path, headers, "").as_bytes())
}

#[test]
fn the_page_and_its_curves_are_answered() {
    let page = page();
    assert!(page.address().ip().is_loopback());
    let html = ask(&page, "GET", "/", &[]);
    assert!(html.status == 200 && html.body.contains("fetch(\"/curves\")"));
    assert_eq!(
        html.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = html.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; connect-src 'self';"),
        "{policy}"
    );
    for step in 1..=3 {
        let curves = ask(&page, "GET", "/curves", &[]);
        assert_eq!(curves.json(), json!({"step": step}));
        assert_eq!(curves.header("cache-control"), Some("no-store"));
        assert_eq!(curves.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn other_hosts_are_refused() {
    let page = page();
    for path in ["/", "/curves", "/nothing"] {
        for host in ["evil.example", "localhost.evil.example:80", "10.0.0.1", ""] {
            let reply = ask(&page, "GET", path, &[&format!("host: {host}")]);
            assert_eq!(reply.status, 403, "{host}");
            let address = format!("http://{}/", page.address());
            assert!(reply.body.contains(&address), "{}", reply.body);
        }
        let none = raw(
            page.address(),
            format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes(),
        );
        assert_eq!(none.status, 403);
    }
    for host in ["localhost:1", "127.0.0.1", "[::1]:80"] {
        let reply = ask(&page, "GET", "/curves", &[&format!("host: {host}")]);
        assert_eq!(reply.status, 200, "{host}");
    }
    // Nobody but the page itself was shown the curves.
    assert_eq!(ask(&page, "GET", "/curves", &[]).json(), json!({"step": 4}));
}

#[test]
fn other_paths_and_methods_are_refused() {
    let page = page();
    for path in [
        "/nothing",
        "/../etc/passwd",
        "/curves/",
        "/v1/models",
        "/metrics",
    ] {
        assert_eq!(ask(&page, "GET", path, &[]).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let reply = ask(&page, method, "/curves", &[]);
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("GET,HEAD")),
            "{method}"
        );
    }
}

#[test]
fn nonsense_harms_nobody() {
    let page = page();
    let large = format!("x: {}", "a".repeat(40 << 10));
    assert_eq!(ask(&page, "GET", "/", &[&large]).status, 431);
    for nonsense in [
        &b""[..],
        b"\0\xff\r\n\r\n",
        b"GET\r\n\r\n",
        &[b'a'; 40 << 10],
    ] {
        // Nothing follows: the page does not wait for the rest.
        let mut stream = sent(page.address(), nonsense);
        let _closed = stream.shutdown(Shutdown::Write);
        let status = Reply::read(&mut stream).status;
        assert!([0, 400, 414, 431].contains(&status), "{status}");
    }
    // Connections that say nothing.
    let silent: Vec<TcpStream> = (0..8)
        .map(|_| TcpStream::connect(page.address()).unwrap())
        .collect();
    assert_eq!(ask(&page, "GET", "/", &[]).status, 200);
    drop(silent);
}

#[test]
fn a_panic_in_the_curves_ends_only_its_reply() {
    let mut asked = 0;
    let page = Live::open(0, move || {
        asked += 1;
        assert!(asked > 1, "the first call fails");
        Value::from(asked)
    });
    let page = page.unwrap();
    assert_eq!(ask(&page, "GET", "/curves", &[]).status, 0);
    assert_eq!(ask(&page, "GET", "/curves", &[]).json(), 2);
}

#[test]
fn a_taken_port_is_refused_and_a_closed_page_frees_its_own() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = Live::open(port, || Value::Null).err().unwrap();
    assert!(matches!(refused, BadServer::Address { address, .. } if address.port() == port));
    let page = page();
    let address = page.address();
    drop(page);
    assert!(TcpStream::connect(address).is_err());
}

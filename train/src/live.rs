//! The live page of a run: a web page on 127.0.0.1 that shows the losses while training goes on.
//!
//! One thread answers one small request at a time, with limits on its size and time. Training only
//! adds numbers to a list, so nothing that happens to the page stops it. The server is a few lines
//! over `std::net`, since it has two fixed answers; an HTTP crate would add more code than that.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::Event;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../serve/src/page/live.html");
/// Bytes of a request that are read; browsers send less.
const LARGEST_REQUEST: u64 = 16 << 10;
/// A connection whose client is slower than this in sending or receiving is closed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most points of a curve that are sent; each is the mean of equally many steps.
const MOST_POINTS: usize = 2000;

/// A page about one run.
pub struct Page {
    curves: Arc<Mutex<Curves>>,
    /// The address of the page.
    pub address: SocketAddr,
}

/// The data of the page.
#[derive(Default)]
struct Curves {
    name: String,
    steps: u64,
    /// Step and loss.
    losses: Vec<(u64, f64)>,
    held_out: Vec<(u64, f64)>,
    sample: Option<(String, String)>,
}

impl Page {
    /// Opens a page about the run in `folder`, which has `steps` steps, on this port; 0 is any free
    /// port.
    ///
    /// # Errors
    /// The port is taken, or the thread cannot be started.
    pub fn open(port: u16, folder: &Path, steps: u64) -> io::Result<Page> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let name = folder.file_name().unwrap_or(folder.as_os_str());
        let curves = Arc::new(Mutex::new(Curves {
            name: name.to_string_lossy().into_owned(),
            steps,
            ..Curves::default()
        }));
        let shown = Arc::clone(&curves);
        thread::Builder::new().name("watch".into()).spawn(move || {
            // Errors of a connection concern only its client.
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &shown);
            }
        })?;
        Ok(Page { curves, address })
    }

    /// Adds an event. At the start of a resumed run it also adds the earlier losses from
    /// `metrics.jsonl` in `folder`.
    pub fn see(&self, event: &Event, folder: &Path) {
        let mut curves = locked(&self.curves);
        match event {
            Event::Started { step, .. } => {
                let before = std::fs::read_to_string(folder.join("metrics.jsonl"));
                curves.add_lines(&before.unwrap_or_default(), *step);
            }
            Event::Step { step, of, .. } => curves.losses.push((*step, of.loss)),
            Event::Evaluated { step, of } => {
                curves.held_out.push((*step, of.loss));
                curves.sample.clone_from(&of.sample);
            }
            _ => {}
        }
    }
}

/// The lock; a thread that panicked with it cannot leave a list of numbers half written.
fn locked(curves: &Mutex<Curves>) -> MutexGuard<'_, Curves> {
    curves
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Curves {
    fn add_lines(&mut self, lines: &str, last: u64) {
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            let Some(step) = line["step"].as_u64().filter(|step| *step <= last) else {
                continue;
            };
            if let Some(loss) = line["loss"].as_f64() {
                self.losses.push((step, loss));
            }
            if let Some(loss) = line["held_out_loss"].as_f64() {
                self.held_out.push((step, loss));
            }
        }
    }

    fn json(&self) -> Value {
        let at = self.losses.last().map_or(0, |(step, _)| *step);
        let size = self.losses.len().div_ceil(MOST_POINTS).max(1);
        let mean = |points: &[(u64, f64)]| {
            let sum: f64 = points.iter().map(|(_, loss)| loss).sum();
            (points[points.len() - 1].0, sum / points.len() as f64)
        };
        let losses: Vec<(u64, f64)> = self.losses.chunks(size).map(mean).collect();
        json!({"name": self.name, "steps": self.steps, "step": at, "losses": losses,
            "held_out": self.held_out, "sample": self.sample})
    }
}

fn answer(mut stream: TcpStream, curves: &Mutex<Curves>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (status, kind, body) = match target(&mut stream)?.as_deref() {
        Some("/") => ("200 OK", "text/html; charset=utf-8", PAGE.to_owned()),
        Some("/curves") => {
            let json = locked(curves).json();
            ("200 OK", "application/json", json.to_string())
        }
        Some(_) => ("404 Not Found", "text/plain", "no such page\n".into()),
        None => ("400 Bad Request", "text/plain", "expected GET\n".into()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The target of a GET request, after its head was read to the end; `None` for other requests.
fn target(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    let mut limited = stream.take(LARGEST_REQUEST);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match limited.read(&mut part)? {
            0 => return Ok(None),
            count => head.extend_from_slice(&part[..count]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next(), words.next());
    Ok(target.filter(|_| method == Some("GET")).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use crate::{Evaluation, Step};

    use super::*;

    fn ask(page: &Page, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(page.address).unwrap();
        // A connection that is closed while the client sends may be reset at any of these calls;
        // then there is no answer.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn a_page_shows_what_was_and_what_comes_and_survives_nonsense() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = "{\"step\":1,\"loss\":5.0}\n{\"step\":1,\"held_out_loss\":4.5}\n\
                       {\"step\":2,\"loss\":4.0}\n{\"st";
        std::fs::write(folder.path().join("metrics.jsonl"), metrics).unwrap();
        let page = Page::open(0, folder.path(), 5000).unwrap();
        assert!(page.address.ip().is_loopback());
        let started = Event::Started {
            parameters: 1,
            step: 1,
            epochs: 1.0,
            flops_per_token: 1.0,
        };
        page.see(&started, folder.path());
        for step in 2..=4101 {
            let of = Step {
                loss: 3.0,
                gradient_norm: 1.0,
                is_skipped: false,
            };
            let event = Event::Step {
                step,
                of,
                learning_rate: 1e-3,
                tokens: 1,
            };
            page.see(&event, folder.path());
        }
        let of = Evaluation {
            loss: 2.5,
            bits_per_byte: 1.0,
            layers: Vec::new(),
            sample: Some(("<b>".into(), "more".into())),
        };
        page.see(
            &Event::Evaluated {
                step: 4101,
                of: &of,
            },
            folder.path(),
        );

        for nonsense in [
            &b""[..],
            b"\0\xff\r\n\r\n",
            b"POST / HTTP/1.1\r\n\r\n",
            b"GET\r\n\r\n",
            &[b'a'; 40 << 10],
        ] {
            let answer = ask(&page, nonsense);
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
                "{answer}"
            );
        }
        assert!(ask(&page, b"GET /../etc HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        let html = ask(&page, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(html.starts_with("HTTP/1.1 200") && html.contains("/curves"));
        let answer = ask(&page, b"GET /curves HTTP/1.1\r\n\r\n");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let curves: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&curves["step"], &curves["steps"]),
            (&json!(4101), &json!(5000))
        );
        let losses = curves["losses"].as_array().unwrap();
        assert_eq!(losses.len(), 1367); // threes of 4101
        assert_eq!(losses[0], json!([3, 11.0 / 3.0]));
        assert_eq!(curves["held_out"], json!([[1, 4.5], [4101, 2.5]]));
        assert_eq!(curves["sample"], json!(["<b>", "more"]));
    }
}

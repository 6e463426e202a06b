//! `sterna ready`: the health check of a container that has no shell and no HTTP client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::output::outln;

/// Ask a server whether it is ready for requests.
///
/// The exit code is 0 if `sterna serve` at the address has loaded its models and takes requests,
/// and 1 if not. A key is not needed.
#[derive(clap::Args)]
pub struct Args {
    /// The address of the server.
    #[arg(default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// Seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// The longest answer that is read, in bytes; that of `sterna serve` is much shorter.
const LONGEST: u64 = 64 << 10;

pub fn run(args: &Args) -> anyhow::Result<()> {
    let address = args.address;
    let reply = ask(address, Duration::from_secs(args.timeout))
        .with_context(|| format!("{address} does not answer"))?;
    let reply = String::from_utf8_lossy(&reply);
    // `HTTP/1.1 200 OK`
    let (version, rest) = reply.split_once(' ').unwrap_or_default();
    ensure!(
        version.starts_with("HTTP/1."),
        "{address} does not speak HTTP: it answered {:?}; expected `sterna serve`",
        reply.chars().take(40).collect::<String>()
    );
    let status = rest.lines().next().unwrap_or_default();
    if !status.starts_with("200 ") {
        bail!("{address} is not ready: it answered {status}");
    }
    outln!("{address} is ready")?;
    Ok(())
}

/// The reply to `GET /ready`.
fn ask(address: SocketAddr, timeout: Duration) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // Without a key the server wants a host of its own machine.
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.take(LONGEST).read_to_end(&mut reply)?;
    Ok(reply)
}

//! Ranks that were started one by one and meet at the address of rank 0, with the variables of PyTorch's launchers:
//! `RANK=0 WORLD_SIZE=2 sterna train … & RANK=1 WORLD_SIZE=2 sterna train …`.
//!
//! Rank 0 listens at that address, all others at a port of their own, which they tell rank 0; once it knows them all
//! it sends each the list, and each connects to those before it. So every pair has a connection. A second one with
//! rank 0 is the rank's lifeline: it carries how the rank ended, and breaks when the rank is killed, so that none
//! waits for one that is gone. Who can connect can join: this is for networks that are trusted.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::Collective;
use crate::{Error, Result};

/// Where and as whom a rank joins the others.
#[derive(Debug, Clone)]
pub struct Meeting {
    /// Which rank this is, from 0.
    pub rank: usize,
    /// How many there will be.
    pub size: usize,
    /// Host name or address of rank 0.
    pub host: String,
    /// The port that it listens at.
    pub port: u16,
    /// How long each waits for the others.
    pub patience: Duration,
}

/// All ranks of a meeting.
pub struct Tcp {
    rank: usize,
    /// The connection with each rank; none with itself.
    peers: Vec<Option<TcpStream>>,
    /// On rank 0 one for each other rank, there the one with rank 0.
    lifelines: Arc<Vec<TcpStream>>,
}

/// The beginning of all that says hello.
const MAGIC: [u8; 8] = *b"sterna-1";
/// Who connects and does not say hello within this is no rank.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for a rank that did not come yet.
const PAUSE: Duration = Duration::from_millis(10);
/// What a lifeline carries when its rank is through; anything else is an exit code.
const DONE: u8 = 0;

/// Bytes of where a rank listens: an IPv6 address, which an IPv4 address is mapped to, and a port.
const ENTRY: usize = 18;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Messages,
    Lifeline,
}

/// What a rank says first on each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hello {
    rank: u32,
    size: u32,
    /// Where it listens itself.
    port: u16,
    purpose: Purpose,
}

impl Hello {
    const BYTES: usize = 19;

    fn send(&self, mut to: &TcpStream) -> io::Result<()> {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.rank.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.port.to_le_bytes());
        bytes[18] = u8::from(self.purpose == Purpose::Lifeline);
        to.write_all(&bytes)
    }

    /// What a rank says; none if it is no rank that connected.
    fn receive(mut from: &TcpStream) -> Option<Hello> {
        let mut bytes = [0; Self::BYTES];
        from.set_read_timeout(Some(HELLO_PATIENCE)).ok()?;
        from.read_exact(&mut bytes).ok()?;
        from.set_read_timeout(None).ok()?;
        let number = |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let hello = Hello {
            rank: number(8)?,
            size: number(12)?,
            port: u16::from_le_bytes([bytes[16], bytes[17]]),
            purpose: match bytes[18] {
                0 => Purpose::Messages,
                1 => Purpose::Lifeline,
                _ => return None,
            },
        };
        (bytes[..8] == MAGIC).then_some(hello)
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |error| Error::Collective(format!("{what}: {error}"))
}

impl Meeting {
    /// Waits until all ranks are there; they exchange messages from the thread that joins.
    ///
    /// A rank that ends early ends this process too.
    ///
    /// # Errors
    /// [`Error::Collective`] for an address that rank 0 cannot listen at, ranks that do not come in time, two of the
    /// same rank, or ranks that do not agree on how many they are.
    pub fn join(&self) -> Result<Tcp> {
        if self.rank >= self.size || u32::try_from(self.size).is_err() {
            let (rank, size) = (self.rank, self.size);
            return Err(Error::Collective(format!(
                "there is no rank {rank} of {size}; they count from 0"
            )));
        }
        let deadline = Instant::now() + self.patience;
        let (peers, lifelines) = match self.rank {
            0 => self.gather(deadline)?,
            _ => self.connect(deadline)?,
        };
        let tcp = Tcp {
            rank: self.rank,
            peers,
            lifelines: Arc::new(lifelines),
        };
        for peer in tcp.peers.iter().flatten() {
            peer.set_nodelay(true).map_err(failed("a connection"))?;
        }
        tcp.watch()?;
        Ok(tcp)
    }

    fn address(&self) -> Result<SocketAddr> {
        let what = format!("{}:{}", self.host, self.port);
        let mut found = (&self.host[..], self.port)
            .to_socket_addrs()
            .map_err(failed(&what))?;
        found
            .next()
            .ok_or_else(|| Error::Collective(format!("{what} is no address")))
    }

    fn hello(&self, port: u16, purpose: Purpose) -> Hello {
        Hello {
            rank: self.rank as u32,
            size: self.size as u32,
            port,
            purpose,
        }
    }

    /// Rank 0: takes all connections, and tells all ranks where the others listen.
    fn gather(&self, deadline: Instant) -> Result<(Vec<Option<TcpStream>>, Vec<TcpStream>)> {
        let address = self.address()?;
        let listener = TcpListener::bind(address).map_err(failed(format!(
            "rank 0 cannot listen at {address}; choose another MASTER_ADDR or MASTER_PORT"
        )))?;
        let both = |rank| [Purpose::Messages, Purpose::Lifeline].map(|purpose| (rank, purpose));
        let all = (1..self.size).flat_map(both).collect();
        let (mut peers, mut lifelines) = (vec![None], Vec::new());
        let mut table = Vec::new();
        for (hello, stream) in self.accept(&listener, all, deadline)? {
            if hello.purpose == Purpose::Lifeline {
                lifelines.push(stream);
                continue;
            }
            let ip = stream.peer_addr().map_err(failed("a rank"))?.ip();
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            table.extend(ip.octets());
            table.extend(hello.port.to_le_bytes());
            peers.push(Some(stream));
        }
        for (rank, peer) in peers.iter().enumerate() {
            if let Some(mut stream) = peer.as_ref() {
                let gone = failed(format!("rank {rank} is gone"));
                stream.write_all(&table).map_err(gone)?;
            }
        }
        Ok((peers, lifelines))
    }

    /// Another rank: tells rank 0 where it listens, connects to the ranks before it and waits for those behind.
    fn connect(&self, deadline: Instant) -> Result<(Vec<Option<TcpStream>>, Vec<TcpStream>)> {
        let master = self.address()?;
        let mut first = self.reach(master, 0, deadline)?;
        let own = first.local_addr().map_err(failed("rank 0"))?.ip();
        let listener = TcpListener::bind((own, 0)).map_err(failed(own.to_string()))?;
        let port = listener
            .local_addr()
            .map_err(failed(own.to_string()))?
            .port();
        let gone = || failed("rank 0 is gone");
        let say = |stream: &TcpStream, purpose| self.hello(port, purpose).send(stream);
        say(&first, Purpose::Messages).map_err(gone())?;
        let lifeline = self.reach(master, 0, deadline)?;
        say(&lifeline, Purpose::Lifeline).map_err(gone())?;

        let mut table = vec![0; (self.size - 1) * ENTRY];
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = |stream: &TcpStream, t| stream.set_read_timeout(t).map_err(gone());
        timeout(&first, Some(left.max(PAUSE)))?;
        first.read_exact(&mut table).map_err(failed(
            "rank 0 did not say that all are there; start all ranks, with the same WORLD_SIZE",
        ))?;
        timeout(&first, None)?;

        let mut peers = vec![Some(first)];
        for (rank, entry) in (1..self.rank).zip(table.chunks_exact(ENTRY)) {
            let ip: [u8; 16] = entry[..16].try_into().expect("an entry has 18 bytes");
            let ip = IpAddr::V6(Ipv6Addr::from(ip)).to_canonical();
            let port = u16::from_le_bytes([entry[16], entry[17]]);
            let stream = self.reach(SocketAddr::new(ip, port), rank, deadline)?;
            let gone = failed(format!("rank {rank} is gone"));
            say(&stream, Purpose::Messages).map_err(gone)?;
            peers.push(Some(stream));
        }
        peers.push(None);
        let behind = (self.rank + 1..self.size).map(|rank| (rank, Purpose::Messages));
        let came = self.accept(&listener, behind.collect(), deadline)?;
        peers.extend(came.into_iter().map(|(_, stream)| Some(stream)));
        Ok((peers, vec![lifeline]))
    }

    /// A connection with a rank that may not listen yet.
    fn reach(&self, address: SocketAddr, rank: usize, deadline: Instant) -> Result<TcpStream> {
        loop {
            match TcpStream::connect_timeout(&address, HELLO_PATIENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) if Instant::now() >= deadline => {
                    let what = format!("rank {rank} cannot be reached at {address}");
                    return Err(failed(what)(error));
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// The connections that are expected, in the order of their ranks; whoever else connects is hung up on.
    fn accept(
        &self,
        listener: &TcpListener,
        mut expected: Vec<(usize, Purpose)>,
        deadline: Instant,
    ) -> Result<Vec<(Hello, TcpStream)>> {
        listener
            .set_nonblocking(true)
            .map_err(failed("cannot listen"))?;
        let mut came = Vec::new();
        while !expected.is_empty() {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    return Err(failed("cannot listen")(error));
                }
                Err(_) if Instant::now() >= deadline => return Err(self.absent(&expected)),
                Err(_) => {
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            let blocks = stream.set_nonblocking(false);
            blocks.map_err(failed("a connection"))?;
            if let Some(hello) = Hello::receive(&stream) {
                self.check(hello, &mut expected)?;
                came.push((hello, stream));
            }
        }
        came.sort_by_key(|(hello, _)| (hello.rank, hello.purpose));
        Ok(came)
    }

    /// Refuses a rank that is here already, or takes part in another meeting; else crosses it off.
    fn check(&self, hello: Hello, expected: &mut Vec<(usize, Purpose)>) -> Result<()> {
        let (rank, size) = (hello.rank as usize, hello.size as usize);
        if size != self.size {
            return Err(Error::Collective(format!(
                "rank {rank} says that there are {size} ranks, and rank {} that there are {}; give all the same \
                 WORLD_SIZE",
                self.rank, self.size
            )));
        }
        let is_it = |other: &(usize, Purpose)| *other == (rank, hello.purpose);
        let twice = || {
            Error::Collective(format!(
                "there are two processes of rank {rank}; give each its own RANK, from 0 to {}",
                self.size - 1
            ))
        };
        let found = expected.iter().position(is_it).ok_or_else(twice)?;
        expected.remove(found);
        Ok(())
    }

    fn absent(&self, expected: &[(usize, Purpose)]) -> Error {
        let mut ranks: Vec<usize> = expected.iter().map(|(rank, _)| *rank).collect();
        ranks.dedup();
        Error::Collective(format!(
            "ranks {ranks:?} did not come within {} s; start all {} ranks, each with its RANK",
            self.patience.as_secs_f32(),
            self.size
        ))
    }
}

impl Tcp {
    /// Watches the lifelines, each from a thread of its own.
    fn watch(&self) -> Result<()> {
        for at in 0..self.lifelines.len() {
            let lifelines = Arc::clone(&self.lifelines);
            // Rank 0 has those of ranks 1, 2, …, the others that of rank 0.
            let who = if self.rank == 0 { at + 1 } else { 0 };
            let watching = thread::Builder::new().name(format!("rank {who}"));
            watching
                .spawn(move || watch(&lifelines, at, who))
                .map_err(failed("cannot watch a rank"))?;
        }
        Ok(())
    }

    fn peer(&self, rank: usize) -> Result<&TcpStream> {
        let peer = self.peers.get(rank).and_then(Option::as_ref);
        peer.ok_or_else(|| Error::Collective(format!("there is no other rank {rank}")))
    }
}

/// Waits until rank `who` says that it is through; ends this process if it ends otherwise.
fn watch(lifelines: &[TcpStream], at: usize, who: usize) {
    let mut last = [0];
    let code = match (&lifelines[at]).read_exact(&mut last) {
        Ok(()) if last[0] == DONE => return,
        Ok(()) => last[0],
        Err(_) => {
            // It was killed, so nobody else says why this one ends.
            eprintln!("error: rank {who} ended early");
            1
        }
    };
    end(lifelines, code)
}

/// Tells all that this rank ends, which rank 0 hands on, and ends it.
fn end(lifelines: &[TcpStream], code: u8) -> ! {
    for mut lifeline in lifelines {
        // One that is gone already needs no telling.
        let _ = lifeline.write_all(&[code]);
    }
    std::process::exit(code.into())
}

impl Drop for Tcp {
    /// A rank that panicked is not through: its lifelines break when its process ends.
    fn drop(&mut self) {
        if !thread::panicking() {
            for mut lifeline in &*self.lifelines {
                // One that is gone already needs no telling.
                let _ = lifeline.write_all(&[DONE]);
            }
        }
    }
}

impl Collective for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.peers.len()
    }

    fn send(&self, bytes: &[u8], to: usize) -> Result<()> {
        let mut peer = self.peer(to)?;
        let sent = peer.write_all(bytes);
        sent.map_err(failed(format!("cannot send to rank {to}")))
    }

    fn receive(&self, bytes: &mut [u8], from: usize) -> Result<()> {
        let mut peer = self.peer(from)?;
        let received = peer.read_exact(bytes);
        received.map_err(failed(format!("cannot receive from rank {from}")))
    }

    /// Rank 0 adds, in the order of the ranks.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        if self.rank > 0 {
            self.send(bytemuck::cast_slice(values), 0)?;
        } else {
            let mut other = vec![0f32; values.len()];
            for rank in 1..self.size() {
                self.receive(bytemuck::cast_slice_mut(&mut other), rank)?;
                values.iter_mut().zip(&other).for_each(|(x, y)| *x += y);
            }
        }
        self.broadcast(bytemuck::cast_slice_mut(values))
    }

    fn barrier(&self) -> Result<()> {
        self.all_reduce(&mut [0.0])
    }

    fn abort(&self, code: u8) -> ! {
        end(&self.lifelines, code.max(1))
    }
}

//! What an operator chooses about the HTTP side.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::keys::Keys;
use super::local::LocalPage;
use super::log::RequestLog;

/// What an operator chooses.
pub struct Settings {
    /// Where the server listens.
    pub address: SocketAddr,
    /// The keys of clients.
    pub keys: Keys,
    /// Whether another address than a loopback one needs no key.
    pub is_open: bool,
    /// Names of the server in requests beside those of loopback, while no key is set.
    pub hosts: Vec<String>,
    /// Origins of pages that may read answers.
    pub origins: Vec<String>,
    /// Whether unknown fields are refused.
    pub is_strict: bool,
    /// Whether the only model answers for every name.
    pub any_model: bool,
    /// Whether `/metrics` is answered.
    pub has_metrics: bool,
    /// The page that runs models in the browser; with it, clients can load the models' files.
    pub local: Option<LocalPage>,
    /// Longest time that a drain waits for answers.
    pub drain: Duration,
    /// Where requests and answers are written.
    pub log: Option<Arc<RequestLog>>,
    /// Called after each reply was begun.
    pub on_reply: Option<OnReply>,
}

/// Hears of replies.
pub type OnReply = Box<dyn Fn(&Replied) + Send + Sync>;

/// A reply, without anything of its content.
#[derive(Debug, Clone, PartialEq)]
pub struct Replied {
    /// The id of the request, which the reply has too.
    pub id: String,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The status.
    pub status: u16,
    /// Time from the head of the request to the head of the reply.
    pub time: Duration,
}

impl Settings {
    /// A server for this machine alone, without keys.
    pub fn new(address: SocketAddr) -> Settings {
        Settings {
            address,
            keys: Keys::default(),
            is_open: false,
            hosts: Vec::new(),
            origins: Vec::new(),
            is_strict: false,
            any_model: false,
            has_metrics: true,
            local: None,
            drain: Duration::from_secs(30),
            log: None,
            on_reply: None,
        }
    }

    /// Whether requests for this host, as in the header `Host`, are answered. A page of another
    /// site can send requests to this machine under a name that it controls; with keys it could
    /// not do anything.
    pub fn answers_for(&self, host: &str) -> bool {
        if !self.keys.is_empty() {
            return true;
        }
        let name = host_name(host);
        let is_named = |allowed: &String| host_name(allowed).eq_ignore_ascii_case(name);
        if name.eq_ignore_ascii_case("localhost") || self.hosts.iter().any(is_named) {
            return true;
        }
        // An address is not a name that somebody else could point here.
        let address = name.trim_start_matches('[').trim_end_matches(']').parse();
        address
            .is_ok_and(|address: IpAddr| address.is_loopback() || !self.address.ip().is_loopback())
    }
}

/// A host without its port.
pub fn host_name(host: &str) -> &str {
    match host.rfind(':') {
        // The colons of an IPv6 address are inside of brackets.
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_answered() {
        let mut settings = Settings::new("127.0.0.1:8080".parse().unwrap());
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.0.0.9",
            "[::1]:1",
            "[::1]",
        ] {
            assert!(settings.answers_for(host), "{host}");
        }
        let others = [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "::1",
        ];
        for host in others {
            assert!(!settings.answers_for(host) || host == "::1", "{host}");
        }
        settings.hosts = vec!["tern.lan:8080".into()];
        assert!(settings.answers_for("Tern.lan:80") && !settings.answers_for("gull.lan"));
        settings.address = "0.0.0.0:8080".parse().unwrap();
        assert!(settings.answers_for("10.0.0.1:8080") && !settings.answers_for("evil.example"));
        settings.keys = Keys::parse("a-long-key").unwrap();
        assert!(settings.answers_for("evil.example"));
    }
}

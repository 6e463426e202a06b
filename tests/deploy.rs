//! The files of `deploy/`: what they name is what the program has.
#![cfg(unix)]

mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use program::{fixture, refused, stdout, text};
use serde::Deserialize;
use serde_yaml_ng::Value;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn documents(name: &str) -> Vec<Value> {
    let text = read(name);
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

/// The strings of a list.
fn strings(value: &Value) -> Vec<&str> {
    let list = value.as_sequence().unwrap();
    list.iter().map(|item| item.as_str().unwrap()).collect()
}

/// The JSON lists after an instruction of the Containerfile.
fn instruction(name: &str) -> Vec<String> {
    let text = read("Containerfile").replace("\\\n", " ");
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    let list = &line[line.find('[').unwrap()..];
    serde_json::from_str(list).unwrap()
}

/// The value of `--flag=value` or `--flag value`.
fn value<'a>(args: &[&'a str], flag: &str) -> &'a str {
    let at = args
        .iter()
        .position(|arg| arg.split('=').next() == Some(flag));
    let at = at.unwrap_or_else(|| panic!("no {flag} in {args:?}"));
    match args[at].split_once('=') {
        Some((_, value)) => value,
        None => args[at + 1],
    }
}

/// The arguments that compose and Kubernetes give to the container.
fn command_lines() -> Vec<Vec<String>> {
    let entry = instruction("ENTRYPOINT");
    assert_eq!(entry[..2], ["/sterna", "serve"]);
    let compose = documents("compose.yaml").remove(0);
    let kubernetes = documents("kubernetes.yaml").remove(0);
    let container = container(&kubernetes);
    let owned =
        |list: &Value| -> Vec<String> { strings(list).into_iter().map(str::to_owned).collect() };
    let rest = [
        instruction("CMD"),
        owned(&compose["services"]["sterna-1"]["command"]),
        owned(&compose["services"]["sterna-2"]["command"]),
        owned(&container["args"]),
    ];
    rest.into_iter()
        .map(|rest| [entry[2..].to_vec(), rest].concat())
        .collect()
}

fn container(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]
}

/// A running server with the arguments of a container, on a free port of this machine.
struct Server {
    child: Child,
    address: String,
    /// The server writes to it after the first line.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(args: &[String], model: &str, keys: &str) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sterna"));
        command.args(["serve", "--port", "0"]);
        for arg in args {
            // Paths of the container become paths of the test.
            let arg = arg.replace("/models/model.sterna", model);
            let arg = arg.replace("/run/secrets/sterna_keys", keys);
            command.arg(
                arg.replace("/keys/keys", keys)
                    .replace("0.0.0.0", "127.0.0.1"),
            );
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://");
        let address = address.unwrap_or_else(|| panic!("{command:?} printed {line:?}"));
        Server {
            child,
            address: address.to_owned(),
            _stdout: stdout,
        }
    }

    /// The status of a reply.
    fn get(&self, path: &str) -> u16 {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = "host: sterna\r\nconnection: close\r\n\r\n";
        write!(stream, "GET {path} HTTP/1.1\r\n{head}").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _ended_before = self.child.wait();
    }
}

#[test]
fn containers_start_and_their_probes_are_answered_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.sterna");
    let source = fixture("trained/llama");
    stdout(&["convert", text(&source), "--out", text(&model)]);
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "a-key-of-a-client\n").unwrap();
    let kubernetes = documents("kubernetes.yaml").remove(0);
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"];
    let probed = probes.map(|probe| container(&kubernetes)[probe]["httpGet"]["path"].as_str());
    assert_eq!(probed, [Some("/health"), Some("/ready"), Some("/health")]);
    let check = instruction("HEALTHCHECK");
    assert_eq!(check[..2], ["/sterna", "ready"]);
    let mut lines = command_lines();
    lines.dedup();
    for args in lines {
        let server = Server::start(&args, text(&model), text(&keys));
        for path in probed {
            // The model may still be loaded when the address is printed.
            while server.get(path.unwrap()) == 503 {}
            assert_eq!(server.get(path.unwrap()), 200, "{args:?}");
        }
        assert_eq!(server.get("/v1/models"), 401, "{args:?}");
        // The health check at the address of the test, with and without a server.
        let at = |arg: &String| arg.replace("127.0.0.1:8080", &server.address);
        let check: Vec<String> = check[1..].iter().map(at).collect();
        let check: Vec<&str> = check.iter().map(String::as_str).collect();
        assert_eq!(
            stdout(&check),
            format!("{} is ready\n", server.address),
            "{args:?}"
        );
        drop(server);
        assert!(refused(1, &check).contains("does not answer"), "{args:?}");
    }
}

/// A server that gives one reply, and its address.
fn replying(reply: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 512];
        let _length = stream.read(&mut request).unwrap();
        stream.write_all(reply.as_bytes()).unwrap();
    });
    address
}

#[test]
fn a_server_that_loads_or_is_another_program_is_not_ready() {
    for (reply, expected) in [
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\nloading",
            "is not ready: it answered 503 Service Unavailable",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        ("", "does not speak HTTP"),
    ] {
        let message = refused(1, &["ready", &replying(reply)]);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn ports_are_the_default_of_the_program() {
    let help = stdout(&["serve", "--help"]);
    assert!(help.contains("[default: 8080]"));
    let image = read("Containerfile");
    assert!(image.contains("\nEXPOSE 8080\n"));
    assert_eq!(instruction("HEALTHCHECK")[2], "127.0.0.1:8080");
    let nginx = read("nginx.conf");
    let compose = documents("compose.yaml").remove(0);
    let services = compose["services"].as_mapping().unwrap();
    let replicas = services.keys().map(|name| name.as_str().unwrap());
    let replicas: Vec<&str> = replicas.filter(|name| *name != "nginx").collect();
    assert_eq!(
        nginx.matches("        server sterna-").count(),
        replicas.len()
    );
    for name in replicas {
        assert!(nginx.contains(&format!("server {name}:8080 ")), "{name}");
    }
    let port = strings(&compose["services"]["nginx"]["ports"])[0];
    assert_eq!(port, "127.0.0.1:8000:8000");
    assert!(nginx.contains("listen 8000;"));
    let [deployment, service, budget] =
        <[Value; 3]>::try_from(documents("kubernetes.yaml")).unwrap();
    let port = &container(&deployment)["ports"][0];
    assert_eq!(port["containerPort"], 8080);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(service["spec"]["selector"], *labels);
    for selecting in [&deployment, &budget] {
        assert_eq!(selecting["spec"]["selector"]["matchLabels"], *labels);
    }
}

#[test]
fn a_drain_ends_before_the_container_is_killed() {
    let lines = command_lines();
    let seconds = |args: &[String], flag| -> u64 {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        value(&args, flag).parse().unwrap()
    };
    let compose = documents("compose.yaml").remove(0);
    for (name, args) in [("sterna-1", &lines[1]), ("sterna-2", &lines[2])] {
        let period = compose["services"][name]["stop_grace_period"]
            .as_str()
            .unwrap();
        let period: u64 = period.strip_suffix('s').unwrap().parse().unwrap();
        assert!(period > seconds(args, "--drain") + 5, "{name}");
    }
    let deployment = documents("kubernetes.yaml").remove(0);
    // By Kubernetes itself: the image has no other program than the server.
    let sleep = &container(&deployment)["lifecycle"]["preStop"]["sleep"]["seconds"];
    let period = &deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
    let ends = sleep.as_u64().unwrap() + seconds(&lines[3], "--drain");
    assert!(period.as_u64().unwrap() > ends + 5);
}

#[test]
fn nothing_runs_as_root_or_writes() {
    let image = read("Containerfile");
    assert!(image.contains("\nUSER 10001:10001\n"));
    // The image holds the program and nothing else.
    let (_, stage) = image.split_once("\nFROM scratch\n").unwrap();
    let copied: Vec<&str> = stage.lines().filter(|l| l.starts_with("COPY ")).collect();
    assert_eq!(
        copied,
        ["COPY --from=build /sterna/target/release/sterna /sterna"]
    );
    assert!(!stage.contains("RUN "));
    let compose = documents("compose.yaml").remove(0);
    for (name, service) in compose["services"].as_mapping().unwrap() {
        assert_eq!(service["read_only"], true, "{name:?}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name:?}");
        for volume in strings(&service["volumes"]) {
            assert!(volume.ends_with(":ro"), "{name:?}: {volume}");
        }
    }
    let deployment = documents("kubernetes.yaml").remove(0);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let security = &container(&deployment)["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    for volume in container(&deployment)["volumeMounts"]
        .as_sequence()
        .unwrap()
    {
        assert_eq!(volume["readOnly"], true);
    }
}

#[test]
fn nginx_passes_streams_on_and_asks_another_replica() {
    let nginx = read("nginx.conf");
    for line in [
        "proxy_buffering off;",
        "hash $session consistent;",
        "proxy_next_upstream error timeout http_429 http_503 non_idempotent;",
        "client_max_body_size 8m;",
    ] {
        assert!(nginx.contains(line), "{line}");
    }
    assert_eq!(nginx.matches('{').count(), nginx.matches('}').count());
}

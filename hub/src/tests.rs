//! The hub against a local server that speaks its protocol and fails on demand.

#[path = "../../tests/hub/server.rs"]
mod server;

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use server::{COMMIT, Fault, Files, REPO, Server};
use tempfile::TempDir;

use super::*;

const OTHER_COMMIT: &str = "76543210fedcba9876543210fedcba9876543210";
const WEIGHTS: &str = "model.safetensors";

thread_local! {
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A server with a small model, and an empty cache.
struct Setup {
    server: Server,
    cache: TempDir,
}

fn model() -> Files {
    let file = |(name, content): (&str, &[u8])| (name.to_owned(), content.to_vec());
    let files = [
        ("README.md", &b"not needed"[..]),
        ("config.json", b"{}"),
        ("generation_config.json", b"{\"a\": 1}"),
        ("tokenizer.json", b"tokens"),
        (WEIGHTS, &[7; 5000]),
        ("pytorch_model.bin", b"not needed either"),
    ];
    files.map(file).into()
}

fn setup() -> Setup {
    setup_with(model())
}

fn setup_with(files: Files) -> Setup {
    Setup {
        server: Server::start(files),
        cache: tempfile::tempdir().unwrap(),
    }
}

impl Setup {
    fn settings(&self) -> HubSettings {
        HubSettings {
            endpoint: self.server.url.clone(),
            token: None,
            cache: self.cache.path().to_owned(),
            offline: false,
        }
    }

    fn hub(&self, settings: HubSettings) -> Hub<'static> {
        let mut hub = Hub::open(settings, &());
        if let Some(client) = &mut hub.client {
            client.proxy = None; // no proxy of the machine that runs the tests
            client.pause = |time| WAITED.set(WAITED.get() + time);
        }
        hub
    }

    fn fetch(&self, name: &str) -> Result<Fetched> {
        self.hub(self.settings())
            .fetch(&Name::parse(name).unwrap(), Want::Either)
    }

    fn offline(&self, name: &str) -> Result<Fetched> {
        let offline = true;
        let settings = HubSettings {
            offline,
            ..self.settings()
        };
        self.hub(settings)
            .fetch(&Name::parse(name).unwrap(), Want::Either)
    }

    fn error(&self, name: &str) -> Error {
        self.fetch(name).unwrap_err()
    }

    fn folder(&self) -> PathBuf {
        self.cache.path().join("models--org--name")
    }

    fn blobs(&self) -> Vec<String> {
        names(&self.folder().join("blobs"))
    }

    /// Requests to the store of large files.
    fn stored(&self) -> Vec<server::Request> {
        self.server
            .requests()
            .into_iter()
            .filter(|r| r.to_store)
            .collect()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().into_string().unwrap()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn waited() -> u64 {
    WAITED.replace(Duration::ZERO).as_secs()
}

/// Whether a file of a snapshot is a link to its blob. Where links may not be made, as mostly on
/// Windows, each snapshot holds the files themselves.
fn is_link(path: &Path) -> bool {
    path.symlink_metadata().unwrap().is_symlink()
}

#[test]
fn what_is_needed_comes_once() {
    let setup = setup();
    let fetched = setup.fetch(REPO).unwrap();
    assert_eq!(fetched.path, setup.folder().join("snapshots").join(COMMIT));
    let needed = [
        "config.json",
        "generation_config.json",
        WEIGHTS,
        "tokenizer.json",
    ];
    assert_eq!(names(&fetched.path), needed);
    for file in needed {
        assert_eq!(
            std::fs::read(fetched.path.join(file)).unwrap(),
            model()[file]
        );
    }
    let mut blobs = needed.map(|file| server::hash(file, &model()[file]));
    blobs.sort();
    match is_link(&fetched.path.join(WEIGHTS)) {
        true => assert_eq!(setup.blobs(), blobs),
        false => assert_eq!(setup.blobs(), [""; 0]),
    }
    assert_eq!(
        std::fs::read(setup.folder().join("refs/main")).unwrap(),
        COMMIT.as_bytes()
    );
    assert_eq!(fetched.downloaded, 5000 + 2 + 8 + 6);

    setup.server.requests();
    let again = setup.fetch(REPO).unwrap();
    assert_eq!((again.downloaded, &again.path), (0, &fetched.path));
    assert_eq!(
        setup.server.requests().len(),
        1,
        "only the revision is asked for"
    );
    let fixed = setup.fetch(&format!("{REPO}@{COMMIT}")).unwrap();
    assert_eq!(fixed.path, fetched.path);
    assert!(setup.server.requests().is_empty(), "a commit never changes");
}

#[test]
fn shards_come_as_the_index_names_them() {
    let index = br#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
    let mut files = model();
    files.remove(WEIGHTS);
    files.insert("model.safetensors.index.json".into(), index.to_vec());
    for shard in ["one.safetensors", "two.safetensors", "unused.safetensors"] {
        files.insert(shard.into(), shard.into());
    }
    let setup = setup_with(files);
    let fetched = setup.fetch(REPO).unwrap();
    let there = names(&fetched.path);
    assert!(there.contains(&"one.safetensors".into()) && there.contains(&"two.safetensors".into()));
    assert!(!there.contains(&"unused.safetensors".into()) && !there.contains(&WEIGHTS.into()));
}

#[test]
fn one_file_of_a_given_revision() {
    let setup = setup();
    let mut files = model();
    files.insert("sub/x.gguf".into(), b"gguf".to_vec());
    setup.server.set_revision("refs/pr/1", OTHER_COMMIT, files);
    let fetched = setup.fetch("org/name@refs/pr/1:sub/x.gguf").unwrap();
    assert_eq!(fetched.commit, OTHER_COMMIT);
    assert_eq!(
        fetched.path,
        setup
            .folder()
            .join("snapshots")
            .join(OTHER_COMMIT)
            .join("sub/x.gguf")
    );
    assert_eq!(std::fs::read(&fetched.path).unwrap(), b"gguf");
    let is_link = is_link(&fetched.path);
    assert_eq!(setup.blobs().len(), usize::from(is_link));
    // A content that came with another revision is not fetched again, if it can be linked.
    setup.fetch(REPO).unwrap();
    setup.server.requests();
    let again = setup.fetch("org/name@refs/pr/1").unwrap().downloaded;
    assert_eq!(again, if is_link { 0 } else { 5000 + 2 + 8 + 6 });
    assert_eq!(setup.stored().is_empty(), is_link);
}

#[test]
fn a_broken_connection_is_resumed() {
    let setup = setup();
    setup.server.fault("store", Fault::Cut(1234));
    setup.server.fault("store", Fault::Cut(1000));
    let fetched = setup.fetch(REPO).unwrap();
    assert_eq!(
        std::fs::read(fetched.path.join(WEIGHTS)).unwrap(),
        model()[WEIGHTS]
    );
    let ranges: Vec<_> = setup.stored().into_iter().map(|r| r.range).collect();
    assert_eq!(
        ranges,
        [None, Some("bytes=1234-".into()), Some("bytes=2234-".into())]
    );
    assert_eq!((fetched.downloaded, waited()), (5000 + 2 + 8 + 6, 0));
}

#[test]
fn after_some_attempts_the_part_stays_for_the_next_run() {
    let setup = setup();
    setup.server.fault("store", Fault::Cut(1234));
    (0..client::TRIES).for_each(|_| setup.server.fault("store", Fault::Cut(0)));
    let error = setup.error(REPO);
    assert!(
        matches!(
            &error,
            Error::Cut {
                at: 1234,
                size: 5000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(waited(), 1 + 2 + 4 + 8);
    assert!(
        setup
            .blobs()
            .iter()
            .any(|blob| blob.ends_with(".incomplete"))
    );
    assert!(
        !setup.folder().join("refs/main").exists(),
        "the snapshot is not whole"
    );
    setup.server.requests();
    assert_eq!(setup.fetch(REPO).unwrap().downloaded, 5000 - 1234);
    assert_eq!(setup.stored()[0].range.as_deref(), Some("bytes=1234-"));
    assert!(
        !setup
            .blobs()
            .iter()
            .any(|blob| blob.ends_with(".incomplete"))
    );
}

#[test]
fn a_server_without_ranges_starts_over() {
    let setup = setup();
    setup.server.fault("store", Fault::Cut(1234));
    setup.server.fault("store", Fault::Whole);
    let fetched = setup.fetch(REPO).unwrap();
    assert_eq!(
        std::fs::read(fetched.path.join(WEIGHTS)).unwrap(),
        model()[WEIGHTS]
    );
}

#[test]
fn a_damaged_part_or_blob_is_replaced() {
    let setup = setup();
    let blob = setup
        .folder()
        .join("blobs")
        .join(server::hash(WEIGHTS, &model()[WEIGHTS]));
    let part = blob.with_extension("incomplete");
    let check = || {
        let fetched = setup.fetch(REPO).unwrap();
        assert_eq!(
            std::fs::read(fetched.path.join(WEIGHTS)).unwrap(),
            model()[WEIGHTS]
        );
        setup.stored().len()
    };
    let content = || match blob.exists() {
        true => blob.clone(),
        false => setup.folder().join("snapshots").join(COMMIT).join(WEIGHTS),
    };
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    for garbage in [vec![0; 100], vec![0; 9000]] {
        std::fs::write(&part, &garbage).unwrap();
        assert_eq!(check(), if garbage.len() > 5000 { 1 } else { 2 });
        std::fs::remove_file(content()).unwrap(); // a link in the snapshot now leads nowhere
    }
    std::fs::write(&part, &model()[WEIGHTS]).unwrap();
    assert_eq!(check(), 0, "all of it was there");
    std::fs::write(content(), b"torn").unwrap();
    assert_eq!(check(), 1);
}

#[test]
fn what_is_not_what_the_hub_says_is_not_kept() {
    let check = |path: &str, fault: Fault, is_expected: fn(&Error) -> bool| {
        let setup = setup();
        setup.server.fault(path, fault);
        let error = setup.error(REPO);
        assert!(is_expected(&error), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(
            !setup
                .blobs()
                .iter()
                .any(|blob| blob.ends_with(".incomplete"))
        );
        setup.fetch(REPO).unwrap();
    };
    let hash: fn(&Error) -> bool = |e| matches!(e, Error::WrongHash { .. });
    let size: fn(&Error) -> bool = |e| matches!(e, Error::WrongSize { .. });
    check("store", Fault::Flip, hash);
    check(
        "resolve-cache/0123456789abcdef0123456789abcdef01234567/config.json",
        Fault::Flip,
        hash,
    );
    check("/model.safetensors", Fault::Announce(COMMIT), hash);
    check("store", Fault::Resize(4999), size);
    check("store", Fault::Resize(5001), size);
    check("store", Fault::Endless, size);
}

#[test]
fn gated_models_need_a_token_that_goes_to_the_hub_only() {
    let setup = setup();
    setup.server.require_token("hf_right");
    let error = setup.error(REPO);
    assert!(matches!(error, Error::Denied { .. }) && error.is_bad_input());
    let text = error.to_string();
    for part in [
        "401",
        "restricted",
        "HF_TOKEN",
        "/settings/tokens",
        "/org/name",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let with = |token: &str| {
        let token = Some(token.to_owned());
        let settings = HubSettings {
            token,
            ..setup.settings()
        };
        setup
            .hub(settings)
            .fetch(&Name::parse(REPO).unwrap(), Want::Checkpoint)
    };
    let text = with("hf_wrong").unwrap_err().to_string();
    assert!(
        text.contains("account of the token") && !text.contains("hf_wrong"),
        "{text}"
    );
    setup.server.requests();
    with("hf_right").unwrap();
    let (stored, hub): (Vec<_>, Vec<_>) = setup
        .server
        .requests()
        .into_iter()
        .partition(|r| r.to_store);
    assert!(stored.iter().all(|r| r.authorization.is_none()) && stored.len() == 1);
    assert!(
        hub.iter()
            .all(|r| r.authorization.as_deref() == Some("Bearer hf_right"))
    );
}

#[test]
fn what_does_not_exist_is_named() {
    let setup = setup();
    let check = |name: &str, parts: &[&str]| {
        let error = setup.error(name);
        let text = error.to_string();
        assert!(
            error.is_bad_input() && parts.iter().all(|part| text.contains(part)),
            "{text}"
        );
    };
    check(
        "org/other",
        &["org/other", &setup.server.url, "no such model"],
    );
    check("org/name@v9", &["no revision v9", "/org/name"]);
    check(
        "org/name:y.gguf",
        &["\"y.gguf\"", "config.json, generation_config.json"],
    );
    assert!(!setup.cache.path().join("models--org--other").exists());
}

#[test]
fn busy_servers_are_waited_for() {
    let setup = setup();
    setup
        .server
        .fault("revision", Fault::Status(429, "Retry-After: 7"));
    setup
        .server
        .fault("revision", Fault::Status(429, "RateLimit: \"api\";r=0;t=5"));
    setup.server.fault("resolve", Fault::Status(503, "X-Y: z"));
    setup.fetch(REPO).unwrap();
    assert_eq!(waited(), 7 + 5 + 1);
    setup
        .server
        .fault("revision", Fault::Status(429, "Retry-After: 3600"));
    let error = setup.error(REPO);
    assert!(
        error.to_string().contains("asks to wait 3600 s") && !error.is_bad_input(),
        "{error}"
    );
    assert_eq!(waited(), 0, "nobody waits an hour");
    (0..client::TRIES).for_each(|_| setup.server.fault("revision", Fault::Status(500, "X-Y: z")));
    let error = setup.error(REPO);
    assert!(error.to_string().contains("500, told to fail"), "{error}");
    assert_eq!(waited(), 1 + 2 + 4 + 8);
}

#[test]
fn a_commit_is_that_commit() {
    let setup = setup();
    let asked = "f".repeat(40);
    setup.server.set_revision(&asked, COMMIT, model());
    let error = setup.error(&format!("{REPO}@{asked}")).to_string();
    assert!(error.contains("it lists commit 0123456789"), "{error}");
}

#[test]
fn redirects_end() {
    let setup = setup();
    let url = format!("{}/again", setup.server.url);
    (0..9).for_each(|_| setup.server.fault("again", Fault::Redirect(url.clone())));
    setup.server.fault("revision", Fault::Redirect(url));
    assert!(setup.error(REPO).to_string().contains("redirects"));
    setup
        .server
        .fault("revision", Fault::Redirect("file:///etc/passwd".into()));
    assert!(setup.error(REPO).to_string().contains("to nowhere"));
}

#[test]
fn without_a_network_the_cache_serves() {
    let setup = setup();
    let error = setup.offline(REPO).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    let fetched = setup.fetch(REPO).unwrap();
    setup.server.requests();
    let cached = Fetched {
        downloaded: 0,
        ..fetched
    };
    assert_eq!(setup.offline(REPO).unwrap(), cached);
    // As an older program leaves it, without a list of the files.
    std::fs::remove_dir_all(setup.folder().join("trees")).unwrap();
    assert_eq!(setup.offline(REPO).unwrap(), cached);
    let error = setup.offline("org/name:x.gguf").unwrap_err();
    assert!(matches!(error, Error::NoFile { .. }), "{error}");
    assert!(setup.server.requests().is_empty());
}

#[test]
fn a_missing_file_of_a_listed_commit_is_noticed_offline() {
    let setup = setup();
    let fetched = setup.fetch(REPO).unwrap();
    std::fs::remove_file(fetched.path.join("generation_config.json")).unwrap();
    let error = setup.offline(REPO).unwrap_err().to_string();
    assert!(
        error.contains("org/name:generation_config.json is not in the cache"),
        "{error}"
    );
}

#[test]
fn an_absent_network_is_an_error_or_a_warning() {
    let setup = setup();
    let settings = || HubSettings {
        endpoint: "http://127.0.0.1:1".into(),
        ..setup.settings()
    };
    let fetch = || {
        setup
            .hub(settings())
            .fetch(&Name::parse(REPO).unwrap(), Want::Either)
    };
    let error = fetch().unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && !error.is_bad_input(),
        "{error}"
    );
    let fetched = setup.fetch(REPO).unwrap();
    assert_eq!(fetch().unwrap().path, fetched.path);
}

#[test]
fn names_cannot_leave_the_cache() {
    let index = r#"{"weight_map": {"a": "../../../../evil.safetensors"}}"#;
    let mut files = model();
    files.remove(WEIGHTS);
    files.remove(WEIGHTS);
    files.insert("model.safetensors.index.json".into(), index.into());
    files.insert("../../../../evil.safetensors".into(), b"evil".to_vec());
    let setup = setup_with(files.clone());
    let error = setup.error(REPO);
    assert!(matches!(error, Error::HostileName { .. }), "{error}");

    files.insert("tokenizer\\..\\..\\evil".into(), b"evil".to_vec());
    setup.server.set_revision("main", OTHER_COMMIT, files);
    let error = setup.error(REPO);
    assert!(matches!(error, Error::HostileName { .. }), "{error}");
    assert_eq!(names(setup.cache.path()), [".locks", "models--org--name"]);
}

#[test]
fn two_programs_fetch_a_file_once() {
    let setup = setup();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| setup.fetch(REPO).unwrap()))
            .collect();
        let downloaded: u64 = threads
            .into_iter()
            .map(|t| t.join().unwrap().downloaded)
            .sum();
        assert_eq!(downloaded, 5000 + 2 + 8 + 6);
    });
    assert_eq!(setup.stored().len(), 1);
}

#[test]
fn models_are_listed_and_removed() {
    let setup = setup();
    let mut files = model();
    files.insert("config.json".into(), b"{\"another\": 1}".to_vec());
    setup.server.set_revision("v2", OTHER_COMMIT, files);
    setup.fetch(REPO).unwrap();
    let fetched = setup.fetch("org/name@v2").unwrap();
    // What both revisions have, if the second one has it again.
    let again = match is_link(&fetched.path.join(WEIGHTS)) {
        true => 0,
        false => 5000 + 8 + 6,
    };
    std::fs::write(setup.folder().join("blobs/00.incomplete"), b"part").unwrap();
    let cache = setup.cache.path();
    let all = list(cache).unwrap();
    let [model] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(
        (&*model.name, model.bytes, model.incomplete_bytes),
        (REPO, 5016 + 14 + 4 + again, 4)
    );
    let refs: Vec<_> = model
        .revisions
        .iter()
        .map(|r| (&*r.commit, r.refs.join(" ")))
        .collect();
    assert_eq!(refs, [(COMMIT, "main".into()), (OTHER_COMMIT, "v2".into())]);

    let remove = |name: &str| remove(cache, &Name::parse(name).unwrap());
    remove("org/name@v3").unwrap_err();
    remove("org/other").unwrap_err();
    assert_eq!(
        remove("org/name@v2").unwrap(),
        14 + 40 + tree_bytes(&setup, COMMIT) + again
    );
    assert_eq!(setup.offline(REPO).unwrap().downloaded, 0);
    setup.offline("org/name@v2").unwrap_err();
    assert!(remove(REPO).unwrap() > 5016);
    assert_eq!(list(cache).unwrap().len(), 0);
    assert_eq!(names(&cache.join(".locks")), [""; 0]);
}

/// Size of the listing of a commit; that of the other commit has one digit more.
fn tree_bytes(setup: &Setup, commit: &str) -> u64 {
    let tree = setup.folder().join("trees").join(format!("{commit}.json"));
    tree.metadata().unwrap().len() + 1
}

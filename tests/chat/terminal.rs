//! A conversation in a pseudo-terminal, with stdout piped elsewhere.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use nix::pty::{Winsize, openpty};
use serde_json::{Value, json};

use super::{MODELS, stdout, text};

/// What the editor prints when it begins to read keys: paste is bracketed from now on.
const READY: &str = "\x1b[?2004h";

struct Session {
    child: Child,
    keyboard: File,
    screen: File,
    seen: String,
}

impl Session {
    /// `setsid` gives the program its own terminal, as a terminal window does.
    fn begin(args: &[&str]) -> Session {
        let size = Winsize {
            ws_row: 24,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_sterna"), "chat"])
            .args(args)
            .env("TERM", "xterm")
            .stdin(pty.slave.try_clone().unwrap())
            .stdout(Stdio::piped())
            .stderr(pty.slave)
            .spawn()
            .unwrap();
        let keyboard = File::from(pty.master);
        let screen = keyboard.try_clone().unwrap();
        Session {
            child,
            keyboard,
            screen,
            seen: String::new(),
        }
    }

    /// Presses keys once the editor reads, and returns what was on the screen until then.
    fn press(&mut self, keys: &str) -> String {
        let mut buffer = [0; 4096];
        let end = loop {
            if let Some(at) = self.seen.find(READY) {
                break at + READY.len();
            }
            // The read fails where the program has ended.
            let n = self.screen.read(&mut buffer).unwrap_or(0);
            assert!(n > 0, "the conversation ended: {:?}", self.seen);
            self.seen += &String::from_utf8_lossy(&buffer[..n]);
        };
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.seen.drain(..end).collect()
    }

    /// The lines of stdout of a conversation that ended well.
    fn end(mut self) -> Vec<Value> {
        // Until nobody holds the terminal; a full one would block the program.
        let _ = self.screen.read_to_end(&mut Vec::new());
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        let lines = String::from_utf8(output.stdout).unwrap();
        let parse = |line| serde_json::from_str(line).unwrap();
        lines.lines().map(parse).collect()
    }
}

#[test]
fn a_person_edits_lines() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved.json");
    let mut session = Session::begin(&[text(&MODELS.chat), "-n", "2", "--json"]);
    let (up, left) = ("\x1b[A", "\x1b[D");
    // Ctrl-W removes a word, Ctrl-A goes to the beginning and Ctrl-E to the end.
    session.press(&format!("ey you\x17\x01H\x05o{left}y\r"));
    session.press("\x1b[200~one\rtwo\r\x1b[201~\r");
    // From the second line of the last message to its first, then to the message before it.
    session.press(&format!("{up}{up}{up}\r"));
    session.press("never said\x03");
    let screen = session.press(&format!("/save {}\r", text(&saved)));
    assert!(screen.contains("Ctrl-C again"), "{screen:?}");
    // Ctrl-C twice ends only where nothing was typed in between.
    for keys in ["\x03", "nor this\x03", "\x03"] {
        session.press(keys);
    }
    let answers = session.end();

    let messages: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    let mut expected = Vec::new();
    for (content, answer) in ["Hey yo", "one\ntwo", "Hey yo"].into_iter().zip(&answers) {
        expected.push(json!({"role": "user", "content": content}));
        expected.push(json!({"role": "assistant", "content": answer["text"]}));
    }
    assert_eq!(answers.len(), 3);
    assert_eq!(messages, Value::from(expected));
}

#[test]
fn ctrl_d_at_an_empty_line_ends() {
    let mut session = Session::begin(&[text(&MODELS.chat), "--json"]);
    session.press("\x04");
    assert!(session.end().is_empty());
}

/// The model of the other tests with room for an answer that would take minutes, and no token that
/// ends it.
fn endless(folder: &Path) -> PathBuf {
    for entry in std::fs::read_dir(&MODELS.folder).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
    ] {
        let path = folder.join(name);
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let object = json.as_object_mut().unwrap();
        object.remove("eos_token_id");
        object.remove("eos_token");
        if name == "config.json" {
            object.insert("max_position_embeddings".into(), CONTEXT.into());
        }
        std::fs::write(&path, json.to_string()).unwrap();
    }
    let out = folder.join("endless");
    stdout(
        &[
            "convert",
            text(folder),
            "--allow-missing",
            "--out",
            text(&out),
        ],
        "",
    );
    out
}

const CONTEXT: usize = 200_000;

#[test]
fn ctrl_c_stops_an_answer_and_the_conversation_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let model = endless(folder.path());
    let mut session = Session::begin(&[text(&model), "--context", &CONTEXT.to_string()]);
    session.press("Hello\r");
    // A pipe that is not read would block the answer.
    let mut pipe = session.child.stdout.take().unwrap();
    let (begun, has_begun) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut first = [0];
        pipe.read_exact(&mut first).unwrap();
        begun.send(()).unwrap();
        pipe.read_to_end(&mut Vec::new()).unwrap();
    });
    has_begun.recv().unwrap();
    session.keyboard.write_all(b"\x03").unwrap();
    session.press("/speed\r");
    let screen = session.press("\x04");
    assert!(screen.contains("ended by an interruption"), "{screen:?}");
    session.end();
    reader.join().unwrap();
}

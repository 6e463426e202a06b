//! The functions that JavaScript calls.
//!
//! A caller writes the text of a call to the pointer of [`sterna_input`], calls a function, and
//! reads [`sterna_output`]: JSON, or `{"message", "code"}` if the function returned [`REFUSED`]. A
//! pointer is good until the next call. A panic writes its message to file descriptor 2 and traps;
//! the instance is then of no more use.

use std::cell::RefCell;

use serde_json::Value;

use crate::{Host, Result};

/// The call was answered.
pub const DONE: i32 = 0;
/// The call was refused; the output says why.
pub const REFUSED: i32 = 1;
/// The call was answered, and the answer of the model ended.
pub const ENDED: i32 = 2;

#[derive(Default)]
struct Buffers {
    host: Host,
    input: Vec<u8>,
    output: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Answers a call with the text in the input.
fn answer(work: impl FnOnce(&mut Host, &str) -> Result<(Vec<u8>, i32)>) -> i32 {
    BUFFERS.with_borrow_mut(|buffers| {
        let input = String::from_utf8_lossy(&buffers.input);
        let (output, state) = match work(&mut buffers.host, &input) {
            Ok(answer) => answer,
            Err(error) => (error.json().to_string().into_bytes(), REFUSED),
        };
        buffers.output = output;
        state
    })
}

fn answer_json(work: impl FnOnce(&mut Host, &str) -> Result<Value>) -> i32 {
    answer(|host, input| Ok((work(host, input)?.to_string().into_bytes(), DONE)))
}

/// Room for the text of the next call, `len` bytes of UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn sterna_input(len: usize) -> *mut u8 {
    BUFFERS.with_borrow_mut(|buffers| {
        buffers.input.clear();
        buffers.input.resize(len, 0);
        buffers.input.as_mut_ptr()
    })
}

/// What the last call answered.
#[unsafe(no_mangle)]
pub extern "C" fn sterna_output() -> *const u8 {
    BUFFERS.with_borrow(|buffers| buffers.output.as_ptr())
}

/// Its length in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn sterna_output_len() -> usize {
    BUFFERS.with_borrow(|buffers| buffers.output.len())
}

/// Room for the file of the model, `len` bytes; null if it was refused. See [`Host::room`].
#[unsafe(no_mangle)]
pub extern "C" fn sterna_room(len: usize) -> *mut u8 {
    let mut room = std::ptr::null_mut();
    answer(|host, _| {
        room = host.room(len)?.as_mut_ptr();
        Ok((Vec::new(), DONE))
    });
    room
}

/// The bytes of the file before `end` have come.
#[unsafe(no_mangle)]
pub extern "C" fn sterna_arrived(end: usize) {
    BUFFERS.with_borrow_mut(|buffers| buffers.host.arrived(end));
}

/// `{"name", "bytes", "sha256"}` → what the model is.
#[unsafe(no_mangle)]
pub extern "C" fn sterna_open() -> i32 {
    answer_json(Host::open)
}

/// [`Host::encode`].
#[unsafe(no_mangle)]
pub extern "C" fn sterna_encode() -> i32 {
    answer_json(Host::encode)
}

/// [`Host::decode`].
#[unsafe(no_mangle)]
pub extern "C" fn sterna_decode() -> i32 {
    answer_json(Host::decode)
}

/// [`Host::render`].
#[unsafe(no_mangle)]
pub extern "C" fn sterna_render() -> i32 {
    answer_json(Host::render)
}

/// [`Host::logits`]; the output is f32 in little-endian order.
#[unsafe(no_mangle)]
pub extern "C" fn sterna_logits() -> i32 {
    answer(|host, input| {
        let logits = host.logits(input)?;
        Ok((logits.iter().flat_map(|x| x.to_le_bytes()).collect(), DONE))
    })
}

/// [`Host::begin`].
#[unsafe(no_mangle)]
pub extern "C" fn sterna_begin() -> i32 {
    answer(|host, input| {
        host.begin(input)?;
        Ok((Vec::new(), DONE))
    })
}

/// [`Host::step`].
#[unsafe(no_mangle)]
pub extern "C" fn sterna_step() -> i32 {
    answer(|host, _| {
        let (event, is_last) = host.step()?;
        let state = if is_last { ENDED } else { DONE };
        Ok((event.to_string().into_bytes(), state))
    })
}

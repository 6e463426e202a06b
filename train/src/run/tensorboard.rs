//! Event files for TensorBoard: scalars and texts over the steps of a run.
//!
//! A file is a sequence of records: a little-endian u64 length, its masked CRC-32C, a protobuf
//! message and its masked CRC-32C. This is the format TFRecord, and the message is
//! `tensorflow.Event`. Each process writes a file of its own that begins with the step from which
//! it resumes. TensorBoard then drops what an interrupted process wrote for later steps.
//!
//! Written by hand: the crate tensorboard-rs adds 34 crates for these few messages and has had no
//! release for years.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::statistics::LayerStatistics;
use crate::{Error, Event, Result};

/// Steps between two points of the curves of the training loss.
const EVERY: u64 = 10;

/// The event file of this process.
pub struct Board {
    folder: PathBuf,
    file: Option<(PathBuf, BufWriter<File>)>,
    clock: Instant,
    tokens: usize,
}

impl Board {
    /// A writer for this folder. The file is created when the run starts.
    pub fn new(folder: &Path) -> Board {
        Board {
            folder: folder.to_owned(),
            file: None,
            clock: Instant::now(),
            tokens: 0,
        }
    }

    /// Writes the curves of an event.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn see(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Started { step, .. } => self.open(*step),
            Event::Step {
                step,
                of,
                learning_rate,
                tokens,
            } => {
                // Speed is the mean over the steps since the last point.
                self.tokens += tokens;
                if !step.is_multiple_of(EVERY) && *step != 1 {
                    return Ok(());
                }
                let seconds = self.clock.elapsed().as_secs_f64().max(1e-9);
                let speed = self.tokens as f64 / seconds;
                (self.clock, self.tokens) = (Instant::now(), 0);
                let mut values = scalar("loss/train", of.loss);
                values.extend(scalar("gradient_norm", of.gradient_norm));
                values.extend(scalar("learning_rate", *learning_rate));
                values.extend(scalar("tokens_per_second", speed));
                self.push(*step, Some(values))
            }
            Event::Evaluated { step, of } => {
                let mut values = scalar("loss/held_out", of.loss);
                values.extend(scalar("bits_per_byte", of.bits_per_byte));
                of.layers
                    .iter()
                    .for_each(|layer| values.extend(curves(layer)));
                if let Some((prompt, more)) = &of.sample {
                    values.extend(text("sample", &format!("**{prompt}**{more}")));
                }
                self.push(*step, Some(values))?;
                self.flush()
            }
            Event::Saved(_) => self.flush(),
            Event::Preparing { .. } | Event::Note(_) | Event::Packed(_) => Ok(()),
            Event::Idle { .. } | Event::Warning(_) => Ok(()),
        }
    }

    fn open(&mut self, step: u64) -> Result<()> {
        std::fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let entries = std::fs::read_dir(&self.folder).map_err(Error::io(&self.folder))?;
        // TensorBoard reads files in the order of their names, so later files need later names.
        let (seconds, count) = (now() as u64, entries.count());
        let name = format!("events.out.tfevents.{seconds:010}.sterna.{count:04}");
        let path = self.folder.join(name);
        let file = File::create_new(&path).map_err(Error::io(&path))?;
        self.file = Some((path, BufWriter::new(file)));
        self.clock = Instant::now();
        let mut version = double(1, now());
        version.extend(bytes(3, b"brain.Event:2")); // file_version
        self.record(&version)?;
        self.push(step + 1, None)?;
        self.flush()
    }

    /// Writes the values of a step, or the mark of a process that starts with it.
    fn push(&mut self, step: u64, values: Option<Vec<u8>>) -> Result<()> {
        let mut event = double(1, now()); // wall_time
        event.extend(integer(2, step));
        event.extend(match values {
            Some(values) => bytes(5, &values), // summary
            None => bytes(7, &integer(1, 1)),  // session_log, status START
        });
        self.record(&event)
    }

    fn record(&mut self, message: &[u8]) -> Result<()> {
        let Some((path, out)) = &mut self.file else {
            return Ok(());
        };
        let length = (message.len() as u64).to_le_bytes();
        let parts = [
            &length[..],
            &masked(&length).to_le_bytes(),
            message,
            &masked(message).to_le_bytes(),
        ];
        let written = parts.iter().try_for_each(|part| out.write_all(part));
        written.map_err(Error::io(path))
    }

    fn flush(&mut self) -> Result<()> {
        match &mut self.file {
            Some((path, out)) => out.flush().map_err(Error::io(path)),
            None => Ok(()),
        }
    }
}

fn now() -> f64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    time.map_or(0.0, |time| time.as_secs_f64())
}

/// Masked CRC-32C: rotated and offset, so that checksums of data with checksums stay distinct.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// The curves of one matrix: `model.layers.0.mlp.up_proj.weight` becomes `zeros/0.mlp.up_proj`.
fn curves(layer: &LayerStatistics) -> Vec<u8> {
    let name = layer
        .name
        .trim_start_matches("model.layers.")
        .trim_end_matches(".weight");
    let mut values = scalar(&format!("gradient/{name}"), layer.gradient_norm);
    if let Some(trits) = layer.trits {
        values.extend(scalar(&format!("zeros/{name}"), trits.zeros));
        values.extend(scalar(&format!("flips/{name}"), trits.flips));
        values.extend(scalar(&format!("scale/{name}"), trits.scale.into()));
    }
    values
}

/// A `Summary.Value` with tag and simple_value, as a field of a `Summary`.
fn scalar(tag: &str, value: f64) -> Vec<u8> {
    let mut message = bytes(1, tag.as_bytes());
    message.push(2 << 3 | 5); // simple_value, 32 bits
    message.extend((value as f32).to_le_bytes());
    bytes(1, &message)
}

/// A `Summary.Value` with a tensor of one string for the plugin `text`, as a field of a `Summary`.
fn text(tag: &str, text: &str) -> Vec<u8> {
    const STRING: u64 = 7; // DataType.DT_STRING
    let mut tensor = integer(1, STRING);
    tensor.extend(bytes(2, &bytes(2, &integer(1, 1)))); // tensor_shape of one dimension, 1
    tensor.extend(bytes(8, text.as_bytes())); // string_val
    let plugin = bytes(1, &bytes(1, b"text")); // plugin_data.plugin_name
    let mut message = bytes(1, tag.as_bytes());
    message.extend(bytes(8, &tensor));
    message.extend(bytes(9, &plugin)); // metadata
    bytes(1, &message)
}

fn double(field: u64, value: f64) -> Vec<u8> {
    let mut out = varint(field << 3 | 1);
    out.extend(value.to_le_bytes());
    out
}

fn integer(field: u64, value: u64) -> Vec<u8> {
    let mut out = varint(field << 3);
    out.extend(varint(value));
    out
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    let mut out = varint(field << 3 | 2);
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_protobuf() {
        assert_eq!(integer(2, 300), [0x10, 0xac, 0x02]);
        assert_eq!(bytes(3, b"ab"), [0x1a, 2, b'a', b'b']);
        let value = [0x0a, 8, 0x0a, 1, b'x', 0x15, 0, 0, 0x80, 0x3f];
        assert_eq!(scalar("x", 1.0), value);
        assert_eq!(double(1, 1.0), [9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    }

    #[test]
    fn every_record_carries_its_checksums() {
        // CRC-32C of "123456789" is the check value of its definition.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let folder = tempfile::tempdir().unwrap();
        let mut board = Board::new(folder.path());
        let started = Event::Started {
            parameters: 1,
            step: 7,
            epochs: 1.0,
            flops_per_token: 1.0,
        };
        board.see(&started).unwrap();
        let path = board.file.as_ref().unwrap().0.clone();
        let file = std::fs::read(path).unwrap();
        let (mut rest, mut messages) = (&file[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let sum = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            assert_eq!(
                (sum(8), sum(12 + length)),
                (masked(&rest[..8]), masked(&rest[12..12 + length]))
            );
            messages.push(rest[12..12 + length].to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(messages.len(), 2);
        assert!(messages[0].ends_with(b"brain.Event:2"));
        assert_eq!(messages[1][9..], [0x10, 8, 0x3a, 2, 8, 1]); // from step 8 on
    }
}

//! The cost of making the data of a run: the tokenizer and the tokens.
//!
//! Time is measured on the beginning of the data and grows with their bytes. Memory does not grow,
//! so the memory of that beginning is that of all.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use sterna_datasets::bpe::WordCounts;
use sterna_datasets::prepare::{self, Watch};
use sterna_datasets::read::{self, Parts};
use sterna_datasets::{Error as DataError, Tokenizer, conversation};

use super::cost::peak_bytes;
use super::data;
use super::events::{Control, Event};
use super::opened::Run;
use super::texts;
use crate::recipe::Recipe;
use crate::{Error, Result};

/// The cost of making the data of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preparation {
    /// Bytes of the files of texts or conversations, packed as they are.
    pub bytes: u64,
    /// Bytes of them that were read and encoded for the measurement.
    pub measured_bytes: u64,
    /// Seconds for all of them.
    pub seconds: f64,
    /// The largest memory of this process so far in bytes; none if the system does not report it.
    pub peak_bytes: Option<u64>,
}

/// Bytes of files that are read for the measurement, from each source of text.
const SAMPLE: u64 = 16 << 20;
/// Time after which reading stops.
const LONG: Duration = Duration::from_secs(5);

/// Measures the cost; none if the data of the recipe are generated. Writes nothing that stays.
///
/// # Errors
/// Those of preparing the data.
pub fn measure(run: &Run) -> Result<Option<Preparation>> {
    let recipe = run.recipe();
    if recipe.data.mix.is_some() {
        return Ok(None);
    }
    let folder = tempfile::tempdir().map_err(Error::io(&std::env::temp_dir()))?;
    let mut made = Preparation {
        bytes: 0,
        measured_bytes: 0,
        seconds: 0.0,
        peak_bytes: None,
    };
    let tokenizer = match run.tokenizer_from() {
        Some(checkpoint) => data::taken_over(checkpoint, folder.path())?,
        None => trained(run, &mut made)?,
    };
    encode(run, &tokenizer, &mut made)?;
    made.peak_bytes = peak_bytes();
    Ok(Some(made))
}

/// A tokenizer that is trained on the sample, and the time for that on all texts.
fn trained(run: &Run, made: &mut Preparation) -> Result<Tokenizer> {
    let recipe = run.recipe();
    let counts = match run.chat() {
        Some(chat) if recipe.has_conversations() => {
            let start = Instant::now();
            let counts = data::word_counts(recipe, chat, &mut quiet)?;
            made.seconds += start.elapsed().as_secs_f64();
            counts
        }
        _ => of_texts(recipe, made)?,
    };
    let start = Instant::now();
    let tokenizer = counts.train(recipe.data.vocab_size, &data::special_tokens(run))?;
    made.seconds += start.elapsed().as_secs_f64();
    Ok(tokenizer)
}

/// The words of the sample.
fn of_texts(recipe: &Recipe, made: &mut Preparation) -> Result<WordCounts> {
    let mut counts = WordCounts::new()?;
    for source in data::sources(recipe, Path::new("")) {
        let parts = read::parts(&source.paths, &texts::options(recipe))?;
        let (total, bytes) = (parts.total(), parts.text_bytes());
        let most = (texts::SAMPLE as f64 * source.share) as u64;
        let parts = parts.tolerant(recipe.data.strict);
        let (_, seconds) = sampled(total, |watch| {
            counts.add_sample(parts, bytes, most, watch).map(drop)
        })?;
        made.seconds += seconds;
    }
    Ok(counts)
}

/// Encodes the sample.
fn encode(run: &Run, tokenizer: &Tokenizer, made: &mut Preparation) -> Result<()> {
    let recipe = run.recipe();
    let mut add = |total: u64, (read, seconds): (u64, f64)| {
        made.bytes += total;
        made.measured_bytes += read;
        made.seconds += seconds;
    };
    if let Some(paths) = &recipe.data.chat {
        let total = conversation::conversations(paths, None)?.total();
        let packer = data::packer(run, tokenizer);
        add(
            total,
            sampled(total, |watch| packer.rehearse(paths, watch))?,
        );
        return Ok(());
    }
    for source in data::sources(recipe, Path::new("")) {
        let parts: Parts = read::parts(&source.paths, &texts::options(recipe))?;
        let total = parts.total();
        let parts = parts.tolerant(recipe.data.strict);
        let found = sampled(total, |watch| prepare::rehearse(parts, tokenizer, watch))?;
        add(total, found);
    }
    Ok(())
}

/// Reads a sample of `total` bytes. Returns the bytes that were read, and the seconds for all.
fn sampled(
    total: u64,
    work: impl FnOnce(Watch) -> sterna_datasets::Result<()>,
) -> Result<(u64, f64)> {
    let start = Instant::now();
    let (mut read, mut elapsed) = (0, Duration::ZERO);
    let outcome = work(&mut |done| {
        (read, elapsed) = (done, start.elapsed());
        match read >= SAMPLE || elapsed >= LONG {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    match outcome {
        Ok(()) => Ok((total, start.elapsed().as_secs_f64())),
        Err(DataError::Stopped) => {
            let seconds = elapsed.as_secs_f64() * total as f64 / read.max(1) as f64;
            Ok((read, seconds))
        }
        Err(error) => Err(error.into()),
    }
}

fn quiet(_: Event) -> Control {
    Control::Continue
}

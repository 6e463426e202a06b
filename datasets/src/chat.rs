//! Conversations to rows: rendered by a chat template, encoded, marked where the assistant speaks, packed.

use std::fs;
use std::io::{self, Seek, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use sterna_ternary::durable;

use crate::conversation::{self, Conversation, Message};
use crate::random::mix64;
use crate::rows::{RowsWriter, UNSCORED};
use crate::{Error, Result, Tokenizer};

/// Text that a chat template made of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// All of it, special tokens by their names.
    pub text: String,
    /// What is learned, in bytes of the text.
    pub answers: Vec<Range<usize>>,
}

/// Writes a conversation as a model wants it, or says why it cannot. Several texts come from a template that writes
/// earlier turns otherwise once later ones follow: then each answer is learned by itself.
pub type Render = dyn Fn(&[Message]) -> Result<Vec<Rendered>, String> + Send + Sync;

/// What became of the conversations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Texts that were rendered; one for each conversation, or for each answer.
    pub texts: u64,
    /// Rows that they fill.
    pub rows: u64,
    /// Tokens that are learned.
    pub scored: u64,
    /// Texts that were longer than a row and lost their end.
    pub cut: u64,
    /// Texts of which a row would hold no answer; they are left out.
    pub left_out: u64,
}

/// The files of [`prepare`].
pub const FILES: [&str; 2] = ["train.rows", "held_out.rows"];

/// Conversations encoded at a time.
const BATCH: usize = 1024;

/// Writes [`FILES`] into `folder`, which is created, holding out about this share (0 ≤ share < 1) of the
/// conversations by a hash of their position. Returns the counts of each.
///
/// Errors of reading and rendering end the work, and then neither file is changed.
pub fn prepare(
    paths: &[PathBuf],
    render: &Render,
    tokenizer: &Tokenizer,
    context: usize,
    folder: &Path,
    share: f64,
) -> Result<[Counts; 2]> {
    if !(0.0..1.0).contains(&share) {
        return Err(Error::HeldOutShare { found: share });
    }
    fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    let conversations = conversation::conversations(paths)?;
    let threshold = (share * 2f64.powi(64)) as u64;
    let sides = (0..).map(|index| usize::from(mix64(index) < threshold));
    let outputs = FILES.map(|name| folder.join(name));
    let mut counts = None;
    let outcome = durable::write(&outputs[0], |train| {
        durable::write(&outputs[1], |held_out| {
            let train = Packer::new(train, tokenizer, context)?;
            let held_out = Packer::new(held_out, tokenizer, context)?;
            let conversations = sides.zip(conversations);
            let found = fill([train, held_out], conversations, render, tokenizer);
            counts = Some(found.map_err(io::Error::other)?);
            Ok(())
        })
    });
    outcome.map_err(|error| match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(source) => Error::io(folder, "write rows into")(source),
    })?;
    let counts = counts.expect("a durable write succeeds only if its closure did");
    for (path, counts) in outputs.iter().zip(&counts) {
        if counts.rows == 0 {
            return Err(Error::NoConversation { path: path.clone() });
        }
    }
    Ok(counts)
}

fn fill<W: Write + Seek>(
    mut packers: [Packer<W>; 2],
    mut conversations: impl Iterator<Item = (usize, Result<Conversation>)>,
    render: &Render,
    tokenizer: &Tokenizer,
) -> Result<[Counts; 2]> {
    let encoder = tokenizer.of_templates();
    loop {
        let (mut sides, mut texts) = (Vec::new(), Vec::new());
        for (side, conversation) in conversations.by_ref().take(BATCH) {
            let rendered = rendered(conversation?, render)?;
            sides.extend(rendered.iter().map(|_| side));
            texts.extend(rendered);
        }
        if texts.is_empty() {
            break;
        }
        for (side, tokens) in sides.into_iter().zip(encoder.encode(texts)?) {
            packers[side].push(tokens)?;
        }
    }
    let [train, held_out] = packers;
    Ok([train.finish()?, held_out.finish()?])
}

fn rendered(conversation: Conversation, render: &Render) -> Result<Vec<Rendered>> {
    let Conversation {
        path,
        line,
        messages,
    } = conversation;
    render(&messages).map_err(|reason| Error::Template { path, line, reason })
}

/// Cuts what is too long, counts, and hands the rest to a writer.
struct Packer<W> {
    writer: RowsWriter<W>,
    width: usize,
    counts: Counts,
}

impl<W: Write + Seek> Packer<W> {
    fn new(out: W, tokenizer: &Tokenizer, context: usize) -> io::Result<Self> {
        let width = context + 1;
        Ok(Self {
            writer: RowsWriter::new(out, tokenizer, width)?,
            width,
            counts: Counts::default(),
        })
    }

    fn push(&mut self, mut tokens: Vec<u32>) -> Result<()> {
        self.counts.texts += 1;
        self.counts.cut += u64::from(tokens.len() > self.width);
        tokens.truncate(self.width);
        let learned = tokens.iter().skip(1).filter(|t| *t & UNSCORED == 0);
        let learned = learned.count() as u64;
        self.counts.scored += learned;
        self.counts.left_out += u64::from(learned == 0);
        match learned {
            0 => Ok(()),
            _ => self.writer.push(tokens).map_err(written),
        }
    }

    fn finish(mut self) -> Result<Counts> {
        self.counts.rows = self.writer.finish().map_err(written)?;
        Ok(self.counts)
    }
}

fn written(source: io::Error) -> Error {
    Error::io(Path::new("rows"), "write")(source)
}

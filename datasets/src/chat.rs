//! Turns conversations into rows: a chat template renders them, a tokenizer encodes them, and the
//! tokens to learn are marked.
//!
//! Generated corpora may mix conversations with plain text. A plain document goes into the same
//! rows between BOS and EOS, and all of it is learned.

use std::fs;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use sterna_ternary::durable;

use crate::answers::{Rendered, RenderedConversation, Renderer};
use crate::conversation::{self, Conversation, Layout};
use crate::notes::{Notes, Tolerance};
use crate::random::mix64;
use crate::rows::{RowsWriter, UNSCORED};
use crate::{Corpus, Error, Mix, Result, Split, Tokenizer};

/// Which tokens of a conversation have a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The tokens of answers and those that end them: for a model that knows the language.
    Answers,
    /// All tokens: a model that is trained from scratch learns the language from the questions too.
    Everything,
}

/// How many conversations were packed, and into what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConversationCounts {
    /// Texts that were rendered: one per conversation, or one per answer.
    pub texts: u64,
    /// Rows that they fill.
    pub rows: u64,
    /// Tokens that are learned.
    pub scored: u64,
    /// Texts that were longer than a row and lost their end.
    pub cut: u64,
    /// Texts that were left out because none of their answers fits into a row.
    pub left_out: u64,
}

/// The files that a [`Packer`] writes.
pub const FILES: [&str; 2] = ["train.rows", "held_out.rows"];

/// What was packed, and what there is to say about its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The counts of each side, training first.
    pub counts: [ConversationCounts; 2],
    /// What was recognized, not read, not learned or left out.
    pub notes: Notes,
}

/// Documents encoded at a time.
const BATCH: usize = 1024;

/// Writes conversations into rows of one width.
pub struct Packer<'a> {
    /// Writes a conversation as text.
    pub renderer: &'a Renderer,
    /// Encodes it.
    pub tokenizer: &'a Tokenizer,
    /// The number of tokens in a row, less one.
    pub context: usize,
    /// Which tokens have a loss.
    pub learned: Learned,
    /// The layout of records; by default the one that their keys say.
    pub layout: Option<Layout>,
    /// Whether a record that cannot be used ends the work.
    pub is_strict: bool,
}

/// A document to pack, before it is rendered and encoded.
pub enum Packable {
    /// Written by the template.
    Conversation(Conversation),
    /// Written between BOS and EOS.
    Text(String),
}

/// The texts of a conversation; errors name where it comes from.
pub fn render(renderer: &Renderer, conversation: &Conversation) -> Result<RenderedConversation> {
    renderer
        .render(conversation)
        .map_err(|reason| Error::Template {
            path: conversation.path.clone(),
            line: conversation.line,
            reason,
        })
}

impl Packer<'_> {
    /// Writes [`FILES`] from files of conversations into `folder`, which is created. A hash of a
    /// conversation's position decides whether it is held out, and `share` (0 ≤ share < 1) is the
    /// expected share of those.
    ///
    /// Records that cannot be used are left out, up to a tenth of all. An error of the file system,
    /// and more records of that kind, end the work, and then neither file is changed.
    pub fn files(&self, paths: &[PathBuf], share: f64, folder: &Path) -> Result<Packed> {
        if !(0.0..1.0).contains(&share) {
            return Err(Error::HeldOutShare { found: share });
        }
        let conversations = conversation::conversations(paths, self.layout)?;
        let threshold = (share * 2f64.powi(64)) as u64;
        let split = |index| match mix64(index) < threshold {
            true => Split::HeldOut,
            false => Split::Train,
        };
        let items = (0..).zip(conversations).map(|(index, conversation)| {
            let conversation = conversation?;
            Ok((split(index), Packable::Conversation(conversation)))
        });
        let counts = self.write(items, folder)?;
        let wanted = [true, share > 0.0];
        has_rows(counts, wanted, folder)
    }

    /// Writes [`FILES`] from generated documents into `folder`, which is created: `documents` is
    /// the number of each side, training first.
    pub fn generated(
        &self,
        mix: &Mix,
        seed: u64,
        documents: [u64; 2],
        folder: &Path,
    ) -> Result<Packed> {
        let sides = [Split::Train, Split::HeldOut].into_iter().zip(documents);
        let items = sides.flat_map(|(split, count)| {
            let mix = mix.clone();
            let corpus = Corpus { mix, seed, split };
            (0..count).map(move |index| Ok((split, Packable::generated(&corpus, index))))
        });
        let counts = self.write(items, folder)?;
        has_rows(counts, documents.map(|count| count > 0), folder)
    }

    fn write(
        &self,
        items: impl Iterator<Item = Result<(Split, Packable)>>,
        folder: &Path,
    ) -> Result<Packed> {
        fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
        let outputs = FILES.map(|name| folder.join(name));
        let mut packed = None;
        let outcome = durable::write(&outputs[0], |train| {
            durable::write(&outputs[1], |held_out| {
                let train = Side::new(train, self.tokenizer, self.context)?;
                let held_out = Side::new(held_out, self.tokenizer, self.context)?;
                let found = self.fill([train, held_out], items);
                packed = Some(found.map_err(io::Error::other)?);
                Ok(())
            })
        });
        outcome.map_err(|error| match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(source) => Error::io(folder, "write rows into")(source),
        })?;
        Ok(packed.expect("a durable write succeeds only if its closure did"))
    }

    /// Encodes documents in batches, each in its order, and hands them to the rows of their side.
    fn fill<W: Write + Seek>(
        &self,
        mut rows: [Side<W>; 2],
        mut items: impl Iterator<Item = Result<(Split, Packable)>>,
    ) -> Result<Packed> {
        let encoder = self.tokenizer.of_templates();
        let mut tolerance = Tolerance::new(self.is_strict);
        let mut notes = Notes::default();
        loop {
            // Conversations and plain texts are encoded apart; `order` puts them together again.
            let (mut order, mut rendered, mut plain) = (Vec::new(), Vec::new(), Vec::new());
            let mut is_end = true;
            for item in items.by_ref().take(BATCH) {
                is_end = false;
                let document = item.and_then(|(split, item)| match item {
                    Packable::Conversation(conversation) => {
                        let texts = self.rendered(&conversation, &mut notes)?;
                        Ok((split, Document::Rendered(texts)))
                    }
                    Packable::Text(text) => Ok((split, Document::Plain(text))),
                });
                match tolerance.keep(document)? {
                    None => {}
                    Some((split, Document::Rendered(texts))) => {
                        order.extend(texts.iter().map(|_| (split, true)));
                        rendered.extend(texts);
                    }
                    Some((split, Document::Plain(text))) => {
                        order.push((split, false));
                        plain.push(text);
                    }
                }
            }
            if is_end {
                break;
            }
            let mut rendered = encoder.encode(rendered)?.into_iter();
            let mut plain = self.tokenizer.encode_documents(plain)?.into_iter();
            for (split, is_conversation) in order {
                let tokens = match is_conversation {
                    true => rendered.next(),
                    false => plain.next(),
                };
                let tokens = tokens.expect("there is an encoding of every text");
                rows[split as usize].push(tokens)?;
            }
        }
        notes.skipped = tolerance.finish()?;
        let [train, held_out] = rows;
        let counts = [train.finish()?, held_out.finish()?];
        Ok(Packed { counts, notes })
    }

    /// The texts of a conversation, each with what is learned of it.
    fn rendered(&self, conversation: &Conversation, notes: &mut Notes) -> Result<Vec<Rendered>> {
        let mut found = render(self.renderer, conversation)?;
        if self.learned == Learned::Everything {
            for text in &mut found.texts {
                text.answers = text.all_but_read_only();
            }
        }
        notes.add(conversation, &found);
        Ok(found.texts)
    }
}

/// A document to encode.
enum Document {
    Rendered(Vec<Rendered>),
    Plain(String),
}

/// Checks that the files that are wanted have rows.
///
/// # Errors
/// [`Error::NoConversation`] if one has none.
fn has_rows(packed: Packed, wanted: [bool; 2], folder: &Path) -> Result<Packed> {
    for (name, (counts, is_wanted)) in FILES.iter().zip(packed.counts.iter().zip(wanted)) {
        if is_wanted && counts.rows == 0 {
            let path = folder.join(name);
            return Err(Error::NoConversation { path });
        }
    }
    Ok(packed)
}

impl Packable {
    /// Document `index` of a corpus.
    pub fn generated(corpus: &Corpus, index: u64) -> Self {
        let (task, document) = corpus.document(index);
        match task.is_conversation() {
            false => Packable::Text(document.text),
            true => Packable::Conversation(Conversation {
                path: "generated documents".into(),
                line: index + 1,
                ..Conversation::of(document.messages)
            }),
        }
    }
}

/// The rows of one side. Cuts documents that are too long, counts them, and passes them to a
/// writer.
struct Side<W> {
    writer: RowsWriter<W>,
    width: usize,
    counts: ConversationCounts,
}

impl<W: Write + Seek> Side<W> {
    fn new(out: W, tokenizer: &Tokenizer, context: usize) -> io::Result<Self> {
        let width = context + 1;
        Ok(Self {
            writer: RowsWriter::new(out, tokenizer, width)?,
            width,
            counts: ConversationCounts::default(),
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

    fn finish(mut self) -> Result<ConversationCounts> {
        self.counts.rows = self.writer.finish().map_err(written)?;
        Ok(self.counts)
    }
}

fn written(source: io::Error) -> Error {
    Error::io(Path::new("rows"), "write")(source)
}

//! Turns conversations into rows: a chat template renders them, a tokenizer encodes them, and the
//! tokens to learn are marked.
//!
//! Generated corpora may mix conversations with plain text. A plain document goes into the same
//! rows between BOS and EOS, and all of it is learned. Memory holds the conversations that are
//! rendered at the same time, of a file about a megabyte as it is stored and one more, and of those
//! that are encoded about a row each.

use std::fs;
use std::io::{self, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sterna_ternary::durable;

use crate::answers::{Rendered, RenderedConversation, Renderer};
use crate::conversation::{self, Conversation, Layout};
use crate::encoder::template::TemplateEncoder;
use crate::notes::{Notes, Tolerance};
use crate::prepare::Watch;
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

impl ConversationCounts {
    /// How the conversations of a side were packed, in one line.
    pub fn describe(&self, name: &str) -> String {
        let ConversationCounts {
            texts,
            rows,
            scored,
            cut,
            left_out,
        } = self;
        let mut text =
            format!("{name}: {texts} conversations in {rows} rows, {scored} tokens to learn");
        if cut + left_out > 0 {
            text += &format!(
                "; {cut} longer than the context were cut, {left_out} without a token to learn were \
             left out"
            );
        }
        text
    }
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

/// Documents encoded at a time, at most.
const BATCH: usize = 1024;
/// Bytes of text encoded at a time, except that what is rendered at the same time may have more.
const BATCH_BYTES: usize = 1 << 20;
/// Documents that are rendered at the same time, at most.
const GROUP: usize = 64;

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
    /// more records of that kind, and `watch` end the work, and then neither file is changed.
    pub fn files(
        &self,
        paths: &[PathBuf],
        share: f64,
        folder: &Path,
        watch: Watch,
    ) -> Result<Packed> {
        if !(0.0..1.0).contains(&share) {
            return Err(Error::HeldOutShare { found: share });
        }
        let threshold = (share * 2f64.powi(64)) as u64;
        let split = |index| match mix64(index) < threshold {
            true => Split::HeldOut,
            false => Split::Train,
        };
        let counts = self.write(self.items(paths, split)?, folder, watch)?;
        let wanted = [true, share > 0.0];
        has_rows(counts, wanted, folder)
    }

    /// Does the work of [`Packer::files`] and writes nothing, so that its time can be measured.
    pub fn rehearse(&self, paths: &[PathBuf], watch: Watch) -> Result<()> {
        let side = || Side::new(io::empty(), self.tokenizer, self.context).map_err(written);
        let items = self.items(paths, |_| Split::Train)?;
        self.fill([side()?, side()?], items, watch).map(drop)
    }

    /// The conversations of files, with their sides by their positions.
    fn items(
        &self,
        paths: &[PathBuf],
        split: impl Fn(u64) -> Split,
    ) -> Result<impl Iterator<Item = Result<Item>>> {
        let mut conversations = conversation::conversations(paths, self.layout)?;
        let mut index = 0;
        Ok(std::iter::from_fn(move || {
            let conversation = conversations.next()?;
            index += 1;
            Some(conversation.map(|conversation| Item {
                side: split(index - 1),
                document: Packable::Conversation(conversation),
                read: conversations.bytes_read(),
            }))
        }))
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
            (0..count).map(move |index| {
                Ok(Item {
                    side: split,
                    document: Packable::generated(&corpus, index),
                    read: 0,
                })
            })
        });
        let counts = self.write(items, folder, &mut |_| ControlFlow::Continue(()))?;
        has_rows(counts, documents.map(|count| count > 0), folder)
    }

    fn write(
        &self,
        items: impl Iterator<Item = Result<Item>>,
        folder: &Path,
        watch: Watch,
    ) -> Result<Packed> {
        fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
        let outputs = FILES.map(|name| folder.join(name));
        let mut packed = None;
        let outcome = durable::write(&outputs[0], |train| {
            durable::write(&outputs[1], |held_out| {
                let train = Side::new(train, self.tokenizer, self.context)?;
                let held_out = Side::new(held_out, self.tokenizer, self.context)?;
                let found = self.fill([train, held_out], items, watch);
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
        items: impl Iterator<Item = Result<Item>>,
        watch: Watch,
    ) -> Result<Packed> {
        let mut items = items.fuse();
        let encoder = self.tokenizer.of_templates();
        let mut tolerance = Tolerance::new(self.is_strict);
        let mut notes = Notes::default();
        loop {
            let mut batch = Batch::default();
            let mut is_end = false;
            while !batch.is_full() && !is_end {
                let group = next_group(&mut items);
                is_end = group.is_empty();
                let rendered = group
                    .into_par_iter()
                    .map(|item| item.and_then(|item| self.rendered(item)));
                for rendered in rendered.collect::<Vec<_>>() {
                    if let Some((item, rendered)) = tolerance.keep(rendered)? {
                        batch.add(Document::of(item, rendered, &mut notes));
                    }
                }
            }
            let read = batch.read;
            for (side, tokens) in batch.encoded(&encoder, self.tokenizer, self.context + 1)? {
                rows[side as usize].push(tokens)?;
            }
            if is_end {
                break;
            }
            if watch(read).is_break() {
                return Err(Error::Stopped);
            }
        }
        notes.skipped = tolerance.finish()?;
        let [train, held_out] = rows;
        let counts = [train.finish()?, held_out.finish()?];
        Ok(Packed { counts, notes })
    }

    /// A document with what the template writes for it, if it is a conversation that is wanted.
    fn rendered(&self, item: Item) -> Result<(Item, Option<RenderedConversation>)> {
        let rendered = match &item.document {
            Packable::Conversation(conversation) if !conversation.is_undesirable => {
                let mut rendered = render(self.renderer, conversation)?;
                if self.learned == Learned::Everything {
                    for text in &mut rendered.texts {
                        text.answers = text.all_but_read_only();
                    }
                }
                Some(rendered)
            }
            Packable::Conversation(_) | Packable::Text(_) => None,
        };
        Ok((item, rendered))
    }
}

/// A document to pack.
struct Item {
    side: Split,
    document: Packable,
    /// Bytes of files that were read up to it.
    read: u64,
}

/// The next documents to render at the same time; none at the end.
fn next_group(items: &mut impl Iterator<Item = Result<Item>>) -> Vec<Result<Item>> {
    let mut group = Vec::new();
    let mut start = None;
    for item in items {
        let read = item.as_ref().map_or(0, |item| item.read);
        let bytes = read.saturating_sub(*start.get_or_insert(read));
        group.push(item);
        if group.len() >= GROUP || bytes >= BATCH_BYTES as u64 {
            break;
        }
    }
    group
}

/// A document to encode.
struct Document {
    side: Split,
    read: u64,
    texts: Texts,
}

enum Texts {
    Rendered(Vec<Rendered>),
    Plain(String),
}

impl Document {
    /// A document with the texts to encode; counts a conversation.
    fn of(item: Item, rendered: Option<RenderedConversation>, notes: &mut Notes) -> Document {
        let texts = match (item.document, rendered) {
            (Packable::Text(text), _) => Texts::Plain(text),
            (Packable::Conversation(conversation), Some(rendered)) => {
                notes.add(&conversation, &rendered);
                Texts::Rendered(rendered.texts)
            }
            (Packable::Conversation(conversation), None) => {
                notes.add_undesirable(&conversation);
                Texts::Rendered(Vec::new())
            }
        };
        Document {
            side: item.side,
            read: item.read,
            texts,
        }
    }
}

/// Documents that are encoded at the same time. Conversations and plain texts are encoded apart;
/// `order` puts them together again.
#[derive(Default)]
struct Batch {
    /// The side of each text, and whether a template wrote it.
    order: Vec<(Split, bool)>,
    rendered: Vec<Rendered>,
    plain: Vec<String>,
    documents: usize,
    bytes: usize,
    /// Bytes of files that were read up to its end.
    read: u64,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.documents >= BATCH || self.bytes >= BATCH_BYTES
    }

    fn add(&mut self, document: Document) {
        self.documents += 1;
        self.read = document.read;
        match document.texts {
            Texts::Rendered(texts) => {
                self.order
                    .extend(texts.iter().map(|_| (document.side, true)));
                self.bytes += texts.iter().map(|text| text.text.len()).sum::<usize>();
                self.rendered.extend(texts);
            }
            Texts::Plain(text) => {
                self.order.push((document.side, false));
                self.bytes += text.len();
                self.plain.push(text);
            }
        }
    }

    /// The tokens of each text, in order. Those of texts by a template are more than `width` where
    /// the text has more.
    fn encoded(
        self,
        encoder: &TemplateEncoder,
        tokenizer: &Tokenizer,
        width: usize,
    ) -> Result<Vec<(Split, Vec<u32>)>> {
        let mut rendered = encoder.encode(self.rendered, width)?.into_iter();
        let mut plain = tokenizer.encode_documents(self.plain)?.into_iter();
        let tokens = self.order.into_iter().map(|(side, is_rendered)| {
            let tokens = match is_rendered {
                true => rendered.next(),
                false => plain.next(),
            };
            (side, tokens.expect("there is an encoding of every text"))
        });
        Ok(tokens.collect())
    }
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

//! Makes the data of a run: from the texts of its recipe to a tokenizer, a loader and held-out
//! rows, in the folder `data`.

use std::io::Write;
use std::path::{Path, PathBuf};

use sterna_datasets::bpe::WordCounts;
use sterna_datasets::chat::{Learned, Packer};
use sterna_datasets::conversation::{self, Conversation};
use sterna_datasets::notes::Tolerance;
use sterna_datasets::tokenizer::{BOS, EOS};
use sterna_datasets::{
    Corpus, Loader, Rows, Shard, Split, Tokenizer, chat, prepare, rows, template, train_bpe,
};
use sterna_ternary::durable;

use super::events::{Control, Event, Preparing};
use super::opened::Run;
use super::texts::{self, Observe};
use crate::recipe::{Recipe, Text};
use crate::{Chat, Error, Pretrained, Result};

/// Number of generated documents or conversations that the tokenizer is trained on.
const TOKENIZER_DOCUMENTS: usize = 20_000;
/// Largest number of held-out rows per evaluation. Evaluations of short rows read more, until they
/// have [`HELD_OUT_TOKENS`].
const HELD_OUT_ROWS: usize = 128;
/// See [`HELD_OUT_ROWS`].
const HELD_OUT_TOKENS: usize = 1 << 15;

/// The files of token shards: training and held-out.
const SHARDS: [&str; 2] = ["train.tokens", "held_out.tokens"];

/// The data of a run.
pub struct Data {
    /// The tokenizer, trained on the same texts or copied from a checkpoint.
    pub tokenizer: Tokenizer,
    /// Training batches.
    pub loader: Loader,
    /// Held-out sequences of context + 1 tokens, concatenated; empty if nothing is held out.
    pub held_out: Vec<u32>,
    /// Bytes of text that the targets in [`Data::held_out`] decode to.
    pub held_out_bytes: usize,
}

/// Writes the tokenizer and the token shards of a recipe into `folder`. The tokenizer is trained on
/// the texts, or copied from the checkpoint that the recipe starts from or learns from.
///
/// Returns what was packed, if the data contain conversations.
///
/// `observe` may stop the work.
///
/// # Errors
/// Texts that cannot be read or are not valid, a checkpoint without a suitable tokenizer, and
/// [`Error::Io`].
pub fn prepare(
    run: &Run,
    folder: &Path,
    observe: &mut dyn FnMut(Event) -> Control,
) -> Result<Option<chat::Packed>> {
    let recipe = run.recipe();
    let data = &recipe.data;
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let tokenizer = match run.tokenizer_from() {
        Some(checkpoint) => taken_over(checkpoint, folder)?,
        None => trained(run, folder, observe)?,
    };
    if recipe.has_conversations() {
        return conversations(run, &tokenizer, folder, observe).map(Some);
    }
    if let Some(mix) = &data.mix {
        let [train, mut held_out] = documents(recipe);
        let row = recipe.train.context as u64 + 1;
        // Short documents may be less than a row.
        loop {
            let made = prepare::generated(mix, data.seed, train, held_out, &tokenizer, folder)?;
            if held_out == 0 || made.held_out.tokens >= row {
                return Ok(None);
            }
            held_out *= 2;
        }
    }
    texts::shards(recipe, &tokenizer, folder, observe)?;
    Ok(None)
}

/// The numbers of generated documents for training and held-out.
fn documents(recipe: &Recipe) -> [u64; 2] {
    let data = &recipe.data;
    let held_out = (data.documents as f64 * data.held_out).ceil() as u64;
    [data.documents, held_out]
}

/// Writes conversations with a chat template, packed into rows, together with the plain texts of a
/// mix.
fn conversations(
    run: &Run,
    tokenizer: &Tokenizer,
    folder: &Path,
    observe: Observe,
) -> Result<chat::Packed> {
    let (recipe, data) = (run.recipe(), &run.recipe().data);
    let packer = packer(run, tokenizer);
    Ok(match &data.mix {
        Some(mix) => packer.generated(mix, data.seed, documents(recipe), folder)?,
        None => {
            let paths = data.chat.as_deref().unwrap_or_default();
            let total = conversation::conversations(paths, None)?.total();
            texts::with_share(data.held_out, observe, |share, observe| {
                let watch = &mut texts::watch(Preparing::Tokens, total, observe);
                packer.files(paths, share, folder, watch)
            })?
        }
    })
}

/// Packs the conversations of a run.
pub(super) fn packer<'a>(run: &'a Run, tokenizer: &'a Tokenizer) -> Packer<'a> {
    let recipe = run.recipe();
    let renderer = run.renderer();
    Packer {
        renderer: renderer.expect("a run with conversations has a chat template"),
        tokenizer,
        context: recipe.train.context,
        learned: learned(run),
        layout: recipe.data.chat_format,
        is_strict: recipe.data.strict,
    }
}

/// The tokens of conversations that are learned: the answers, if the model knows the language from
/// a checkpoint or learns it from plain texts of the mix; everything if not.
fn learned(run: &Run) -> Learned {
    let mut tasks = run.recipe().data.mix.iter().flat_map(|mix| mix.shares());
    let has_plain_texts = tasks.any(|(task, _)| !task.is_conversation());
    match run.tokenizer_from().is_some() || has_plain_texts {
        true => Learned::Answers,
        false => Learned::Everything,
    }
}

/// Trains a tokenizer on the data and saves it.
fn trained(run: &Run, folder: &Path, observe: Observe) -> Result<Tokenizer> {
    let recipe = run.recipe();
    let vocab_size = recipe.data.vocab_size;
    let special_tokens = special_tokens(run);
    let tokenizer = match (run.chat(), corpus(recipe)) {
        (Some(chat), _) if recipe.has_conversations() => {
            word_counts(recipe, chat, observe)?.train(vocab_size, &special_tokens)?
        }
        (_, Some(corpus)) => {
            let texts = corpus.texts().take(TOKENIZER_DOCUMENTS);
            train_bpe(texts, vocab_size, &special_tokens)?
        }
        (_, None) => {
            texts::word_counts(recipe, folder, observe)?.train(vocab_size, &special_tokens)?
        }
    };
    tokenizer.save(folder, recipe.train.context)?;
    Ok(tokenizer)
}

/// The special tokens of the template of a model that is trained from scratch.
pub(super) fn special_tokens(run: &Run) -> Vec<&str> {
    let chat = run.chat().into_iter();
    let tokens = chat.flat_map(|chat| &chat.template.special_tokens);
    tokens.map(String::as_str).collect()
}

/// The words of texts and of rendered conversations, without special tokens.
pub(super) fn word_counts(recipe: &Recipe, chat: &Chat, observe: Observe) -> Result<WordCounts> {
    let special_tokens = chat.template.special_tokens.iter().map(String::as_str);
    let special_tokens: Vec<&str> = special_tokens.chain([BOS, EOS]).collect();
    let mut counts = WordCounts::new()?;
    let add = |counts: &mut WordCounts, conversation: &Conversation| {
        for rendered in chat::render(&chat.renderer, conversation)?.texts {
            for part in template::between(&rendered.text, &special_tokens) {
                counts.add(part.to_owned());
            }
        }
        sterna_datasets::Result::Ok(())
    };
    if let Some(corpus) = corpus(recipe) {
        for index in 0..TOKENIZER_DOCUMENTS {
            match chat::Packable::generated(&corpus, index as u64) {
                chat::Packable::Text(text) => counts.add(text),
                chat::Packable::Conversation(conversation) => add(&mut counts, &conversation)?,
            }
        }
        return Ok(counts);
    }
    let paths = recipe.data.chat.as_deref().unwrap_or_default();
    let mut conversations = conversation::conversations(paths, recipe.data.chat_format)?;
    let total = conversations.total();
    let mut tolerance = Tolerance::new(recipe.data.strict);
    let mut used = 0;
    while let Some(conversation) = conversations.next() {
        if used == TOKENIZER_DOCUMENTS {
            observe(Event::Note(&format!(
                "the tokenizer is trained on the first {used} conversations"
            )));
            break;
        }
        let added = conversation.and_then(|conversation| match conversation.is_undesirable {
            true => Ok(()),
            false => add(&mut counts, &conversation),
        });
        tolerance.keep(added)?;
        used += 1;
        let preparing = texts::preparing(Preparing::Words, conversations.bytes_read(), total);
        if used % 100 == 0 && observe(preparing) == Control::Stop {
            return Err(sterna_datasets::Error::Stopped.into());
        }
    }
    tolerance.finish()?;
    observe(texts::preparing(Preparing::Merges, 0, 0));
    Ok(counts)
}

/// The training documents of a mix.
fn corpus(recipe: &Recipe) -> Option<Corpus> {
    let data = &recipe.data;
    let (mix, seed, split) = (data.mix.clone()?, data.seed, Split::Train);
    Some(Corpus { mix, seed, split })
}

/// Copies the files of a checkpoint's tokenizer.
///
/// # Errors
/// [`Error::Pretrained`] if it has no tokenizer.json, and [`Error::Data`] for one with tokens beyond
/// the embedding that any text can contain.
pub(super) fn taken_over(checkpoint: &Pretrained, folder: &Path) -> Result<Tokenizer> {
    for (name, bytes) in &checkpoint.files {
        let path = folder.join(name);
        durable::write(&path, |w| w.write_all(bytes)).map_err(Error::io(&path))?;
    }
    if !folder.join("tokenizer.json").exists() {
        let why = "it has no tokenizer.json; put the one that it was trained with beside it";
        return Err(checkpoint.error(why.into()));
    }
    loaded(Some(checkpoint), folder)
}

/// The tokenizer that [`prepare()`] wrote into the `data` folder of a run.
pub(crate) fn tokenizer(run: &Run, folder: &Path) -> Result<Tokenizer> {
    loaded(run.tokenizer_from(), folder)
}

fn loaded(checkpoint: Option<&Pretrained>, folder: &Path) -> Result<Tokenizer> {
    let Some(checkpoint) = checkpoint else {
        return Ok(Tokenizer::load(folder)?);
    };
    let tokenizer = Tokenizer::load_with(folder, checkpoint.config.bos_token_id)?;
    Ok(tokenizer.for_rows(checkpoint.config.vocab_size)?)
}

/// A source of texts, and the folder of its shards.
pub(super) struct TextSource {
    pub paths: Vec<PathBuf>,
    /// Share of the training rows.
    pub share: f64,
    pub folder: PathBuf,
}

/// The sources of a recipe: one per weighted text, or a single one in the folder itself.
pub(super) fn sources(recipe: &Recipe, folder: &Path) -> Vec<TextSource> {
    let texts = recipe.data.text.as_deref().unwrap_or_default();
    let total: f64 = texts.iter().filter_map(Text::weight).sum();
    let weighted = texts.iter().filter_map(|text| {
        Some(TextSource {
            share: text.weight()? / total,
            paths: vec![text.path().to_owned()],
            folder: folder.to_owned(),
        })
    });
    let mut sources: Vec<TextSource> = weighted.collect();
    for (i, source) in sources.iter_mut().enumerate() {
        source.folder = folder.join(format!("source-{i}"));
    }
    if sources.is_empty() {
        sources.push(TextSource {
            paths: texts.iter().map(|text| text.path().to_owned()).collect(),
            share: 1.0,
            folder: folder.to_owned(),
        });
    }
    sources
}

/// The files that [`prepare()`] writes for a recipe; the tokenizer is the first.
pub(crate) fn files(recipe: &Recipe, folder: &Path) -> Vec<PathBuf> {
    let names = match recipe.has_conversations() {
        true => chat::FILES,
        false => SHARDS,
    };
    let of_sources = sources(recipe, folder).into_iter();
    let of_sources = of_sources.flat_map(|s| names.map(|name| s.folder.join(name)));
    [folder.join("tokenizer.json")]
        .into_iter()
        .chain(of_sources)
        .collect()
}

/// Opens what [`prepare()`] wrote.
pub fn open(run: &Run, folder: &Path) -> Result<Data> {
    let recipe = run.recipe();
    let train = &recipe.train;
    let (loader, held_out) = (loader(recipe, folder)?, held_out(recipe, folder)?);
    let tokenizer = tokenizer(run, folder)?;
    let mut held_out_bytes = 0;
    for row in held_out.chunks_exact(train.context + 1) {
        let scored = row[1..].iter().filter(|token| *token & rows::UNSCORED == 0);
        let scored: Vec<u32> = scored.copied().map(rows::id).collect();
        held_out_bytes += tokenizer.decode(&scored)?.len();
    }
    Ok(Data {
        tokenizer,
        loader,
        held_out,
        held_out_bytes,
    })
}

/// The training batches of all sources.
fn loader(recipe: &Recipe, folder: &Path) -> Result<Loader> {
    let train = &recipe.train;
    let batch = train.batch * train.accumulate;
    if recipe.has_conversations() {
        let shard = folder.join(chat::FILES[0]);
        return Ok(Loader::open_packed(&shard, batch, train.seed)?);
    }
    let mut parts = Vec::new();
    for source in sources(recipe, folder) {
        let shard = [source.folder.join(SHARDS[0])];
        let loader = Loader::open(&shard, batch, train.context, train.seed, recipe.rows())?;
        parts.push((loader, source.share));
    }
    if parts.len() == 1 {
        return Ok(parts.remove(0).0);
    }
    Ok(Loader::mixed(parts)?)
}

/// The held-out rows of context + 1 tokens that [`prepare()`] wrote, from each source according to
/// its share.
pub fn held_out(recipe: &Recipe, folder: &Path) -> Result<Vec<u32>> {
    if recipe.has_conversations() {
        let shard = folder.join(chat::FILES[1]);
        if rows::PackedRows::open(&shard)?.is_empty() {
            return Ok(Vec::new());
        }
        let loader = Loader::open_packed(&shard, 1, HELD_OUT_ORDER)?;
        return Ok(first_rows(&loader, 1.0));
    }
    let mut rows = Vec::new();
    for source in sources(recipe, folder) {
        let shard = [source.folder.join(SHARDS[1])];
        if Shard::open(&shard[0])?.header().tokens == 0 {
            continue;
        }
        rows.extend(held_out_rows(&shard, recipe.train.context, source.share)?);
    }
    Ok(rows)
}

/// The seed of the order of held-out rows. It is the same for every run, so runs are compared on
/// the same text.
const HELD_OUT_ORDER: u64 = 0;

/// The rows of a held-out shard: beginnings of documents if there are enough, all rows if not.
fn held_out_rows(shard: &[PathBuf], context: usize, share: f64) -> Result<Vec<u32>> {
    let open = |rows| Loader::open(shard, 1, context, HELD_OUT_ORDER, rows);
    let loader = match open(Rows::Documents) {
        Ok(loader) if loader.rows() >= wanted(context, share) => loader,
        _ => open(Rows::Contiguous)?,
    };
    Ok(first_rows(&loader, share))
}

/// The number of rows that an evaluation reads from a source with this share.
fn wanted(context: usize, share: f64) -> u64 {
    let rows = HELD_OUT_ROWS.max(HELD_OUT_TOKENS / context);
    (rows as f64 * share).ceil() as u64
}

/// The first rows, in the number that an evaluation reads from a source with this share.
fn first_rows(loader: &Loader, share: f64) -> Vec<u32> {
    let rows = 0..loader.rows().min(wanted(loader.context(), share));
    rows.flat_map(|i| loader.batch(i).ids).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A book is one document, and its first row alone would be too little to evaluate on.
    #[test]
    fn of_a_long_document_much_is_held_out() {
        let folder = tempfile::tempdir().unwrap();
        let book: String = (0..60_000).map(|i| format!("{i} ")).collect();
        let tokenizer = train_bpe([book.clone()], 258, &[]).unwrap();
        prepare::held_out_share([Ok(book)], &tokenizer, folder.path(), 0.5).unwrap();
        let shard = [folder.path().join(SHARDS[1])];
        for (context, rows) in [(64, 512), (512, 128)] {
            let found = held_out_rows(&shard, context, 1.0).unwrap();
            assert_eq!(found.len(), rows * (context + 1));
        }
        assert_eq!(held_out_rows(&shard, 64, 0.25).unwrap().len(), 128 * 65);
    }
}

//! From a recipe's texts to a tokenizer, a loader and held-out rows, in the run's `data` folder.

use std::path::Path;

use sterna_datasets::{Corpus, Loader, Prepared, Rows, Split, Tokenizer, prepare, read, train_bpe};

use crate::recipe::Recipe;
use crate::{Error, Result};

/// Documents that the tokenizer is trained on.
const TOKENIZER_DOCUMENTS: usize = 20_000;
/// Held-out rows that an evaluation reads at most.
const HELD_OUT_ROWS: usize = 128;

/// What a run trains on.
pub struct Data {
    /// The tokenizer, trained on the same texts.
    pub tokenizer: Tokenizer,
    /// Training batches.
    pub loader: Loader,
    /// Held-out sequences of context + 1 tokens, one after the other.
    pub held_out: Vec<u32>,
    /// Bytes of text that the targets in [`Data::held_out`] stand for.
    pub held_out_bytes: usize,
}

/// Trains the tokenizer and writes the token shards of a recipe into `folder`.
pub fn prepare(recipe: &Recipe, folder: &Path) -> Result<Prepared> {
    let data = &recipe.data;
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    if let Some(mix) = &data.mix {
        let corpus = Corpus {
            mix: mix.clone(),
            seed: data.seed,
            split: Split::Train,
        };
        let texts = corpus.texts().take(TOKENIZER_DOCUMENTS);
        let tokenizer = train_bpe(texts, data.vocab_size, &[])?;
        tokenizer.save(folder, recipe.train.context)?;
        let held_out = (data.documents as f64 * data.held_out).ceil() as u64;
        let (train, seed) = (data.documents, data.seed);
        return Ok(prepare::generated(
            mix, seed, train, held_out, &tokenizer, folder,
        )?);
    }
    let paths = data
        .text
        .clone()
        .expect("a checked recipe has a mix or texts");
    let documents = || read::documents(&paths, data.separator.clone());
    let sample: Vec<String> = documents()?
        .take(TOKENIZER_DOCUMENTS)
        .collect::<sterna_datasets::Result<_>>()?;
    let tokenizer = train_bpe(sample, data.vocab_size, &[])?;
    tokenizer.save(folder, recipe.train.context)?;
    Ok(prepare::held_out_share(
        documents()?,
        &tokenizer,
        folder,
        data.held_out,
    )?)
}

/// Opens what [`prepare()`] wrote.
pub fn open(recipe: &Recipe, folder: &Path) -> Result<Data> {
    let train = &recipe.train;
    let shard = |name: &str| [folder.join(name)];
    let load =
        |name, batch, rows| Loader::open(&shard(name), batch, train.context, train.seed, rows);
    let loader = load(
        "train.tokens",
        train.batch * train.accumulate,
        recipe.rows(),
    )?;
    let held_out = load("held_out.tokens", 1, Rows::Documents)
        .or_else(|_| load("held_out.tokens", 1, Rows::Contiguous))?;
    let rows = held_out.rows().min(HELD_OUT_ROWS as u64);
    let held_out: Vec<u32> = (0..rows).flat_map(|i| held_out.batch(i).ids).collect();
    let tokenizer = Tokenizer::load(folder)?;
    let mut held_out_bytes = 0;
    for row in held_out.chunks_exact(train.context + 1) {
        held_out_bytes += tokenizer.decode(&row[1..])?.len();
    }
    Ok(Data {
        tokenizer,
        loader,
        held_out,
        held_out_bytes,
    })
}

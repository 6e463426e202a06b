//! From a recipe's texts to a tokenizer, a loader and held-out rows, in the run's `data` folder.

use std::io::Write;
use std::path::Path;

use sterna_datasets::{Corpus, Loader, Prepared, Rows, Split, Tokenizer, prepare, read, train_bpe};
use sterna_ternary::durable;

use crate::recipe::Recipe;
use crate::{Error, Result, Start};

/// Documents that the tokenizer is trained on.
const TOKENIZER_DOCUMENTS: usize = 20_000;
/// Held-out rows that an evaluation reads at most.
const HELD_OUT_ROWS: usize = 128;

/// What a run trains on.
pub struct Data {
    /// The tokenizer, trained on the same texts or taken over from a checkpoint.
    pub tokenizer: Tokenizer,
    /// Training batches.
    pub loader: Loader,
    /// Held-out sequences of context + 1 tokens, one after the other.
    pub held_out: Vec<u32>,
    /// Bytes of text that the targets in [`Data::held_out`] stand for.
    pub held_out_bytes: usize,
}

/// Writes the tokenizer and the token shards of a recipe into `folder`. The tokenizer is trained on the texts, or is
/// that of the checkpoint that the recipe starts from.
pub fn prepare(recipe: &Recipe, folder: &Path) -> Result<Prepared> {
    let data = &recipe.data;
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let tokenizer = match &recipe.start {
        Some(start) => taken_over(start, folder)?,
        None => trained(recipe, folder)?,
    };
    if let Some(mix) = &data.mix {
        let held_out = (data.documents as f64 * data.held_out).ceil() as u64;
        let (train, seed) = (data.documents, data.seed);
        return Ok(prepare::generated(
            mix, seed, train, held_out, &tokenizer, folder,
        )?);
    }
    Ok(prepare::held_out_share(
        texts(recipe)?,
        &tokenizer,
        folder,
        data.held_out,
    )?)
}

/// Trains a tokenizer on the data and saves it.
fn trained(recipe: &Recipe, folder: &Path) -> Result<Tokenizer> {
    let data = &recipe.data;
    let tokenizer = match &data.mix {
        Some(mix) => {
            let corpus = Corpus {
                mix: mix.clone(),
                seed: data.seed,
                split: Split::Train,
            };
            let texts = corpus.texts().take(TOKENIZER_DOCUMENTS);
            train_bpe(texts, data.vocab_size, &[])?
        }
        None => {
            let texts = texts(recipe)?.take(TOKENIZER_DOCUMENTS);
            let texts: Vec<String> = texts.collect::<sterna_datasets::Result<_>>()?;
            train_bpe(texts, data.vocab_size, &[])?
        }
    };
    tokenizer.save(folder, recipe.train.context)?;
    Ok(tokenizer)
}

/// Copies the tokenizer's files of a checkpoint.
fn taken_over(start: &Start, folder: &Path) -> Result<Tokenizer> {
    for (name, bytes) in &start.files {
        let path = folder.join(name);
        durable::write(&path, |w| w.write_all(bytes)).map_err(Error::io(&path))?;
    }
    if !folder.join("tokenizer.json").exists() {
        let why = "it has no tokenizer.json; put the one that it was trained with beside it";
        return Err(start.error(why.into()));
    }
    let tokenizer = loaded(Some(start), folder)?;
    let (found, most) = (tokenizer.vocab_size(), start.config.vocab_size);
    if found > most {
        return Err(start.error(format!(
            "its tokenizer has {found} tokens, expected at most the {most} of `vocab_size` in config.json"
        )));
    }
    Ok(tokenizer)
}

/// The tokenizer in a run's `data` folder.
fn loaded(start: Option<&Start>, folder: &Path) -> Result<Tokenizer> {
    let bos = start.and_then(|start| start.config.bos_token_id);
    Ok(Tokenizer::load_with(folder, bos)?)
}

/// The documents of a recipe without a mix.
fn texts(recipe: &Recipe) -> Result<read::Documents> {
    let (paths, separator) = (&recipe.data.text, &recipe.data.separator);
    let paths = paths
        .as_deref()
        .expect("a checked recipe has a mix or texts");
    Ok(read::documents(paths, separator.clone())?)
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
    let tokenizer = loaded(recipe.start.as_ref(), folder)?;
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

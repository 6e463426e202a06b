//! Batches of training rows: batch `n` is a pure function of the shards, the seed and `n`.
//!
//! A row is `context + 1` tokens, so that it gives `context` pairs of a token and its successor.
//! The positions of the rows in a shard are decided once, when it is opened:
//!
//! * [`Rows::Documents`], as nanochat does: a row begins with the BOS of a document, and the
//!   following documents fill it. The rest of the last one is skipped up to the next BOS. No token
//!   is ever predicted from the middle of a document, at the price of some text; documents longer
//!   than the context are truncated. [`Loader::coverage`] says how much is used.
//! * [`Rows::Contiguous`]: rows follow each other without a gap; for long documents.
//!
//! Rows of conversations were packed before ([`Loader::open_packed`]).
//!
//! Several sources can be mixed by weights ([`Loader::mixed`]).
//!
//! Each epoch visits every row once, in an order that a keyed permutation computes on the spot:
//! no table of the order is kept, and resuming at step `n` needs nothing but `n`.

use std::path::{Path, PathBuf};

use crate::random::{mix64, permute};
use crate::rows::PackedRows;
use crate::{Error, Result, Shard};

/// Where rows begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// At the start of a document.
    Documents,
    /// At the end of the previous row.
    Contiguous,
}

/// Token ids of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Row-major, (batch, context + 1): inputs are all but the last of a row, targets all but the
    /// first. Those of conversations carry the flags of [`crate::rows`].
    pub ids: Vec<u32>,
    /// Rows.
    pub batch: usize,
    /// Inputs in a row.
    pub context: usize,
}

/// Shuffled rows of one or more shards.
#[derive(Debug)]
pub struct Loader {
    parts: Vec<MixPart>,
    batch: usize,
    context: usize,
    seed: u64,
    coverage: f64,
}

/// Rows and their share of the batches.
#[derive(Debug)]
struct MixPart {
    source: RowSource,
    /// Rows in each [`BLOCK`] of several parts.
    slots: u64,
}

/// The number of consecutive rows in which each of several parts has exactly its share.
const BLOCK: u64 = 1024;

/// The source of rows.
#[derive(Debug)]
enum RowSource {
    Shards {
        shards: Vec<Shard>,
        /// Where rows begin: shard, position.
        starts: Vec<(u32, usize)>,
    },
    Packed(PackedRows),
}

impl RowSource {
    fn len(&self) -> u64 {
        match self {
            RowSource::Shards { starts, .. } => starts.len() as u64,
            RowSource::Packed(rows) => rows.len(),
        }
    }

    /// Appends a row of `context` + 1 tokens.
    fn push(&self, row: u64, context: usize, ids: &mut Vec<u32>) {
        match self {
            RowSource::Shards { shards, starts } => {
                let (shard, start) = starts[row as usize];
                ids.extend(shards[shard as usize].tokens(start..start + context + 1));
            }
            RowSource::Packed(rows) => ids.extend(rows.row(row)),
        }
    }
}

impl Loader {
    /// Opens and checks shards, and finds their rows.
    ///
    /// Errors if `batch`, `context` or the number of shards is 0, a shard is damaged or too small
    /// for one row, or two come from different tokenizers.
    pub fn open(
        paths: &[PathBuf],
        batch: usize,
        context: usize,
        seed: u64,
        rows: Rows,
    ) -> Result<Self> {
        for (name, value) in [
            ("batch", batch),
            ("context", context),
            ("shards", paths.len()),
        ] {
            if value == 0 {
                return Err(Error::Zero { name });
            }
        }
        let shards = paths
            .iter()
            .map(|path| Shard::open(path))
            .collect::<Result<Vec<_>>>()?;
        let mut starts = Vec::new();
        for (index, shard) in (0..).zip(&shards) {
            if shard.header().tokenizer != shards[0].header().tokenizer {
                let (path, other) = (shard.path().to_owned(), shards[0].path().to_owned());
                return Err(Error::TokenizerMismatch { path, other });
            }
            let found = row_starts(shard, context, rows);
            if found.is_empty() {
                let (path, found) = (shard.path().to_owned(), shard.header().tokens);
                return Err(Error::TooSmall {
                    path,
                    found,
                    expected: (context as u64).saturating_add(1),
                });
            }
            starts.extend(found.into_iter().map(|start| (index, start)));
        }
        let tokens: u64 = shards.iter().map(|shard| shard.header().tokens).sum();
        let coverage = (starts.len() * context) as f64 / tokens as f64;
        Ok(Self {
            parts: whole(RowSource::Shards { shards, starts }),
            batch,
            context,
            seed,
            coverage,
        })
    }

    /// Opens and checks packed rows.
    ///
    /// Errors if `batch` is 0, or the file is damaged or empty.
    pub fn open_packed(path: &Path, batch: usize, seed: u64) -> Result<Self> {
        if batch == 0 {
            return Err(Error::Zero { name: "batch" });
        }
        let rows = PackedRows::open(path)?;
        if rows.is_empty() {
            let path = path.to_owned();
            return Err(Error::NoConversation { path });
        }
        Ok(Self {
            context: rows.width() - 1,
            parts: whole(RowSource::Packed(rows)),
            batch,
            seed,
            coverage: 1.0,
        })
    }

    /// Joins loaders that were opened with the same batch, context and seed. Each gives a share of
    /// the rows in proportion to its weight, whatever its size, and has its own epochs.
    ///
    /// Errors if a weight is not above zero, there are more than 1024 loaders, or two loaders come
    /// from different tokenizers.
    pub fn mixed(loaders: Vec<(Loader, f64)>) -> Result<Self> {
        let weights: Vec<f64> = loaders.iter().map(|(_, weight)| *weight).collect();
        if let Some(found) = weights.iter().find(|w| !(**w > 0.0 && w.is_finite())) {
            return Err(Error::Weight { found: *found });
        }
        if weights.len() as u64 > BLOCK {
            let found = weights.len();
            return Err(Error::Sources { found });
        }
        let total = weights.iter().sum::<f64>();
        let coverage = loaders
            .iter()
            .map(|(l, weight)| l.coverage * weight / total);
        let coverage = coverage.sum();
        let mut loaders = loaders.into_iter().map(|(loader, _)| loader);
        let mut joined = loaders.next().ok_or(Error::Zero { name: "sources" })?;
        for loader in loaders {
            if let (Some(a), Some(b)) = (joined.shards().first(), loader.shards().first())
                && a.header().tokenizer != b.header().tokenizer
            {
                let (path, other) = (b.path().to_owned(), a.path().to_owned());
                return Err(Error::TokenizerMismatch { path, other });
            }
            joined.parts.extend(loader.parts);
        }
        for (part, slots) in joined.parts.iter_mut().zip(slots(&weights)) {
            part.slots = slots;
        }
        joined.coverage = coverage;
        Ok(joined)
    }

    /// The rows of a step; steps beyond the last row of an epoch go on with the next epoch.
    pub fn batch(&self, step: u64) -> Batch {
        let mut ids = Vec::with_capacity(self.batch * (self.context + 1));
        for place in 0..self.batch as u128 {
            let (source, served) = self.source_of(u128::from(step) * self.batch as u128 + place);
            let rows = u128::from(source.len());
            let (epoch, place) = ((served / rows) as u64, (served % rows) as u64);
            let key = mix64(self.seed ^ mix64(epoch));
            source.push(permute(place, source.len(), key), self.context, &mut ids);
        }
        Batch {
            ids,
            batch: self.batch,
            context: self.context,
        }
    }

    /// The source of row `n` of the whole run, and how many rows that source gave before it.
    ///
    /// If there are several sources, each has its slots in every block of rows, in an order that a
    /// keyed permutation computes.
    fn source_of(&self, n: u128) -> (&RowSource, u128) {
        if let [part] = &self.parts[..] {
            return (&part.source, n);
        }
        let (block, place) = (n / u128::from(BLOCK), (n % u128::from(BLOCK)) as u64);
        let mut slot = permute(place, BLOCK, mix64(!self.seed ^ mix64(block as u64)));
        for part in &self.parts {
            if slot < part.slots {
                return (
                    &part.source,
                    block * u128::from(part.slots) + u128::from(slot),
                );
            }
            slot -= part.slots;
        }
        unreachable!("the slots of all parts fill a block")
    }

    /// Rows in an epoch, of all sources together.
    pub fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.source.len()).sum()
    }

    /// Epochs completed before a step, with the fraction of the one under way.
    pub fn epochs(&self, step: u64) -> f64 {
        step as f64 * self.batch as f64 / self.rows() as f64
    }

    /// The share of all tokens that are the input of some row, at most 1.
    pub fn coverage(&self) -> f64 {
        self.coverage
    }

    /// Rows in a batch.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// Inputs in a row.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The shards, in the order of their paths. Several sources give the shards of the first;
    /// packed rows have none.
    pub fn shards(&self) -> &[Shard] {
        match &self.parts[0].source {
            RowSource::Shards { shards, .. } => shards,
            RowSource::Packed(_) => &[],
        }
    }
}

/// One source that gives all rows.
fn whole(source: RowSource) -> Vec<MixPart> {
    let slots = BLOCK;
    vec![MixPart { source, slots }]
}

/// Slots of a block in proportion to weights above zero, at least one each: those with the largest
/// remainders get the slots that rounding down leaves.
fn slots(weights: &[f64]) -> Vec<u64> {
    let free = BLOCK - weights.len() as u64;
    let total: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|w| w / total * free as f64).collect();
    let mut slots: Vec<u64> = exact.iter().map(|e| 1 + *e as u64).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()));
    let missing = BLOCK - slots.iter().sum::<u64>();
    order[..missing as usize]
        .iter()
        .for_each(|i| slots[*i] += 1);
    slots
}

/// The positions in a shard at which rows of `context + 1` tokens begin.
fn row_starts(shard: &Shard, context: usize, rows: Rows) -> Vec<usize> {
    let tokens = shard.header().tokens as usize;
    // The last row's last target must exist: start + context < tokens.
    let last = tokens.saturating_sub(context);
    match rows {
        Rows::Contiguous => (0..last).step_by(context).collect(),
        Rows::Documents => {
            let mut starts = Vec::new();
            let mut free = 0; // the first position that is not an input yet
            for document in shard.documents() {
                if document.start >= free && document.start < last {
                    starts.push(document.start);
                    free = document.start + context;
                }
            }
            starts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Corpus, Split, Tokenizer, prepare, train_bpe};

    struct Data {
        folder: tempfile::TempDir,
        path: PathBuf,
        tokenizer: Tokenizer,
    }

    fn data(documents: usize, vocab_size: usize) -> Data {
        let mix = "stories,addition2".parse().unwrap();
        let corpus = Corpus {
            mix,
            seed: 1,
            split: Split::Train,
        };
        let tokenizer = train_bpe(corpus.texts().take(200), vocab_size, &[]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let texts = corpus.texts().take(documents).map(Ok);
        let written = prepare::held_out_share(texts, &tokenizer, folder.path(), 0.0).unwrap();
        Data {
            folder,
            path: written.train.path,
            tokenizer,
        }
    }

    impl Data {
        fn open(&self, batch: usize, seed: u64, rows: Rows) -> Loader {
            Loader::open(std::slice::from_ref(&self.path), batch, 64, seed, rows).unwrap()
        }
    }

    #[test]
    fn a_batch_is_a_pure_function_of_seed_and_step() {
        let data = data(300, 300);
        let loader = data.open(4, 1, Rows::Documents);
        let later = loader.batch(1_000_003);
        let batches: Vec<Batch> = (0..50).map(|step| loader.batch(step)).collect();
        let reopened = data.open(4, 1, Rows::Documents);
        assert!(
            (0..50)
                .rev()
                .all(|step| reopened.batch(step) == batches[step as usize])
        );
        assert_eq!(reopened.batch(1_000_003), later);
        let other = data.open(4, 2, Rows::Documents);
        assert!((0..50).all(|step| other.batch(step) != batches[step as usize]));
        assert_eq!(
            (later.ids.len(), later.batch, later.context),
            (4 * 65, 4, 64)
        );
        loader.batch(u64::MAX);
    }

    #[test]
    fn an_epoch_visits_every_row_once_and_the_next_one_in_another_order() {
        let data = data(300, 300);
        for rows in [Rows::Documents, Rows::Contiguous] {
            let loader = data.open(1, 3, rows);
            let count = loader.rows();
            let epoch = |n: u64| -> Vec<Vec<u32>> {
                (n * count..(n + 1) * count)
                    .map(|step| loader.batch(step).ids)
                    .collect()
            };
            let (first, second) = (epoch(0), epoch(1));
            assert_ne!(first, second);
            let sorted = |mut rows: Vec<Vec<u32>>| {
                rows.sort();
                rows
            };
            let shard = &loader.shards()[0];
            let in_order = row_starts(shard, 64, rows);
            let in_order = in_order
                .into_iter()
                .map(|at| shard.tokens(at..at + 65).collect());
            assert_eq!(sorted(first), sorted(in_order.collect()));
            assert_eq!(sorted(second), sorted(epoch(2)));
            assert_eq!(loader.epochs(count), 1.0);
        }
    }

    #[test]
    fn larger_batches_serve_the_same_rows_in_the_same_order() {
        let data = data(100, 300);
        let (one, three) = (
            data.open(1, 5, Rows::Documents),
            data.open(3, 5, Rows::Documents),
        );
        for step in 0..200 {
            let rows = (3 * step..3 * step + 3).flat_map(|step| one.batch(step).ids);
            assert_eq!(three.batch(step).ids, rows.collect::<Vec<_>>());
        }
    }

    #[test]
    fn rows_of_documents_begin_with_bos_and_do_not_overlap() {
        let data = data(300, 300);
        let loader = data.open(1, 1, Rows::Documents);
        let shard = &loader.shards()[0];
        let starts = row_starts(shard, 64, Rows::Documents);
        assert!(
            starts
                .iter()
                .all(|&at| shard.tokens(at..at + 1).eq([data.tokenizer.bos_id()]))
        );
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 64));
        let skipped = |pair: &[usize]| {
            let between = shard.tokens(pair[0] + 64..pair[1]);
            between
                .into_iter()
                .filter(|&id| id == data.tokenizer.bos_id())
                .count()
        };
        assert!(
            starts.windows(2).all(|pair| skipped(pair) == 0),
            "no document start is passed by"
        );
        assert!(
            (0.3..1.0).contains(&loader.coverage()),
            "{}",
            loader.coverage()
        );
    }

    #[test]
    fn contiguous_rows_use_every_token_but_a_rest() {
        let data = data(300, 300);
        let loader = data.open(1, 1, Rows::Contiguous);
        let tokens = loader.shards()[0].header().tokens;
        assert_eq!(loader.rows(), (tokens - 1) / 64);
        assert!(loader.coverage() > 0.99);
    }

    #[test]
    fn shards_are_joined_and_must_share_the_tokenizer() {
        let (a, b, c) = (data(50, 300), data(70, 300), data(50, 310));
        let open = |paths: &[&PathBuf]| {
            let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).clone()).collect();
            Loader::open(&paths, 2, 32, 1, Rows::Contiguous)
        };
        let rows = |path| open(&[path]).unwrap().rows();
        assert_eq!(
            open(&[&a.path, &b.path]).unwrap().rows(),
            rows(&a.path) + rows(&b.path)
        );
        let mixed = open(&[&a.path, &c.path]);
        assert!(matches!(mixed, Err(Error::TokenizerMismatch { .. })));
    }

    #[test]
    fn sources_have_their_shares_and_their_own_epochs() {
        let (small, large) = (data(40, 300), data(300, 300));
        let mixed = || {
            let part = |data: &Data, weight| (data.open(2, 5, Rows::Contiguous), weight);
            Loader::mixed(vec![part(&small, 1.0), part(&large, 3.0)]).unwrap()
        };
        let loader = mixed();
        let slots = [0, 1].map(|i| u128::from(slots(&[1.0, 3.0])[i]));
        assert!(slots[0].abs_diff(256) <= 1, "{slots:?}");
        for block in 0..3 {
            // Each source serves the rows that come next in its own order, as many as it has slots.
            let mut served = [Vec::new(), Vec::new()];
            for n in block * 1024..(block + 1) * 1024 {
                let (source, count) = loader.source_of(n);
                served[usize::from(!std::ptr::eq(source, &loader.parts[0].source))].push(count);
            }
            assert!(!served[0].is_sorted());
            for (mut served, slots) in served.into_iter().zip(slots) {
                served.sort();
                assert!(served.into_iter().eq(block * slots..(block + 1) * slots));
            }
        }
        let again = mixed();
        assert!(
            (0..50)
                .rev()
                .all(|step| again.batch(step) == loader.batch(step))
        );
        again.batch(u64::MAX);
        let zero = Loader::mixed(vec![(small.open(1, 5, Rows::Contiguous), 0.0)]);
        assert!(matches!(zero, Err(Error::Weight { .. })));
    }

    #[test]
    fn slots_fill_a_block_whatever_the_weights() {
        for weights in [&[1.0][..], &[1.0, 1.0, 1.0], &[1e-9, 5.0], &[0.3; 700]] {
            let slots = slots(weights);
            assert_eq!(slots.iter().sum::<u64>(), BLOCK);
            assert!(slots.iter().all(|s| *s > 0));
        }
    }

    #[test]
    fn what_gives_no_row_is_refused() {
        let data = data(1, 300);
        let tokens = Shard::open(&data.path).unwrap().header().tokens as usize;
        let open =
            |context, rows| Loader::open(std::slice::from_ref(&data.path), 1, context, 1, rows);
        for rows in [Rows::Documents, Rows::Contiguous] {
            assert_eq!(open(tokens - 1, rows).unwrap().rows(), 1);
            assert!(matches!(open(tokens, rows), Err(Error::TooSmall { .. })));
            assert!(matches!(
                open(usize::MAX, rows),
                Err(Error::TooSmall { .. })
            ));
            assert!(matches!(
                open(0, rows),
                Err(Error::Zero { name: "context" })
            ));
        }
        let held_out = data.folder.path().join("held_out.tokens");
        let empty = Loader::open(&[held_out], 1, 8, 1, Rows::Documents);
        assert!(matches!(empty, Err(Error::TooSmall { found: 0, .. })));
        let none = Loader::open(&[], 1, 8, 1, Rows::Documents);
        assert!(matches!(none, Err(Error::Zero { name: "shards" })));
    }
}

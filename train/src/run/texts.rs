//! Texts of a recipe to a tokenizer and token shards, with progress and with held-out rows even of
//! small corpora.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sterna_datasets::bpe::WordCounts;
use sterna_datasets::prepare::{self, HeldOut, Prepared};
use sterna_datasets::read::{self, Parts, ReadOptions};
use sterna_datasets::{Error as DataError, Tokenizer};
use sterna_ternary::units;

use super::data::sources;
use super::events::{Control, Event, Preparing};
use crate::Result;
use crate::recipe::Recipe;

/// Is told what happens, and says whether to go on.
pub(super) type Observe<'a> = &'a mut dyn FnMut(Event) -> Control;

/// Bytes of text that a tokenizer is trained on at most. More change few merges and take longer.
pub const SAMPLE: u64 = 256 << 20;
/// The largest share that is held out of a small corpus.
const MOST_HELD_OUT: f64 = 0.5;

/// How the texts of a recipe are read.
pub(super) fn options(recipe: &Recipe) -> ReadOptions {
    ReadOptions {
        separator: recipe.data.separator.clone(),
        column: recipe.data.column.clone(),
    }
}

/// Opens texts and names the files of folders that are left out.
fn opened(paths: &[PathBuf], recipe: &Recipe, observe: Observe) -> Result<Parts> {
    let parts = read::parts(paths, &options(recipe))?;
    if let Some(left_out) = read::left_out(parts.left_out()) {
        observe(Event::Note(&left_out));
    }
    Ok(parts)
}

/// The words of the texts of a recipe, or of a sample of them.
pub(super) fn word_counts(recipe: &Recipe, folder: &Path, observe: Observe) -> Result<WordCounts> {
    let mut counts = WordCounts::new()?;
    for source in sources(recipe, folder) {
        let parts = opened(&source.paths, recipe, observe)?;
        let (total, bytes) = (parts.total(), parts.text_bytes());
        let most = (SAMPLE as f64 * source.share) as u64;
        let parts = parts.tolerant(recipe.data.strict);
        let used = {
            let watch = &mut watch(Preparing::Words, total, observe);
            counts.add_sample(parts, bytes, most, watch)?
        };
        if bytes > most {
            let (used, bytes) = (units::bytes(used), units::bytes(bytes));
            observe(Event::Note(&format!(
                "the tokenizer is trained on {used} of about {bytes} of text, from all parts of it"
            )));
        }
    }
    observe(preparing(Preparing::Merges, 0, 0));
    Ok(counts)
}

pub(super) fn preparing(what: Preparing, done: u64, total: u64) -> Event<'static> {
    Event::Preparing { what, done, total }
}

/// Reports progress as an event.
pub(super) fn watch<'a>(
    what: Preparing,
    total: u64,
    observe: Observe<'a>,
) -> impl FnMut(u64) -> ControlFlow<()> + 'a {
    move |done| match observe(preparing(what, done, total)) {
        Control::Continue => ControlFlow::Continue(()),
        Control::Stop => ControlFlow::Break(()),
    }
}

/// Writes the shards of the texts of a recipe.
///
/// A small corpus holds out a larger share than the recipe says if that is less than a row; if the
/// corpus does not have two rows, nothing is held out. Both are reported.
pub(super) fn shards(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    folder: &Path,
    observe: Observe,
) -> Result<()> {
    for source in sources(recipe, folder) {
        let row = recipe.train.context as u64 + 1;
        let mut held_out = HeldOut::share(recipe.data.held_out)?;
        loop {
            let parts = opened(&source.paths, recipe, &mut |event| match event {
                Event::Note(_) if recipe.data.vocab_size > 0 => Control::Continue, // said before
                event => observe(event),
            })?;
            let total = parts.total();
            let mut parts = parts.tolerant(recipe.data.strict);
            let made = {
                let watch = &mut watch(Preparing::Tokens, total, observe);
                prepare::texts(&mut parts, tokenizer, &source.folder, held_out, watch)?
            };
            match next(&made, held_out, row) {
                None => {
                    for warning in parts.warnings() {
                        observe(Event::Warning(&warning));
                    }
                    let name = source.paths.first().map(|path| path.display().to_string());
                    say(
                        recipe,
                        held_out.share,
                        &made,
                        &name.unwrap_or_default(),
                        observe,
                    );
                    break;
                }
                Some(other) => held_out = other,
            }
        }
    }
    Ok(())
}

/// What to hold out instead, if one of the sides has less than a row.
fn next(made: &Prepared, held_out: HeldOut, row: u64) -> Option<HeldOut> {
    let HeldOut { share, long } = held_out;
    let (train, ours) = (made.train.tokens, made.held_out.tokens);
    if share == 0.0 || (ours >= row && train >= row) {
        return None;
    }
    // Few documents give their ends: a hash may hold out none of them, or all.
    let few = made.train.documents + made.held_out.documents <= 16;
    let wanted = 1.2 * row as f64 / (train + ours) as f64;
    let larger = (2.0 * share).max(wanted).min(MOST_HELD_OUT);
    let share = match train + ours >= 2 * row && (larger > share || (few && long > 0)) {
        true => larger,
        false => 0.0,
    };
    let long = if few { 0 } else { long };
    Some(HeldOut { share, long })
}

/// Reports a share that is not that of the recipe.
fn say(recipe: &Recipe, share: f64, made: &Prepared, name: &str, observe: Observe) {
    let (row, of_recipe) = (recipe.train.context + 1, recipe.data.held_out);
    let percent = |share: f64| format!("{:.3} %", 100.0 * share);
    let note = match share {
        share if share == of_recipe && share > 0.0 => return,
        0.0 if of_recipe == 0.0 => format!("{name}: no text is held out, so nothing is evaluated"),
        0.0 => format!(
            "{name}: {} tokens are too few to hold out a row of {row}, so nothing is evaluated; \
             add text or shorten the context (`context`)",
            made.train.tokens
        ),
        share => format!(
            "{name}: {} are held out instead of {}, which would be less than a row of {row} tokens",
            percent(share),
            percent(of_recipe)
        ),
    };
    observe(Event::Note(&note));
}

/// Tries shares for conversations until both sides have a row; with none held out if no share does.
pub(super) fn with_share<T>(
    share: f64,
    observe: Observe,
    mut pack: impl FnMut(f64, Observe) -> sterna_datasets::Result<T>,
) -> Result<T> {
    let mut tried = share;
    loop {
        match pack(tried, &mut *observe) {
            Err(DataError::NoConversation { .. }) if tried > 0.0 => {
                tried = match 2.0 * tried {
                    larger if larger <= MOST_HELD_OUT => larger,
                    _ => 0.0,
                };
            }
            Err(error) => return Err(error.into()),
            Ok(packed) => {
                if tried != share {
                    observe(Event::Note(&match tried {
                        0.0 => "there are too few conversations to hold one out, so nothing is \
                                evaluated"
                            .into(),
                        tried => format!(
                            "{:.3} % of the conversations are held out instead of {:.3} %, which \
                             would be none",
                            100.0 * tried,
                            100.0 * share
                        ),
                    }));
                }
                return Ok(packed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::tests::SMALL;

    /// Shards of these documents with rows of 17 tokens: tokens of both sides, and what is said.
    fn made(documents: &[String]) -> ([u64; 2], Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let texts = folder.path().join("texts");
        std::fs::create_dir(&texts).unwrap();
        for (i, text) in documents.iter().enumerate() {
            std::fs::write(texts.join(format!("{i:03}.txt")), text).unwrap();
        }
        let recipe = Recipe::parse(SMALL, Path::new("small.toml")).unwrap();
        let mut recipe = recipe;
        recipe.data.mix = None;
        recipe.data.text = Some(vec![crate::recipe::Text::Path(texts)]);
        let mut notes = Vec::new();
        let mut observe = |event: Event| {
            if let Event::Note(note) = event {
                notes.push(note.to_owned());
            }
            Control::Continue
        };
        let counts = word_counts(&recipe, folder.path(), &mut observe).unwrap();
        let tokenizer = counts.train(258, &[]).unwrap();
        shards(&recipe, &tokenizer, folder.path(), &mut observe).unwrap();
        let tokens = ["train.tokens", "held_out.tokens"].map(|name| {
            let shard = sterna_datasets::Shard::open(&folder.path().join(name)).unwrap();
            shard.header().tokens
        });
        (tokens, notes)
    }

    #[test]
    fn small_corpora_hold_out_a_row_or_nothing() {
        // A token per letter: 16 files of 30 bytes, one file of 200 bytes, one of 20 bytes.
        let row = 17;
        let files: Vec<String> = (0..40)
            .map(|_| "abcdefghijklmnopqrstuvwxyz".into())
            .collect();
        for documents in [
            &files[..],
            &files[..16],
            &files[..2],
            &["abcdefghij".repeat(20)],
        ] {
            let ([train, held_out], notes) = made(documents);
            assert!(held_out >= row && train >= row, "{train}, {held_out}");
            assert!(
                held_out <= (train + held_out) / 2 + row,
                "{train}, {held_out}"
            );
            assert!(
                notes
                    .iter()
                    .any(|note| note.contains("held out instead of 1.000 %")),
                "{notes:?}"
            );
        }
        let ([train, held_out], notes) = made(&["abcdefghijklmnopqrst".into()]);
        assert_eq!((train, held_out), (22, 0));
        assert!(
            notes[0].contains("22 tokens are too few to hold out a row of 17"),
            "{notes:?}"
        );
    }
}

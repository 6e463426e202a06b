//! The built-in texts, and the losses of a model on them.
//!
//! They are short and of several kinds, so that every trained model knows one of them: prose and
//! code for models trained on text of the world, stories of few words and sums for those that
//! `sterna quickstart` trains.

use sterna_datasets::{Split, Task, generate};
use sterna_runtime::{Error, Logits, Model, Tokenizer};

use crate::Result;

pub const TEXTS: [(&str, &str); 4] = [
    (
        "prose",
        "The tern is a small white bird that lives by the sea. Every year it flies from the north \
         of the world to the south and back again, which is further than any other animal goes. \
         It eats fish, and it feeds its young until they can fly on their own.",
    ),
    (
        "code",
        "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    print(i, add(i, 1))\n",
    ),
    (
        "story",
        "Once Tom sat in the park. Mia slept in the room. Tom found a red cup. He carried the cup \
         to the room. Mia felt glad. Tom handed the cup to Mia. She took the cup to the barn. \
         Where is the cup? In the barn.\n\n\
         Once Zoe stood in the shop. Ben was in the cave. He made a blue kite. Zoe went to the \
         yard. Ben brought the kite to the yard. He was tired. Zoe felt happy. Who has the kite? \
         Ben.\n\n\
         Once Sam was in the mill. Amy sat in the hall. She bought a green lamp. She hid the lamp \
         there. Sam ran to the hall. He got the lamp. Amy was sad. What colour is the lamp? It is \
         green.",
    ),
    // Digits of the result in reverse, as the generator writes them.
    ("sums", "12+35=74\n40+51=19\n23+34=75\n61+17=87\n"),
];

/// The loss of every token except the first of a piece, in nats, one list per text; or why there
/// are none.
pub type Losses = std::result::Result<Vec<Vec<f64>>, String>;

/// Ids of a text, in pieces that fit into the context of the model.
pub type Pieces = Vec<Vec<u32>>;

/// Models with fewer weights than this read further stories: in them a mistake costs little, so it
/// takes many tokens to show.
const SMALL: usize = 50_000_000;
/// The number of these generated stories.
const STORIES: u64 = 48;

/// The texts as ids, for a model with `weights` weights. Each paragraph is a document of its own,
/// as in a training set.
pub fn encode(
    tokenizer: &Tokenizer,
    context: usize,
    weights: usize,
) -> sterna_runtime::Result<Vec<Pieces>> {
    let texts = TEXTS.iter().map(|(name, text)| {
        let mut paragraphs: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
        if *name == "story" && weights < SMALL {
            let story = |i| generate::document(Task::Stories, 1, i, Split::HeldOut).text;
            paragraphs.extend((0..STORIES).map(story));
        }
        let mut pieces = Pieces::new();
        for paragraph in paragraphs {
            let ids = tokenizer.encode(&paragraph, true)?;
            pieces.extend(ids.chunks(context).map(<[u32]>::to_vec));
        }
        Ok(pieces)
    });
    texts.collect()
}

/// The losses of a model. NaN and infinities are a result; every other failure is an error. If
/// `only` names a text, the lists of the others stay empty.
pub fn losses(model: &Model, texts: &[Pieces], only: Option<usize>) -> Result<Losses> {
    let mut all = vec![Vec::new(); texts.len()];
    for (i, text) in texts.iter().enumerate() {
        if only.is_some_and(|only| only != i) {
            continue;
        }
        let mut losses = Vec::new();
        for ids in text {
            let mut cache = model.new_cache(ids.len())?;
            let logits = match model.forward(&mut cache, ids, Logits::All) {
                Err(error @ Error::NonFinite { .. }) => return Ok(Err(error.to_string())),
                logits => logits?,
            };
            let rows = logits.chunks_exact(model.config().vocab_size);
            let next = rows.zip(&ids[1..]);
            losses.extend(next.map(|(row, id)| loss(row, *id)));
        }
        all[i] = losses;
    }
    Ok(Ok(all))
}

/// The text that a model predicts best, if better than chance. The others need not be compared.
pub fn best_known(losses: &Losses, chance: f64) -> Option<usize> {
    let means = losses.as_ref().ok()?.iter().map(|l| mean(l)).enumerate();
    let best = means.min_by(|a, b| a.1.total_cmp(&b.1));
    best.filter(|(_, loss)| *loss <= KNOWS * chance)
        .map(|(text, _)| text)
}

/// -ln softmax(logits)[id]
fn loss(logits: &[f32], id: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
    sum.ln() + f64::from(max) - f64::from(logits[id as usize])
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Which of two variants of a model predicts the texts better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Better {
    /// Neither predicts any text better than chance.
    CannotTell,
    /// The first, or the difference is negligible.
    First,
    /// The second, but by little or perhaps by chance.
    PerhapsSecond,
    /// The second, clearly.
    Second,
}

/// The result of a comparison, with the losses of both on one text, in nats per token.
#[derive(Debug, Clone, Copy)]
pub struct LossComparison {
    pub better: Better,
    pub text: &'static str,
    pub losses: [f64; 2],
}

/// A trained model stays below this share of the loss of guessing.
pub const KNOWS: f64 = 0.9;

/// Compares token by token, on the text that the first predicts best; if it knows none, on the text
/// that either predicts best. On texts that both only guess, the flatter distribution would win.
/// `chance` is the logarithm of the vocabulary size.
pub fn compare(first: &Losses, second: &Losses, chance: f64) -> LossComparison {
    let of = |losses: &Losses, text: usize| match losses {
        Ok(losses) if !losses[text].is_empty() => losses[text].clone(),
        _ => vec![f64::INFINITY],
    };
    let known = best_known(first, chance);
    let texts = TEXTS.iter().enumerate();
    let texts = texts.filter(|(i, _)| known.is_none_or(|known| known == *i));
    let pairs = texts.map(|(i, (name, _))| {
        let (a, b) = (of(first, i), of(second, i));
        (*name, [mean(&a), mean(&b)], a, b)
    });
    let least = |losses: &[f64; 2]| losses[0].min(losses[1]);
    let best = pairs.min_by(|x, y| least(&x.1).total_cmp(&least(&y.1)));
    let (text, losses, a, b) = best.expect("there are texts");
    let better = if least(&losses).is_nan() || least(&losses) > KNOWS * chance {
        Better::CannotTell
    } else {
        judge(&a, &b)
    };
    LossComparison {
        better,
        text,
        losses,
    }
}

/// Whether the second list is smaller than the first: a paired test on the mean difference.
fn judge(a: &[f64], b: &[f64]) -> Better {
    if mean(b).is_infinite() {
        return Better::First;
    }
    if mean(a).is_infinite() {
        return Better::Second;
    }
    let gains: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let gain = mean(&gains);
    let variance = gains.iter().map(|g| (g - gain).powi(2)).sum::<f64>() / gains.len() as f64;
    let deviations = gain / (variance / gains.len() as f64).sqrt().max(1e-12);
    if gain > 0.01 && deviations > 4.0 {
        Better::Second
    } else if gain > 0.005 && deviations > 2.5 {
        Better::PerhapsSecond
    } else {
        Better::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(loss: f64) -> Losses {
        Ok(vec![vec![loss; 40]; TEXTS.len()])
    }

    #[test]
    fn the_better_way_is_found_where_a_text_is_known() {
        let check = |first: &Losses, second: &Losses, expected| {
            assert_eq!(compare(first, second, 6.0).better, expected);
        };
        check(&constant(2.0), &constant(3.0), Better::First);
        check(&constant(3.0), &constant(2.0), Better::Second);
        check(&constant(2.008), &constant(2.0), Better::PerhapsSecond);
        check(&constant(2.0), &constant(1.999), Better::First);
        check(&constant(9.0), &constant(6.0), Better::CannotTell);
        let overflow: Losses = Err("NaN".into());
        check(&overflow, &constant(2.0), Better::Second);
        check(&constant(2.0), &overflow, Better::First);
        check(&overflow, &overflow, Better::CannotTell);
        // Better on average, but by a few lucky tokens.
        let mut lucky = vec![vec![2.2; 40]; TEXTS.len()];
        lucky[0][..3].fill(0.0);
        check(&constant(2.1), &Ok(lucky), Better::First);
        // The comparison uses only the text that the first knows.
        let mut one = vec![Vec::new(); TEXTS.len()];
        one[0] = vec![1.0; 40];
        check(&constant(2.0), &Ok(one), Better::Second);
    }

    #[test]
    fn the_loss_is_that_of_the_softmax() {
        assert!((loss(&[0.0; 8], 3) - 8f64.ln()).abs() < 1e-9);
        assert!((loss(&[1000.0, 0.0], 1) - 1000.0).abs() < 1e-9);
    }
}

//! Which tokens are predicted from which others: the conventions of perplexity, stated.
//!
//! - `chunks`, of llama.cpp. All documents are one text, with special tokens as the tokenizer puts
//!   them. Windows are `context` tokens, side by side; where the tokenizer begins texts with a
//!   token, it replaces the first of each window. The second half of each window is scored: from
//!   token `context` / 2 + 1 on.
//! - `rolling`, of lm-evaluation-harness. Each document is a text of its own, without special
//!   tokens. Windows are up to `context` tokens, after a prefix token in the first one and after
//!   the last tokens of the window before in the others. Every token is scored, once.
//! - `strided`, of the perplexity guide of transformers. The text is that of `chunks`. Windows are
//!   `context` tokens that begin `stride` apart. Each scores what no window before it scored; the
//!   very first token of the text is not scored.
//!
//! The three give different figures of one model on one text: only figures of the same convention
//! compare.

use serde::{Deserialize, Serialize};
use sterna_datasets::TextEncoder;
use sterna_runtime::{Model, Tokenizer};

use crate::text::Text;
use crate::{Error, Result};

/// How a text is cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Convention {
    /// That of llama.cpp's `llama-perplexity`.
    Chunks {
        /// Tokens of a window.
        context: usize,
    },
    /// That of lm-evaluation-harness for `loglikelihood_rolling`.
    Rolling {
        /// `max_length`: most tokens that predict.
        context: usize,
    },
    /// That of transformers' guide to perplexity.
    Strided {
        /// Tokens of a window.
        context: usize,
        /// Tokens from the start of a window to that of the next.
        stride: usize,
    },
}

/// Tokens of which the last are predicted, each from all before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Token ids; the last one is only predicted.
    pub ids: Vec<u32>,
    /// How many at the end are predicted: from 1 to one less than there are.
    pub scored: usize,
    /// Index of the document; 0 where documents are one text.
    pub document: usize,
}

impl Convention {
    /// Every convention with its usual context and stride, in tokens.
    pub const USUAL: [Convention; 3] = [
        Convention::Chunks { context: 512 },
        Convention::Rolling { context: 2048 },
        Convention::Strided {
            context: 2048,
            stride: 1024,
        },
    ];

    /// The same convention with another context; strides are then half of it.
    pub fn with_context(self, context: usize) -> Convention {
        match self {
            Convention::Chunks { .. } => Convention::Chunks { context },
            Convention::Rolling { .. } => Convention::Rolling { context },
            Convention::Strided { .. } => Convention::Strided {
                context,
                stride: context / 2,
            },
        }
    }

    /// The convention with a context that models with room for `most` tokens take, or with the given
    /// context and stride.
    ///
    /// # Errors
    /// What was expected of the given numbers.
    pub fn fitted(
        self,
        most: usize,
        context: Option<usize>,
        stride: Option<usize>,
    ) -> std::result::Result<Convention, String> {
        let context = match context {
            Some(context) if !(4..=most).contains(&context) => {
                return Err(format!(
                    "--context {context}: expected 4 to {most}, which all models take"
                ));
            }
            given => given.unwrap_or(self.context().min(most)),
        };
        match (self.with_context(context), stride) {
            (Convention::Strided { .. }, Some(stride)) if !(1..=context).contains(&stride) => Err(
                format!("--stride {stride}: expected 1 to {context}, the context"),
            ),
            (Convention::Strided { .. }, Some(stride)) => {
                Ok(Convention::Strided { context, stride })
            }
            (convention, _) => Ok(convention),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Convention::Chunks { .. } => "chunks",
            Convention::Rolling { .. } => "rolling",
            Convention::Strided { .. } => "strided",
        }
    }

    /// It and its numbers, in words.
    pub fn describe(self) -> String {
        match self {
            Convention::Chunks { context } => format!(
                "as llama.cpp: chunks of {context} tokens, the second half of each scored, a first \
                 token that begins texts put in"
            ),
            Convention::Rolling { context } => format!(
                "as lm-evaluation-harness, rolling: every token of each document scored once, from \
                 up to {context} tokens before it, after a prefix token"
            ),
            Convention::Strided { context, stride } => format!(
                "strided: windows of {context} tokens, {stride} apart, each token scored in the \
                 first that has it"
            ),
        }
    }

    /// Most tokens of a window that go through a model.
    pub fn context(self) -> usize {
        match self {
            Convention::Chunks { context }
            | Convention::Rolling { context }
            | Convention::Strided { context, .. } => context,
        }
    }

    /// The windows of a text for a model.
    ///
    /// # Errors
    /// A tokenizer that fails, and a text or a context that is too short for the convention.
    pub fn windows(self, text: &Text, model: &Model, tokenizer: &Tokenizer) -> Result<Vec<Window>> {
        let short = |found, expected| Error::TooShort {
            name: text.name.clone(),
            convention: self.name(),
            found,
            expected,
        };
        let windows = match self {
            Convention::Chunks { context } => {
                let ids = encode(&text.documents, true, model, tokenizer)?;
                if ids.len() < 2 * context {
                    return Err(short(ids.len(), 2 * context));
                }
                chunks(&ids, context, first_token(tokenizer)?)
            }
            Convention::Strided { context, stride } => {
                let ids = encode(&text.documents, true, model, tokenizer)?;
                if ids.len() < 2 {
                    return Err(short(ids.len(), 2));
                }
                strided(&ids, context, stride)
            }
            Convention::Rolling { context } => {
                let prefix = prefix_token(model, tokenizer)?;
                let mut windows = Vec::new();
                for (document, text) in text.documents.iter().enumerate() {
                    let ids = encode(std::slice::from_ref(text), false, model, tokenizer)?;
                    windows.extend(rolling(&ids, context, prefix, document));
                }
                windows
            }
        };
        match windows.is_empty() {
            true => Err(short(0, 1)),
            false => Ok(windows),
        }
    }
}

/// Bytes of text from which on it is encoded in pieces. `tokenizers` needs 200 bytes of memory per
/// byte of text.
const LONG: usize = 1 << 20;
/// Bytes of text at an end of a long one that show which special tokens stand there.
const END: usize = 1 << 10;

/// The token ids of documents with empty lines between them, as [`Tokenizer::encode`] computes them.
fn encode(
    documents: &[String],
    has_special: bool,
    model: &Model,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>> {
    let whole = || Ok(tokenizer.encode(&documents.join("\n\n"), has_special)?);
    let json = model.file().file("tokenizer.json");
    let json = json.filter(|_| documents.iter().map(String::len).sum::<usize>() >= LONG);
    let Some(json) = json else {
        return whole();
    };
    let mut parts: Vec<&str> = Vec::new();
    for document in documents {
        parts.extend((!parts.is_empty()).then_some("\n\n"));
        parts.push(document);
    }
    let ids = TextEncoder::new(json)?.encode(&parts)?;
    if ids
        .iter()
        .any(|id| *id as usize >= model.config().vocab_size)
    {
        return whole(); // which is an error that names the token
    }
    if !has_special {
        return Ok(ids);
    }
    let (first, last) = (&documents[0], &documents[documents.len() - 1]);
    let first = &first[..boundary(first, END.min(first.len()))];
    let last = &last[boundary(last, last.len().saturating_sub(END))..];
    let around = (specials(first, tokenizer)?, specials(last, tokenizer)?);
    match around {
        (Some([before, _]), Some([_, after])) => Ok([before, ids, after].concat()),
        _ => whole(),
    }
}

/// The special tokens that the tokenizer adds before and after a text; none if it does more.
fn specials(text: &str, tokenizer: &Tokenizer) -> Result<Option<[Vec<u32>; 2]>> {
    let plain = tokenizer.encode(text, false)?;
    let special = tokenizer.encode(text, true)?;
    let start = (0..special.len()).find(|at| special[*at..].starts_with(&plain));
    Ok(start.map(|start| {
        let end = start + plain.len();
        [special[..start].to_vec(), special[end..].to_vec()]
    }))
}

/// The last boundary of a character up to `at`.
fn boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The windows of llama-perplexity, for n tokens ⌊n / context⌋ of them.
fn chunks(ids: &[u32], context: usize, first: Option<u32>) -> Vec<Window> {
    let chunk = |chunk: &[u32]| {
        let mut ids = chunk.to_vec();
        ids[0] = first.unwrap_or(ids[0]);
        Window {
            ids,
            scored: context - 1 - context / 2,
            document: 0,
        }
    };
    ids.chunks_exact(context).map(chunk).collect()
}

/// `get_rolling_token_windows` with a context of one token, then `make_disjoint_window`.
fn rolling(ids: &[u32], context: usize, prefix: u32, document: usize) -> Vec<Window> {
    let window = |start: usize| {
        let end = ids.len().min(start + context);
        let ids = match start {
            0 => [&[prefix], &ids[..end]].concat(),
            // The last window, if it is shorter, reaches further back: `context` tokens predict its
            // last.
            _ => ids[end - context - 1..end].to_vec(),
        };
        Window {
            ids,
            scored: end - start,
            document,
        }
    };
    (0..ids.len()).step_by(context).map(window).collect()
}

fn strided(ids: &[u32], context: usize, stride: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut scored = 1; // of the text, the first token included, which nothing predicts
    for begin in (0..ids.len()).step_by(stride) {
        let end = ids.len().min(begin + context);
        let new = (end - scored).min(end - begin - 1);
        if new > 0 {
            windows.push(Window {
                ids: ids[begin..end].to_vec(),
                scored: new,
                document: 0,
            });
        }
        scored = end;
        if end == ids.len() {
            break;
        }
    }
    windows
}

/// The token with which the tokenizer begins texts.
fn first_token(tokenizer: &Tokenizer) -> Result<Option<u32>> {
    let plain = tokenizer.encode("a", false)?;
    let special = tokenizer.encode("a", true)?;
    let is_added = special.len() > plain.len() && special[1..].starts_with(&plain);
    Ok(is_added.then(|| special[0]))
}

/// The token before a document in lm-evaluation-harness: the tokenizer's beginning of sequence,
/// else its end; those of the config where the tokenizer names neither.
pub fn prefix_token(model: &Model, tokenizer: &Tokenizer) -> Result<u32> {
    let settings = model.file().file("tokenizer_config.json");
    let settings: serde_json::Value = settings
        .and_then(|bytes| serde_json::from_slice(bytes).ok())
        .unwrap_or_default();
    let named = |key: &str| {
        let value = &settings[key];
        let name = value.as_str().or_else(|| value["content"].as_str())?;
        tokenizer.token_to_id(name)
    };
    let config = model.config();
    named("bos_token")
        .or_else(|| named("eos_token"))
        .or(config.bos_token_id)
        .or_else(|| config.eos_token_id.first().copied())
        .ok_or(Error::NoPrefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(windows: Vec<Window>, expected: &[(&[u32], usize)]) {
        let found: Vec<(&[u32], usize)> = windows.iter().map(|w| (&w.ids[..], w.scored)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn chunks_score_their_second_half() {
        let ids: Vec<u32> = (10..31).collect();
        let expected: [(&[u32], usize); 2] = [
            (&[1, 11, 12, 13, 14, 15, 16, 17], 3),
            (&[1, 19, 20, 21, 22, 23, 24, 25], 3),
        ];
        check(chunks(&ids, 8, Some(1)), &expected);
        assert_eq!(chunks(&ids, 8, None)[1].ids[0], 18);
        // 255 predictions in a chunk of 512
        assert_eq!(chunks(&vec![0; 512], 512, None)[0].scored, 255);
    }

    /// What lm_eval.utils returns for `list(range(n))`, max_seq_len 4 and prefix 99, input and
    /// prediction joined.
    #[test]
    fn rolling_windows_are_those_of_the_harness() {
        let of = |n: u32| rolling(&(0..n).collect::<Vec<_>>(), 4, 99, 0);
        check(of(0), &[]);
        check(of(3), &[(&[99, 0, 1, 2], 3)]);
        check(of(4), &[(&[99, 0, 1, 2, 3], 4)]);
        check(of(8), &[(&[99, 0, 1, 2, 3], 4), (&[3, 4, 5, 6, 7], 4)]);
        check(
            of(10),
            &[
                (&[99, 0, 1, 2, 3], 4),
                (&[3, 4, 5, 6, 7], 4),
                (&[5, 6, 7, 8, 9], 2),
            ],
        );
    }

    #[test]
    fn strides_score_each_token_once() {
        let ids: Vec<u32> = (0..11).collect();
        let windows = strided(&ids, 6, 3);
        check(
            windows.clone(),
            &[
                (&[0, 1, 2, 3, 4, 5], 5),
                (&[3, 4, 5, 6, 7, 8], 3),
                (&[6, 7, 8, 9, 10], 2),
            ],
        );
        let scored = windows
            .iter()
            .flat_map(|w| &w.ids[w.ids.len() - w.scored..]);
        assert!(scored.eq(&ids[1..]));
        // Side by side, the first token of a window has nothing before it.
        check(
            strided(&ids[..8], 4, 4),
            &[(&[0, 1, 2, 3], 3), (&[4, 5, 6, 7], 3)],
        );
    }
}

//! A tokenizer: saves one that [`crate::bpe`] trained for other tools, loads it or another one, and
//! encodes.
//!
//! The files are those of Hugging Face: `tokenizer.json`, and a `tokenizer_config.json` that tells
//! transformers the special tokens.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sterna_ternary::{durable, tokenizer_files};

use crate::encoder::template::TemplateEncoder;
use crate::encoder::{Encoder, Piece, Stream};
use crate::{Error, Result, rows};

/// Begins every document; id 0 of a tokenizer trained here.
pub const BOS: &str = "<|begin_of_text|>";
/// Ends a text; id 1 of a tokenizer trained here.
pub const EOS: &str = "<|end_of_text|>";

/// A tokenizer with the exact bytes of its file.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    encoder: Encoder,
    json: Vec<u8>,
    bos: (String, u32),
    eos: Option<(String, u32)>,
    vocab_size: usize,
    /// Rows of the model's embedding, if they are known.
    rows: Option<usize>,
}

/// An error of the crate tokenizers that is not about a file.
pub(crate) fn failed(reason: tokenizers::Error) -> Error {
    Error::Tokenization {
        reason: reason.to_string(),
    }
}

impl Tokenizer {
    /// Completes a tokenizer that was just built or parsed from `json`.
    pub(crate) fn new(
        mut inner: tokenizers::Tokenizer,
        json: Vec<u8>,
        bos: &str,
        eos: Option<&str>,
    ) -> tokenizers::Result<Self> {
        inner.with_truncation(None)?;
        inner.with_padding(None);
        // A special token spelled out in training text is text: it must not begin a document.
        inner.set_encode_special_tokens(true);
        let special = |token: &str| {
            let id = inner
                .token_to_id(token)
                .ok_or(format!("the vocabulary has no {token:?}"))?;
            tokenizers::Result::Ok((token.to_owned(), id))
        };
        let (bos, eos) = (special(bos)?, eos.map(special).transpose()?);
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0);
        Ok(Self {
            inner,
            encoder: Encoder::new(&json),
            json,
            bos,
            eos,
            vocab_size: largest as usize + 1,
            rows: None,
        })
    }

    /// Loads `tokenizer.json`, or the one in a folder. The special tokens are those that
    /// `tokenizer_config.json` beside it names; without that file, [`BOS`] and [`EOS`].
    ///
    /// Errors if a file cannot be read or parsed, or if there is no token to begin a document with.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_with(path, None)
    }

    /// Like [`Tokenizer::load`], but documents begin with the token `fallback` if
    /// `tokenizer_config.json` names none, as for Qwen3.
    pub fn load_with(path: &Path, fallback: Option<u32>) -> Result<Self> {
        let path = &json_path(path);
        let (json, settings) = read_completed(path)?;
        let config_path = path.with_file_name("tokenizer_config.json");
        let fail = |reason: String| Error::Tokenizer {
            path: path.clone(),
            reason,
        };
        let (bos, eos) = match settings.map_or_else(|| fs::read(&config_path), Ok) {
            Ok(bytes) => {
                let config: Value =
                    serde_json::from_slice(&bytes).map_err(|error| Error::Tokenizer {
                        path: config_path,
                        reason: error.to_string(),
                    })?;
                (
                    token_name(&config["bos_token"]),
                    token_name(&config["eos_token"]),
                )
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                (Some(BOS.to_owned()), Some(EOS.to_owned()))
            }
            Err(error) => return Err(Error::io(&config_path, "read")(error)),
        };
        let inner = tokenizers::Tokenizer::from_bytes(&json).map_err(|e| fail(e.to_string()))?;
        let bos = bos.or_else(|| inner.id_to_token(fallback?));
        let bos = bos.ok_or_else(|| {
            fail("no `bos_token` in tokenizer_config.json; name one to begin documents with".into())
        })?;
        Self::new(inner, json, &bos, eos.as_deref()).map_err(|error| fail(error.to_string()))
    }

    /// The tokenizer of a model with this number of rows in its embedding: a text with a token that
    /// has none is refused. Such tokens, for padding for example, are in no other text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if any text can contain such a token, since it is no added one.
    pub fn for_rows(mut self, rows: usize) -> Result<Self> {
        let fail = |reason: String| Error::Tokenizer {
            path: "tokenizer.json".into(),
            reason,
        };
        let beyond = tokenizer_files::beyond(&self.json, rows).map_err(|e| fail(e.why))?;
        if let Some((token, id)) = beyond.vocabulary {
            return Err(fail(format!(
                "token {token:?} has id {id}, expected ids below {rows}, the rows of the embedding"
            )));
        }
        let eos = self.eos.iter();
        if let Some((token, id)) = [&self.bos]
            .into_iter()
            .chain(eos)
            .find(|t| t.1 as usize >= rows)
        {
            return Err(fail(format!(
                "{token:?} begins or ends texts and has id {id}, expected an id below {rows}, the \
                 rows of the embedding"
            )));
        }
        self.rows = Some(rows);
        Ok(self)
    }

    /// Refuses tokens without a row in the embedding.
    pub(crate) fn check_rows(
        inner: &tokenizers::Tokenizer,
        rows: Option<usize>,
        ids: &[u32],
    ) -> Result<()> {
        let Some(rows) = rows else { return Ok(()) };
        match ids.iter().find(|id| rows::id(**id) as usize >= rows) {
            None => Ok(()),
            Some(id) => Err(Error::NoRow {
                token: inner.id_to_token(rows::id(*id)).unwrap_or_default(),
                id: rows::id(*id),
                rows,
            }),
        }
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into an existing folder, durably.
    ///
    /// `model_max_length` is the context that transformers should assume, in tokens.
    pub fn save(&self, folder: &Path, model_max_length: usize) -> Result<()> {
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos.0,
            "eos_token": self.eos.as_ref().map(|eos| &eos.0),
            "model_max_length": model_max_length,
            "clean_up_tokenization_spaces": false,
        });
        let config = format!("{config:#}\n").into_bytes();
        for (name, bytes) in [
            ("tokenizer.json", &self.json),
            ("tokenizer_config.json", &config),
        ] {
            let path = folder.join(name);
            durable::write(&path, |file| file.write_all(bytes))
                .map_err(Error::io(&path, "write"))?;
        }
        Ok(())
    }

    /// The tokens of a text, without special tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut pieces = Vec::new();
        let mut stream = self.stream();
        stream.push(text, &mut pieces)?;
        stream.finish(&mut pieces);
        Ok(self.encode_pieces(&pieces)?.concat())
    }

    /// The tokens of documents, each between [`Tokenizer::bos_id`] and, if there is another one,
    /// [`Tokenizer::eos_id`]; works on all cores.
    pub fn encode_documents(&self, texts: Vec<String>) -> Result<Vec<Vec<u32>>> {
        let pieces: Vec<Piece> = texts
            .into_iter()
            .map(|text| Piece::Text(text, true))
            .collect();
        let encoded = self.encode_pieces(&pieces)?.into_iter();
        let end = self.end_of_document();
        let document = |ids: Vec<u32>| [&[self.bos.1], &ids[..], end.as_slice()].concat();
        Ok(encoded.map(document).collect())
    }

    /// Cuts a document that arrives in parts into pieces.
    pub(crate) fn stream(&self) -> Stream<'_> {
        Stream::new(&self.encoder, &self.inner)
    }

    /// The tokens of pieces of documents; works on all cores.
    pub(crate) fn encode_pieces(&self, pieces: &[Piece]) -> Result<Vec<Vec<u32>>> {
        let encoded = self.encoder.encode_all(&self.inner, pieces)?;
        for ids in &encoded {
            Self::check_rows(&self.inner, self.rows, ids)?;
        }
        Ok(encoded)
    }

    /// The token after a document. If one token is both BOS and EOS, the first token of the next
    /// document ends this one.
    pub(crate) fn end_of_document(&self) -> Option<u32> {
        self.eos_id().filter(|eos| *eos != self.bos.1)
    }

    /// The encoder of texts that a chat template wrote.
    pub(crate) fn of_templates(&self) -> TemplateEncoder {
        TemplateEncoder::new(self.inner.clone(), self.rows)
    }

    /// The text of tokens, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(failed)
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that begins every document.
    pub fn bos_id(&self) -> u32 {
        self.bos.1
    }

    /// The token that ends a text, if the tokenizer has one.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos.as_ref().map(|eos| eos.1)
    }

    /// The id of a token by its name, such as `<|im_end|>`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// SHA-256 of `tokenizer.json`.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.json).into()
    }
}

/// SHA-256 of `tokenizer.json`, or of the one in a folder; equals [`Tokenizer::hash`].
pub fn hash(path: &Path) -> Result<[u8; 32]> {
    Ok(Sha256::digest(read_completed(&json_path(path))?.0).into())
}

/// Reads `tokenizer.json`, with the tokens that only the files beside it name; also the
/// `tokenizer_config.json` that those files change.
fn read_completed(path: &Path) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    let json = fs::read(path).map_err(Error::io(path, "read"))?;
    if path.file_name().is_none_or(|name| name != "tokenizer.json") {
        return Ok((json, None)); // a file alone, of another name
    }
    let names = ["config.json", "tokenizer_config.json"].into_iter();
    let mut files = HashMap::new();
    for name in names.chain(tokenizer_files::LEGACY) {
        let path = path.with_file_name(name);
        match fs::read(&path) {
            Ok(bytes) => drop(files.insert(name, bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&path, "read")(error)),
        }
    }
    files.insert("tokenizer.json", json);
    let completed = tokenizer_files::complete(|name| files.get(name).map(Vec::as_slice));
    let completed = completed.map_err(|e| Error::Tokenizer {
        path: path.with_file_name(e.file),
        reason: e.why,
    })?;
    let json = files
        .remove("tokenizer.json")
        .expect("it was inserted above");
    Ok(completed.map_or((json, None), |new| (new.json, new.settings)))
}

/// The file of a tokenizer, given its path or that of its folder.
fn json_path(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join("tokenizer.json")
    } else {
        path.to_owned()
    }
}

/// A special token in a configuration: a string, or an object with `content`.
fn token_name(value: &Value) -> Option<String> {
    value
        .as_str()
        .or_else(|| value.get("content")?.as_str())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpe::train_bpe;
    use crate::generate::mix::Corpus;
    use crate::generate::{Split, Task, problem};
    use crate::random::mix64;

    fn corpus() -> Corpus {
        let mix = "addition2,stories,facts,copy,recall".parse().unwrap();
        Corpus {
            mix,
            seed: 1,
            split: Split::Train,
        }
    }

    fn train(vocab_size: usize) -> Tokenizer {
        train_bpe(corpus().texts().take(500), vocab_size, &["<|user|>"]).unwrap()
    }

    #[test]
    fn training_twice_gives_the_same_bytes() {
        // Each training seeds its hash maps anew and threads interleave; small corpora of few
        // letters have many ties between pairs and tokens that two merges spell.
        assert_eq!(train(512).json, train(512).json);
        for seed in 0..50u64 {
            let letters =
                |word: u64| (0..word % 9).map(move |i| ['a', 'b'][(word >> i) as usize % 2]);
            let word = |index| letters(mix64(seed << 32 | index) >> 7).collect::<String>();
            let texts: Vec<String> = (0..40).map(word).collect();
            let json = || train_bpe(texts.clone(), 320, &[]).unwrap().json;
            assert_eq!(json(), json(), "{texts:?}");
        }
    }

    #[test]
    fn any_text_decodes_to_itself() {
        let tokenizer = train(400);
        let every_char = (0..0x3000).filter_map(char::from_u32).collect::<String>();
        for text in [
            "",
            " ",
            "  two  spaces \n\n\ttab\r\n",
            "naïve café, 東京, 🦅👩‍🚀, e\u{301}",
            "12345 ٣٤٥ ½",
            "\0\u{7f}\u{feff}\u{10ffff}",
            "<|begin_of_text|> is text here, and so is <|end_of_text|>",
            &every_char,
        ] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            assert!(
                ids.iter()
                    .all(|&id| id > 2 && (id as usize) < tokenizer.vocab_size())
            );
        }
    }

    #[test]
    fn digits_stand_alone_and_words_are_learned() {
        let tokenizer = train(512);
        assert_eq!(tokenizer.encode("12+39=150\n").unwrap().len(), 10);
        assert_eq!(tokenizer.encode(" the code of").unwrap().len(), 3);
        assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (0, Some(1)));
        assert_eq!(tokenizer.vocab_size(), 512);
    }

    #[test]
    fn the_tokens_of_prompt_and_answer_join() {
        let tokenizer = train(512);
        for task in Task::ALL {
            for index in 0..50 {
                let problem = problem(task, 1, index, Split::HeldOut);
                let apart =
                    [&problem.prompt, &problem.answer].map(|s| tokenizer.encode(s).unwrap());
                let joined = tokenizer
                    .encode(&(problem.prompt + &problem.answer))
                    .unwrap();
                assert_eq!(apart.concat(), joined);
            }
        }
    }

    #[test]
    fn documents_stand_between_bos_and_eos_and_nothing_else_is_special() {
        let tokenizer = train(300);
        let texts = vec!["a <|begin_of_text|> b".to_owned(), String::new()];
        let documents = tokenizer.encode_documents(texts).unwrap();
        assert_eq!(documents[0].iter().filter(|&&id| id == 0).count(), 1);
        assert_eq!((documents[0][0], documents[0].last()), (0, Some(&1)));
        assert_eq!(documents[1], [0, 1]);
    }

    #[test]
    fn a_saved_tokenizer_loads_as_the_same() {
        let tokenizer = train(300);
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path(), 128).unwrap();
        let loaded = Tokenizer::load(folder.path()).unwrap();
        let text = "Once Mia sat in the barn. 47";
        assert_eq!(
            loaded.encode(text).unwrap(),
            tokenizer.encode(text).unwrap()
        );
        assert_eq!(loaded.hash(), tokenizer.hash());
        assert_eq!(hash(folder.path()).unwrap(), tokenizer.hash());
        assert_eq!(loaded.vocab_size(), 300);
        // Other tools add the special token themselves.
        let plain = tokenizers::Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
        assert_eq!(plain.encode("a", true).unwrap().get_ids()[0], 0);
        let config = fs::read(folder.path().join("tokenizer_config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["bos_token"], BOS);
        assert_eq!(config["model_max_length"], 128);
    }

    #[test]
    fn wrong_sizes_and_files_are_refused() {
        let small = train_bpe(["text".to_owned()], 257, &[]);
        assert!(matches!(
            small,
            Err(Error::VocabSize {
                found: 257,
                least: 258
            })
        ));
        assert_eq!(
            train_bpe(["text".to_owned()], 258, &[])
                .unwrap()
                .vocab_size(),
            258
        );
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Tokenizer::load(folder.path()),
            Err(Error::Io { .. })
        ));
        let path = folder.path().join("tokenizer.json");
        fs::write(&path, b"{}").unwrap();
        assert!(matches!(
            Tokenizer::load(&path),
            Err(Error::Tokenizer { .. })
        ));
        train(300).save(folder.path(), 128).unwrap();
        fs::write(
            folder.path().join("tokenizer_config.json"),
            b"{\"bos_token\": null}",
        )
        .unwrap();
        let error = Tokenizer::load(&path).err().unwrap().to_string();
        assert!(error.contains("bos_token"), "{error}");
    }
}

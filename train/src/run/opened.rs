//! A run: a recipe together with the opened checkpoints that it names.
//!
//! A [`Recipe`] is the content of a file; a [`Run`] can be trained. The caller opens the
//! checkpoints, since this crate knows no formats, and passes all of them at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sterna_datasets::Renderer;

use crate::recipe::{Draft, Origins, Recipe};
use crate::{Chat, Error, Precision, Pretrained, Result};

const TOKENIZER: &str = "tokenizer.json";

/// Keys of a recipe that the checkpoint to start from determines.
const OF_A_CHECKPOINT: [&str; 11] = [
    "model.family",
    "model.hidden_size",
    "model.intermediate_size",
    "model.num_hidden_layers",
    "model.num_attention_heads",
    "model.num_key_value_heads",
    "model.head_dim",
    "model.rope_theta",
    "model.rms_norm_eps",
    "model.tie_word_embeddings",
    "data.vocab_size",
];

/// The opened checkpoints of a recipe. The default is for a recipe that names none.
#[derive(Clone, Default)]
pub struct Opened {
    /// The checkpoint of `model.from`.
    pub base: Option<Pretrained>,
    /// The checkpoint of `teacher.from`, and the precision of its linear layers.
    pub teacher: Option<(Pretrained, Precision)>,
    /// Renders conversations with the chat template of the checkpoint that the tokenizer is from;
    /// none if it has no template.
    pub renderer: Option<Arc<Renderer>>,
    /// The token that ends an answer in that template. The exported model names it as an end.
    pub end_of_turn: Option<u32>,
    /// The chat template of a model that is trained from scratch.
    pub chat: Option<Chat>,
}

/// A recipe that can be trained.
#[derive(Clone)]
pub struct Run {
    recipe: Recipe,
    origins: Origins,
    opened: Opened,
}

impl Run {
    /// Reads a recipe that names no checkpoint. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a file that is not a valid recipe, and [`Error::Pretrained`] for one
    /// that names a checkpoint.
    pub fn from_scratch(path: &Path) -> Result<Run> {
        let mut draft = Draft::default();
        draft.add_file(path)?;
        let (recipe, origins) = draft.finish(&path.display().to_string())?;
        Run::new(recipe, origins, Opened::default())
    }

    /// Joins a recipe with the checkpoints that it names. Shape and vocabulary of the checkpoint to
    /// start from replace those of the recipe. Without one, a student gets the vocabulary of its
    /// teacher.
    ///
    /// # Errors
    /// [`Error::Pretrained`] if `opened` lacks a checkpoint that the recipe names or has one that
    /// it does not name, if the recipe needs a chat template and there is none, and if the teacher
    /// has another tokenizer than the checkpoint to start from.
    pub fn new(mut recipe: Recipe, mut origins: Origins, opened: Opened) -> Result<Run> {
        let teacher = opened.teacher.as_ref().map(|(teacher, _)| teacher);
        named("model", recipe.model.from.as_ref(), opened.base.as_ref())?;
        let from = recipe.teacher.as_ref().map(|teacher| &teacher.from);
        named("teacher", from, teacher)?;
        match (&opened.base, teacher) {
            (Some(base), teacher) => {
                if let Some(teacher) = teacher {
                    check_tokenizers(teacher, base)?;
                }
                take_shape(&mut recipe, &mut origins, base);
            }
            (None, Some(teacher)) => {
                recipe.data.vocab_size = teacher.config.vocab_size;
                origins.set("data.vocab_size", "the teacher");
            }
            (None, None) => {}
        }
        let run = Run {
            recipe,
            origins,
            opened,
        };
        run.check_template()?;
        Ok(run)
    }

    /// The recipe, with the values that a checkpoint determines.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The origins of the values of the recipe.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The checkpoint to start from.
    pub(crate) fn base(&self) -> Option<&Pretrained> {
        self.opened.base.as_ref()
    }

    /// The checkpoint to learn from, and the precision of its linear layers.
    pub(crate) fn teacher(&self) -> Option<(&Pretrained, Precision)> {
        let teacher = self.opened.teacher.as_ref();
        teacher.map(|(teacher, precision)| (teacher, *precision))
    }

    /// The checkpoint whose tokenizer, templates and settings the run copies: the one to start from
    /// or, without one, the teacher.
    pub(crate) fn tokenizer_from(&self) -> Option<&Pretrained> {
        self.base()
            .or_else(|| self.teacher().map(|(teacher, _)| teacher))
    }

    /// Renders conversations with a chat template.
    pub(crate) fn renderer(&self) -> Option<&Renderer> {
        let chat = self.chat().map(|chat| &*chat.renderer);
        self.opened.renderer.as_deref().or(chat)
    }

    /// The token that ends an answer in the template of the checkpoint that the tokenizer is from.
    pub(crate) fn end_of_turn(&self) -> Option<u32> {
        self.opened.end_of_turn
    }

    /// The chat template of a model that is trained from scratch.
    pub(crate) fn chat(&self) -> Option<&Chat> {
        self.opened.chat.as_ref()
    }

    fn check_template(&self) -> Result<()> {
        if !self.recipe.has_conversations() || self.renderer().is_some() {
            return Ok(());
        }
        let why = "it has no chat template to write conversations with; put chat_template.jinja \
                   beside it";
        Err(match self.tokenizer_from() {
            Some(from) => from.error(why.into()),
            None => Error::Recipe {
                path: "[data]".into(),
                why: "conversations need a chat template, and none was opened".into(),
            },
        })
    }
}

/// Checks that a checkpoint is opened exactly where `from` of a section names one.
///
/// # Errors
/// [`Error::Pretrained`] if not.
fn named(section: &str, from: Option<&String>, opened: Option<&Pretrained>) -> Result<()> {
    let (path, why) = match (from, opened) {
        (Some(_), Some(_)) | (None, None) => return Ok(()),
        (Some(from), None) => (
            PathBuf::from(from),
            format!("[{section}] names it, but it was not opened"),
        ),
        (None, Some(opened)) => (
            opened.path.clone(),
            format!("it was opened, but [{section}] of the recipe names no checkpoint"),
        ),
    };
    Err(Error::Pretrained { path, why })
}

/// Checks that teacher and student have the same tokenizer.
///
/// # Errors
/// [`Error::Pretrained`] if they do not.
fn check_tokenizers(teacher: &Pretrained, base: &Pretrained) -> Result<()> {
    let tokens = |of: &Pretrained| (of.config.vocab_size, of.file(TOKENIZER).map(<[u8]>::to_vec));
    if tokens(teacher) == tokens(base) {
        return Ok(());
    }
    Err(teacher.error(format!(
        "a teacher needs the {TOKENIZER} and the `vocab_size` of its student, {}; leave \
         `model.from` out, and the student gets those of its teacher",
        base.path.display()
    )))
}

/// Takes shape, scaling and vocabulary from the checkpoint to start from.
fn take_shape(recipe: &mut Recipe, origins: &mut Origins, base: &Pretrained) {
    let (m, c) = (&mut recipe.model, &base.config);
    m.family = c.family.name.to_owned();
    m.hidden_size = c.hidden_size;
    m.intermediate_size = c.intermediate_size;
    m.num_hidden_layers = c.num_hidden_layers;
    m.num_attention_heads = c.num_attention_heads;
    m.num_key_value_heads = Some(c.num_key_value_heads);
    m.head_dim = Some(c.head_dim);
    m.rope_theta = c.rope.theta;
    m.rms_norm_eps = f64::from(c.rms_norm_eps);
    m.tie_word_embeddings = c.tie_word_embeddings;
    m.scaling = Some(base.scaling.into());
    recipe.data.vocab_size = c.vocab_size;
    for key in OF_A_CHECKPOINT {
        origins.set(key, "the checkpoint");
    }
    if !origins.has("model.scaling") {
        origins.set("model.scaling", "the checkpoint");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sterna_ternary::Config;

    use super::*;
    use crate::recipe::tests::SMALL;

    fn recipe(more: &str) -> Recipe {
        let text = SMALL.replace("[data]", &format!("{more}\n[data]"));
        Recipe::parse(&text, Path::new("small.toml")).unwrap()
    }

    fn pretrained(tokenizer: &str) -> Pretrained {
        let config = json!({
            "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
            "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
            "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 50,
            "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "rope_theta": 100.0,
            "tie_word_embeddings": true,
        });
        let files = vec![(TOKENIZER.to_owned(), tokenizer.as_bytes().to_vec())];
        let weights = Arc::new(|| Err("nobody reads them".to_owned()));
        let config = Config::from_json(&config).unwrap();
        Pretrained::new("folder".into(), config, files, weights)
    }

    fn refused(recipe: Recipe, opened: Opened) -> String {
        let run = Run::new(recipe, Origins::default(), opened);
        run.err().unwrap().to_string()
    }

    #[test]
    fn the_checkpoint_decides_the_shape() {
        let opened = Opened {
            base: Some(pretrained("{}")),
            ..Opened::default()
        };
        let run = Run::new(recipe("from = 'folder'"), Origins::default(), opened).unwrap();
        let model = &run.recipe().model;
        assert_eq!((model.num_hidden_layers, &*model.family), (3, "bitnet"));
        assert_eq!(run.recipe().data.vocab_size, 50);
        assert_eq!(
            run.origins().of("model.num_hidden_layers"),
            "the checkpoint"
        );
        assert_eq!(run.config(1, 0, &[]).unwrap().max_position_embeddings, 16);
    }

    #[test]
    fn what_is_named_is_opened_and_nothing_else() {
        let why = refused(recipe("from = 'folder'"), Opened::default());
        assert!(
            why.contains("folder") && why.contains("not opened"),
            "{why}"
        );
        let base = Some(pretrained("{}"));
        let opened = || Opened {
            base: base.clone(),
            ..Opened::default()
        };
        let why = refused(recipe(""), opened());
        assert!(
            why.contains("[model] of the recipe names no checkpoint"),
            "{why}"
        );
        let mut chat = recipe("from = 'folder'");
        (chat.data.mix, chat.data.chat) = (None, Some(vec!["a.jsonl".into()]));
        assert!(refused(chat, opened()).contains("no chat template"));
        let mut taught = recipe("from = 'folder'");
        taught.teacher = Some(toml::from_str("from = 'teacher'").unwrap());
        assert!(refused(taught.clone(), opened()).contains("[teacher] names it"));
        let teacher = Some((pretrained("{ }"), Precision::Ternary));
        let why = refused(
            taught,
            Opened {
                teacher,
                ..opened()
            },
        );
        assert!(why.contains("a teacher needs the tokenizer.json"), "{why}");
    }
}

//! How well a model does what the generators of [`sterna_datasets::generate`] teach, measured on
//! held-out documents: sums, stories and conversations, whose answers and entropy are known.
//!
//! These are the figures of `sterna quickstart`. Every function takes the seed of the training data
//! and the number of documents, and decodes greedily.

use std::time::Duration;

use serde::Serialize;
use sterna_datasets::{Split, Task, generate};
use sterna_runtime::{
    ChatTemplate, Generation, KvCache, Message, Model, Sampling, Settings, Summary, Tokenizer,
};
use sterna_ternary::units;

use crate::pass::losses;
use crate::windows::Window;
use crate::{Error, Result};

/// The results of [`problems`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Problems {
    /// Share of the answers that are exactly right.
    pub accuracy: f64,
    /// Tokens per second of the answers, the first token of each left out.
    pub tokens_per_second: f64,
}

/// The results of [`stories`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stories {
    /// Loss in nats per token.
    pub loss: f64,
    /// Entropy of the generator's choices in nats per token, which is the least possible loss.
    pub entropy: f64,
}

/// The continuation of a prompt, and its counts and times.
///
/// # Errors
/// Those of [`Generation`] and of the tokenizer.
pub fn complete(
    model: &Model,
    tokenizer: &Tokenizer,
    prompt: &str,
    settings: Settings,
) -> Result<(String, Summary)> {
    let ids = tokenizer.encode(prompt, true)?;
    let mut cache = new_cache(model)?;
    let mut generation = Generation::new(model, tokenizer, &mut cache, &ids, settings)?;
    let text = generation.by_ref().collect::<Result<String, _>>()?;
    Ok((text, generation.summary()))
}

/// Texts that a model writes: (prompt, continuation).
///
/// # Errors
/// Those of [`complete`].
pub fn samples(model: &Model, tokenizer: &Tokenizer) -> Result<Vec<(String, String)>> {
    let sampled = |seed| Sampling {
        temperature: 0.7,
        top_p: 0.95,
        seed,
        ..Sampling::default()
    };
    [
        ("Once Mia", sampled(1)),
        ("Once Tom sat in the barn. Ivy", sampled(2)),
        ("47+38=", Sampling::default()),
    ]
    .into_iter()
    .map(|(prompt, sampling)| {
        let stop = if prompt.ends_with('=') {
            vec!["\n".to_owned()]
        } else {
            Vec::new()
        };
        let settings = Settings {
            sampling,
            stop,
            ..Settings::default()
        };
        let (text, _) = complete(model, tokenizer, prompt, settings)?;
        Ok((prompt.to_owned(), text))
    })
    .collect()
}

/// Solves `count` held-out problems of a task that has problems, such as sums.
///
/// # Errors
/// Those of [`complete`].
pub fn problems(
    model: &Model,
    tokenizer: &Tokenizer,
    task: Task,
    seed: u64,
    count: u64,
) -> Result<Problems> {
    let mut right = 0;
    let (mut tokens, mut time) = (0, Duration::ZERO);
    for index in 0..count {
        let problem = generate::problem(task, seed, index, Split::HeldOut);
        let settings = Settings {
            max_tokens: Some(tokenizer.encode(&problem.answer, false)?.len()),
            ..Settings::default()
        };
        let (text, summary) = complete(model, tokenizer, &problem.prompt, settings)?;
        right += u64::from(text == problem.answer);
        tokens += summary.generated_tokens.saturating_sub(1);
        time += summary.generated_time;
    }
    Ok(Problems {
        accuracy: right as f64 / count as f64,
        tokens_per_second: tokens as f64 / time.as_secs_f64().max(1e-9),
    })
}

/// Predicts `count` held-out stories. `share` is the share of stories in the mix that the model was
/// trained on: the entropy of a document includes the choice of its task, −ln(share). Loss and
/// entropy include the token that ends a document.
///
/// # Errors
/// Those of [`losses`] and of the tokenizer.
pub fn stories(
    model: &Model,
    tokenizer: &Tokenizer,
    share: f64,
    seed: u64,
    count: u64,
) -> Result<Stories> {
    let end = tokenizer.eos().first().copied();
    let (mut windows, mut entropy) = (Vec::new(), 0.0);
    for index in 0..count {
        let story = generate::document(Task::Stories, seed, index, Split::HeldOut);
        let mut ids = tokenizer.encode(&story.text, true)?;
        ids.extend(end);
        let (scored, document) = (ids.len() - 1, index as usize);
        windows.push(Window {
            ids,
            scored,
            document,
        });
        entropy += story.entropy - share.ln();
    }
    let losses = losses(model, &windows)?;
    let tokens = losses.len() as f64;
    Ok(Stories {
        loss: losses.iter().sum::<f64>() / tokens,
        entropy: entropy / tokens,
    })
}

/// A model as a partner of conversations.
pub struct Partner<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    /// Holds the conversation of the last answer, so that its next turn costs its own tokens only.
    cache: KvCache,
}

impl<'a> Partner<'a> {
    /// A partner with the whole context of the model.
    ///
    /// # Errors
    /// A model without a chat template.
    pub fn new(model: &'a Model, tokenizer: &'a Tokenizer) -> Result<Partner<'a>> {
        Ok(Partner {
            model,
            tokenizer,
            template: model.chat_template()?,
            cache: new_cache(model)?,
        })
    }

    /// What the model answers to messages of a user, turn by turn, until its context is full: a model
    /// of a few steps does not end its answers.
    ///
    /// # Errors
    /// Those of [`Partner::answer`].
    pub fn talk(&mut self, said: &[&str], max_tokens: usize) -> Result<Vec<(String, String)>> {
        let (mut messages, mut turns) = (Vec::new(), Vec::new());
        for said in said {
            messages.push(Message::new("user", said));
            let Some(answer) = self.answer(&messages, max_tokens)? else {
                break;
            };
            messages.push(Message::new("assistant", &answer));
            turns.push((said.to_string(), answer));
        }
        Ok(turns)
    }

    /// The answer to a conversation that ends with a message of the user, cut after `max_tokens`;
    /// `None` if the conversation fills the context.
    ///
    /// # Errors
    /// Those of the template, the tokenizer and [`Generation`].
    pub fn answer(&mut self, messages: &[Message], max_tokens: usize) -> Result<Option<String>> {
        let prompt = self.template.render(messages, true)?;
        let ids = self.tokenizer.encode(&prompt, false)?;
        let room = self.cache.capacity().saturating_sub(ids.len());
        if room == 0 {
            return Ok(None);
        }
        let settings = Settings {
            max_tokens: Some(max_tokens.min(room)),
            ..Settings::default()
        };
        let (model, tokenizer) = (self.model, self.tokenizer);
        let generation = Generation::resume(model, tokenizer, &mut self.cache, &ids, settings)?;
        let answer = generation.collect::<Result<String, _>>();
        answer.map(Some).map_err(Error::from)
    }

    /// Share of the answers in `count` held-out conversations that are exactly right. Each answer
    /// follows the right answers before it.
    ///
    /// # Errors
    /// Those of [`Partner::answer`].
    pub fn accuracy(&mut self, seed: u64, count: u64) -> Result<f64> {
        let (mut right, mut answers) = (0, 0);
        for index in 0..count {
            let document = generate::document(Task::Chat, seed, index, Split::HeldOut);
            let messages: Vec<Message> = document
                .messages
                .iter()
                .map(|m| Message::new(m.role(), m.content()))
                .collect();
            for asked in (1..messages.len()).step_by(2) {
                let expected = &messages[asked].content;
                // One token more than the answer: the token that ends the turn.
                let max_tokens = self.tokenizer.encode(expected, false)?.len() + 1;
                let answer = self.answer(&messages[..asked], max_tokens)?;
                right += u64::from(answer.as_ref() == Some(expected));
                answers += 1;
            }
        }
        Ok(right as f64 / f64::from(answers))
    }
}

/// Held-out documents of each kind that a model is scored on.
const PROBLEMS: u64 = 500;
const STORIES: u64 = 200;
const CONVERSATIONS: u64 = 200;
/// What is said to a model in the conversation that shows it.
const SAID: [&str; 5] = [
    "Hello!",
    "What is 47+38?",
    "Once Mia sat in the barn. Tom was in the park. Tom found a red key. Who has the key?",
    "What colour is the key?",
    "Thanks!",
];
/// Most tokens of an answer to it; what the model learned is shorter.
const LONGEST_ANSWER: usize = 32;

/// Everything that a model of `sterna quickstart` is tried with.
pub struct Trial {
    /// Texts that it writes, each of prompt and continuation.
    pub samples: Vec<(String, String)>,
    /// A conversation, each of what is said and the answer.
    pub conversation: Vec<(String, String)>,
    sums: Problems,
    stories: Stories,
    chat_accuracy: f64,
}

impl Trial {
    /// Tries a model that was trained on data of this seed, of which `share` are stories.
    ///
    /// # Errors
    /// Those of [`samples`], [`problems`], [`stories`] and [`Partner`].
    pub fn of(model: &Model, seed: u64, share: f64) -> Result<Trial> {
        let tokenizer = model.tokenizer()?;
        Ok(Trial {
            samples: samples(model, &tokenizer)?,
            sums: problems(model, &tokenizer, Task::Addition2, seed, PROBLEMS)?,
            stories: stories(model, &tokenizer, share, seed, STORIES)?,
            chat_accuracy: Partner::new(model, &tokenizer)?.accuracy(seed, CONVERSATIONS)?,
            conversation: Partner::new(model, &tokenizer)?.talk(&SAID, LONGEST_ANSWER)?,
        })
    }

    /// The figures, with the sizes of checkpoint and packed file and the time of the whole command.
    pub fn abilities(&self, bytes_master: u64, bytes_packed: u64, seconds: f64) -> Abilities {
        Abilities {
            addition2_accuracy: self.sums.accuracy,
            stories_loss: self.stories.loss,
            stories_entropy: self.stories.entropy,
            chat_accuracy: self.chat_accuracy,
            decode_tokens_per_second: self.sums.tokens_per_second,
            bytes_master,
            bytes_packed,
            seconds,
        }
    }
}

fn new_cache(model: &Model) -> Result<KvCache> {
    Ok(model.new_cache(model.config().max_position_embeddings)?)
}

/// What the packed model can do.
#[derive(Debug, Serialize)]
pub struct Abilities {
    /// Share of held-out two-digit sums that are exactly right.
    pub addition2_accuracy: f64,
    /// Nats per token on held-out stories.
    pub stories_loss: f64,
    /// The least possible loss in nats per token: the entropy of the generator's choices.
    pub stories_entropy: f64,
    /// Share of the answers in held-out conversations that are exactly right.
    pub chat_accuracy: f64,
    /// Speed of writing.
    pub decode_tokens_per_second: f64,
    /// Bytes of the checkpoint.
    pub bytes_master: u64,
    /// Bytes of the packed file.
    pub bytes_packed: u64,
    /// Time of all that.
    pub seconds: f64,
}

impl Abilities {
    /// Samples and a conversation, each of prompt and answer, and the figures.
    pub fn describe(&self, samples: &[(String, String)], talk: &[(String, String)]) -> String {
        let mut text =
            String::from("\nWhat the packed model writes (sums are written lowest digit first):\n");
        for (prompt, continuation) in samples {
            text += &format!("  [{prompt}]{}\n", continuation.replace('\n', " / "));
        }
        text += "\nA conversation with the packed model:\n";
        for (said, answer) in talk {
            text += &format!("  > {said}\n  {answer}\n");
        }
        text += &format!(
            "\nheld-out two-digit sums  {:.1} % exactly right\n\
             held-out stories         {:.3} nats per token; {:.3} is the entropy of their choices\n\
             held-out conversations   {:.1} % of their answers exactly right\n\
             size                     {} of master weights, {} packed ({:.1} x smaller)\n\
             speed                    {:.0} tokens/s decoded one by one\n\
             time                     {:.0} s\n",
            100.0 * self.addition2_accuracy,
            self.stories_loss,
            self.stories_entropy,
            100.0 * self.chat_accuracy,
            units::bytes(self.bytes_master),
            units::bytes(self.bytes_packed),
            self.bytes_master as f64 / self.bytes_packed as f64,
            self.decode_tokens_per_second,
            self.seconds,
        );
        text
    }
}

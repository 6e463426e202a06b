//! Conversations with the packed model: how many answers are right, and one to read.

use sterna_datasets::{Split, Task, generate};
use sterna_runtime::{ChatTemplate, Generation, KvCache, Message, Model, Settings, Tokenizer};

/// Held-out conversations whose answers are compared.
const CONVERSATIONS: u64 = 200;
/// Tokens of an answer at most; what the model learned is shorter.
const LONGEST_ANSWER: usize = 32;
/// What is said to the packed model in the conversation that ends the command.
const SAID: [&str; 5] = [
    "Hello!",
    "What is 47+38?",
    "Once Mia sat in the barn. Tom was in the park. Tom found a red key. Who has the key?",
    "What colour is the key?",
    "Thanks!",
];

/// The packed model as a partner of conversations.
pub struct Talk<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
}

impl<'a> Talk<'a> {
    pub fn new(model: &'a Model, tokenizer: &'a Tokenizer) -> anyhow::Result<Talk<'a>> {
        let template = model.chat_template()?;
        Ok(Talk {
            model,
            tokenizer,
            template,
        })
    }

    /// The answer to a conversation that ends with a message of the user, cut after `max_tokens`; none
    /// where the conversation fills the context.
    fn answer(
        &self,
        messages: &[Message],
        cache: &mut KvCache,
        max_tokens: usize,
    ) -> anyhow::Result<Option<String>> {
        let prompt = self.template.render(messages, true)?;
        let ids = self.tokenizer.encode(&prompt, false)?;
        let room = cache.capacity().saturating_sub(ids.len());
        if room == 0 {
            return Ok(None);
        }
        let settings = Settings {
            max_tokens: Some(max_tokens.min(room)),
            ..Settings::default()
        };
        let generation = Generation::resume(self.model, self.tokenizer, cache, &ids, settings)?;
        Ok(Some(generation.collect::<Result<String, _>>()?))
    }

    /// Share of the answers in held-out conversations that come out exactly, each after the right
    /// answers so far.
    pub fn accuracy(&self, seed: u64) -> anyhow::Result<f64> {
        let mut cache = self.new_cache()?;
        let (mut right, mut answers) = (0, 0);
        for index in 0..CONVERSATIONS {
            let document = generate::document(Task::Chat, seed, index, Split::HeldOut);
            let messages: Vec<Message> = document
                .messages
                .iter()
                .map(|m| Message::new(&m.role, &m.content))
                .collect();
            for asked in (1..messages.len()).step_by(2) {
                let expected = &messages[asked].content;
                // One token more than the answer: the one that ends the turn.
                let max_tokens = self.tokenizer.encode(expected, false)?.len() + 1;
                let answer = self.answer(&messages[..asked], &mut cache, max_tokens)?;
                let is_right = answer.as_ref() == Some(expected);
                right += u64::from(is_right);
                answers += 1;
            }
        }
        Ok(right as f64 / f64::from(answers))
    }

    /// What the model answers to [`SAID`], turn by turn, until its context is full: a model of a few steps
    /// does not end its answers.
    pub fn conversation(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut cache = self.new_cache()?;
        let mut messages = Vec::new();
        for said in SAID {
            messages.push(Message::new("user", said));
            match self.answer(&messages, &mut cache, LONGEST_ANSWER)? {
                Some(answer) => messages.push(Message::new("assistant", &answer)),
                None => break,
            }
        }
        let turns = messages.chunks_exact(2);
        Ok(turns
            .map(|turn| (turn[0].content.clone(), turn[1].content.clone()))
            .collect())
    }

    fn new_cache(&self) -> anyhow::Result<KvCache> {
        let context = self.model.config().max_position_embeddings;
        Ok(self.model.new_cache(context)?)
    }
}

//! Conversations with the packed model: how many answers are right, and one to read.

use sterna_datasets::{Split, Task, generate};
use sterna_runtime::{ChatTemplate, Generation, KvCache, Message, Model, Settings, Tokenizer};

/// Held-out conversations whose answers are compared.
const CONVERSATIONS: u64 = 200;
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

    /// The answer to a conversation that ends with a message of the user.
    fn answer(&self, messages: &[Message], cache: &mut KvCache) -> anyhow::Result<String> {
        let prompt = self.template.render(messages, true)?;
        let ids = self.tokenizer.encode(&prompt, false)?;
        let settings = Settings::default();
        let generation = Generation::resume(self.model, self.tokenizer, cache, &ids, settings)?;
        Ok(generation.collect::<Result<String, _>>()?)
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
                let answer = self.answer(&messages[..asked], &mut cache)?;
                let is_right = answer == messages[asked].content;
                right += u64::from(is_right);
                answers += 1;
            }
        }
        Ok(right as f64 / f64::from(answers))
    }

    /// What the model answers to [`SAID`], turn by turn.
    pub fn conversation(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut cache = self.new_cache()?;
        let mut messages = Vec::new();
        for said in SAID {
            messages.push(Message::new("user", said));
            let answer = self.answer(&messages, &mut cache)?;
            messages.push(Message::new("assistant", &answer));
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

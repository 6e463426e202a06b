//! The tests that a user chose, or those that are measured without a choice.

use super::work::{Generation, Head, Test};

/// Default lengths of prompts and of generated texts.
const PROMPTS: [usize; 2] = [128, 512];
const GENERATIONS: [usize; 1] = [64];
/// The same of each of several sequences.
const OF_SEVERAL: [usize; 1] = [16];

/// What a user chose. An empty list stands for the default, and a length of 0 for no test.
#[derive(Debug, Clone, Copy)]
pub struct ChosenTests<'a> {
    /// Lengths of prompts.
    pub prompts: &'a [usize],
    /// Numbers of tokens to generate.
    pub generations: &'a [usize],
    /// Numbers of sequences at once; each is measured with both heads, and no prompts are.
    pub batches: &'a [usize],
    /// Logits of a generated token, if `batches` is empty.
    pub head: Head,
}

impl ChosenTests<'_> {
    /// The tests, in order.
    pub fn tests(&self) -> Vec<Test> {
        let generate = |tokens, sequences, head| {
            Test::Generate(Generation {
                tokens,
                sequences,
                head,
            })
        };
        if self.batches.is_empty() {
            let prompts = chosen(self.prompts, &PROMPTS).map(Test::Prompt);
            let generations = chosen(self.generations, &GENERATIONS);
            let generations = generations.map(|tokens| generate(tokens, 1, self.head));
            return prompts.chain(generations).collect();
        }
        let mut tests = Vec::new();
        for tokens in chosen(self.generations, &OF_SEVERAL) {
            for head in [Head::Screened, Head::Full] {
                let batches = self.batches.iter();
                tests.extend(batches.map(|sequences| generate(tokens, *sequences, head)));
            }
        }
        tests
    }

    /// Cuts tests that the user did not choose to `room` tokens, and returns whether it cut any.
    /// Without any room nothing changes; then the measurement refuses the depth.
    pub fn fit(&self, tests: &mut Vec<Test>, room: usize) -> bool {
        let mut is_cut = false;
        for test in tests.iter_mut() {
            let is_default = match test {
                Test::Prompt(_) => self.prompts.is_empty(),
                Test::Generate(_) => self.generations.is_empty(),
            };
            let (Test::Prompt(tokens) | Test::Generate(Generation { tokens, .. })) = test;
            if is_default && room > 0 && *tokens > room {
                (*tokens, is_cut) = (room, true);
            }
        }
        tests.dedup();
        is_cut
    }
}

/// What was given or, without it, the default; zeros left out.
fn chosen<'a>(given: &'a [usize], default: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    let lengths = if given.is_empty() { default } else { given };
    lengths.iter().copied().filter(|n| *n > 0)
}

//! What guesses the next tokens of an answer.

use std::sync::Arc;

use sterna_runtime::{Drafter, Lookup, Model, ModelDrafter};

use super::sequence::Sequence;
use super::tree::Tree;

/// Most tokens of a prediction or of an earlier answer that guesses are made from.
const FOLLOWING: usize = 4096;

/// The drafters of an answer: what the request predicts, what followed its prompt in an earlier
/// request, and its own text; then the draft model.
pub fn of(sequence: &Sequence, tree: &Tree, draft: Option<&Arc<Model>>) -> Vec<Box<dyn Drafter>> {
    let request = &sequence.request;
    let following = match request.reads_cache {
        true => tree.following(&request.prompt, FOLLOWING),
        false => Vec::new(),
    };
    let prediction = sequence.generate().map(|generate| &generate.prediction);
    let mut lookup = Lookup::new(request.prompt.len());
    for text in prediction.into_iter().chain([&following]) {
        if !text.is_empty() {
            lookup = lookup.with_expected(&text[..text.len().min(FOLLOWING)]);
        }
    }
    let mut drafters: Vec<Box<dyn Drafter>> = vec![Box::new(lookup)];
    if let Some(draft) = draft {
        let drafter = ModelDrafter::new(Arc::clone(draft), sequence.cache.capacity());
        drafters.push(Box::new(drafter.expect("a context has at least one token")));
    }
    drafters
}

//! Who guesses the next tokens of an answer.

use std::sync::Arc;

use sterna_runtime::{Drafter, Lookup, Model, ModelDrafter};

use super::sequence::Sequence;
use super::tree::Tree;

/// Most tokens of an earlier answer that guesses are made from.
const FOLLOWING: usize = 4096;

/// The drafters of an answer: what the request predicts, what followed its prompt in an earlier
/// request, and its own text; then the draft model.
pub fn of(sequence: &Sequence, tree: &Tree, draft: Option<&Arc<Model>>) -> Vec<Box<dyn Drafter>> {
    let prediction = sequence
        .generate()
        .map_or(&[][..], |generate| &generate.prediction);
    let following = tree.following(&sequence.tokens, FOLLOWING);
    let mut lookup = Lookup::new(sequence.request.prompt.len());
    for text in [prediction, &following] {
        if !text.is_empty() {
            lookup = lookup.with_expected(text);
        }
    }
    let mut drafters: Vec<Box<dyn Drafter>> = vec![Box::new(lookup)];
    if let Some(draft) = draft {
        let drafter = ModelDrafter::new(Arc::clone(draft), sequence.cache.capacity());
        drafters.extend(
            drafter
                .ok()
                .map(|drafter| Box::new(drafter) as Box<dyn Drafter>),
        );
    }
    drafters
}

//! Saving a checkpoint copies neither weights nor moments.
//!
//! The allocator counts bytes for the whole process, so this test has a binary of its own.

use std::path::Path;

use peak_alloc::PeakAlloc;
use sterna_train::{Control, Event, Opened, Origins, Place, Recipe, Run};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// A model of 1.6 million parameters: its state of 12 bytes per parameter is much larger than
/// buffers and JSON. No evaluation is due before the checkpoint of the first step.
const RECIPE: &str = "
    [model]
    family = 'bitnet'
    hidden_size = 256
    intermediate_size = 512
    num_hidden_layers = 2
    num_attention_heads = 2
    [data]
    mix = 'addition2=1'
    documents = 200
    vocab_size = 300
    [train]
    batch = 1
    context = 16
    learning_rate = 1e-3
    warmup = 1
    evaluate_every = 100
    checkpoint_every = 1
    steps = 100
";

#[test]
fn a_checkpoint_is_written_without_a_copy_of_the_state() {
    let recipe = Recipe::parse(RECIPE, Path::new("recipe.toml")).unwrap();
    let run = Run::new(recipe, Origins::default(), Opened::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut state, mut held, mut peak) = (0, 0, None);
    // Between the report of a step and that of its checkpoint the loop only saves.
    let observe = |event: Event| {
        match event {
            Event::Started { parameters, .. } => state = 12 * parameters,
            Event::Step { .. } => {
                held = ALLOCATOR.current_usage();
                ALLOCATOR.reset_peak_usage();
            }
            Event::Saved(_) => peak = peak.or(Some(ALLOCATOR.peak_usage() - held)),
            _ => {}
        }
        Control::Stop
    };
    sterna_train::train(&run, folder.path(), &Place::default(), observe).unwrap();
    let file = folder.path().join("checkpoints/step-00000001.safetensors");
    let written = std::fs::metadata(file).unwrap().len() as usize;
    assert!(written > state, "{written} bytes for a state of {state}");

    // The writer has a buffer of 1 MiB, and trits are packed into a quarter of a byte each. A copy
    // of the weights or of one of the moments would be a third of the state.
    let peak = peak.expect("the first step is saved");
    println!("{peak} bytes more while a state of {state} is saved");
    assert!(peak > 0 && peak < state / 8, "{peak} of {state}");
}

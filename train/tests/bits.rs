//! A run is a function of its recipe: the same bytes on every CPU, for every instruction set.
//!
//! The hashes below are published: `.ci/cross` runs this test on 64-bit Arm too. They change only
//! with [`sterna_train::NUMERICS`].

use std::path::Path;

use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use sterna_train::{Control, InstructionSet, Opened, Origins, Place, Recipe, Run};

/// Ternary weights and int8 activations, squared ReLU, sub-norms, AdamW.
const TERNARY: &str = "
    [model]
    family = 'bitnet'
    hidden_size = 96
    intermediate_size = 144
    num_hidden_layers = 2
    num_attention_heads = 2
    [data]
    mix = 'addition2=0.5,stories=0.5'
    documents = 300
    vocab_size = 330
    [train]
    steps = 5
    batch = 12
    context = 100
    learning_rate = 4e-3
    warmup = 2
    sample_tokens = 8
";

/// One scale per 128 columns, grouped heads with norms, SiLU, Muon, blended quantization, z-loss,
/// accumulation.
const GROUPS: &str = "
    [model]
    family = 'qwen3'
    scaling = 'group'
    hidden_size = 160
    intermediate_size = 200
    num_hidden_layers = 2
    num_attention_heads = 4
    num_key_value_heads = 2
    head_dim = 24
    tie_word_embeddings = false
    [data]
    mix = 'recall=0.5,stories=0.5'
    documents = 300
    vocab_size = 310
    [train]
    optimizer = 'muon'
    steps = 5
    batch = 4
    accumulate = 2
    context = 64
    learning_rate = 2e-3
    schedule = 'two-stage'
    warmup = 1
    ternary_ramp = 3
    z_loss = 1e-3
    mask_documents = true
    sample_tokens = 8
";

/// Full precision, layers computed twice, a cosine.
const FULL: &str = "
    [model]
    family = 'llama'
    hidden_size = 72
    intermediate_size = 100
    num_hidden_layers = 2
    num_attention_heads = 3
    num_key_value_heads = 1
    [data]
    mix = 'stories=1'
    documents = 300
    vocab_size = 320
    [train]
    precision = 'full'
    activations = 'recompute'
    steps = 5
    batch = 3
    context = 150
    learning_rate = 3e-3
    schedule = 'cosine'
    warmup = 1
    sample_tokens = 8
";

/// SHA-256 of the names and bytes of all tensors in the last checkpoint: weights, moments, trits.
fn hash(recipe: &str, folder: &Path) -> String {
    let recipe = Recipe::parse(recipe, Path::new("bits.toml"))
        .unwrap()
        .resolved();
    let run = Run::new(recipe, Origins::default(), Opened::default()).unwrap();
    sterna_train::train(&run, folder, &Place::default(), |_| Control::Continue).unwrap();
    let path = folder.join("checkpoints/step-00000005.safetensors");
    let file = std::fs::read(path).unwrap();
    let mut tensors = SafeTensors::deserialize(&file).unwrap().tensors();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut sum = Sha256::new();
    for (name, tensor) in &tensors {
        sum.update(name);
        sum.update(tensor.data());
    }
    sum.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn weights_after_five_steps_have_the_published_hash_for_every_instruction_set() {
    for set in InstructionSet::available() {
        set.use_everywhere();
        let hashes = [TERNARY, GROUPS, FULL].map(|recipe| {
            let folder = tempfile::tempdir().unwrap();
            hash(recipe, folder.path())
        });
        println!("{set:?}: {hashes:?}");
        assert_eq!(
            hashes,
            [
                "f8ac171ffa8ef04a2960746282879daad0cc225015cf30fd41fa19ace2095b15",
                "95f0af23723a4ceb1ac38d5ff0e177175e30ceedaafeb89003784c41316713b5",
                "acaebcca68b507ae2320eee219db8bfe045d13151b177fd36a1af11c790709cb",
            ],
            "{set:?}"
        );
    }
}

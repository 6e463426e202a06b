//! A student with a teacher comes nearer to its predictions than a student that sees the same text
//! alone.

use serde_json::json;
use sterna_ternary::Config;
use sterna_train::ops::Distillation;
use sterna_train::optimizer::{Method, Optimizer};
use sterna_train::{Model, Precision, Teacher, Trainer};

const CONTEXT: usize = 16;
const VOCABULARY: u64 = 24;

fn trainer(width: usize, precision: Precision, seed: u64) -> Trainer {
    let config = Config::from_json(&json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": width / 2,
        "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
        "rope_theta": 100.0, "tie_word_embeddings": false,
    }));
    let optimizer = Optimizer {
        method: Method::AdamW,
        betas: (0.9, 0.95),
        eps: 1e-8,
        weight_decay: 0.0,
    };
    let model = Model::new(config.unwrap(), precision, CONTEXT, 0.1, seed).unwrap();
    Trainer::new(model, optimizer, 1.0)
}

/// Rows of a noisy rule: a token is five times the one before it, plus 0, 0, 1 or 2.
fn rows(count: usize, mut state: u64) -> Vec<u32> {
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        state >> 33
    };
    let mut rows = Vec::new();
    for _ in 0..count {
        let mut token = random() % VOCABULARY;
        for _ in 0..=CONTEXT {
            rows.push(token as u32);
            token = (5 * token + [0, 0, 1, 2][(random() % 4) as usize]) % VOCABULARY;
        }
    }
    rows
}

fn teach(settings: Distillation, teacher: &Trainer) -> Teacher {
    let (model, cpu) = (&teacher.model, sterna_train::Device::Cpu);
    let values = teacher.parameters().unwrap();
    let model = Model::from_values(model.config.clone(), model.precision, CONTEXT, values, &cpu);
    Teacher::new(model.unwrap(), settings).unwrap()
}

#[test]
fn a_narrow_student_comes_nearer_to_its_teacher_than_without() {
    let mut teacher = trainer(48, Precision::Full, 1);
    for step in 0..150 {
        teacher.step(&rows(16, step), CONTEXT, 5e-3).unwrap();
    }
    let mixed = Distillation {
        weight: 0.9,
        temperature: 1.0,
    };
    let divergence = Distillation {
        weight: 1.0,
        ..mixed
    };
    let held_out = rows(64, 1 << 40);
    let few = rows(24, 1 << 20);
    let found = [false, true].map(|is_taught| {
        let mut student = trainer(24, Precision::Ternary, 2);
        student.teacher = is_taught.then(|| teach(mixed, &teacher));
        for _ in 0..120 {
            student.step(&few, CONTEXT, 5e-3).unwrap();
        }
        // What is scored without gradients is the text alone.
        let of_text = student.evaluate(&held_out, CONTEXT).unwrap();
        student.teacher = Some(teach(divergence, &teacher));
        assert_eq!(student.evaluate(&held_out, CONTEXT).unwrap(), of_text);
        student.gradients(&held_out, CONTEXT).unwrap().0
    });
    let [alone, taught] = found;
    assert!(taught > 0.0 && taught < 0.8 * alone, "{found:?}");
}

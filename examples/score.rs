//! How well a model knows a text, and which of several answers it prefers.
//!
//! cargo run --release --example score -- model.sterna text.txt "12+34=" 46 47 64

use std::path::{Path, PathBuf};

use sterna_runtime::{Model, Options};
use sterna_validate::pass::{Position, score};
use sterna_validate::{Convention, Text, Window};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, text, question, answers @ ..] = &args[..] else {
        anyhow::bail!("usage: score MODEL.sterna TEXT QUESTION ANSWER...");
    };
    let model = Model::open(Path::new(path), Options::default())?;
    let tokenizer = model.tokenizer()?;

    // Perplexity: windows of 64 tokens, 32 apart, in which every token is predicted once.
    let text = Text::open(&[PathBuf::from(text)], &Default::default())?;
    let convention = Convention::Strided {
        context: 64,
        stride: 32,
    };
    let windows = convention.windows(&text, &model, &tokenizer)?;
    let losses = losses(&model, &windows)?;
    let tokens: usize = windows.iter().map(|window| window.scored).sum();
    let loss = losses.iter().sum::<f64>() / tokens as f64;
    println!("perplexity {:.2} on {tokens} tokens", loss.exp());

    // Multiple choice: each answer is a window of which only the answer is predicted.
    let prompt = tokenizer.encode(question, true)?;
    let mut choices = Vec::new();
    for answer in answers {
        let answer = tokenizer.encode(answer, false)?;
        choices.push(Window {
            scored: answer.len(),
            ids: [&prompt[..], &answer].concat(),
            document: 0,
        });
    }
    for (answer, loss) in answers.iter().zip(self::losses(&model, &choices)?) {
        println!("{question}{answer}  log-likelihood {:.2}", -loss);
    }
    Ok(())
}

/// The loss of each window, summed over the tokens that it predicts, in nats.
fn losses(model: &Model, windows: &[Window]) -> sterna_validate::Result<Vec<f64>> {
    let mut losses = Vec::new();
    let mut seen = |_, positions: &[Vec<Position>]| {
        losses.push(positions[0].iter().map(|position| position.nll).sum());
        Ok(true) // go on
    };
    score(&[model], false, windows, 0..windows.len(), &mut seen)?;
    Ok(losses)
}

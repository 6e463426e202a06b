//! The curves of a run while it goes on, for a page that shows them.
//!
//! Training sends a few numbers into a channel and never waits. Who shows the curves takes them
//! from there, when it is asked and in its own thread.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::Event;
use serde_json::{Value, json};

/// Most points of a curve that are shown; each is the mean of equally many steps.
const MOST_POINTS: usize = 2000;

/// What happens in a run that belongs to its curves.
enum News {
    /// The lines of `metrics.jsonl` up to this step.
    Earlier(String, u64),
    Loss(u64, f64),
    HeldOut(u64, f64, Option<Box<(String, String)>>),
}

/// The end of the curves that training writes to.
pub struct Feed(Sender<News>);

/// The curves of a run.
pub struct Curves {
    news: Receiver<News>,
    name: String,
    steps: u64,
    /// Step and loss.
    losses: Vec<(u64, f64)>,
    held_out: Vec<(u64, f64)>,
    sample: Option<Box<(String, String)>>,
}

/// The curves of the run in `folder`, which has `steps` steps, and what fills them.
pub fn curves(folder: &Path, steps: u64) -> (Feed, Curves) {
    let (sender, news) = channel();
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    let curves = Curves {
        news,
        name: name.to_string_lossy().into_owned(),
        steps,
        losses: Vec::new(),
        held_out: Vec::new(),
        sample: None,
    };
    (Feed(sender), curves)
}

impl Feed {
    /// Adds an event. At the start of a resumed run it also adds the earlier losses from
    /// `metrics.jsonl` in `folder`.
    pub fn see(&self, event: &Event, folder: &Path) {
        let news = match event {
            Event::Started { step, .. } => {
                let before = std::fs::read_to_string(folder.join("metrics.jsonl"));
                News::Earlier(before.unwrap_or_default(), *step)
            }
            Event::Step { step, of, .. } => News::Loss(*step, of.loss),
            Event::Evaluated { step, of } => {
                News::HeldOut(*step, of.loss, of.sample.clone().map(Box::new))
            }
            _ => return,
        };
        // An error means that nobody shows the curves.
        let _unseen = self.0.send(news);
    }
}

impl Curves {
    /// The curves up to this moment, as the page reads them.
    pub fn json(&mut self) -> Value {
        while let Ok(news) = self.news.try_recv() {
            self.add(news);
        }
        let at = self.losses.last().map_or(0, |(step, _)| *step);
        let size = self.losses.len().div_ceil(MOST_POINTS).max(1);
        let mean = |points: &[(u64, f64)]| {
            let sum: f64 = points.iter().map(|(_, loss)| loss).sum();
            (points[points.len() - 1].0, sum / points.len() as f64)
        };
        let losses: Vec<(u64, f64)> = self.losses.chunks(size).map(mean).collect();
        json!({"name": self.name, "steps": self.steps, "step": at, "losses": losses,
            "held_out": self.held_out, "sample": self.sample})
    }

    fn add(&mut self, news: News) {
        match news {
            News::Earlier(lines, last) => self.add_lines(&lines, last),
            News::Loss(step, loss) => self.losses.push((step, loss)),
            News::HeldOut(step, loss, sample) => {
                self.held_out.push((step, loss));
                self.sample = sample;
            }
        }
    }

    fn add_lines(&mut self, lines: &str, last: u64) {
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            let Some(step) = line["step"].as_u64().filter(|step| *step <= last) else {
                continue;
            };
            if let Some(loss) = line["loss"].as_f64() {
                self.losses.push((step, loss));
            }
            if let Some(loss) = line["held_out_loss"].as_f64() {
                self.held_out.push((step, loss));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Evaluation, Step};

    use super::*;

    #[test]
    fn curves_have_what_was_and_what_comes() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = "{\"step\":1,\"loss\":5.0}\n{\"step\":1,\"held_out_loss\":4.5}\n\
                       {\"step\":2,\"loss\":4.0}\n{\"st";
        std::fs::write(folder.path().join("metrics.jsonl"), metrics).unwrap();
        let (feed, mut curves) = curves(folder.path(), 5000);
        let started = Event::Started {
            parameters: 1,
            step: 1,
            epochs: 1.0,
            flops_per_token: 1.0,
        };
        feed.see(&started, folder.path());
        for step in 2..=4101 {
            let of = Step {
                loss: 3.0,
                gradient_norm: 1.0,
                is_skipped: false,
            };
            let event = Event::Step {
                step,
                of,
                learning_rate: 1e-3,
                tokens: 1,
            };
            feed.see(&event, folder.path());
        }
        let of = Evaluation {
            loss: 2.5,
            bits_per_byte: 1.0,
            layers: Vec::new(),
            sample: Some(("<b>".into(), "more".into())),
        };
        feed.see(
            &Event::Evaluated {
                step: 4101,
                of: &of,
            },
            folder.path(),
        );

        let shown = curves.json();
        assert_eq!(
            (&shown["step"], &shown["steps"]),
            (&json!(4101), &json!(5000))
        );
        let losses = shown["losses"].as_array().unwrap();
        assert_eq!(losses.len(), 1367); // threes of 4101
        assert_eq!(losses[0], json!([3, 11.0 / 3.0]));
        assert_eq!(shown["held_out"], json!([[1, 4.5], [4101, 2.5]]));
        assert_eq!(shown["sample"], json!(["<b>", "more"]));
    }

    #[test]
    fn training_goes_on_when_nobody_shows_the_curves() {
        let (feed, curves) = curves(Path::new("run"), 1);
        drop(curves);
        let of = Step {
            loss: 3.0,
            gradient_norm: 1.0,
            is_skipped: false,
        };
        let event = Event::Step {
            step: 1,
            of,
            learning_rate: 1e-3,
            tokens: 1,
        };
        feed.see(&event, Path::new("run"));
    }
}

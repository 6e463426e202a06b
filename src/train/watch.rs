//! Progress of a run on stderr: a bar on a terminal, a line every ten seconds in a log.

use std::time::Instant;

use indicatif::ProgressBar;
use sterna_ternary::units;
use sterna_train::run::cost;
use sterna_train::{Control, Event, InstructionSet};

use crate::output::{note, warning};
use crate::preparing::Progress;
use crate::terminal::{self, LogLine, Stoppable};

/// The progress of a run.
pub struct Watch {
    bar: ProgressBar,
    steps: u64,
    /// Loss of every step so far.
    losses: Vec<f64>,
    /// Loss, smoothed over about 50 steps.
    smooth: Option<f64>,
    start: Instant,
    first_step: u64,
    tokens: usize,
    flops_per_token: f64,
    /// Of this machine, measured when the run starts.
    peak_flops: f64,
    log: LogLine,
    preparing: Option<Progress>,
    /// From the first step on, a signal asks for a checkpoint. Before, there is nothing to save.
    stoppable: Option<Stoppable>,
}

impl Watch {
    pub fn new(steps: u64) -> Watch {
        let template = "  {wide_bar} step {pos}/{len}  {msg}  ETA {eta}";
        Watch {
            bar: terminal::bar(steps, template),
            steps,
            losses: Vec::new(),
            smooth: None,
            start: Instant::now(),
            first_step: 0,
            tokens: 0,
            flops_per_token: 0.0,
            peak_flops: f64::INFINITY,
            log: LogLine::new(),
            preparing: None,
            stoppable: None,
        }
    }

    /// Removes the bar and returns the losses.
    pub fn finish(mut self) -> Vec<f64> {
        self.preparing.take().inspect(Progress::finish);
        self.bar.finish_and_clear();
        self.losses
    }

    pub fn see(&mut self, event: &Event) -> Control {
        match event {
            Event::Preparing { what, done, total } => {
                let progress = self.preparing.get_or_insert_with(|| {
                    note!("training the tokenizer and encoding the data");
                    Progress::new(*what, *total)
                });
                progress.show(*what, *done, *total);
            }
            Event::Note(note) => self.say(note),
            Event::Packed(conversations) => {
                self.say(&conversations.notes.to_string());
                for line in conversations.notes.warnings() {
                    self.warn(&line);
                }
                for (name, counts) in ["train", "held out"].iter().zip(&conversations.counts) {
                    self.say(&counts.describe(name));
                }
            }
            Event::Idle { ranks, shards } => self.bar.suspend(|| {
                warning!(
                    "a step of this recipe has {shards} parts, so {ranks} ranks have nothing to \
                     compute; start {shards}, or raise `batch` or `accumulate`"
                );
            }),
            Event::Warning(line) => self.warn(line),
            Event::Started {
                parameters,
                step,
                epochs,
                flops_per_token,
            } => {
                self.preparing.take().inspect(Progress::finish);
                self.stoppable.get_or_insert_with(Stoppable::work);
                let parameters = *parameters as f64 / 1e6;
                let from = if *step > 0 {
                    format!(", going on from step {step}")
                } else {
                    String::new()
                };
                self.say(&format!(
                    "{parameters:.2} M parameters, {epochs:.1} epochs{from}"
                ));
                (self.first_step, self.flops_per_token) = (*step, *flops_per_token);
                self.peak_flops = cost::peak_flops();
                if InstructionSet::used() == InstructionSet::Baseline {
                    self.say(
                        "this CPU has no fused multiply-adds, or the program does not know them: \
                         steps are exact and tens of times slower",
                    );
                }
                self.start = Instant::now();
                self.bar.set_position(*step);
                self.bar.reset_eta();
            }
            Event::Step {
                step, of, tokens, ..
            } => {
                if of.is_skipped {
                    let loss = of.loss;
                    self.say(&format!(
                        "step {step}: skipped, its loss of {loss:.3} is a spike"
                    ));
                }
                self.step(*step, of.loss, *tokens);
            }
            Event::Evaluated { step, of } => self.say(&of.describe(*step)),
            Event::Saved(_) => {}
        }
        terminal::control()
    }

    fn step(&mut self, step: u64, loss: f64, tokens: usize) {
        self.losses.push(loss);
        self.tokens += tokens;
        let smooth = self.smooth.map_or(loss, |s| s + 0.04 * (loss - s));
        self.smooth = Some(smooth);
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = self.tokens as f64 / seconds;
        let share = 100.0 * rate * self.flops_per_token / self.peak_flops;
        let parts = [
            format!("loss {smooth:.3}"),
            format!("{rate:.0} tokens/s"),
            format!("{share:.0} % of f32 peak"),
        ];
        if self.log.is_due() {
            let left = seconds / (step - self.first_step) as f64 * (self.steps - step) as f64;
            let left = units::duration(left);
            note!(
                "step {step}/{}  {}  ETA {left}",
                self.steps,
                parts.join("  ")
            );
        }
        self.bar.set_position(step);
        // The rest of the line: ten columns of the bar, the step and the time left.
        let taken = format!("  {:10} step {step}/{}    ETA 00m", "", self.steps).len();
        self.bar.set_message(terminal::fitting(&parts, taken));
    }

    fn warn(&self, line: &str) {
        let bar = self.preparing.as_ref().map_or(&self.bar, Progress::bar);
        bar.suspend(|| warning!("{line}"));
    }

    fn say(&self, line: &str) {
        if let Some(progress) = &self.preparing {
            progress.say(line)
        } else if terminal::is_terminal() {
            self.bar.println(line)
        } else {
            note!("{line}")
        }
    }
}

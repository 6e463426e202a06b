//! What a report measures, one after the other.

use std::path::Path;

use sterna_runtime::Options;

use super::Report;
use crate::judge::{Passage, Subject, judge};
use crate::speed::{self, SpeedPlan};
use crate::tasks::AccuracyTask;
use crate::text::Text;
use crate::windows::Convention;
use crate::{Result, exam};

/// What a report measures.
pub struct Plan<'a> {
    /// The text that is predicted.
    pub text: &'a Text,
    /// How it is cut, once for each of them.
    pub conventions: &'a [Convention],
    /// Most tokens to score, as in [`Passage`].
    pub most_tokens: Option<usize>,
    /// Tasks to solve.
    pub exams: &'a [AccuracyTask],
    /// Speeds, and how the models were opened; `None` measures none.
    pub speed: Option<(SpeedPlan, Options)>,
    /// A folder where results are kept.
    pub state: &'a Path,
}

/// Called with what is counted, how much of it is done, and all of it. Returns whether to go on.
pub type Seen<'a> = dyn FnMut(&str, usize, usize) -> bool + 'a;

impl Report {
    /// Measures the models and adds the figures. Returns whether all were measured: `false` where
    /// `seen` said not to go on.
    ///
    /// # Errors
    /// Those of [`judge`], [`exam::examine`] and [`speed::measure_once`].
    pub fn measure(&mut self, subjects: &[Subject], plan: &Plan, seen: &mut Seen) -> Result<bool> {
        for convention in plan.conventions {
            let passage = Passage {
                text: plan.text,
                convention: *convention,
                most_tokens: plan.most_tokens,
                state: plan.state,
            };
            let what = format!("{} tokens", convention.name());
            let judgments = judge(subjects, &passage, &mut |done, all| seen(&what, done, all))?;
            let Some(judgments) = judgments else {
                return Ok(false);
            };
            self.add(&passage, &judgments);
        }
        for task in plan.exams {
            let what = format!("items of {}", task.name());
            let seen = &mut |done, all| seen(&what, done, all);
            let Some(exams) = exam::examine(subjects, task, plan.state, seen)? else {
                return Ok(false);
            };
            for (model, exam) in self.models.iter_mut().zip(exams) {
                model.tasks.push(exam);
            }
        }
        let Some((speed, options)) = &plan.speed else {
            return Ok(true);
        };
        let seen = &mut |done, all| seen("measurements of speed", done, all);
        let Some((speeds, energy)) =
            speed::measure_once(plan.state, subjects, speed, *options, seen)?
        else {
            return Ok(false);
        };
        for (model, speed) in self.models.iter_mut().zip(speeds) {
            model.speed = Some(speed);
        }
        self.setting.energy = energy;
        self.setting.speed_tokens = (speed.prompt, speed.generate);
        Ok(true)
    }
}

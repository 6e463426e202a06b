//! Finds out why a model writes garbage: a list of known failure modes, each with a verdict and a
//! fix.
//!
//! An examination has four stages. First the model is opened, packed and run once (`patient.rs`).
//! Then the checks that need no comparison look at it. Then typical mistakes are undone, one at a
//! time, and the model runs again (`trials.rs`). The remaining checks compare these runs.

mod both_ways;
mod checks;
mod finding;
mod patient;
mod refusals;
mod stage;
mod texts;
mod tokens;
mod trials;
mod variants;
mod weights;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Result;
use checks::{CHECKS, Check, CheckFunction};
use finding::Finding;
pub use finding::Verdict;
use patient::{Admission, Patient};
pub use stage::{OnProgress, Stage};

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct CheckResult {
    /// The name of the check.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// The reason, with the numbers.
    pub why: String,
    /// What to do, if the verdict is suspect or broken.
    pub fix: Option<&'static str>,
}

/// The results of all checks of a model.
#[derive(Debug, Serialize)]
pub struct Examination {
    /// The model.
    pub path: PathBuf,
    /// The name of its family; `None` if the model cannot be opened.
    pub family: Option<&'static str>,
    /// The number of checks whose verdict is broken.
    pub broken: usize,
    /// The number of checks whose verdict is suspect.
    pub suspect: usize,
    /// One line per check.
    pub checks: Vec<CheckResult>,
    /// The warnings of the model's reader.
    pub warnings: Vec<String>,
}

/// Examines a packed file, a Hugging Face folder or a GGUF file.
///
/// `scratch` is an empty folder. The packed model and its variants are written there; the caller
/// removes it.
///
/// # Errors
/// Everything that is not a known failure mode: unreadable files, unknown families, damaged
/// headers.
pub fn examine(path: &Path, scratch: &Path, progress: OnProgress) -> Result<Examination> {
    match Patient::admit(path, scratch, progress)? {
        Admission::Patient(patient) => {
            let mut report = Examination::new(path, checks_of(&patient, progress)?);
            report.family = Some(patient.source.config().family.name);
            report.warnings = patient.source.warnings().to_vec();
            Ok(report)
        }
        Admission::Refused(refused) => {
            let unread = || Finding::not_applicable("the model could not be opened");
            let findings = CHECKS
                .iter()
                .map(|c| refusal(&refused, c).unwrap_or_else(unread));
            Ok(Examination::new(path, findings.collect()))
        }
    }
}

/// The findings of all checks. The checks on the unchanged model run first, then the trials, then
/// the checks that need trials.
fn checks_of(patient: &Patient, progress: OnProgress) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for check in &CHECKS {
        findings.push(match (refusal(&patient.refused, check), check.run) {
            (Some(finding), _) => Some(finding),
            (None, CheckFunction::Model(run)) => Some(run(patient)?),
            (None, CheckFunction::Trials(_)) => None,
        });
    }
    let broken = CHECKS.iter().zip(&findings).find(|(check, finding)| {
        let verdict = finding.as_ref().map(|f| f.verdict);
        check.precedes_trials && verdict == Some(Verdict::Broken)
    });
    let trials = match (patient.to_be_tried(), broken) {
        (Err(why), _) => Err(why),
        (Ok(_), Some((check, _))) => Err(format!("see {} first", check.name)),
        (Ok(body), None) => {
            let family = patient.source.config().family;
            Ok(trials::run(body, family, patient.chance(), progress)?)
        }
    };
    let findings = CHECKS.iter().zip(findings);
    let findings = findings.map(|(check, finding)| match (finding, check.run) {
        (Some(finding), _) => Ok(finding),
        (None, CheckFunction::Model(run)) => run(patient),
        (None, CheckFunction::Trials(run)) => run(patient, &trials),
    });
    findings.collect()
}

/// The finding of a check that a reader's refusal already answers.
fn refusal(refused: &[(&'static str, String)], check: &Check) -> Option<Finding> {
    let refused = refused.iter().find(|(name, _)| *name == check.name);
    refused.map(|(_, why)| Finding::broken(why))
}

impl Examination {
    fn new(path: &Path, findings: Vec<Finding>) -> Examination {
        let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
        Examination {
            path: path.to_owned(),
            family: None,
            broken: count(Verdict::Broken),
            suspect: count(Verdict::Suspect),
            warnings: Vec::new(),
            checks: CHECKS
                .iter()
                .zip(findings)
                .map(|(check, finding)| CheckResult {
                    check: check.name,
                    verdict: finding.verdict,
                    why: finding.why,
                    fix: (finding.verdict >= Verdict::Suspect).then_some(check.fix),
                })
                .collect(),
        }
    }

    /// Lines for a person: each check, its reason and what to do.
    pub fn describe(&self) -> String {
        let family = self.family.map(|name| format!(", family {name}"));
        let mut text = format!("{}{}\n", self.path.display(), family.unwrap_or_default());
        for line in &self.checks {
            text += &format!(
                "{:<8} {:<20} {}\n",
                line.verdict.name(),
                line.check,
                line.why
            );
            if let Some(fix) = line.fix {
                text += &format!("{:<8} {:<20} fix: {fix}\n", "", "");
            }
        }
        for warning in &self.warnings {
            text += &format!("note     {warning}\n");
        }
        text + &match (self.broken, self.suspect) {
            (0, 0) => "nothing is broken\n".to_owned(),
            (broken, suspect) => format!("{broken} broken, {suspect} suspect\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_answers_a_check() {
        for name in refusals::checks() {
            assert!(CHECKS.iter().any(|check| check.name == name), "{name}");
        }
    }
}

//! `sterna doctor`: why a model writes garbage, as a list of known failure modes, each with a verdict and a fix.

mod both_ways;
mod checks;
mod finding;
mod patient;
mod refusals;
mod texts;
pub mod tokens;
mod trials;
mod variants;
mod weights;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::locate::{Want, locate};
use checks::{CHECKS, Check};
use finding::{Finding, Verdict};
use patient::{Admission, Patient};

/// Find out why a model writes garbage: check its files, weights, tokenizer and template for known failure modes.
///
/// The model is packed into a temporary folder and predicts built-in texts, as it is and with typical mistakes
/// undone. Exit codes: 0 nothing is broken, 1 something is, 3 it cannot be read
#[derive(clap::Args)]
pub struct Args {
    /// A packed file, a Hugging Face folder, a GGUF file, or the name of one on the hub.
    model: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The result of one check.
#[derive(Serialize)]
struct Line {
    check: &'static str,
    verdict: Verdict,
    why: String,
    fix: Option<&'static str>,
}

#[derive(Serialize)]
struct Report {
    path: PathBuf,
    family: Option<&'static str>,
    broken: usize,
    suspect: usize,
    checks: Vec<Line>,
    warnings: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = locate(&args.model, Want::Either)?;
    let report = examine(path)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", describe(&report));
    }
    Ok(match report.broken {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn examine(path: PathBuf) -> anyhow::Result<Report> {
    let mut report = Report {
        family: None,
        broken: 0,
        suspect: 0,
        checks: Vec::new(),
        warnings: Vec::new(),
        path,
    };
    match Patient::admit(&report.path)? {
        Admission::Patient(patient) => {
            report.family = Some(patient.source.config().family.name);
            report.warnings = patient.source.warnings().to_vec();
            for check in &CHECKS {
                let finding = match refusal(&patient.refused, check) {
                    Some(finding) => finding,
                    None => (check.run)(&patient)?,
                };
                report.add(check, finding);
            }
        }
        Admission::Refused(refused) => {
            for check in &CHECKS {
                let unread = || Finding::not_applicable("the model could not be opened");
                report.add(check, refusal(&refused, check).unwrap_or_else(unread));
            }
        }
    }
    Ok(report)
}

/// What the readers said, if it answers a check.
fn refusal(refused: &[(&'static str, String)], check: &Check) -> Option<Finding> {
    let refused = refused.iter().find(|(name, _)| *name == check.name);
    refused.map(|(_, why)| Finding::broken(why))
}

impl Report {
    fn add(&mut self, check: &Check, finding: Finding) {
        let is_bad = finding.verdict >= Verdict::Suspect;
        self.broken += usize::from(finding.verdict == Verdict::Broken);
        self.suspect += usize::from(finding.verdict == Verdict::Suspect);
        self.checks.push(Line {
            check: check.name,
            verdict: finding.verdict,
            why: finding.why,
            fix: is_bad.then_some(check.fix),
        });
    }
}

fn describe(report: &Report) -> String {
    let family = report.family.map(|name| format!(", family {name}"));
    let mut text = format!("{}{}\n", report.path.display(), family.unwrap_or_default());
    for line in &report.checks {
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
    for warning in &report.warnings {
        text += &format!("note     {warning}\n");
    }
    text + &match (report.broken, report.suspect) {
        (0, 0) => "nothing is broken\n".to_owned(),
        (broken, suspect) => format!("{broken} broken, {suspect} suspect\n"),
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

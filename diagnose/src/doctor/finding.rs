//! The result of a check.

use serde::Serialize;

/// How bad it is, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The check does not apply to this model, or it cannot tell.
    NotApplicable,
    /// Nothing is wrong.
    Ok,
    /// Something may be wrong.
    Suspect,
    /// Something is wrong.
    Broken,
}

impl Verdict {
    /// The verdict in one word.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::NotApplicable => "-",
            Verdict::Suspect => "suspect",
            Verdict::Broken => "broken",
        }
    }
}

/// A verdict and its reason, with the numbers.
#[derive(Debug, Clone)]
pub struct Finding {
    pub verdict: Verdict,
    pub why: String,
}

impl Finding {
    pub fn new(verdict: Verdict, why: impl Into<String>) -> Finding {
        let why = why.into();
        Finding { verdict, why }
    }

    pub fn ok(why: impl Into<String>) -> Finding {
        Finding::new(Verdict::Ok, why)
    }

    pub fn not_applicable(why: impl Into<String>) -> Finding {
        Finding::new(Verdict::NotApplicable, why)
    }

    pub fn suspect(why: impl Into<String>) -> Finding {
        Finding::new(Verdict::Suspect, why)
    }

    pub fn broken(why: impl Into<String>) -> Finding {
        Finding::new(Verdict::Broken, why)
    }
}

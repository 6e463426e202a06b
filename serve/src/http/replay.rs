//! Logged requests computed again, and compared byte by byte.

use std::sync::Arc;

use serde_json::Value;

use super::error::ApiError;
use super::job::Job;
use super::json;
use super::routes;
use super::served::Served;

/// What came of a line of a log.
#[derive(Debug, Clone, PartialEq)]
pub enum Replayed {
    /// The same bytes.
    Same,
    /// Other bytes, and where they begin to differ.
    Different {
        /// The first byte that differs, in the JSON of the answer.
        byte: usize,
        /// The logged answer from there.
        logged: String,
        /// The computed one.
        computed: String,
    },
    /// The line belongs to another model or program.
    Foreign {
        /// Its fingerprint.
        fingerprint: String,
    },
}

/// A line that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// It is not a line of a log.
    #[error("the line is not one of a log of requests: {0}; expected what --log-requests writes")]
    Form(String),
    /// The request is refused.
    #[error("the request is refused: {}", .0.message)]
    Refused(ApiError),
    /// The threads of the replay.
    #[error("starting threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// Computes a line of a log again.
///
/// # Errors
/// [`BadLine`].
pub fn replay(served: &Arc<Served>, line: &str) -> Result<Replayed, BadLine> {
    let form = |why: &str| BadLine::Form(why.to_owned());
    let entry = json::object(line.as_bytes()).map_err(|error| BadLine::Form(error.message))?;
    let text = |name: &str| {
        let text = entry.get(name).and_then(Value::as_str);
        text.ok_or_else(|| BadLine::Form(format!("`{name}` is not a string")))
    };
    let (fingerprint, route) = (text("fingerprint")?, text("route")?);
    if fingerprint != served.fingerprint {
        return Ok(Replayed::Foreign {
            fingerprint: fingerprint.to_owned(),
        });
    }
    let body = entry.get("body").and_then(Value::as_object);
    let body = body.ok_or_else(|| form("`body` is not an object"))?.clone();
    let job = routes::job(route).ok_or_else(|| form("its route is unknown"))?;
    let job = job(Arc::clone(served), body, 0, false).map_err(BadLine::Refused)?;
    let computed = compute(&job)?.map_err(BadLine::Refused)?;
    // The text of the answer, not its value: the bytes are compared.
    let members = sterna_ternary::json::members(line).unwrap_or_default();
    let logged = members.iter().find(|(name, _)| name == "answer");
    let (_, logged) = logged.ok_or_else(|| form("`answer` is missing"))?;
    Ok(compare(logged, &computed))
}

fn compute(job: &Job) -> Result<Result<String, ApiError>, BadLine> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let answers = runtime.enable_time().build()?.block_on(job.compute());
    Ok(answers.map(|answers| answers.promised().to_string()))
}

fn compare(logged: &str, computed: &str) -> Replayed {
    if logged == computed {
        return Replayed::Same;
    }
    let pairs = logged.bytes().zip(computed.bytes());
    let byte = pairs.take_while(|(a, b)| a == b).count();
    let rest = |text: &str| {
        let bytes = &text.as_bytes()[byte..];
        String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned()
    };
    Replayed::Different {
        byte,
        logged: rest(logged),
        computed: rest(computed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(compare("[1,2]", "[1,2]"), Replayed::Same);
        let expected = Replayed::Different {
            byte: 3,
            logged: "2]".into(),
            computed: "3]".into(),
        };
        assert_eq!(compare("[1,2]", "[1,3]"), expected);
        assert!(matches!(
            compare("[1", "[1]"),
            Replayed::Different { byte: 2, .. }
        ));
    }
}

//! How a command ends: its exit code, and its messages on standard error.

use std::{error::Error, io::Write as _, process::ExitCode};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use wardline_proto::document::Problem;

use crate::humane::printable;

/// The exit codes that scripts rely on; most of usage (2) is clap's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; for `explain`: allowed.
    Done = 0,
    /// Could not be done: no connection, time-out, internal error.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// `explain`: dropped.
    Dropped = 3,
    /// Refused: invalid, unknown, used, stale, not allowed.
    Refused = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    exit: Exit,
    lines: Vec<String>,
}

impl Failure {
    /// Something could not be done.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            lines: vec![format!("error: {}", message.into())],
        }
    }

    /// Something was refused.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Refused,
            lines: vec![format!("error: {}", message.into())],
        }
    }

    /// Nobody knows whether what was asked for has happened: says how to find out.
    pub(crate) fn maybe_done(mut self) -> Self {
        let line = "the change may be in force all the same: `wardctl status` says which revision is, \
                    `wardctl history` who made it";
        self.lines.push(line.to_owned());
        self
    }

    /// The request makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            lines: vec![format!("error: {}", message.into())],
        }
    }

    /// The audit was tampered with; one finding for each place.
    pub(crate) fn tampered(findings: Vec<String>) -> Self {
        Self {
            exit: Exit::Refused,
            lines: findings,
        }
    }

    /// A document was refused, for each of these reasons.
    pub(crate) fn problems(problems: &[Problem]) -> Self {
        let line = |problem: &Problem| match problem.path.as_str() {
            "" => format!("error: {}", problem.message),
            _ => problem.to_string(),
        };
        Self {
            exit: Exit::Refused,
            lines: problems.iter().map(line).collect(),
        }
    }

    /// Prints the messages on standard error, one problem a line.
    pub(crate) fn tell(self) -> Exit {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&printable(line));
            text.push('\n');
        }
        // If standard error is closed, the message is lost.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        self.exit
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::of(&status, Problem::clone)
    }
}

impl Failure {
    /// What a status says, with each problem that it lists put in other words.
    pub(crate) fn of(status: &Status, placed: impl Fn(&Problem) -> Problem) -> Self {
        let problems: Vec<_> = violations(status).iter().map(placed).collect();
        if !problems.is_empty() {
            return Self {
                exit: exit(status.code()),
                ..Self::problems(&problems)
            };
        }
        let meaning = match status.code() {
            Code::Unimplemented => Some("the router does not offer this call"),
            Code::Cancelled if status.source().is_some() => Some("the connection broke"),
            Code::Cancelled | Code::DeadlineExceeded => Some("no answer in time"),
            _ => None,
        };
        // The cause of a broken connection is in the error's source.
        let told = match status.source() {
            Some(_) => format!("{}: {}", status.message(), cause(status)),
            None => status.message().to_owned(),
        };
        let message = match (meaning, told.as_str()) {
            (Some(meaning), "") => meaning.to_owned(),
            (Some(meaning), message) => format!("{meaning}: {message}"),
            (None, "") => status.code().description().to_lowercase(),
            (None, message) => message.to_owned(),
        };
        Self {
            exit: exit(status.code()),
            lines: vec![format!("error: {message}")],
        }
    }
}

/// The problems that a status lists beside its message.
pub(crate) fn violations(status: &Status) -> Vec<Problem> {
    let problem = |path, message| Problem { path, message };
    let details = status.get_error_details();
    let fields = details
        .bad_request()
        .into_iter()
        .flat_map(|it| &it.field_violations);
    let preconditions = details
        .precondition_failure()
        .into_iter()
        .flat_map(|it| &it.violations);
    let quotas = details
        .quota_failure()
        .into_iter()
        .flat_map(|it| &it.violations);
    fields
        .map(|it| problem(it.field.clone(), it.description.clone()))
        .chain(preconditions.map(|it| problem(it.subject.clone(), it.description.clone())))
        .chain(quotas.map(|it| problem(it.subject.clone(), it.description.clone())))
        .collect()
}

/// The cause of an error whose own message does not say it.
pub(crate) fn cause(error: &dyn Error) -> String {
    let mut words = Vec::new();
    let mut source = error.source();
    while let Some(error) = source {
        let word = error.to_string();
        // Wrappers repeat the message that they wrap.
        if words.last() != Some(&word) {
            words.push(word);
        }
        source = error.source();
    }
    if words.is_empty() {
        error.to_string()
    } else {
        words.join(": ")
    }
}

fn exit(code: Code) -> Exit {
    match code {
        Code::Ok => Exit::Done,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => Exit::Refused,
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_is_4_and_the_rest_1() {
        use Code::{
            Aborted, AlreadyExists, Cancelled, DataLoss, DeadlineExceeded, FailedPrecondition,
            Internal, InvalidArgument, NotFound, OutOfRange, PermissionDenied, ResourceExhausted,
            Unauthenticated, Unavailable, Unimplemented, Unknown,
        };
        for code in [
            InvalidArgument,
            NotFound,
            Aborted,
            FailedPrecondition,
            ResourceExhausted,
            PermissionDenied,
            Unauthenticated,
            AlreadyExists,
            OutOfRange,
        ] {
            assert_eq!(
                Failure::from(Status::new(code, "no")).exit as u8,
                4,
                "{code:?}"
            );
        }
        for code in [
            Unavailable,
            DeadlineExceeded,
            Unimplemented,
            Internal,
            Unknown,
            Cancelled,
            DataLoss,
        ] {
            assert_eq!(
                Failure::from(Status::new(code, "no")).exit as u8,
                1,
                "{code:?}"
            );
        }
    }

    #[test]
    fn every_violation_is_a_line_that_begins_with_its_path() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("devices[1].zone", "no such zone");
        details.add_bad_request_violation("", "too large");
        let status = Status::with_error_details(Code::InvalidArgument, "2 problems", details);
        let failure = Failure::from(status);
        assert_eq!(
            failure.lines,
            ["devices[1].zone: no such zone", "error: too large"]
        );
        assert_eq!(failure.exit, Exit::Refused);
    }

    #[test]
    fn without_violations_the_message_is_the_line() {
        let lines = |code, message| Failure::from(Status::new(code, message)).lines;
        assert_eq!(
            lines(Code::Aborted, "base 3 is stale"),
            ["error: base 3 is stale"]
        );
        assert_eq!(
            lines(Code::Unimplemented, "later"),
            ["error: the router does not offer this call: later"]
        );
    }
}

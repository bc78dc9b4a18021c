//! Documents from files: reads them, and reports all their problems.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use tonic::{Code, Status};
use wardline_proto::{
    document::{self, Problem},
    v1::{PlanRequest, Policy},
};

use crate::{
    connect::{LARGEST_MESSAGE, connect},
    exit::{Failure, violations},
    humane,
    session::Session,
};

/// Reads a whole document. If it has problems, asks the router for further ones.
///
/// # Errors
/// The file can't be read, or the document has problems.
pub(crate) async fn whole(session: &Session, file: &Path) -> Result<Policy, Failure> {
    let (policy, problems) = document::parse(&text(file)?);
    if problems.is_empty() {
        return Ok(policy);
    }
    // Without any readable part there is nothing to ask about.
    let readable = problems.iter().all(|problem| !problem.path.is_empty());
    let further = if readable {
        objections(session, policy).await
    } else {
        Vec::new()
    };
    Err(Failure::problems(&merged(problems, further)))
}

/// The router's objections to a policy; none if it can't be asked.
async fn objections(session: &Session, policy: Policy) -> Vec<Problem> {
    let refusal = session.within(async {
        let client = connect(&session.target).await?;
        let request = PlanRequest {
            policy: Some(policy),
        };
        Ok(session
            .call(client, request, async |mut client, it| {
                client.plan(it).await
            })
            .await
            .err())
    });
    match refusal.await {
        Ok(Some(status)) if refers_to_document(&status) => violations(&status),
        Ok(_) | Err(_) => Vec::new(),
    }
}

fn refers_to_document(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::ResourceExhausted
    )
}

/// The problems of both. The router's problems at a place that could not be read are left out,
/// because they only follow from that.
fn merged(mut local: Vec<Problem>, router: Vec<Problem>) -> Vec<Problem> {
    let follows = |problem: &Problem| {
        local
            .iter()
            .any(|unread| match problem.path.strip_prefix(&unread.path) {
                Some(rest) => rest.is_empty() || rest.starts_with(['.', '[']),
                None => false,
            })
    };
    let further: Vec<_> = router
        .into_iter()
        .filter(|problem| !follows(problem))
        .collect();
    local.extend(further);
    local
}

/// The text of a file, or of standard input.
///
/// # Errors
/// It can't be read, is too large, or is not UTF-8.
pub(crate) fn text(file: &Path) -> Result<String, Failure> {
    if file == Path::new("-") {
        return read("standard input", io::stdin().lock(), LARGEST_MESSAGE);
    }
    let name = file.display().to_string();
    let opened = File::open(file).map_err(|error| Failure::refused(format!("{name}: {error}")))?;
    read(&name, opened, LARGEST_MESSAGE)
}

fn read(name: &str, reader: impl Read, most: usize) -> Result<String, Failure> {
    let refused = |why: String| Failure::refused(format!("{name}: {why}"));
    let mut bytes = Vec::new();
    let mut reader = reader.take((most as u64).saturating_add(1));
    reader
        .read_to_end(&mut bytes)
        .map_err(|error| refused(error.to_string()))?;
    if bytes.len() > most {
        return Err(refused(format!(
            "larger than {}",
            humane::bytes(most as u64)
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        refused(format!(
            "not UTF-8 at byte {}",
            error.utf8_error().valid_up_to()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(path: &str, message: &str) -> Problem {
        Problem {
            path: path.to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_follows_from_an_unread_place_is_left_out() {
        let local = vec![
            problem("devices[1]", "not a mapping"),
            problem("version", "not a number"),
        ];
        let router = vec![
            problem("version", "must be 1"),
            problem("devices[1].name", "missing"),
            problem("devices[10].zone", "no such zone"),
            problem("rules[0].to[1]", "no such device"),
        ];
        let paths = |problems: Vec<Problem>| {
            problems
                .into_iter()
                .map(|problem| problem.path)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            paths(merged(local, router)),
            [
                "devices[1]",
                "version",
                "devices[10].zone",
                "rules[0].to[1]"
            ]
        );
    }

    #[test]
    fn an_unreadable_document_is_refused() {
        assert!(text(Path::new("/nonexistent/policy.yaml")).is_err());
        assert!(text(Path::new("/")).is_err());
        let read = |bytes: &[u8]| read("x", bytes, 10);
        assert_eq!(
            read(b"\xff"),
            Err(Failure::refused("x: not UTF-8 at byte 0"))
        );
        assert_eq!(
            read(b"version: 01"),
            Err(Failure::refused("x: larger than 10 B"))
        );
        assert_eq!(read(b"version: 1").as_deref(), Ok("version: 1"));
    }
}

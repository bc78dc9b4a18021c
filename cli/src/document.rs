//! Documents from files and folders: reads them as one, and reports all their problems.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use tonic::{Code, Request, Response, Status};
use wardline_proto::{
    document::Problem,
    parts::{Parts, Source},
    v1::PlanRequest,
};

use crate::{
    connect::{Client, LARGEST_MESSAGE, connect},
    exit::{Failure, violations},
    humane,
    session::Session,
};

/// Most files of a document.
const MOST_FILES: usize = 1000;
/// Most folders within each other.
const DEEPEST: usize = 16;
/// How the names of files end that are parts of a document.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads a whole document. If it has problems, asks the router for further ones.
///
/// # Errors
/// A file can't be read, or the document has problems.
pub(crate) async fn whole(session: &Session, files: &[PathBuf]) -> Result<Parts, Failure> {
    let parts = read_with(files, Parts::read)?;
    if parts.is_whole() {
        return Ok(parts);
    }
    let further = if parts.is_readable() {
        objections(session, &parts).await
    } else {
        Vec::new()
    };
    Err(Failure::problems(&parts.told(&further)))
}

/// Reads a few objects.
///
/// # Errors
/// A file can't be read, or the objects have problems.
pub(crate) fn fragment(files: &[PathBuf]) -> Result<Parts, Failure> {
    let parts = read_with(files, Parts::read_fragment)?;
    if parts.is_whole() {
        Ok(parts)
    } else {
        Err(Failure::problems(&parts.told(&[])))
    }
}

/// Sends what was made of a document, and says of each objection where it is in the files.
///
/// # Errors
/// The router can't be reached, refuses, or takes too long.
pub(crate) async fn send<Q, A>(
    session: &Session,
    parts: &Parts,
    question: Q,
    call: impl AsyncFnOnce(Client, Request<Q>) -> Result<Response<A>, Status>,
) -> Result<A, Failure> {
    let answer = session.within(async {
        let client = connect(&session.target).await?;
        Ok(session.call(client, question, call).await)
    });
    answer
        .await?
        .map_err(|status| session.failed(&status, |problem| parts.placed(problem)))
}

/// The router's objections to a document; none if it can't be asked.
async fn objections(session: &Session, parts: &Parts) -> Vec<Problem> {
    let refusal = session.within(async {
        let client = connect(&session.target).await?;
        let request = PlanRequest {
            policy: Some(parts.policy.clone()),
            ..PlanRequest::default()
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

fn read_with(
    files: &[PathBuf],
    read: impl FnOnce(&[Source<'_>]) -> Parts,
) -> Result<Parts, Failure> {
    let mut texts = Vec::new();
    let mut room = LARGEST_MESSAGE;
    for file in files_of(files)? {
        let text = text_of(&file, room)?;
        room -= text.len();
        let name = match file.as_path() {
            file if file == Path::new("-") => "standard input".to_owned(),
            file => file.display().to_string(),
        };
        texts.push((name, text));
    }
    let sources: Vec<Source<'_>> = texts
        .iter()
        .map(|(name, text)| Source { name, text })
        .collect();
    Ok(read(&sources))
}

/// The files that arguments mean: a folder is its files, by name.
fn files_of(arguments: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for argument in arguments {
        if argument == Path::new("-") || !argument.is_dir() {
            files.push(argument.clone());
            continue;
        }
        let before = files.len();
        gather(argument, DEEPEST, &mut files)?;
        if files.len() == before {
            let folder = argument.display();
            return Err(Failure::refused(format!(
                "{folder}: no file in it ends in .yaml, .yml or .json"
            )));
        }
    }
    Ok(files)
}

fn gather(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let refused = |why: String| Failure::refused(format!("{}: {why}", folder.display()));
    if depth == 0 {
        return Err(refused(format!(
            "more than {DEEPEST} folders within each other"
        )));
    }
    let entries = fs::read_dir(folder).map_err(|error| refused(error.to_string()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| refused(error.to_string()))?.path());
    }
    paths.sort();
    for path in paths {
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_part = path
            .extension()
            .is_some_and(|it| ENDINGS.iter().any(|ending| it == *ending));
        if is_hidden {
            continue;
        }
        if path.is_dir() {
            gather(&path, depth - 1, files)?;
        } else if is_part {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            return Err(refused(format!("more than {MOST_FILES} files")));
        }
    }
    Ok(())
}

/// The text of a file, or of standard input.
///
/// # Errors
/// It can't be read, is too large, or is not UTF-8.
pub(crate) fn text_of(file: &Path, most: usize) -> Result<String, Failure> {
    if file == Path::new("-") {
        return read("standard input", io::stdin().lock(), most);
    }
    let name = file.display().to_string();
    let opened = File::open(file).map_err(|error| Failure::refused(format!("{name}: {error}")))?;
    read(&name, opened, most)
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

    #[test]
    fn an_unreadable_document_is_refused() {
        assert!(text_of(Path::new("/nonexistent/policy.yaml"), 10).is_err());
        assert!(text_of(Path::new("/"), 10).is_err());
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

    #[test]
    fn a_folder_is_its_files_and_those_of_its_folders_by_name() {
        let folder = std::env::temp_dir().join(format!("wardctl-parts-{}", std::process::id()));
        let inner = folder.join("ward-3");
        fs::create_dir_all(&inner).expect("a folder");
        let files_of = |folder: &Path| files_of(&[folder.to_owned()]);
        assert!(files_of(&folder).is_err(), "none is in it");
        for name in [
            "b.yaml",
            "a.json",
            "ward-3/c.yml",
            ".hidden.yaml",
            "README.md",
            "z.yaml~",
        ] {
            fs::write(folder.join(name), "").expect("a file");
        }
        let found = files_of(&folder).expect("files");
        fs::remove_dir_all(&folder).expect("the folder");
        let names = ["a.json", "b.yaml", "ward-3/c.yml"];
        assert_eq!(found, names.map(|it| folder.join(it)));
    }
}

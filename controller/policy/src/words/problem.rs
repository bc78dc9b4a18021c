//! Problems of a document, each with its place; collected up to a limit.

use std::fmt;

/// Most characters of a text that a message quotes: the longest name, and one more that shows that
/// it is too long.
const QUOTED: usize = 64;

pub use wardline_proto::document::Problem;

/// A text of the document as it may stand in a message: quoted, escaped, not too long.
#[derive(Clone, Copy)]
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(QUOTED) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
        }
    }
}

/// Reading stops after this many problems.
pub(crate) const MAX_PROBLEMS: usize = 1000;

/// Reading has stopped, because there are too many problems.
pub(crate) struct Full;

#[derive(Default)]
pub(crate) struct Problems {
    pub(crate) found: Vec<Problem>,
    pub(crate) comparisons: usize,
    /// Whether the document was accepted before, when less was demanded of it.
    pub(crate) accepted: bool,
}

impl Problems {
    pub(crate) fn add(
        &mut self,
        path: impl fmt::Display,
        message: impl fmt::Display,
    ) -> Result<(), Full> {
        let full = self.found.len() >= MAX_PROBLEMS;
        let message = if full {
            format!("reading stopped here, after {MAX_PROBLEMS} problems; correct those first")
        } else {
            message.to_string()
        };
        self.found.push(Problem {
            path: path.to_string(),
            message,
        });
        if full { Err(Full) } else { Ok(()) }
    }

    /// Adds a problem that only keeps a new document from being accepted.
    pub(crate) fn demand(
        &mut self,
        path: impl fmt::Display,
        message: impl fmt::Display,
    ) -> Result<(), Full> {
        if self.accepted {
            return Ok(());
        }
        self.add(path, message)
    }

    pub(crate) fn extend<'p>(
        &mut self,
        problems: impl Iterator<Item = &'p Problem>,
    ) -> Result<(), Full> {
        for problem in problems {
            self.add(&problem.path, &problem.message)?;
        }
        Ok(())
    }

    /// Checks that a number of the document is one of its enum's.
    pub(crate) fn known<T, E>(
        &mut self,
        read: &Result<T, E>,
        value: i32,
        path: impl fmt::Display,
        words: &str,
    ) -> Result<(), Full> {
        match read {
            Ok(_) => Ok(()),
            Err(_) => self.add(path, format_args!("{value} is not known; one of {words}")),
        }
    }
}

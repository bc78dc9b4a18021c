//! Standard output: answers in the requested format; and warnings on standard error.

use std::{
    io::{self, ErrorKind, Write},
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
};

use prost::{Message, Name};
use serde_json::Value;
use wardline_proto::{
    document::{to_value, value_to_yaml},
    letters::to_json,
};

use crate::{
    args::Format,
    csv,
    exit::{Exit, Failure},
    humane::printable,
};

/// Prints an answer: the message itself, or the table that `table` makes.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn answer<M: Message + Name>(
    format: Format,
    message: &M,
    table: impl FnOnce(&M) -> String,
) -> Result<Exit, Failure> {
    match format {
        Format::Table => styled(&table(message)),
        Format::Json | Format::Yaml | Format::Csv => value(format, &to_value(message)),
    }
}

/// Prints a value as one document.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn value(format: Format, value: &Value) -> Result<Exit, Failure> {
    match format {
        Format::Json | Format::Table => text(&(to_json(value, true) + "\n")),
        Format::Yaml => text(&value_to_yaml(value)),
        Format::Csv => text(&csv::lines(value)?),
    }
}

/// Prints text as it is.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn text(text: &str) -> Result<Exit, Failure> {
    plain(text).map(|_| Exit::Done)
}

/// Prints text for people; colours are removed if the output is not a terminal.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn styled(text: &str) -> Result<Exit, Failure> {
    piece(text).map(|_| Exit::Done)
}

/// Prints one entry of a stream; breaks when the reader has closed the pipe.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn entry<M: Message + Name>(
    format: Format,
    message: &M,
    line: impl FnOnce(&M) -> String,
) -> Result<ControlFlow<()>, Failure> {
    match format {
        Format::Table => piece(&line(message)),
        Format::Json => plain(&(to_json(&to_value(message), false) + "\n")),
        Format::Yaml => plain(&format!("---\n{}", value_to_yaml(&to_value(message)))),
        Format::Csv => {
            static HAS_HEADING: AtomicBool = AtomicBool::new(false);
            let is_first = !HAS_HEADING.swap(true, Ordering::Relaxed);
            plain(&csv::entry(&to_value(message), is_first)?)
        }
    }
}

/// Prints a piece of text for people; breaks when the reader has closed the pipe.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn piece(text: &str) -> Result<ControlFlow<()>, Failure> {
    write(anstream::stdout().lock(), text)
}

/// Prints a piece of text as it is; breaks when the reader has closed the pipe.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn plain(text: &str) -> Result<ControlFlow<()>, Failure> {
    write(io::stdout().lock(), text)
}

/// Prints warnings on standard error.
pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        // If standard error is closed, the warning is lost.
        let _ = writeln!(io::stderr().lock(), "warning: {}", printable(warning));
    }
}

/// A reader that closes the pipe early (`| head`) is no failure.
fn write(mut out: impl Write, text: &str) -> Result<ControlFlow<()>, Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Failure::failed(format!("can't write the answer: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed(ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_ends_quietly_and_a_full_disk_does_not() {
        assert_eq!(
            write(Closed(ErrorKind::BrokenPipe), "x"),
            Ok(ControlFlow::Break(()))
        );
        assert!(write(Closed(ErrorKind::StorageFull), "x").is_err());
        assert_eq!(write(Vec::new(), "x"), Ok(ControlFlow::Continue(())));
    }
}

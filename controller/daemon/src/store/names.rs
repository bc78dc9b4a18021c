//! The addresses of names as they were known lately, for the time after a reboot.
//!
//! A line for each address: name, address, who said so, who asked, until when. A line that can't be read
//! is left out: the next question of a device brings back what it would have said.

use std::{
    fmt::Write as _,
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

/// An address of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The name as a rule selects it.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// The resolver that said so last.
    pub resolver: IpAddr,
    /// Who asked it.
    pub asker: IpAddr,
    /// Until when it counts.
    pub until: Timestamp,
}

/// Most bytes of the file that are read, and most lines that are written.
const MOST_BYTES: u64 = 64 << 20;
const MOST_LINES: usize = 131_072;

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("names")
}

/// What was known; nothing when there is no file.
///
/// # Errors
///
/// When the file can't be read.
pub fn read(state_dir: &Path) -> io::Result<Vec<Remembered>> {
    let file = match fs::File::open(path(state_dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().take(MOST_LINES).filter_map(line).collect())
}

fn line(line: &str) -> Option<Remembered> {
    let mut words = line.split(' ');
    let mut next = || words.next();
    let read = Remembered {
        name: next()?.to_owned(),
        address: next()?.parse().ok()?,
        resolver: next()?.parse().ok()?,
        asker: next()?.parse().ok()?,
        until: next()?.parse().ok()?,
    };
    next().is_none().then_some(read)
}

/// Replaces what was known.
///
/// # Errors
///
/// When the file can't be written; the one before stays.
pub fn write(state_dir: &Path, known: &[Remembered]) -> io::Result<()> {
    let mut text = String::new();
    for it in known.iter().take(MOST_LINES) {
        let Remembered {
            name,
            address,
            resolver,
            asker,
            until,
        } = it;
        // A text can always be written to.
        let _ = writeln!(text, "{name} {address} {resolver} {asker} {until}");
    }
    let (file, path) = (state_dir.join("names.new"), path(state_dir));
    let mut new = fs::File::create(&file)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(file, path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_left_out() {
        let directory = std::env::temp_dir().join(format!("wl-names-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        assert_eq!(read(&directory).unwrap(), []);
        let known = ["192.0.2.1", "2001:db8::1"].map(|address| Remembered {
            name: "*.vendor.example".to_owned(),
            address: address.parse().unwrap(),
            resolver: "10.0.0.1".parse().unwrap(),
            asker: "10.0.0.2".parse().unwrap(),
            until: "2026-12-01T00:00:00Z".parse().unwrap(),
        });
        write(&directory, &known).unwrap();
        assert_eq!(read(&directory).unwrap(), known);
        let text = fs::read_to_string(path(&directory)).unwrap();
        fs::write(path(&directory), format!("\0\nname 1 2 3\n{text} x")).unwrap();
        assert_eq!(read(&directory).unwrap(), known);
        fs::remove_dir_all(&directory).unwrap();
    }
}

//! Whom the site trusts to sign MUD files, and what the router is for devices that have one.

use std::{fs::File, io::Read as _, path::PathBuf};

use wardline_mud::Anchors;

/// Most bytes of a trust store.
const LARGEST_STORE: u64 = 1 << 20;

/// What the site says about MUD files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mud {
    /// The certificates of whom it trusts to sign, in PEM; none: nobody.
    pub trust: Option<PathBuf>,
    /// The classes of controllers that the router itself is in.
    pub router_is: Vec<String>,
}

impl Mud {
    /// Whom the site trusts. The file is read each time, so that a change counts at once.
    ///
    /// # Errors
    /// Why the file can't be read, with its path.
    pub(crate) fn anchors(&self) -> Result<Anchors, String> {
        let Some(path) = &self.trust else {
            return Ok(Anchors::default());
        };
        let wrong = |why: &dyn std::fmt::Display| format!("mud.trust {}: {why}", path.display());
        let file = File::open(path).map_err(|error| wrong(&error))?;
        let mut text = Vec::new();
        let read = file.take(LARGEST_STORE + 1).read_to_end(&mut text);
        read.map_err(|error| wrong(&error))?;
        if text.len() as u64 > LARGEST_STORE {
            return Err(wrong(&format!("it has more than {LARGEST_STORE} bytes")));
        }
        Anchors::from_pem(&text).map_err(|why| wrong(&why))
    }
}

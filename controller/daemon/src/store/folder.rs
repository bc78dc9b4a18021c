//! Whether the state directory is the daemon's own. Who may write to it could put a policy there, and a
//! start would enforce it.

use std::{
    fs::{self, Permissions},
    io::{Error, ErrorKind},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use tracing::info;

use super::error::StoreError;

/// Checks a state directory, and closes it to others where it is the daemon's. One that is not there is
/// good.
///
/// # Errors
///
/// When it is somebody else's, or others may write to it: what is in it may be theirs.
pub fn check(state_dir: &Path) -> Result<(), StoreError> {
    check_for(state_dir, rustix::process::geteuid().as_raw())
}

fn check_for(state_dir: &Path, own: u32) -> Result<(), StoreError> {
    let failed = |source| StoreError::File {
        path: state_dir.to_owned(),
        source,
    };
    let path = state_dir.display();
    let found = match fs::metadata(state_dir) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if owner != own && owner != 0 {
        return Err(failed(Error::other(format!(
            "belongs to user {owner}, who may have changed what is in it. If that is right, chown -R {own} {path}"
        ))));
    }
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let closed = if owner == own {
        fs::set_permissions(state_dir, Permissions::from_mode(0o700))
    } else {
        Err(Error::other("it is root's"))
    };
    match closed {
        Ok(()) => info!("{path}: had mode {mode:04o}, and has 0700 now"),
        Err(_) if mode & 0o022 == 0 => {}
        Err(error) => {
            return Err(failed(Error::other(format!(
                "others may write to it (mode {mode:04o}: {error}). chmod 0700 {path}"
            ))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, mode: u32) -> Self {
            let path = std::env::temp_dir().join(format!("wl-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("a folder");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode");
            Self(path)
        }

        fn mode(&self) -> u32 {
            fs::metadata(&self.0).expect("it").mode() & 0o7777
        }

        fn owner(&self) -> u32 {
            fs::metadata(&self.0).expect("it").uid()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn its_own_is_closed_to_others() {
        let folder = Folder::new("own-folder", 0o777);
        check_for(&folder.0, folder.owner()).expect("its own");
        assert_eq!(folder.mode(), 0o700);
        check_for(&folder.0.join("not-there"), 1).expect("one that is made later");
    }

    #[test]
    fn a_strangers_is_refused_with_the_cure() {
        let folder = Folder::new("strange-folder", 0o700);
        if folder.owner() == 0 {
            std::os::unix::fs::chown(&folder.0, Some(65534), None).expect("a stranger's");
        }
        let own = folder.owner() + 1;
        let error = check_for(&folder.0, own)
            .expect_err("a stranger's")
            .to_string();
        assert!(error.contains(&format!("chown -R {own} ")), "{error}");
    }
}

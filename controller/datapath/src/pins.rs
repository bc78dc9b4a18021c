//! The folder of the pins: made for the daemon alone, refused when it is somebody else's; and whether its
//! pins outlive the daemon.

use std::{
    fs::{self, DirBuilder, Metadata, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::{
    fs::{FsWord, major, minor, statfs},
    io::Errno,
    mount::{MountFlags, mount},
};

use crate::error::{Result, pin_error};

/// The number by which statfs(2) identifies the BPF file system.
const BPF_FS_MAGIC: FsWord = libc::BPF_FS_MAGIC as _;
/// Where the BPF file system belongs.
const ROOT: &str = "/sys/fs/bpf";
/// The first PID namespace has this name on every kernel.
const FIRST_PIDS: &str = "pid:[4026531836]";

/// Makes the folders of the pins, and checks that nobody else may change what is in them.
///
/// # Errors
///
/// When they can't be made, or are not the daemon's or root's alone.
pub(crate) fn prepare(pin_dir: &Path, version: &Path) -> Result<()> {
    mount_bpf(pin_dir)?;
    if let Some(above) = pin_dir.parent() {
        fs::create_dir_all(above).map_err(pin_error(above))?;
    }
    let own = rustix::process::geteuid().as_raw();
    set_aside(pin_dir, own);
    for directory in [
        pin_dir,
        version,
        &version.join("maps"),
        &version.join("links"),
    ] {
        make_private(directory, own).map_err(pin_error(directory))?;
    }
    Ok(())
}

/// Mounts the BPF file system where pins belong, unless it is mounted.
fn mount_bpf(pins: &Path) -> Result<()> {
    if !pins.starts_with(ROOT) {
        return Ok(());
    }
    let failed = |error: Errno| pin_error(Path::new(ROOT))(error.into());
    let mounted = statfs(ROOT).map_err(failed)?;
    if mounted.f_type == BPF_FS_MAGIC {
        return Ok(());
    }
    mount("bpf", ROOT, "bpf", MountFlags::empty(), None).map_err(failed)
}

/// Gives a stranger's folder another name, if nothing is pinned in it: whoever may write to the folder
/// above must not keep a router that starts from guarding its ports. With pins in it, the ports are
/// guarded already, and the folder stays where the pins are looked for.
fn set_aside(pin_dir: &Path, own: u32) {
    let strange = fs::symlink_metadata(pin_dir).is_ok_and(|found| ![0, own].contains(&found.uid()));
    if !strange || has_pins(pin_dir, 3) {
        return;
    }
    // No point may be in a name there.
    let mut name = pin_dir.as_os_str().to_owned();
    name.push(format!("-not-ours-{}", std::process::id()));
    match fs::rename(pin_dir, &name) {
        Ok(()) => tracing::warn!(
            "{}: was made by somebody else, and is now {}",
            pin_dir.display(),
            Path::new(&name).display()
        ),
        // The folder is refused, then.
        Err(error) => tracing::warn!(%error, "{}: was made by somebody else", pin_dir.display()),
    }
}

/// Whether something is pinned in a folder or up to so many below. What can't be read may have pins.
fn has_pins(directory: &Path, depth: u32) -> bool {
    // Of the entry itself: what a stranger's link leads to is not pinned there.
    if !fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir()) {
        return false;
    }
    let Ok(entries) = fs::read_dir(directory) else {
        return true;
    };
    entries.flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => depth == 0 || has_pins(&entry.path(), depth - 1),
        Ok(kind) => kind.is_file(),
        Err(_) => true,
    })
}

/// Makes a folder that only its owner may use, or makes one that is there so. `own` is the daemon's user.
fn make_private(directory: &Path, own: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Of the entry itself: a link may lead to a folder that is somebody else's in a moment.
    let found = fs::symlink_metadata(directory)?;
    refuse_strangers(directory, &found, own).map_err(io::Error::other)?;
    if found.mode() & 0o777 != 0o700 && found.uid() == own {
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Why a folder is not used: others may have changed what is in it, or may do so.
fn refuse_strangers(
    directory: &Path,
    found: &Metadata,
    own: u32,
) -> std::result::Result<(), String> {
    let path = directory.display();
    if !found.is_dir() {
        return Err(format!("is no folder; remove it: rm {path}"));
    }
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if owner != own && owner != 0 {
        return Err(format!(
            "belongs to user {owner}, who could remove what guards the ports; what is attached stays. \
             If it has nothing of yours, rm -r {path}; else chown -R {own} {path}"
        ));
    }
    if owner != own && mode & 0o022 != 0 {
        return Err(format!(
            "others may write to it (mode {mode:04o}); what is attached stays. chmod 0700 {path}"
        ));
    }
    Ok(())
}

/// Whether pins outlive the daemon and what it was started from.
#[derive(Debug, PartialEq, Eq)]
pub enum Life {
    /// Until the router restarts.
    Lasting,
    /// Until the last process of the daemon's mount namespace ends.
    Short,
    /// The processes of the router can't be seen from here.
    Unknown,
}

/// How long pins in this folder live.
///
/// A BPF file system is gone, with everything pinned in it, when the last mount of it is. Mounts of the
/// router's own namespace last; what only the daemon's namespace has mounted ends with the last process
/// there (`ip netns exec`, `unshare -m`, a container).
pub fn life(pin_dir: &Path) -> Life {
    let Ok(device) = fs::metadata(pin_dir).map(|found| found.dev()) else {
        return Life::Unknown;
    };
    let device = format!("{}:{}", major(device), minor(device));
    let read = |pid: &str| fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok();
    let pids = fs::read_link("/proc/self/ns/pid").ok();
    let sees_the_router = pids.is_some_and(|pids| pids == Path::new(FIRST_PIDS));
    let first = read("1").filter(|_| sees_the_router);
    judged(&device, first.as_deref(), read("self").as_deref())
}

/// The same, from the mounts of the router's first process, if they can be seen, and the daemon's own.
fn judged(device: &str, first: Option<&str>, own: Option<&str>) -> Life {
    match first.map(|mounts| mounts.lines().any(|line| is_of(line, device))) {
        Some(true) => Life::Lasting,
        Some(false) => Life::Short,
        // What follows mounts of another namespace came from there.
        None => {
            let mut own = own.unwrap_or_default().lines();
            match own.any(|line| is_of(line, device) && line.contains(" master:")) {
                true => Life::Lasting,
                false => Life::Unknown,
            }
        }
    }
}

/// Whether a line of mountinfo is about a file system, by its device.
fn is_of(line: &str, device: &str) -> bool {
    line.split(' ').nth(2) == Some(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str =
        "23 1 0:21 / /sys rw - sysfs sysfs rw\n42 23 0:39 / /sys/fs/bpf rw shared:9 - bpf bpf rw";

    #[test]
    fn pins_last_where_the_first_process_has_their_file_system() {
        assert_eq!(judged("0:39", Some(HOST), None), Life::Lasting);
        assert_eq!(judged("0:77", Some(HOST), Some(HOST)), Life::Short);
        // Not a part of another number.
        assert_eq!(judged("0:3", Some(HOST), None), Life::Short);
    }

    #[test]
    fn without_the_first_process_only_what_follows_another_namespace_is_known_to_last() {
        let follows = HOST.replace("shared:9", "shared:12 master:9");
        assert_eq!(judged("0:39", None, Some(&follows)), Life::Lasting);
        assert_eq!(judged("0:39", None, Some(HOST)), Life::Unknown);
        assert_eq!(judged("0:39", None, None), Life::Unknown);
    }

    /// A folder that goes with its value.
    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("wl-pins-{}-{name}", std::process::id()));
            fs::create_dir(&path).expect("a folder");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn folders_are_made_private_and_made_so_again() {
        let scratch = Scratch::new("own");
        let pins = scratch.0.join("wardline");
        let own = rustix::process::geteuid().as_raw();
        let mode = || fs::metadata(&pins).expect("it").mode() & 0o777;
        make_private(&pins, own).expect("made");
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&pins, Permissions::from_mode(0o777)).expect("opened");
        make_private(&pins, own).expect("put right");
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn a_strangers_folder_without_pins_makes_room() {
        let scratch = Scratch::new("aside");
        let pins = scratch.0.join("wardline");
        let own = rustix::process::geteuid().as_raw();
        fs::create_dir_all(pins.join("v1/links")).expect("folders");
        set_aside(&pins, own);
        assert!(pins.exists(), "it is the daemon's own");
        // As if the daemon were another user, which owns none of it.
        if own == 0 {
            std::os::unix::fs::chown(&pins, Some(65_534), None).expect("given away");
            fs::write(pins.join("v1/links/3-xdp"), "").expect("a pin");
            set_aside(&pins, own);
            assert!(pins.exists(), "it has pins");
            fs::remove_file(pins.join("v1/links/3-xdp")).expect("removed");
            set_aside(&pins, own);
            assert!(!pins.exists());
        }
        let link = scratch.0.join("link");
        std::os::unix::fs::symlink("/", &link).expect("a link");
        set_aside(&link, own);
        assert!(link.is_symlink(), "it is the daemon's own, and is refused");
        if own == 0 {
            std::os::unix::fs::lchown(&link, Some(65_534), None).expect("given away");
            set_aside(&link, own);
            assert!(!link.is_symlink());
        }
    }

    #[test]
    fn a_strangers_folder_is_refused_with_the_cure() {
        let scratch = Scratch::new("strange");
        let pins = scratch.0.join("wardline");
        fs::create_dir(&pins).expect("a folder");
        let own = rustix::process::geteuid().as_raw();
        // As if the daemon were another user than the folder's.
        let found = fs::symlink_metadata(&pins).expect("it");
        if own != 0 {
            eprintln!("skipped: only root gives folders away");
            return;
        }
        std::os::unix::fs::chown(&pins, Some(65_534), None).expect("given away");
        let why = make_private(&pins, own).expect_err("refused").to_string();
        assert!(
            why.contains("user 65534") && why.contains("chown -R 0"),
            "{why}"
        );
        // Root's is good for another user, unless others may write to it.
        assert_eq!(refuse_strangers(&pins, &found, 998), Ok(()));
        std::os::unix::fs::chown(&pins, Some(0), None).expect("taken back");
        fs::set_permissions(&pins, Permissions::from_mode(0o1777)).expect("opened");
        let why = make_private(&pins, 998).expect_err("refused").to_string();
        assert!(
            why.contains("mode 1777") && why.contains("chmod 0700"),
            "{why}"
        );
        fs::remove_dir(&pins).expect("removed");
        std::os::unix::fs::symlink("/", &pins).expect("a link");
        let why = make_private(&pins, own).expect_err("refused").to_string();
        assert!(why.contains("no folder"), "{why}");
    }
}

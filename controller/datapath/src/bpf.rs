//! Calls of bpf(2) that the loader lacks: links that hold a program on an interface, and access to
//! many entries of a map at once.
//!
//! The loader's own calls for links are not used: they take a TC interface by its name, which
//! another interface may have by then; where the kernel refuses a link they make an XDP attachment
//! that ends with the process; and they do not report where a link is.
#![expect(
    unsafe_code,
    reason = "the loader has no call for a link by interface number, its place, or its end, nor for \
              many entries of a map"
)]

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
};

use aya::Pod;
use zerocopy::FromBytes;

/// Where a link attaches its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// XDP, in the driver.
    Xdp,
    /// TCX on packets that enter, before all other programs.
    Ingress,
    /// TCX on packets that leave, before all other programs.
    Egress,
}

/// A link. Its program stays attached while the link is open or pinned.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

/// What the kernel reports of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// Id of the program.
    pub(crate) program: u32,
    /// The interface; 0: it has been deleted.
    pub(crate) ifindex: u32,
}

impl Link {
    /// Puts a program on an interface.
    pub(crate) fn create(program: BorrowedFd<'_>, ifindex: u32, hold: Hold) -> io::Result<Self> {
        const XDP: u32 = 37;
        const TCX_INGRESS: u32 = 46;
        const TCX_EGRESS: u32 = 47;
        const XDP_FLAGS_DRV_MODE: u32 = 4;
        // "Before", without naming another program, means before all others.
        const BPF_F_BEFORE: u32 = 8;
        let (attach_type, flags) = match hold {
            Hold::Xdp => (XDP, XDP_FLAGS_DRV_MODE),
            Hold::Ingress => (TCX_INGRESS, BPF_F_BEFORE),
            Hold::Egress => (TCX_EGRESS, BPF_F_BEFORE),
        };
        let mut attribute = [
            pair(program.as_raw_fd().cast_unsigned(), ifindex),
            pair(attach_type, flags),
            0,
            0,
        ];
        bpf(LINK_CREATE, &mut attribute).map(own).map(Self)
    }

    /// Opens a pinned link.
    pub(crate) fn open(pin: &Path) -> io::Result<Self> {
        let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
        let mut attribute = [path.as_ptr() as u64, 0, 0, 0];
        bpf(OBJ_GET, &mut attribute).map(own).map(Self)
    }

    /// Pins it, so that it outlives the process.
    pub(crate) fn pin(&self, pin: &Path) -> io::Result<()> {
        let path = CString::new(pin.as_os_str().as_encoded_bytes())?;
        let mut attribute = [path.as_ptr() as u64, self.number().into(), 0, 0];
        bpf(OBJ_PIN, &mut attribute).map(drop)
    }

    /// Replaces the program; no packet passes unjudged meanwhile.
    pub(crate) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let program = program.as_raw_fd().cast_unsigned();
        let mut attribute = [pair(self.number(), program), 0, 0, 0];
        bpf(LINK_UPDATE, &mut attribute).map(drop)
    }

    /// Takes the program off. It judges nothing any more when this returns; if the link were only
    /// closed and unpinned, the kernel would take the program off some time later.
    pub(crate) fn detach(&self) -> io::Result<()> {
        let mut attribute: Attribute = [self.number().into(), 0, 0, 0];
        match bpf(LINK_DETACH, &mut attribute) {
            // The interface has been deleted.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Asks the kernel for the program and the interface.
    pub(crate) fn info(&self) -> io::Result<LinkInfo> {
        // struct bpf_link_info: type, id, program, 4 bytes of padding, then by type; XDP and TCX
        // begin with the interface.
        let mut info = [0u32; 16];
        let mut attribute = [
            pair(self.number(), size_of_val(&info) as u32),
            info.as_mut_ptr() as u64,
            0,
            0,
        ];
        bpf(OBJ_GET_INFO_BY_FD, &mut attribute)?;
        Ok(LinkInfo {
            program: info[2],
            ifindex: info[4],
        })
    }

    fn number(&self) -> u32 {
        self.0.as_raw_fd().cast_unsigned()
    }
}

/// Reads entries of an array from an index on, as many as `values` has room for; `size` is the size
/// of one entry.
pub(crate) fn read_array<V: FromBytes>(
    map: BorrowedFd<'_>,
    from: u32,
    size: usize,
    values: &mut [V],
) -> io::Result<()> {
    let wanted = size_of_val(values) / size;
    let (mut keys, mut last) = (vec![0u32; wanted], 0u32);
    // The kernel continues after the key that it is given.
    let before = from.wrapping_sub(1);
    let begin = if from == 0 {
        0
    } else {
        (&raw const before) as u64
    };
    let mut attribute = Batch {
        from: begin,
        to: (&raw mut last) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: wanted as u32,
        map: map.as_raw_fd().cast_unsigned(),
        ..Batch::default()
    };
    match bpf(MAP_LOOKUP_BATCH, &mut attribute) {
        // The kernel reports the end of the array, which is where the requested entries end.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        done => drop(done?),
    }
    if attribute.count as usize == wanted {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Writes entries of a map, which has keys and values of these types. Returns how many were written
/// before an error, if there was one.
pub(crate) fn write_many<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> (usize, io::Result<()>) {
    let count = keys.len().min(values.len());
    let mut attribute = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: count as u32,
        map: map.as_raw_fd().cast_unsigned(),
        ..Batch::default()
    };
    match bpf(MAP_UPDATE_BATCH, &mut attribute) {
        Ok(_) => (count, Ok(())),
        Err(error) => {
            // The kernel reports a count only with ENOMEM or E2BIG. After any other error this
            // assumes that none was written; writing an entry again does no harm.
            let told = matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::E2BIG));
            let written = if told { attribute.count as usize } else { 0 };
            (written.min(count), Err(error))
        }
    }
}

/// Reads the value under a key; false: there is none. `value` has to have the size that the map says.
pub(crate) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let (key, value) = (key.as_ptr() as u64, value.as_mut_ptr() as u64);
    let mut attribute: Attribute = [map.as_raw_fd().cast_unsigned().into(), key, value, 0];
    found(bpf(MAP_LOOKUP_ELEM, &mut attribute))
}

/// Finds the key after another, or the first; false: there is none.
pub(crate) fn next_key(
    map: BorrowedFd<'_>,
    after: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<bool> {
    let after = after.map_or(0, |key| key.as_ptr() as u64);
    let next = next.as_mut_ptr() as u64;
    let mut attribute: Attribute = [map.as_raw_fd().cast_unsigned().into(), after, next, 0];
    found(bpf(MAP_GET_NEXT_KEY, &mut attribute))
}

/// Writes a value under a key; false: there is one already, and it stays. Keys and values have to have
/// the sizes that the map says.
pub(crate) fn insert(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<bool> {
    const NOT_THERE: u64 = 1;
    write_one(map, key, value, NOT_THERE)
}

/// Writes a value under a key of an array.
pub(crate) fn replace(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    write_one(map, key, value, 0).map(drop)
}

fn write_one(map: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<bool> {
    let (key, value) = (key.as_ptr() as u64, value.as_ptr() as u64);
    let mut attribute = [map.as_raw_fd().cast_unsigned().into(), key, value, flags];
    match bpf(MAP_UPDATE_ELEM, &mut attribute) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        done => done.map(|_| true),
    }
}

fn found(answer: io::Result<libc::c_int>) -> io::Result<bool> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        done => done.map(|_| true),
    }
}

/// Runs a program once on a frame from memory.
pub(crate) fn run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    // union bpf_attr: program and answer, lengths in and out, frame in and out, and zeros.
    let mut attribute = [0u64; 10];
    attribute[0] = pair(program.as_raw_fd().cast_unsigned(), 0);
    attribute[1] = pair(frame.len() as u32, 0);
    attribute[2] = frame.as_ptr() as u64;
    bpf(PROG_TEST_RUN, &mut attribute).map(drop)
}

/// Part of union bpf_attr, for the calls that take many entries.
#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// The first words of union bpf_attr; all that follows is zero.
type Attribute = [u64; 4];

/// Two fields of four bytes that follow each other.
fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn bpf<A>(command: libc::c_int, attribute: &mut A) -> io::Result<libc::c_int> {
    // SAFETY: the attribute has the size that is passed, and what it points at (a path, entries or
    // room for an answer) outlives the call in every caller above.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<A>()) };
    match i32::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

fn own(descriptor: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just made it for this caller only.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

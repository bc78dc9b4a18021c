//! Foreign XDP and TC programs, on the hooks that Wardline would use.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for instructions")]

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

/// The type of a program, as the kernel numbers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tc = 3,
    Xdp = 6,
}

/// What a program does with every packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    /// Answers with a number: the verdict.
    Answers(i32),
    /// Puts an 802.1Q tag beside the frame (TC), and passes it.
    Tags(u16),
}

/// A loaded program, or a link that holds one; gone when dropped, unless pinned.
#[derive(Debug)]
pub(crate) struct Foreign(OwnedFd);

/// Loads a program.
pub(crate) fn load(kind: Kind, does: Does, name: &str) -> io::Result<Foreign> {
    // Opcode, registers, offset, immediate.
    let instruction = |opcode: u8, destination: u8, immediate: i32| -> u64 {
        let [a, b, c, d] = immediate.to_ne_bytes();
        u64::from_ne_bytes([opcode, destination, 0, 0, a, b, c, d])
    };
    let set = |register, value| instruction(0xb7, register, value);
    let call = |helper| instruction(0x85, 0, helper);
    let exit = instruction(0x95, 0, 0);
    const VLAN_PUSH: i32 = 18;
    let instructions = match does {
        Does::Answers(answer) => vec![set(0, answer), exit],
        Does::Tags(tag) => vec![
            set(2, i32::from(0x8100u16.to_be())),
            set(3, i32::from(tag)),
            call(VLAN_PUSH),
            set(0, 0),
            exit,
        ],
    };
    let license = c"Dual MIT/GPL";
    // union bpf_attr for PROG_LOAD: type, count, instructions, license, three words for the log,
    // kernel version and flags, 16 bytes of name, interface and attach type.
    let mut words = [0u32; 18];
    words[0] = kind as u32;
    words[1] = instructions.len() as u32;
    words[2..4].copy_from_slice(&halves(instructions.as_ptr() as u64));
    words[4..6].copy_from_slice(&halves(license.as_ptr() as u64));
    let mut name: Vec<u8> = name.bytes().take(15).collect();
    name.resize(16, 0);
    for (word, bytes) in words[12..16].iter_mut().zip(name.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().unwrap());
    }
    const PROG_LOAD: libc::c_int = 5;
    bpf(PROG_LOAD, &mut words).map(own)
}

impl Foreign {
    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        const OBJ_PIN: libc::c_int = 6;
        let path = CString::new(path.as_os_str().as_encoded_bytes())?;
        let mut words = [0u32; 6];
        words[0..2].copy_from_slice(&halves(path.as_ptr() as u64));
        words[2] = self.0.as_raw_fd() as u32;
        bpf(OBJ_PIN, &mut words).map(drop)
    }

    /// Links it to an interface of the calling thread's namespace, XDP in the driver.
    pub(crate) fn link(&self, ifindex: u32, hook: Hook) -> io::Result<Foreign> {
        const LINK_CREATE: libc::c_int = 28;
        let (attach_type, flags) = match hook {
            Hook::Xdp => (37, 4),
            Hook::TcxIngress => (46, 0),
            Hook::TcxEgress => (47, 0),
        };
        let mut words = [self.0.as_raw_fd() as u32, ifindex, attach_type, flags, 0, 0];
        bpf(LINK_CREATE, &mut words).map(own)
    }

    /// The kernel's number of the program.
    pub(crate) fn id(&self) -> io::Result<u32> {
        const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
        let mut info = [0u32; 32];
        let mut words = [0u32; 4];
        (words[0], words[1]) = (self.0.as_raw_fd() as u32, size_of_val(&info) as u32);
        words[2..4].copy_from_slice(&halves(info.as_mut_ptr() as u64));
        bpf(OBJ_GET_INFO_BY_FD, &mut words)?;
        Ok(info[1])
    }
}

/// The hook of a link; a TCX link goes behind those that are there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    Xdp,
    TcxIngress,
    TcxEgress,
}

fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes)
}

fn bpf(command: libc::c_int, words: &mut [u32]) -> io::Result<libc::c_int> {
    // SAFETY: the words are as many as said, and what they point at outlives the call in every
    // caller above.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            words.as_mut_ptr(),
            size_of_val(words),
        )
    };
    match i32::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

fn own(descriptor: libc::c_int) -> Foreign {
    // SAFETY: the kernel has just made the descriptor, and nothing else owns it.
    Foreign(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Makes a tap device in the calling thread's namespace; gone when the file is closed. With
/// `virtio`, each frame has a header of virtio before it.
pub(crate) fn tap(name: &str, virtio: bool) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in ifreq.ifr_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let header = if virtio { libc::IFF_VNET_HDR } else { 0 };
    ifreq.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | header) as libc::c_short;
    // SAFETY: the request is alive and whole, its name ends with a zero byte.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut ifreq) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

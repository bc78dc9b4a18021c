//! What the lab asks of the kernel that `std` can't say: the crate's only unsafe code.
#![expect(
    unsafe_code,
    reason = "namespaces, users, packet and socket options, device features, processors, signals and \
              mounts need libc"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// `ethtool` command: transmit checksums, 0 or 1.
pub(crate) const SET_TX_CHECKSUM: u32 = 0x17;
/// `ethtool` command: generic receive offload, 0 or 1. A veth end with it takes frames from XDP.
pub(crate) const SET_GRO: u32 = 0x2c;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
/// `ETH_FLAG_TXVLAN`: whether the device keeps the VLAN tag beside the frame.
pub(crate) const FLAG_TX_VLAN: u32 = 1 << 7;
const BPFFS_MAGIC: u32 = 0xcafe_4a11;

/// Moves the calling thread into a network namespace.
pub(crate) fn enter(netns: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `netns` is borrowed; the call takes no pointer.
    check(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Changes the user of the calling thread, and of no other.
pub(crate) fn become_user(uid: libc::uid_t) -> io::Result<()> {
    // The library's own call would change every thread of the process.
    // SAFETY: takes no pointer; the kernel checks the number.
    match unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The kernel's number of an interface of the calling thread's namespace.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: `name` ends with a zero byte and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: takes no pointer; a pid that fits and is not 0 names one process.
    check(unsafe { libc::kill(pid, signal) })
}

/// Whether a BPF file system is mounted at `path`.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    // SAFETY: all zeroes is a valid `statfs`, a plain structure of integers.
    let mut stat: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: the path ends with a zero byte, `stat` is writable; both outlive the call.
    check(unsafe { libc::statfs(path.as_ptr(), &raw mut stat) })?;
    // The field's width differs between architectures; the magic is 32 bits.
    Ok(stat.f_type as u32 == BPFFS_MAGIC)
}

/// Mounts a BPF file system.
pub(crate) fn mount_bpffs(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let kind = c"bpf";
    // SAFETY: the three strings end with a zero byte and outlive the call; no data is passed.
    check(unsafe {
        libc::mount(
            kind.as_ptr(),
            path.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    })
}

/// Sets one value of a device of the calling thread's namespace through `SIOCETHTOOL`.
pub(crate) fn set_device_value(name: &str, command: u32, value: u32) -> io::Result<()> {
    device_value(name, [command, value]).map(|_| ())
}

/// Sets or clears one of a device's legacy feature flags.
pub(crate) fn set_device_flag(name: &str, flag: u32, on: bool) -> io::Result<()> {
    let flags = device_value(name, [GET_FLAGS, 0])?;
    let wanted = if on { flags | flag } else { flags & !flag };
    set_device_value(name, SET_FLAGS, wanted)
}

fn device_value(name: &str, mut request: [u32; 2]) -> io::Result<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= ifreq.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    // SAFETY: the name is zero-terminated (checked above); `request` is a `struct ethtool_value`
    // that the kernel reads and writes during the call only.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut ifreq) })?;
    Ok(request[1])
}

/// Opens a packet socket on an interface of the calling thread's namespace. With `listen` it hears
/// every frame that comes in (and `outgoing` also those that go out), else it only sends.
pub(crate) fn packet_socket(name: &str, listen: bool, outgoing: bool) -> io::Result<Socket> {
    let index = interface_index(name)?;
    // Protocol 0 until bound: nothing of other interfaces is queued in between.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    if listen {
        set_packet_option(&socket, libc::PACKET_AUXDATA, 1)?;
        set_packet_option(
            &socket,
            libc::PACKET_IGNORE_OUTGOING,
            libc::c_int::from(!outgoing),
        )?;
    }
    let protocol = if listen { libc::ETH_P_ALL as u16 } else { 0 };
    // SAFETY: the closure writes a whole `sockaddr_ll` into storage that is larger, and reports
    // its length.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as libc::sa_family_t;
            (*link).sll_protocol = protocol.to_be();
            (*link).sll_ifindex = index as libc::c_int;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address)?;
    Ok(socket)
}

fn set_packet_option(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, option, value)
}

/// Makes a socket send datagrams unfragmented: neither hops nor the own stack may cut them.
pub(crate) fn send_whole(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    if v6 {
        let whole = libc::IPV6_PMTUDISC_DO;
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, whole)
    } else {
        let whole = libc::IP_PMTUDISC_DO;
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, whole)
    }
}

/// The MTU that the kernel assumes for a connected socket's path.
pub(crate) fn path_mtu(socket: &impl AsFd, v6: bool) -> io::Result<usize> {
    let (level, option) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU)
    };
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most one `c_int` to `value` and its size to `length`.
    check(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    usize::try_from(value).map_err(io::Error::other)
}

fn set_option(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the kernel reads one `c_int` from `value` during the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
}

/// Frames in one call.
const BATCH: usize = 64;

/// Sends frames, many with each call; answers how many the kernel took, at least one.
pub(crate) fn send_frames(socket: &impl AsFd, frames: &[Vec<u8>]) -> io::Result<usize> {
    // SAFETY: all zeroes is a valid `mmsghdr` and a valid `iovec`.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut parts: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
    let count = frames.len().min(BATCH);
    for ((message, part), frame) in messages.iter_mut().zip(&mut parts).zip(frames) {
        part.iov_base = frame.as_ptr().cast_mut().cast();
        part.iov_len = frame.len();
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` messages each point at one part, and that at a frame, which the
    // kernel only reads; all of them outlive the call.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_fd().as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            0,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// The processors that the calling thread may run on.
pub(crate) fn processors() -> io::Result<Vec<usize>> {
    // SAFETY: all zeroes is a valid `cpu_set_t`, a plain bit field.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most as many bytes as said; 0 is the calling thread.
    check(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) })?;
    let all = 0..8 * size_of_val(&set);
    // SAFETY: the number is below the bits that the set has.
    Ok(all
        .filter(|processor| unsafe { libc::CPU_ISSET(*processor, &set) })
        .collect())
}

/// Keeps the calling thread on one processor.
pub(crate) fn stay_on(processor: usize) -> io::Result<()> {
    // SAFETY: all zeroes is a valid `cpu_set_t`, a plain bit field.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    if processor >= 8 * size_of_val(&set) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: the number is below the bits that the set has (checked above).
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: the kernel reads as many bytes as said; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) })
}

/// Makes an open `/dev/net/tun` the far end of a tun interface of the calling thread's namespace.
pub(crate) fn join_tun(file: &impl AsFd, name: &str) -> io::Result<()> {
    const IFF_TUN_WITHOUT_HEADER: u16 = 0x1001;
    // struct ifreq: a name of 16 bytes, and the flags in what follows.
    let mut request = [0u8; 40];
    if name.len() > 15 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&IFF_TUN_WITHOUT_HEADER.to_ne_bytes());
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the kernel reads and writes an `ifreq`, which is as long as the buffer.
    check(unsafe { libc::ioctl(fd, libc::TUNSETIFF as _, request.as_mut_ptr()) })
}

/// A VLAN tag that the kernel handed over beside the frame: protocol and tag control information.
pub(crate) type Tag = (u16, u16);

/// Receives one frame; the tag is there when the kernel took it out of the frame.
pub(crate) fn receive_frame(
    socket: &impl AsFd,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<Tag>)> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // Aligned as `cmsghdr` wants it, with room for one `tpacket_auxdata`.
    let mut control = [0u64; 16];
    // SAFETY: all zeroes is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message points at `part` and `control`, both writable for the lengths given and
    // alive until the end of this function.
    let read = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    Ok((read, tag(&message)))
}

fn tag(message: &libc::msghdr) -> Option<Tag> {
    // SAFETY: `message` was filled in by `recvmsg`, its control buffer is alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: `CMSG_FIRSTHDR` and `CMSG_NXTHDR` give null or a header inside the control buffer.
    while let Some(control) = unsafe { header.as_ref() } {
        if control.cmsg_level == libc::SOL_PACKET && control.cmsg_type == libc::PACKET_AUXDATA {
            // SAFETY: a control message of this type carries a `tpacket_auxdata`; the read makes
            // no claim on its alignment.
            let aux: libc::tpacket_auxdata = unsafe {
                libc::CMSG_DATA(header)
                    .cast::<libc::tpacket_auxdata>()
                    .read_unaligned()
            };
            let valid = aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
            return valid.then_some((aux.tp_vlan_tpid, aux.tp_vlan_tci));
        }
        // SAFETY: as above; `header` is not null.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

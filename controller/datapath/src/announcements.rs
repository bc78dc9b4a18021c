//! What the kernel announces by netlink, one message after the other.
//!
//! There is no queue here: what is not read in time is lost in the socket, whose room is bounded,
//! and that is told. A queue between socket and reader would grow for as long as a device makes the
//! kernel announce faster than the reader reads.

use std::{collections::VecDeque, io};

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{
    AsyncSocket as _, AsyncSocketExt as _, TokioSocket, protocols::NETLINK_ROUTE,
};

/// Room for announcements between two turns of the reader: some thousand.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// The announcements of some groups.
pub(crate) struct Announcements {
    socket: TokioSocket,
    /// What came in one datagram; the kernel puts one message into it.
    read: VecDeque<Heard>,
}

/// What was heard.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message.
    Message(RouteNetlinkMessage),
    /// A message of a kind that is not known here.
    Other,
    /// Some messages were lost.
    Lost,
}

impl Announcements {
    /// Listens to groups (`RTNLGRP_…`) from now on.
    ///
    /// # Errors
    /// When there is no such socket.
    pub(crate) fn of(groups: &[u32]) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let raw = socket.socket_mut();
        raw.bind_auto()?;
        raw.set_rx_buf_sz(RECEIVE_BUFFER)?;
        for group in groups {
            raw.add_membership(*group)?;
        }
        Ok(Self {
            socket,
            read: VecDeque::new(),
        })
    }

    /// The next announcement.
    ///
    /// # Errors
    /// When the socket can't be read any more.
    pub(crate) async fn next(&mut self) -> io::Result<Heard> {
        loop {
            if let Some(heard) = self.read.pop_front() {
                return Ok(heard);
            }
            match self.socket.recv_from_full().await {
                Ok((datagram, _)) => self.read = messages(&datagram).collect(),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Heard::Lost);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The messages of a datagram.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Heard> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(rest).ok()?.length() as usize;
        let (message, after) = rest.split_at_checked(length)?;
        // Messages begin at multiples of 4.
        rest = after
            .get(length.next_multiple_of(4) - length..)
            .unwrap_or_default();
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message);
        Some(match message.map(|it| it.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => Heard::Message(message),
            Ok(NetlinkPayload::Overrun(_)) => Heard::Lost,
            _ => Heard::Other,
        })
    })
}

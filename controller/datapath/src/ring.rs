//! The ring buffer through which the kernel reports events.

use std::{io, os::fd::AsRawFd as _};

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};
use wardline_ebpf::abi;
use zerocopy::FromBytes as _;

/// Why events can't be read from the kernel.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The ring can't be waited for.
    #[error("register the ring of events")]
    Register(#[source] io::Error),
    /// Waiting for the ring failed.
    #[error("wait for events")]
    Wait(#[source] io::Error),
}

/// The ring of events: those that the kernel has sent and the daemon has not read yet.
pub struct Ring(RingBuf<MapData>);

/// The same ring, for a task that waits for events.
pub struct Listener(AsyncFd<RingBuf<MapData>>);

impl Ring {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// Registers the ring with the runtime of this thread, so that a task can wait for it.
    ///
    /// # Errors
    /// When the runtime can't wait for it.
    #[expect(
        unsafe_code,
        reason = "tokio can't know that the ring keeps its descriptor"
    )]
    pub fn listen(self) -> Result<Listener, EventsError> {
        debug_assert!(self.0.as_raw_fd() >= 0);
        // SAFETY: the ring owns its map's descriptor, gives out no other, and closes it when it is
        // dropped, which is with the `AsyncFd` that owns it.
        let registered = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) };
        registered
            .map(Listener)
            .map_err(|error| EventsError::Register(error.into()))
    }
}

/// The ring of what DHCP clients say.
pub struct Clients(RingBuf<MapData>);

/// The same ring, for a task that waits for messages.
pub struct ClientsListener(AsyncFd<RingBuf<MapData>>);

impl Clients {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// Registers the ring with the runtime of this thread, so that a task can wait for it.
    ///
    /// # Errors
    /// When the runtime can't wait for it.
    #[expect(
        unsafe_code,
        reason = "tokio can't know that the ring keeps its descriptor"
    )]
    pub fn listen(self) -> Result<ClientsListener, EventsError> {
        // SAFETY: as for the ring of events.
        let registered = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) };
        registered
            .map(ClientsListener)
            .map_err(|error| EventsError::Register(error.into()))
    }
}

impl ClientsListener {
    /// Waits until the ring has messages, then reads at most `most` of them. A record of another length is
    /// none.
    ///
    /// # Errors
    /// When the ring can't be waited for any more.
    pub async fn wait(
        &mut self,
        most: usize,
        mut take: impl FnMut(abi::ClientMessage),
    ) -> Result<(), EventsError> {
        let mut ready = self.0.readable_mut().await.map_err(EventsError::Wait)?;
        for _ in 0..most {
            let Some(record) = ready.get_inner_mut().next() else {
                ready.clear_ready();
                break;
            };
            if let Ok(message) = abi::ClientMessage::read_from_bytes(&record) {
                take(message);
            }
        }
        Ok(())
    }
}

/// Events in the ring, without waiting; an error for a record that is no event.
impl Iterator for Ring {
    type Item = Result<abi::Event, NotAnEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        next(&mut self.0)
    }
}

impl Listener {
    /// Waits until the ring has records, then reads as [`Listener::read`].
    ///
    /// # Errors
    /// When the ring can't be waited for any more.
    pub async fn wait(
        &mut self,
        most: usize,
        take: impl FnMut(Result<abi::Event, NotAnEvent>),
    ) -> Result<(), EventsError> {
        let mut ready = self.0.readable_mut().await.map_err(EventsError::Wait)?;
        if !read(ready.get_inner_mut(), most, take) {
            ready.clear_ready();
        }
        Ok(())
    }

    /// Reads at most `most` records, without waiting. Returns whether there may be more.
    pub fn read(&mut self, most: usize, take: impl FnMut(Result<abi::Event, NotAnEvent>)) -> bool {
        read(self.0.get_mut(), most, take)
    }
}

/// A record that is not of an event's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the ring is no event")]
pub struct NotAnEvent;

fn read(
    ring: &mut RingBuf<MapData>,
    most: usize,
    mut take: impl FnMut(Result<abi::Event, NotAnEvent>),
) -> bool {
    for _ in 0..most {
        let Some(event) = next(ring) else {
            return false;
        };
        take(event);
    }
    true
}

fn next(ring: &mut RingBuf<MapData>) -> Option<Result<abi::Event, NotAnEvent>> {
    let record = ring.next()?;
    Some(abi::Event::read_from_bytes(&record).map_err(|_| NotAnEvent))
}

#[cfg(test)]
mod tests {
    use wardline_ebpf::abi::Address;
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn records_are_read_as_the_kernel_writes_them() {
        let event = abi::Event {
            revision: 5,
            count: 3,
            source: Address::v4([10, 20, 1, 11]),
            destination: Address::v4([192, 0, 2, 80]),
            source_mac: 0x0200_0000_0111,
            destination_mac: 0x0200_0000_ff01,
            rule: 7,
            device: 8,
            interface: 2,
            source_port: 49152,
            destination_port: 443,
            vlan: 20,
            zone: 1,
            ethertype: 0x0800,
            protocol: 6,
            reason: 4,
            flags: 3,
            destinations: 9,
        };
        // One byte first, so that the record is not aligned.
        let mut bytes = vec![0; 1 + size_of::<abi::Event>()];
        bytes[1..].copy_from_slice(event.as_bytes());
        let parse = |record: &[u8]| abi::Event::read_from_bytes(record).ok();
        assert_eq!(parse(&bytes[1..]), Some(event));
        assert_eq!(parse(&bytes), None);
        assert_eq!(parse(&bytes[2..]), None);
        assert_eq!(parse(&[]), None);
    }
}

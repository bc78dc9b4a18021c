//! The packets that the bench feeds to programs: from the number of a flow to its headers.
//!
//! Flow `n` is UDP from device `n mod devices`, at 10.1.0.0 plus that number, to one of sixteen
//! servers at 10.200.0.16 and up, to the port 1000 plus the server's number.

/// What to send; the value of the map `TRAFFIC`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// How many flows.
    pub flows: u32,
    /// How many devices.
    pub devices: u32,
    /// [`RANDOM`] and the like.
    pub order: u32,
    /// 1: the answers of the servers.
    pub reply: u32,
    /// Port of the servers; 0: each flow's own.
    pub port: u32,
    /// The flow that is next in [`EACH`]; the source port that is next in [`FRESH`].
    pub next: u32,
    /// State of the random numbers; not 0.
    pub state: u64,
    /// The MAC that receives, as three big-endian numbers, and 0.
    pub receiver: [u16; 4],
}

/// Any of the flows, at random.
pub const RANDOM: u32 = 0;
/// One flow after the other.
pub const EACH: u32 = 1;
/// A new flow, of a random device.
pub const FRESH: u32 = 2;

/// Bytes of a frame: the shortest that Ethernet has, without its checksum.
pub const LENGTH: usize = 60;
/// Words of its headers.
pub const WORDS: usize = 21;

/// The next packet's headers, sixteen bits at a time, in network order; advances `traffic`.
#[inline(always)]
pub fn next(traffic: &mut Traffic) -> [u16; WORDS] {
    let flow = if traffic.order == EACH {
        let flow = traffic.next;
        traffic.next = if flow + 1 < traffic.flows {
            flow + 1
        } else {
            0
        };
        flow
    } else {
        let mut state = traffic.state;
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        traffic.state = state;
        (((state >> 32) * traffic.flows as u64) >> 32) as u32
    };
    let (mut device, mut from) = (flow, 20_000);
    if device >= traffic.devices && traffic.devices != 0 {
        from += device / traffic.devices;
        device %= traffic.devices;
    }
    if traffic.order == FRESH {
        traffic.next = if traffic.next < 60_000 {
            traffic.next + 1
        } else {
            1024
        };
        from = traffic.next;
    }
    let server = device & 15;
    let to = if traffic.port == 0 {
        1000 + server
    } else {
        traffic.port
    };
    let (source, destination) = (0x0a01_0000 + device, 0x0ac8_0010 + server);
    let mac = [0x0200, (device >> 16) as u16, device as u16];
    if traffic.reply == 0 {
        headers(traffic, mac, source, destination, from as u16, to as u16)
    } else {
        headers(
            traffic,
            [0x02ff, 0, 1],
            destination,
            source,
            to as u16,
            from as u16,
        )
    }
}

#[inline(always)]
fn headers(
    traffic: &Traffic,
    mac: [u16; 3],
    source: u32,
    destination: u32,
    from: u16,
    to: u16,
) -> [u16; WORDS] {
    const PAYLOAD: u16 = (LENGTH - 42) as u16;
    let (s, d) = (halves(source), halves(destination));
    let [a, b, c, _] = traffic.receiver;
    let mut sum = 0x4500 + 28 + PAYLOAD as u32 + 0x4011;
    sum += s[0] as u32 + s[1] as u32 + d[0] as u32 + d[1] as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    // Ethernet; IPv4, time to live 64; UDP without a checksum.
    [
        a,
        b,
        c,
        mac[0],
        mac[1],
        mac[2],
        0x0800,
        0x4500,
        28 + PAYLOAD,
        0,
        0,
        0x4011,
        sum,
        s[0],
        s[1],
        d[0],
        d[1],
        from,
        to,
        8 + PAYLOAD,
        0,
    ]
    .map(u16::to_be)
}

#[inline(always)]
fn halves(address: u32) -> [u16; 2] {
    [(address >> 16) as u16, address as u16]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(traffic: &mut Traffic) -> [u8; LENGTH] {
        let mut frame = [0; LENGTH];
        for (bytes, word) in frame.chunks_mut(2).zip(next(traffic)) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        frame
    }

    #[test]
    fn a_reply_is_the_way_back_and_both_are_sound() {
        let mut there = Traffic {
            flows: 200_000,
            devices: 100_000,
            order: EACH,
            next: 165_537,
            ..Traffic::default()
        };
        let mut back = Traffic { reply: 1, ..there };
        let (there, back) = (frame(&mut there), frame(&mut back));
        assert_eq!(there[26..34], [10, 2, 0, 1, 10, 200, 0, 17]);
        assert_eq!(there[34..38], [0x4e, 0x21, 0x03, 0xe9]);
        assert_eq!(
            (&there[26..30], &there[30..34]),
            (&back[30..34], &back[26..30])
        );
        assert_eq!(
            (&there[34..36], &there[36..38]),
            (&back[36..38], &back[34..36])
        );
        for frame in [there, back] {
            let words = frame[14..34]
                .chunks(2)
                .map(|it| u32::from(it[0]) << 8 | u32::from(it[1]));
            let sum: u32 = words.sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }
}

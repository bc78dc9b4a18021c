//! Frames that were sent before, with something in them changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{STRANGER, Step, Stream};

impl Stream {
    /// Something that was sent before, at the same place or elsewhere.
    pub(super) fn again(&mut self) -> Option<Step> {
        if self.sent.is_empty() {
            return None;
        }
        let mut step = self.dice.pick(&self.sent);
        if self.dice.percent(20) {
            let other = self.dice.pick(&self.sent);
            step.at = other.at;
        }
        Some(self.mutate(step))
    }

    pub(super) fn mutate(&mut self, mut step: Step) -> Step {
        for _ in 0..self.dice.pick(&[1, 1, 1, 2, 3]) {
            self.mutate_once(&mut step);
        }
        step
    }

    fn mutate_once(&mut self, step: &mut Step) {
        let dice = &mut self.dice;
        let frame = &mut step.frame;
        let length = frame.len();
        // Where the packet begins, its version, and where its payload begins.
        let tagged = length >= 18 && frame[12..14] == [0x81, 0];
        let ip = if tagged { 18 } else { 14 };
        let version = frame.get(ip).map_or(0, |byte| byte >> 4);
        let upper = match version {
            4 => ip + usize::from(frame[ip] & 15) * 4,
            _ => ip + 40,
        };
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = frame.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        match dice.below(22) {
            0..3 => {
                let at = dice.below(length.min(90));
                frame[at] ^= 1 << dice.below(8);
            }
            3 => {
                let at = dice.below(length.min(90));
                frame[at] = dice.pick(&[0, 1, 0x7f, 0x80, 0xff]);
            }
            4 => frame.truncate(14.max(dice.below(length + 1))),
            5 => frame.resize(length + 1 + dice.below(40), 0),
            6 => {
                // The packet's length.
                let at = if version == 4 { ip + 2 } else { ip + 4 };
                let old = frame
                    .get(at..at + 2)
                    .map_or(0, |it| u16::from_be_bytes([it[0], it[1]]));
                let new = dice.pick(&[
                    old.wrapping_add(1),
                    old.wrapping_sub(1),
                    old.wrapping_sub(8),
                    0,
                    0xffff,
                    20,
                ]);
                if let Some(place) = frame.get_mut(at..at + 2) {
                    place.copy_from_slice(&new.to_be_bytes());
                }
            }
            7 => {
                // UDP's length.
                let at = upper + 4;
                let old = frame
                    .get(at..at + 2)
                    .map_or(0, |it| u16::from_be_bytes([it[0], it[1]]));
                let new = dice.pick(&[old.wrapping_add(1), old.wrapping_sub(1), 0, 7, 8]);
                if let Some(place) = frame.get_mut(at..at + 2) {
                    place.copy_from_slice(&new.to_be_bytes());
                }
            }
            8 => put(
                ip,
                &[dice.pick(&[0x44, 0x45, 0x46, 0x4f, 0x55, 0x60, 0x65, 0x00])],
            ),
            9 => {
                let protocol = dice.pick(&[
                    0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 139,
                ]);
                put(if version == 4 { ip + 9 } else { ip + 6 }, &[protocol]);
            }
            10 => put(upper + 13, &[dice.roll() as u8]),
            11 => put(upper + 12, &[dice.pick(&[0x40, 0x50, 0x60, 0xf0, 0x00])]),
            12 => {
                let tag = [[0x81, 0], [0x88, 0xa8], [0x91, 0]][dice.below(3)];
                let id = dice.pick(&[0_u16, 10, 20, 4094, 4095, 0x2000 | 10, 1]);
                let bytes = [tag, id.to_be_bytes()].concat();
                frame.splice(12..12, bytes);
            }
            13 if tagged => drop(frame.drain(12..16)),
            13 => {}
            14 => {
                // Another's MAC.
                let other = match self.sent.get(dice.below(self.sent.len() + 1)) {
                    Some(other) => other.frame[6..12].to_vec(),
                    None => STRANGER.to_vec(),
                };
                put(6, &other);
            }
            15 => {
                // Another's address, as source or destination.
                let address = dice.pick(&self.addresses);
                match (address, version, dice.below(2)) {
                    (IpAddr::V4(it), 4, 0) => put(ip + 12, &it.octets()),
                    (IpAddr::V4(it), 4, _) => put(ip + 16, &it.octets()),
                    (IpAddr::V6(it), 6, 0) => put(ip + 8, &it.octets()),
                    (IpAddr::V6(it), 6, _) => put(ip + 24, &it.octets()),
                    _ => {}
                }
            }
            16 => {
                // Addresses that no host has.
                let odd: [Ipv4Addr; 6] = [
                    Ipv4Addr::UNSPECIFIED,
                    Ipv4Addr::LOCALHOST,
                    Ipv4Addr::BROADCAST,
                    Ipv4Addr::new(224, 0, 0, 1),
                    Ipv4Addr::new(169, 254, 1, 1),
                    Ipv4Addr::new(0, 1, 2, 3),
                ];
                let odd_6: [Ipv6Addr; 8] = [
                    Ipv6Addr::UNSPECIFIED,
                    Ipv6Addr::LOCALHOST,
                    Ipv4Addr::new(10, 1, 1, 10).to_ipv6_mapped(),
                    "::10.1.1.10".parse().expect("an address"),
                    "ff02::1".parse().expect("an address"),
                    "ff05::1:3".parse().expect("an address"),
                    "fe80::1".parse().expect("an address"),
                    "fe80:0:0:7::1".parse().expect("an address"),
                ];
                let place = dice.below(2);
                match version {
                    4 => put(ip + 12 + 4 * place, &dice.pick(&odd).octets()),
                    6 => put(ip + 8 + 16 * place, &dice.pick(&odd_6).octets()),
                    _ => {}
                }
            }
            17 => {
                // The fragment fields.
                let field = dice.pick(&[0x2000_u16, 0x4000, 0x8000, 1, 2, 0x2001, 0x1fff]);
                put(ip + 6, &field.to_be_bytes());
            }
            18 => put(
                ip + if version == 4 { 8 } else { 7 },
                &[dice.pick(&[0, 1, 254, 255])],
            ),
            19 => {
                // ICMP's type and code.
                put(
                    upper,
                    &[
                        dice.pick(&[
                            0, 3, 5, 8, 9, 10, 11, 13, 14, 17, 30, 40, 128, 129, 130, 131, 133,
                            134, 135, 136, 137, 138, 139, 143, 200,
                        ]),
                        dice.pick(&[0, 0, 0, 1, 4]),
                    ],
                );
            }
            20 => {
                // The head of this one, the tail of another.
                let other = match self.sent.get(dice.below(self.sent.len() + 1)) {
                    Some(other) => other.frame.clone(),
                    None => vec![0; 20],
                };
                let at = 14.max(dice.below(length.min(60)));
                let from = dice.below(other.len());
                frame.truncate(at);
                frame.extend(&other[from..]);
            }
            _ => {
                // Ports.
                let port = dice.pick(&[0_u16, 53, 67, 68, 443, 546, 547, 4789, 65535]);
                put(upper + 2 * dice.below(2), &port.to_be_bytes());
            }
        }
    }

    /// Takes a tag out of the frame, as some interfaces do.
    pub(super) fn tag_outside(&mut self, mut step: Step) -> Step {
        if self.tags_outside {
            let frame = &mut step.frame;
            if frame.len() >= 18 && frame[12..14] == [0x81, 0] && self.dice.percent(60) {
                step.tag = Some(u16::from_be_bytes([frame[14], frame[15]]));
                frame.drain(12..16);
            } else if self.dice.percent(4) {
                step.tag = Some(self.dice.pick(&[0, 10, 20, 0xe00a]));
            }
        }
        step
    }
}

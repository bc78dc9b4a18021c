//! What a DHCP client says of itself, of either family. Read by `dhcproto`; bounded here.

use dhcproto::{Decodable as _, Decoder, v4, v6};

use super::seen::Seen;

/// Most characters of a text.
const LONGEST: usize = 255;
/// Most options that are kept of those that it asks for.
const MOST_PARAMETERS: usize = 64;
/// The option of DHCPv4 and that of DHCPv6 with a MUD URL (RFC 8520 section 10 and 11).
const MUD_URL: u8 = 161;
const MUD_URL_V6: u16 = 112;
/// The client's name in DHCPv6 (RFC 4704).
const CLIENT_FQDN: u16 = 39;

/// Notes what a DHCPv4 client says of itself; nothing when its message can't be read.
pub(super) fn read_v4(bytes: &[u8], seen: &mut Seen) {
    let Ok(message) = v4::Message::decode(&mut Decoder::new(bytes)) else {
        return;
    };
    for (code, option) in message.opts().iter() {
        match option {
            v4::DhcpOption::Hostname(name) => seen.hostname = bounded(name.as_bytes()),
            v4::DhcpOption::ClassIdentifier(class) => seen.vendor_class = bounded(class),
            v4::DhcpOption::ParameterRequestList(codes) => {
                let codes = codes.iter().take(MOST_PARAMETERS);
                seen.parameters = codes.map(|it| u32::from(u8::from(*it))).collect();
            }
            v4::DhcpOption::Unknown(option) if u8::from(*code) == MUD_URL => {
                note_url(option.data(), seen);
            }
            _ => {}
        }
    }
}

/// The same of a DHCPv6 client.
pub(super) fn read_v6(bytes: &[u8], seen: &mut Seen) {
    let Ok(message) = v6::Message::decode(&mut Decoder::new(bytes)) else {
        return;
    };
    for option in message.opts().iter() {
        match option {
            v6::DhcpOption::VendorClass(class) => {
                let texts: Vec<String> = class.data.iter().map(|it| bounded(it)).collect();
                seen.vendor_class = bounded(texts.join(" ").as_bytes());
            }
            v6::DhcpOption::ORO(oro) => {
                let codes = oro.opts.iter().take(MOST_PARAMETERS);
                seen.parameters = codes.map(|it| u32::from(u16::from(*it))).collect();
            }
            v6::DhcpOption::Unknown(option) => match u16::from(option.code()) {
                MUD_URL_V6 => note_url(option.data(), seen),
                CLIENT_FQDN => {
                    if let Some(name) = option.data().get(1..).and_then(dns_name) {
                        seen.hostname = bounded(name.as_bytes());
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
}

/// Keeps a MUD URL if it is one: over HTTPS, of printable letters.
fn note_url(bytes: &[u8], seen: &mut Seen) {
    let url = bounded(bytes);
    if url.len() == bytes.len()
        && url.starts_with("https://")
        && url.bytes().all(|byte| byte.is_ascii_graphic())
    {
        seen.mud_url = url;
    }
}

/// A name of DNS, which need not be complete (RFC 4704 section 4.2).
fn dns_name(mut bytes: &[u8]) -> Option<String> {
    let mut labels = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        if *length == 0 {
            break;
        }
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        bytes = rest;
    }
    (!labels.is_empty()).then(|| labels.join("."))
}

/// A text without what could be mistaken for more than text, and not too long.
fn bounded(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\0');
    let plain = |it: char| if it.is_control() { '\u{fffd}' } else { it };
    text.chars().take(LONGEST).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request with these options, as a client sends it.
    fn request(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 236];
        (bytes[0], bytes[1], bytes[2]) = (1, 1, 6);
        bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 1, 0x11]);
        bytes.extend([99, 130, 83, 99, 53, 1, 1]);
        bytes.extend(options);
        bytes.push(255);
        bytes
    }

    fn option(code: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).expect("short");
        [&[code, length], value].concat()
    }

    #[test]
    fn a_client_tells_its_name_its_kind_and_its_description() {
        let options = [
            option(12, b"pump-7"),
            option(60, b"udhcp 1.36"),
            option(55, &[1, 3, 6, 42]),
            option(161, b"https://example.com/pump.json"),
        ];
        let mut seen = Seen::default();
        read_v4(&request(&options.concat()), &mut seen);
        assert_eq!(seen.hostname, "pump-7");
        assert_eq!(seen.vendor_class, "udhcp 1.36");
        assert_eq!(seen.parameters, [1, 3, 6, 42]);
        assert_eq!(seen.mud_url, "https://example.com/pump.json");
    }

    #[test]
    fn hostile_words_are_plain_and_no_url_is_none() {
        let options = [
            option(12, b"a\x1b[31m\nb"),
            option(161, b"http://example.com/\n"),
        ];
        let mut seen = Seen::default();
        read_v4(&request(&options.concat()), &mut seen);
        assert_eq!(seen.hostname, "a\u{fffd}[31m\u{fffd}b");
        assert_eq!(seen.mud_url, "");
        // What can't be read says nothing, whatever its length.
        let whole = request(&option(12, b"pump-7"));
        for length in 0..whole.len() {
            read_v4(&whole[..length], &mut Seen::default());
            read_v6(&whole[..length], &mut Seen::default());
        }
    }

    #[test]
    fn a_client_of_ipv6_does_too() {
        let option = |code: u16, value: &[u8]| {
            let length = u16::try_from(value.len()).expect("short");
            [&code.to_be_bytes(), &length.to_be_bytes(), value].concat()
        };
        let mut bytes = vec![1, 1, 2, 3];
        bytes.extend(option(39, b"\x00\x06pump-7\x05ward3\x00"));
        bytes.extend(option(16, b"\x00\x00\x01\x37\x00\x04MSFT"));
        bytes.extend(option(6, &[0, 23, 0, 24]));
        bytes.extend(option(112, b"https://example.com/v6.json"));
        let mut seen = Seen::default();
        read_v6(&bytes, &mut seen);
        assert_eq!(seen.hostname, "pump-7.ward3");
        assert_eq!(seen.vendor_class, "MSFT");
        assert_eq!(seen.parameters, [23, 24]);
        assert_eq!(seen.mud_url, "https://example.com/v6.json");
    }
}

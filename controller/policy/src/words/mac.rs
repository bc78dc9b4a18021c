//! Ethernet addresses, as people write them and as the tables hold them.

use std::{fmt, str::FromStr};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that is not six bytes in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address; write it as 02:00:00:00:01:01")]
pub struct MacError;

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().ok_or(MacError)?;
            if part.len() != 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        parts
            .next()
            .is_none()
            .then_some(Self(bytes))
            .ok_or(MacError)
    }
}

impl Mac {
    /// Reads a MAC in any form that inventories and switches write: also `0200.0000.ab01`, `0200-0000-ab01`
    /// and `02000000ab01`.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn of_any(text: &str) -> Result<Self, MacError> {
        if let Ok(mac) = text.parse() {
            return Ok(mac);
        }
        let groups: Vec<&str> = text.split(['.', '-']).collect();
        let is_form = match groups.as_slice() {
            [all] => all.len() == 12,
            [a, b, c] => [a, b, c].iter().all(|it| it.len() == 4),
            _ => false,
        };
        let digits = groups.concat();
        if !is_form || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Err(MacError);
        }
        let number = u64::from_str_radix(&digits, 16).map_err(|_| MacError)?;
        let [_, _, a, b, c, d, e, f] = number.to_be_bytes();
        Ok(Self([a, b, c, d, e, f]))
    }
}

/// A MAC as the number that the tables hold.
pub fn mac_number(mac: &Mac) -> u64 {
    wardline_ebpf::packet::mac(&mac.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_six_pairs_of_digits_with_one_separator() {
        let read = Ok(Mac([2, 0, 0, 0, 0xab, 1]));
        for text in ["02:00:00:00:ab:01", "02-00-00-00-AB-01"] {
            assert_eq!(text.parse(), read);
        }
        for text in [
            "",
            "02:00:00:00:ab",
            "02:00:00:00:ab:01:02",
            "2:0:0:0:ab:1",
            "02:00:00-00:ab:01",
            "02:00:00:00:ab:+1",
            "0200.0000.ab01",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(MacError), "{text}");
        }
    }

    #[test]
    fn inventories_and_switches_write_macs_in_other_forms() {
        let read = Ok(Mac([2, 0, 0, 0, 0xab, 1]));
        for text in [
            "02:00:00:00:ab:01",
            "02-00-00-00-AB-01",
            "0200.0000.ab01",
            "0200-0000-AB01",
            "02000000ab01",
        ] {
            assert_eq!(Mac::of_any(text), read, "{text}");
        }
        for text in [
            "",
            "0200.0000",
            "0200.0000.ab0g",
            "02000000ab0",
            "0200.00-00.ab01.",
            "+2000000ab01",
        ] {
            assert_eq!(Mac::of_any(text), Err(MacError), "{text}");
        }
    }

    #[test]
    fn a_mac_is_written_as_it_is_read() {
        let mac: Mac = "02-00-0A-00-01-fF".parse().expect("a MAC");
        assert_eq!(mac.to_string(), "02:00:0a:00:01:ff");
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }

    #[test]
    fn the_tables_hold_a_mac_as_a_number_with_its_first_byte_first() {
        assert_eq!(mac_number(&Mac([2, 0, 0, 0, 1, 0x11])), 0x0200_0000_0111);
    }
}

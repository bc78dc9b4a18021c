//! Who made a device, by the first bytes of its MAC: from the registry of the IEEE, as the package
//! `ieee-data` has it. Without that package nobody is known.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
    sync::{Arc, OnceLock},
};

use tracing::info;
use wardline_policy::words::mac::{Mac, mac_number};

/// Where the package keeps the registries of 24, 28 and 36 bits.
const DIRECTORY: &str = "/usr/share/ieee-data";
const FILES: [&str; 3] = ["oui36.csv", "mam.csv", "oui.csv"];
/// Most bytes of a registry, and most entries of all.
const LARGEST: u64 = 64 << 20;
const MOST: usize = 500_000;
/// Most letters of a name.
const LONGEST: usize = 80;

/// The registry; it is read when it is first asked.
#[derive(Clone, Debug, Default)]
pub struct Vendors(Arc<OnceLock<HashMap<(u32, u64), String>>>);

impl Vendors {
    /// Who made the device with a MAC; empty: not known, or the MAC was made up (it is locally
    /// administered). Reads the registry the first time, so it may block.
    pub fn of(&self, mac: &Mac) -> String {
        if mac.0[0] & 2 != 0 {
            return String::new();
        }
        let registry = self.0.get_or_init(read_all);
        let number = mac_number(mac);
        let found = [36, 28, 24]
            .into_iter()
            .find_map(|bits| registry.get(&(bits, number >> (48 - bits))));
        found.cloned().unwrap_or_default()
    }
}

fn read_all() -> HashMap<(u32, u64), String> {
    let mut registry = HashMap::new();
    for name in FILES {
        match File::open(Path::new(DIRECTORY).join(name)) {
            Ok(file) => read(BufReader::new(file.take(LARGEST)), &mut registry),
            Err(error) => {
                info!(%error, name, "the makers of devices are not known; install ieee-data")
            }
        }
    }
    registry
}

/// Reads a registry: kind, assignment in hexadecimal, name, address.
fn read(file: impl Read, registry: &mut HashMap<(u32, u64), String>) {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    for record in reader.byte_records() {
        let Ok(record) = record else { break };
        let (Some(assignment), Some(name)) = (record.get(1), record.get(2)) else {
            continue;
        };
        let assignment = String::from_utf8_lossy(assignment);
        let bits = assignment.len() as u32 * 4;
        let prefix = u64::from_str_radix(&assignment, 16);
        if let Ok(prefix) = prefix
            && [24, 28, 36].contains(&bits)
            && registry.len() < MOST
        {
            let name = String::from_utf8_lossy(name);
            let name = name.trim().chars().take(LONGEST).collect();
            registry.insert((bits, prefix), name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_assignment_names_the_maker() {
        let text = "Registry,Assignment,Organization Name,Organization Address\r\n\
                    MA-L,AC87A3,\"Pumps, Inc.\",Somewhere\r\n\
                    MA-M,AC87A31,Cameras Ltd,\r\nbroken\r\nMA-L,xyz,Nobody,\r\n\
                    MA-S,AC87A31AB,Labs GmbH,\r\n";
        let vendors = Vendors::default();
        let mut registry = HashMap::new();
        read(text.as_bytes(), &mut registry);
        vendors.0.set(registry).expect("not set yet");
        for (mac, name) in [
            ("ac:87:a3:00:00:01", "Pumps, Inc."),
            ("ac:87:a3:1f:00:01", "Cameras Ltd"),
            ("ac:87:a3:1a:b0:01", "Labs GmbH"),
            ("00:11:22:33:44:55", ""),
            ("ae:87:a3:00:00:01", ""),
        ] {
            assert_eq!(vendors.of(&mac.parse().expect("a MAC")), name, "{mac}");
        }
    }
}

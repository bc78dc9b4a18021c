//! An end of a wire: the settings of an interface of the lab.

use anyhow::{Context, Result};

use crate::{Host, sys};

/// One end of a wire: an interface of a host, and its settings.
#[derive(Debug, Clone)]
pub struct End {
    pub(crate) host: Host,
    pub(crate) interface: String,
    mac: Option<String>,
    master: Option<String>,
    addresses: Vec<String>,
    gateways: Vec<String>,
    mtu: u32,
    index: Option<u32>,
    tx_vlan: bool,
    tx_checksum: bool,
}

impl End {
    /// An end at `interface` of `host`, with MTU 1500 and the kernel's defaults.
    #[must_use]
    pub fn new(host: &Host, interface: &str) -> Self {
        Self {
            host: host.clone(),
            interface: interface.to_owned(),
            mac: None,
            master: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            mtu: 1500,
            index: None,
            tx_vlan: true,
            tx_checksum: true,
        }
    }

    /// Sets the MAC; without it the kernel makes one up.
    #[must_use]
    pub fn mac(mut self, mac: &str) -> Self {
        self.mac = Some(mac.to_owned());
        self
    }

    /// Makes the interface a port of a bridge.
    #[must_use]
    pub fn master(mut self, bridge: &str) -> Self {
        self.master = Some(bridge.to_owned());
        self
    }

    /// Adds an address with its prefix length, IPv4 or IPv6.
    #[must_use]
    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(address.to_owned());
        self
    }

    /// Adds a default route of the gateway's family.
    #[must_use]
    pub fn gateway(mut self, gateway: &str) -> Self {
        self.gateways.push(gateway.to_owned());
        self
    }

    /// Sets the MTU.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Sets the index in the kernel; without it the kernel takes the next one.
    #[must_use]
    pub fn index(mut self, index: u32) -> Self {
        self.index = Some(index);
        self
    }

    /// Whether VLAN tags travel beside the frame (on, veth's default: the far end's XDP can't see
    /// them) or in it (off).
    #[must_use]
    pub fn tx_vlan(mut self, on: bool) -> Self {
        self.tx_vlan = on;
        self
    }

    /// Whether checksums are left to the device (veth's default: they are never filled in).
    #[must_use]
    pub fn tx_checksum(mut self, on: bool) -> Self {
        self.tx_checksum = on;
        self
    }

    pub(crate) fn link_options(&self) -> String {
        let mac = self
            .mac
            .as_ref()
            .map(|mac| format!("address {mac} "))
            .unwrap_or_default();
        let index = self.index.map(|index| format!("index {index} "));
        format!("mtu {} {mac}{}", self.mtu, index.unwrap_or_default())
    }

    pub(crate) fn batch(&self) -> String {
        let name = &self.interface;
        let mut batch = String::new();
        if let Some(bridge) = &self.master {
            // A bridge port has no addresses of its own; those of the router are on the bridge.
            batch.push_str(&format!(
                "link set {name} addrgenmode none master {bridge}\n"
            ));
        }
        batch.push_str(&format!("link set {name} up\n"));
        for address in &self.addresses {
            add_address(&mut batch, name, address);
        }
        batch
    }

    pub(crate) fn routes(&self) -> String {
        self.gateways
            .iter()
            .map(|gateway| format!("route add default via {gateway} dev {}\n", self.interface))
            .collect()
    }

    pub(crate) fn set_offloads(&self) -> Result<()> {
        let name = self.interface.as_str();
        if !self.tx_vlan {
            self.host.keep_tags_inside(name)?;
        }
        if !self.tx_checksum {
            self.host
                .run(|| sys::set_device_value(name, sys::SET_TX_CHECKSUM, 0))?
                .with_context(|| format!("switching tx checksums off on {name}"))?;
        }
        Ok(())
    }
}

/// The line of an `ip` batch that gives an address; without duplicate address detection.
pub(crate) fn add_address(batch: &mut String, interface: &str, address: &str) {
    let nodad = if address.contains(':') { " nodad" } else { "" };
    batch.push_str(&format!("address add {address} dev {interface}{nodad}\n"));
}

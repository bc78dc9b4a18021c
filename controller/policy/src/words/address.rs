//! Addresses, as the tables hold them.

use std::net::IpAddr;

use wardline_ebpf::abi::Address;

/// An address as the tables hold it.
pub fn address_of(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::v4(address.octets()),
        IpAddr::V6(address) => Address::v6(&address.octets()),
    }
}

/// An address of the tables, as the standard library has it.
pub fn ip_of(address: Address) -> IpAddr {
    std::net::Ipv6Addr::from(address.octets()).to_canonical()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn an_address_comes_back_from_the_tables_as_it_went_in() {
        for text in ["10.1.0.11", "0.0.0.0", "2001:db8::11", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(ip_of(address_of(address)), address);
        }
    }
}

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

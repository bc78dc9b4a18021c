//! Reads the devices of a document.

use std::{collections::HashMap, net::IpAddr};

use wardline_proto::v1;

use super::{Ports, Subnets, check_notes};
use crate::{
    document::Document,
    intent::{Device, ZoneIndex, port_for},
    words::{
        interface::check_interface,
        mac::Mac,
        name::Names,
        prefix::parse_address,
        problem::{Full, Problems, Quoted},
    },
};

/// The objects that devices are checked against.
pub(super) struct Context<'a> {
    pub(super) document: &'a Document,
    pub(super) zones: &'a Names<'a>,
    pub(super) subnets: &'a Subnets,
    pub(super) ports: &'a Ports,
}

/// MACs and addresses that devices have already, by position in the document, while devices are
/// read.
#[derive(Default)]
struct Claims<'a> {
    macs: HashMap<Mac, usize>,
    addresses: HashMap<IpAddr, usize>,
    /// The port of each interface that a device names.
    interfaces: HashMap<&'a str, Option<usize>>,
}

pub(super) fn read_devices(
    context: &Context<'_>,
    names: &Names<'_>,
    problems: &mut Problems,
) -> Result<Vec<Device>, Full> {
    let mut devices = Vec::with_capacity(context.document.devices.len());
    let mut claims = Claims::default();
    for (i, device) in context.document.devices.iter().enumerate() {
        names.check(i, &device.name, problems)?;
        let path = format_args!("devices[{i}].zone");
        let zone = if device.zone.is_empty() {
            problems.add(path, "missing; name the device's zone")?;
            None
        } else {
            context
                .zones
                .read(&device.zone, path, problems)?
                .map(ZoneIndex)
        };
        let macs = read_macs(i, device, context, &mut claims, problems)?;
        let addresses = read_addresses(i, device, zone, context, &mut claims, problems)?;
        if !device.port.is_empty() {
            check_port(i, device, zone, context, &mut claims, problems)?;
        }
        check_notes(format_args!("devices[{i}]"), &device.into(), problems)?;
        if let Some(zone) = zone {
            let port = Some(device.port.clone()).filter(|port| !port.is_empty());
            devices.push(Device {
                name: device.name.clone(),
                zone,
                macs,
                addresses,
                learn: device.learn.unwrap_or(true),
                port,
                labels: device.labels.clone(),
            });
        }
    }
    Ok(devices)
}

fn read_macs(
    i: usize,
    device: &v1::Device,
    context: &Context<'_>,
    claims: &mut Claims<'_>,
    problems: &mut Problems,
) -> Result<Vec<Mac>, Full> {
    let mut macs = Vec::with_capacity(device.macs.len());
    for (j, text) in device.macs.iter().enumerate() {
        let path = format_args!("devices[{i}].macs[{j}]");
        let mac = match text.parse() {
            Ok(Mac([0, 0, 0, 0, 0, 0])) => {
                problems.add(path, "the zero MAC is nobody's; write the device's own")?;
                continue;
            }
            Ok(Mac([first, ..])) if first & 1 == 1 => {
                let text = Quoted(text);
                problems.add(
                    path,
                    format_args!("{text} is a group's MAC; write the device's own"),
                )?;
                continue;
            }
            Ok(mac) => mac,
            Err(error) => {
                let text = Quoted(text);
                problems.add(path, format_args!("{text} is {error}"))?;
                continue;
            }
        };
        if let Some(other) = claims.macs.insert(mac, i) {
            let of = Quoted(&context.document.devices[other].name);
            problems.add(
                path,
                format_args!("{mac} is already of devices[{other}], {of}"),
            )?;
        }
        macs.push(mac);
    }
    macs.sort_unstable();
    Ok(macs)
}

fn read_addresses(
    i: usize,
    device: &v1::Device,
    zone: Option<ZoneIndex>,
    context: &Context<'_>,
    claims: &mut Claims<'_>,
    problems: &mut Problems,
) -> Result<Vec<IpAddr>, Full> {
    let mut addresses = Vec::with_capacity(device.addresses.len());
    for (j, text) in device.addresses.iter().enumerate() {
        let path = format_args!("devices[{i}].addresses[{j}]");
        let address = match parse_address(text) {
            Ok(address) => address,
            Err(message) => {
                problems.add(path, message)?;
                continue;
            }
        };
        if let Some(other) = claims.addresses.insert(address, i) {
            let of = Quoted(&context.document.devices[other].name);
            problems.add(
                path,
                format_args!("{address} is already of devices[{other}], {of}"),
            )?;
        }
        if let (Some(zone), Some((subnet, owners))) = (zone, context.subnets.find(address))
            && let [owner, ..] = owners
            && owners.iter().all(|it| it.zone.is_some_and(|it| it != zone))
        {
            let (own, other) = (
                Quoted(&device.zone),
                Quoted(&context.document.zones[owner.position.0].name),
            );
            problems.add(
                path,
                format_args!(
                    "{address} is in {subnet} of zone {other}, the device in zone {own}; \
                     move one of them"
                ),
            )?;
        }
        addresses.push(address);
    }
    if device.addresses.is_empty() {
        let path = format_args!("devices[{i}].addresses");
        if device.macs.is_empty() {
            problems.add(
                path,
                "missing, and so are macs; a device has addresses, a MAC, or both",
            )?;
        } else if device.learn == Some(false) {
            problems.add(
                path,
                "missing, and learn is false; list the addresses, or leave learn out",
            )?;
        } else if let Some(at) = zone.and_then(|_| context.zones.position(&device.zone))
            && context.document.zones[at].subnets.is_empty()
        {
            let zone = Quoted(&device.zone);
            problems.add(
                path,
                format_args!(
                    "missing, and none can be learned: zone {zone} has no subnets; \
                     list the addresses or give the zone a subnet"
                ),
            )?;
        }
    }
    addresses.sort_unstable();
    Ok(addresses)
}

fn check_port<'a>(
    i: usize,
    device: &'a v1::Device,
    zone: Option<ZoneIndex>,
    context: &Context<'a>,
    claims: &mut Claims<'a>,
    problems: &mut Problems,
) -> Result<(), Full> {
    let path = format_args!("devices[{i}].port");
    let interface = Quoted(&device.port);
    if let Err(message) = check_interface(&device.port) {
        return problems.add(path, message);
    }
    let find = || port_for(&context.ports.ports, &device.port);
    match *claims.interfaces.entry(&device.port).or_insert_with(find) {
        None if context.ports.all_patterns => problems.add(
            path,
            format_args!("no port matches {interface}; list it under ports or leave it out here"),
        ),
        None => Ok(()),
        Some(at) => match zone {
            Some(zone) if context.ports.complete[at] && !context.ports.ports[at].carries(zone) => {
                let zone = Quoted(&device.zone);
                problems.add(
                    path,
                    format_args!("{interface} is ports[{at}], which does not carry zone {zone}"),
                )
            }
            Some(_) | None => Ok(()),
        },
    }
}

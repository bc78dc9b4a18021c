//! Services that are known by name without being declared, and where each is registered.
//!
//! A name means the ports where a server listens. What a protocol negotiates besides (the data of FTP,
//! the media of RTSP) is not in it. The names of a document come before these.

use crate::words::service::Service;

/// A service of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name in rules.
    pub name: &'static str,
    /// Its ports, as a document writes them.
    pub ports: &'static [&'static str],
    /// What it is.
    pub description: &'static str,
    /// Where the ports are laid down.
    pub source: &'static str,
}

impl Known {
    /// Its ports.
    pub fn services(&self) -> impl Iterator<Item = Service> {
        self.ports.iter().filter_map(|port| port.parse().ok())
    }
}

/// The service of this name.
pub fn known(name: &str) -> Option<&'static Known> {
    let at = CATALOGUE.binary_search_by(|it| it.name.cmp(name)).ok()?;
    Some(&CATALOGUE[at])
}

const fn is(
    name: &'static str,
    ports: &'static [&'static str],
    description: &'static str,
    source: &'static str,
) -> Known {
    Known {
        name,
        ports,
        description,
        source,
    }
}

/// All of them, by name.
pub const CATALOGUE: &[Known] = &[
    is(
        "amqp",
        &["tcp/5672"],
        "AMQP messaging",
        "IANA amqp; OASIS AMQP 1.0, 2.1",
    ),
    is(
        "amqps",
        &["tcp/5671"],
        "AMQP over TLS",
        "IANA amqps; OASIS AMQP 1.0, 5.2",
    ),
    is(
        "bacnet",
        &["udp/47808"],
        "BACnet/IP building automation",
        "IANA bacnet; ASHRAE 135, annex J",
    ),
    is(
        "capwap",
        &["udp/5246-5247"],
        "CAPWAP, access points to their controller",
        "IANA capwap-control, capwap-data; RFC 5415",
    ),
    is("coap", &["udp/5683"], "CoAP", "IANA coap; RFC 7252, 6.1"),
    is(
        "coaps",
        &["udp/5684"],
        "CoAP over DTLS",
        "IANA coaps; RFC 7252, 6.2",
    ),
    is(
        "dicom",
        &["tcp/104", "tcp/11112"],
        "DICOM images and worklists",
        "IANA acr-nema, dicom; DICOM PS3.8, 9.1.1",
    ),
    is(
        "dicom-tls",
        &["tcp/2762"],
        "DICOM over TLS",
        "IANA dicom-tls; DICOM PS3.15, annex B",
    ),
    is(
        "dnp3",
        &["tcp/20000", "udp/20000"],
        "DNP3 telecontrol",
        "IANA dnp; IEEE 1815",
    ),
    is(
        "dnp3-tls",
        &["tcp/19999"],
        "DNP3 over TLS",
        "IANA dnp-sec; IEEE 1815",
    ),
    is(
        "dns",
        &["udp/53", "tcp/53"],
        "Names",
        "IANA domain; RFC 1035, 4.2",
    ),
    is(
        "dns-tls",
        &["tcp/853"],
        "Names over TLS",
        "IANA domain-s; RFC 7858",
    ),
    is(
        "ethercat",
        &["tcp/34980", "udp/34980"],
        "EtherCAT in IP; the fieldbus itself is EtherType 0x88a4",
        "IANA ethercat",
    ),
    is(
        "ethernet-ip",
        &["tcp/44818", "udp/44818", "udp/2222"],
        "EtherNet/IP (CIP), explicit and implicit messages",
        "IANA EtherNet-IP-2, EtherNet-IP-1; CIP volume 2",
    ),
    is(
        "fins",
        &["udp/9600", "tcp/9600"],
        "Omron FINS",
        "Omron W227 and W421; not registered with IANA",
    ),
    is(
        "ftp",
        &["tcp/21"],
        "FTP, control only: its data needs rules of its own",
        "IANA ftp; RFC 959",
    ),
    is(
        "ftps",
        &["tcp/990"],
        "FTP over TLS, control only",
        "IANA ftps",
    ),
    is(
        "hart-ip",
        &["udp/5094", "tcp/5094"],
        "HART-IP",
        "IANA hart-ip",
    ),
    is(
        "hl7",
        &["tcp/2575"],
        "HL7 v2 over MLLP",
        "IANA hl7; HL7 v2 transport, MLLP",
    ),
    is("http", &["tcp/80"], "HTTP", "IANA http; RFC 9110, 4.2.1"),
    is(
        "http3",
        &["udp/443"],
        "HTTP/3 (QUIC)",
        "IANA https; RFC 9114, 3.1",
    ),
    is(
        "https",
        &["tcp/443"],
        "HTTP over TLS",
        "IANA https; RFC 9110, 4.2.2",
    ),
    is(
        "iec-104",
        &["tcp/2404"],
        "IEC 60870-5-104 telecontrol",
        "IANA iec-104; IEC 60870-5-104",
    ),
    is(
        "iec-104-tls",
        &["tcp/19998"],
        "IEC 60870-5-104 over TLS",
        "IANA iec-104-sec; IEC 62351-3",
    ),
    is(
        "iec-61850-mms",
        &["tcp/102"],
        "IEC 61850 MMS (ISO on TCP)",
        "IANA iso-tsap; IEC 61850-8-1, RFC 1006",
    ),
    is(
        "ike",
        &["udp/500", "udp/4500"],
        "IKE, and ESP in UDP",
        "IANA isakmp, ipsec-nat-t; RFC 7296, RFC 3948",
    ),
    is("imap", &["tcp/143"], "IMAP", "IANA imap; RFC 9051"),
    is(
        "imaps",
        &["tcp/993"],
        "IMAP over TLS",
        "IANA imaps; RFC 8314",
    ),
    is(
        "ipfix",
        &["udp/4739", "tcp/4739"],
        "IPFIX flow export",
        "IANA ipfix; RFC 7011",
    ),
    is(
        "ipmi",
        &["udp/623"],
        "IPMI (RMCP)",
        "IANA asf-rmcp; IPMI 2.0, 13.1",
    ),
    is(
        "ipp",
        &["tcp/631"],
        "Internet printing, with or without TLS",
        "IANA ipp, ipps; RFC 8010, RFC 7472",
    ),
    is(
        "iscsi",
        &["tcp/3260"],
        "iSCSI",
        "IANA iscsi-target; RFC 7143",
    ),
    is(
        "kerberos",
        &["tcp/88", "udp/88"],
        "Kerberos",
        "IANA kerberos; RFC 4120, 7.2",
    ),
    is(
        "knx-ip",
        &["udp/3671", "tcp/3671"],
        "KNXnet/IP building automation",
        "IANA efcp; ISO 22510",
    ),
    is(
        "kpasswd",
        &["tcp/464", "udp/464"],
        "Kerberos passwords",
        "IANA kpasswd; RFC 3244",
    ),
    is(
        "ldap",
        &["tcp/389", "udp/389"],
        "LDAP, and CLDAP",
        "IANA ldap; RFC 4511, 5.2",
    ),
    is("ldaps", &["tcp/636"], "LDAP over TLS", "IANA ldaps"),
    is(
        "llmnr",
        &["udp/5355", "tcp/5355"],
        "Names on the link",
        "IANA llmnr; RFC 4795",
    ),
    is(
        "lpd",
        &["tcp/515"],
        "Line printer daemon",
        "IANA printer; RFC 1179",
    ),
    is(
        "mdns",
        &["udp/5353"],
        "Multicast DNS",
        "IANA mdns; RFC 6762",
    ),
    is(
        "modbus",
        &["tcp/502"],
        "Modbus/TCP",
        "IANA mbap; Modbus Messaging on TCP/IP 1.0b, 4.2",
    ),
    is(
        "modbus-tls",
        &["tcp/802"],
        "Modbus/TCP over TLS",
        "IANA mbap-s; Modbus/TCP Security 2.1",
    ),
    is(
        "mqtt",
        &["tcp/1883"],
        "MQTT",
        "IANA mqtt; OASIS MQTT 5.0, 4.2",
    ),
    is(
        "mqtts",
        &["tcp/8883"],
        "MQTT over TLS",
        "IANA secure-mqtt; OASIS MQTT 5.0, 4.2",
    ),
    is(
        "ms-sql",
        &["tcp/1433"],
        "Microsoft SQL Server",
        "IANA ms-sql-s",
    ),
    is("mysql", &["tcp/3306"], "MySQL, MariaDB", "IANA mysql"),
    is(
        "netbios",
        &["udp/137-138", "tcp/139"],
        "NetBIOS names, datagrams and sessions",
        "IANA netbios-ns, -dgm, -ssn; RFC 1002",
    ),
    is(
        "netconf",
        &["tcp/830"],
        "NETCONF over SSH",
        "IANA netconf-ssh; RFC 6242",
    ),
    is("nfs", &["tcp/2049"], "NFS version 4", "IANA nfs; RFC 8881"),
    is("ntp", &["udp/123"], "Time", "IANA ntp; RFC 5905"),
    is(
        "nts-ke",
        &["tcp/4460"],
        "Keys for secured time",
        "IANA ntske; RFC 8915",
    ),
    is(
        "onvif-discovery",
        &["udp/3702"],
        "ONVIF discovery (WS-Discovery)",
        "IANA ws-discovery; ONVIF Core, 7",
    ),
    is(
        "opc-ua",
        &["tcp/4840"],
        "OPC UA, binary",
        "IANA opcua-tcp; OPC 10000-6, 7.2",
    ),
    is(
        "opc-ua-tls",
        &["tcp/4843"],
        "OPC UA over TLS",
        "IANA opcua-tls",
    ),
    is(
        "ping",
        &["icmp/8", "icmpv6/128"],
        "Echo requests",
        "RFC 792; RFC 4443, 4.1",
    ),
    is("pop3", &["tcp/110"], "POP3", "IANA pop3; RFC 1939"),
    is(
        "pop3s",
        &["tcp/995"],
        "POP3 over TLS",
        "IANA pop3s; RFC 8314",
    ),
    is("postgresql", &["tcp/5432"], "PostgreSQL", "IANA postgresql"),
    is(
        "print-raw",
        &["tcp/9100"],
        "Raw printing (page description language)",
        "IANA pdl-datastream",
    ),
    is(
        "profinet",
        &["udp/34962-34964", "tcp/34962-34964"],
        "PROFINET context and data in IP; real time is EtherType 0x8892",
        "IANA profinet-rt, -rtm, -cm; IEC 61158-6-10",
    ),
    is(
        "ptp",
        &["udp/319-320"],
        "Precision time",
        "IANA ptp-event, ptp-general; IEEE 1588-2019, annex C",
    ),
    is(
        "radius",
        &["udp/1812-1813"],
        "RADIUS, authentication and accounting",
        "IANA radius, radius-acct; RFC 2865, RFC 2866",
    ),
    is(
        "radsec",
        &["tcp/2083"],
        "RADIUS over TLS",
        "IANA radsec; RFC 6614",
    ),
    is(
        "rdp",
        &["tcp/3389", "udp/3389"],
        "Remote desktop",
        "IANA ms-wbt-server",
    ),
    is(
        "rtsp",
        &["tcp/554"],
        "RTSP, control only unless media are interleaved",
        "IANA rtsp; RFC 7826",
    ),
    is(
        "rtsps",
        &["tcp/322"],
        "RTSP over TLS",
        "IANA rtsps; RFC 7826",
    ),
    is(
        "s7comm",
        &["tcp/102"],
        "Siemens S7 (ISO on TCP)",
        "IANA iso-tsap; RFC 1006",
    ),
    is(
        "sip",
        &["udp/5060", "tcp/5060"],
        "SIP signalling",
        "IANA sip; RFC 3261, 19.1.2",
    ),
    is(
        "sips",
        &["tcp/5061"],
        "SIP over TLS",
        "IANA sips; RFC 3261, 19.1.2",
    ),
    is("smb", &["tcp/445"], "SMB file shares", "IANA microsoft-ds"),
    is(
        "smtp",
        &["tcp/25"],
        "Mail between servers",
        "IANA smtp; RFC 5321, 4.5.4",
    ),
    is(
        "snmp",
        &["udp/161"],
        "SNMP requests",
        "IANA snmp; RFC 3417, 3.1",
    ),
    is(
        "snmp-trap",
        &["udp/162"],
        "SNMP notifications",
        "IANA snmptrap; RFC 3417, 3.1",
    ),
    is(
        "ssdp",
        &["udp/1900"],
        "SSDP (UPnP discovery)",
        "IANA ssdp; UPnP Device Architecture, 1",
    ),
    is("ssh", &["tcp/22"], "SSH", "IANA ssh; RFC 4253, 4.1"),
    is(
        "submission",
        &["tcp/587", "tcp/465"],
        "Mail from clients",
        "IANA submission, submissions; RFC 6409, RFC 8314",
    ),
    is(
        "syslog",
        &["udp/514"],
        "Syslog",
        "IANA syslog; RFC 5426, 3.3",
    ),
    is(
        "syslog-tls",
        &["tcp/6514"],
        "Syslog over TLS",
        "IANA syslog-tls; RFC 5425, 4.1",
    ),
    is(
        "tacacs",
        &["tcp/49"],
        "TACACS+",
        "IANA tacacs; RFC 8907, 4.1",
    ),
    is("telnet", &["tcp/23"], "Telnet", "IANA telnet; RFC 854"),
    is(
        "tftp",
        &["udp/69"],
        "TFTP, requests only: its data needs rules of its own",
        "IANA tftp; RFC 1350",
    ),
    is(
        "vnc",
        &["tcp/5900"],
        "VNC (remote framebuffer)",
        "IANA rfb; RFC 6143",
    ),
    is(
        "winrm",
        &["tcp/5985-5986"],
        "Windows remote management",
        "IANA wsman, wsmans",
    ),
    is(
        "ws-discovery",
        &["udp/3702"],
        "WS-Discovery",
        "IANA ws-discovery; OASIS WS-Discovery 1.1, 3.1.1",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_every_entry_reads() {
        assert!(
            CATALOGUE.is_sorted_by(|a, b| a.name < b.name),
            "sorted, once each"
        );
        for it in CATALOGUE {
            assert_eq!(it.services().count(), it.ports.len(), "{}", it.name);
            assert!(
                !it.ports.is_empty() && !it.description.is_empty(),
                "{}",
                it.name
            );
            assert!(!it.source.is_empty(), "{}", it.name);
            let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(
                it.name.len() <= 63 && it.name.chars().all(letter),
                "{}",
                it.name
            );
            assert_eq!(known(it.name).map(|it| it.ports), Some(it.ports));
        }
        assert!(known("nothing").is_none());
    }
}

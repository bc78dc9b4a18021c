//! The other firewalls, as they would be set up for the same policy.

use std::fmt::Write as _;

use anyhow::Result;

use crate::road::Road;

/// The key of every set: device, server, protocol, port.
const KEY: &str = "ip saddr . ip daddr . meta l4proto . th dport";

/// nftables, stateful: known flows pass, new ones when the set has them.
pub(crate) fn nft_stateful(road: &Road, elements: u32) -> Result<()> {
    let chain = "type filter hook forward priority 0; policy drop; \
                 ct state established,related accept;";
    nft(road, "ip", chain, "", elements)?;
    remember(road)
}

/// nftables, stateless, as early as it can.
pub(crate) fn nft_netdev(road: &Road, elements: u32) -> Result<()> {
    let chain = "type filter hook ingress device rin priority 0; policy drop;";
    nft(road, "netdev", chain, "", elements)
}

/// nftables, stateless, with the kind of set that ranges need.
pub(crate) fn nft_interval(road: &Road, elements: u32) -> Result<()> {
    let chain = "type filter hook forward priority 0; policy drop;";
    nft(road, "ip", chain, "flags interval;", elements)
}

fn nft(road: &Road, family: &str, chain: &str, flags: &str, elements: u32) -> Result<()> {
    let mut text = format!(
        "table {family} bench {{\nset allowed {{\ntype ipv4_addr . ipv4_addr . inet_proto . \
         inet_service; {flags}\nelements = {{\n"
    );
    for (source, destination, port) in (0..elements).map(flow) {
        writeln!(text, "{source} . {destination} . udp . {port},")?;
    }
    writeln!(
        text,
        "}}\n}}\nchain judge {{ {chain} {KEY} @allowed accept; }}\n}}"
    )?;
    road.feed("nft", &["-f", "-"], &text)
}

/// iptables, stateful, with a set of ipset's.
pub(crate) fn ipset(road: &Road, elements: u32) -> Result<()> {
    let mut text = format!(
        "create allowed hash:ip,port,ip maxelem {}\n",
        elements.max(16) * 2
    );
    for (source, destination, port) in (0..elements).map(flow) {
        writeln!(text, "add allowed {source},udp:{port},{destination}")?;
    }
    road.feed("ipset", &["restore"], &text)?;
    let rules = "*filter\n:FORWARD DROP [0:0]\n\
                 -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
                 -A FORWARD -m set --match-set allowed src,dst,dst -j ACCEPT\nCOMMIT\n";
    road.feed("iptables-legacy-restore", &[], rules)?;
    remember(road)
}

/// Established flows stay for the run; unanswered ones time out before the next round.
fn remember(road: &Road) -> Result<()> {
    road.router()
        .sysctl("netfilter/nf_conntrack_udp_timeout", "4")?;
    road.router()
        .sysctl("netfilter/nf_conntrack_udp_timeout_stream", "3600")
}

/// The parts of a flow's set element: device, server, port.
fn flow(number: u32) -> (String, String, u32) {
    let [a, b, c, d] = (0x0a01_0000 + number).to_be_bytes();
    let server = number & 15;
    (
        format!("{a}.{b}.{c}.{d}"),
        format!("10.200.0.{}", 16 + server),
        1000 + server,
    )
}

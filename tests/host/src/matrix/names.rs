//! Names: what a device may reach because its resolver has given it the address.

use std::net::IpAddr;

use super::{
    case::{
        DENIED_BY_RULE, ESTABLISHED, EXPIRED, Family, Family::V4, Family::V6, NO_RULE, QUARANTINED,
        RULE, Setting::Quarantine, Table, UNKNOWN_DEVICE,
    },
    network::{
        ARCHIVE, CAMERA, FAR, LAN1, LAN2, LOCAL, MEDIA, PINNED, PRIVATE, PUBLIC, PUMP, Party,
        RECORDS, ROUTER, ROUTER_ITSELF, SERVER, UPLINK, down, syn, up,
    },
};
use wardline_oracle::frames::{Ethernet, SYN, Tcp, Udp};

/// A message of DNS, byte by byte.
#[derive(Clone)]
struct Message(Vec<u8>);

const ANSWER: u16 = 0x8180;
const NAME: &str = "updates.vendor.example";
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

impl Message {
    /// A question for the addresses of a name.
    fn asks(id: u16, name: &str, f: Family) -> Self {
        let kind = if f == V4 { A } else { AAAA };
        let mut bytes = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
        bytes.extend(labels(name));
        bytes.extend([kind, 1].map(u16::to_be_bytes).concat());
        Self(bytes)
    }

    /// Its answer, without records.
    fn answered(mut self) -> Self {
        self.put(2, ANSWER);
        self
    }

    fn put(&mut self, at: usize, word: u16) {
        self.0[at..at + 2].copy_from_slice(&word.to_be_bytes());
    }

    /// One more record, whose owner is the name in the question.
    fn with(mut self, kind: u16, seconds: u32, data: &[u8]) -> Self {
        let count = u16::from_be_bytes([self.0[6], self.0[7]]);
        self.put(6, count + 1);
        self.0.extend([0xc0, 12]);
        self.0.extend([kind, 1].map(u16::to_be_bytes).concat());
        self.0.extend(seconds.to_be_bytes());
        self.0.extend((data.len() as u16).to_be_bytes());
        self.0.extend(data);
        self
    }

    /// The address of a party.
    fn has(self, party: &Party, f: Family) -> Self {
        match party.at(f) {
            IpAddr::V4(address) => self.with(A, 300, &address.octets()),
            IpAddr::V6(address) => self.with(AAAA, 300, &address.octets()),
        }
    }
}

fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| {
            let length = [label.len() as u8];
            [&length[..], label.as_bytes()].concat()
        })
        .collect();
    bytes.push(0);
    bytes
}

/// A question from a port.
fn asks(from: &Party, of: &Party, f: Family, port: u16, message: Message) -> Ethernet {
    up(from, of, f, Udp::new(port, 53, message.0))
}

/// An answer to a port.
fn says(from: &Party, to: &Party, f: Family, port: u16, message: Message) -> Ethernet {
    down(from, to, f, Udp::new(53, port, message.0))
}

/// A question of the pump to the router.
fn asked(name: &str, f: Family) -> Ethernet {
    asks(&PUMP, &ROUTER, f, 40_000, Message::asks(7, name, f))
}

/// The router's answer.
fn answer(message: Message, f: Family) -> Ethernet {
    says(&ROUTER, &PUMP, f, 40_000, message)
}

/// The pump connects.
fn to(party: &Party, f: Family) -> Ethernet {
    up(&PUMP, party, f, syn(7443))
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    let e = ESTABLISHED;
    let plain = |f| Message::asks(7, NAME, f).answered();
    t.both("no answer was seen yet", |c, f| { c.enters(LAN1, to(&FAR, f)).is(NO_RULE); });
    t.both("an address that the router's resolver has given", |c, f| {
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(plain(f).has(&FAR, f), f)).enters(LAN1, to(&FAR, f)).is([RULE, e, RULE]).under(Quarantine, [QUARANTINED, QUARANTINED, QUARANTINED]);
    });
    t.both("another service", |c, f| {
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(plain(f).has(&FAR, f), f)).enters(LAN1, up(&PUMP, &FAR, f, syn(7445))).is([RULE, e, NO_RULE]);
    });
    t.both("another device of the zone", |c, f| {
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(plain(f).has(&FAR, f), f)).enters(LAN1, up(&PINNED, &FAR, f, syn(7443))).is([RULE, e, RULE]);
    });
    t.both("a device that no rule lets reach the name", |c, f| {
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(plain(f).has(&FAR, f), f)).enters(LAN2, up(&CAMERA, &FAR, f, syn(7443))).is([RULE, e, NO_RULE]);
    });
    t.both("a rule that has ended", |c, f| {
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(plain(f).has(&FAR, f), f)).enters(LAN1, up(&PUMP, &FAR, f, syn(7446))).is([RULE, e, EXPIRED]);
    });
    t.both("a rule that denies the address", |c, f| {
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(plain(f).has(&PUBLIC, f), f)).enters(LAN1, up(&PUMP, &PUBLIC, f, syn(9443))).is([RULE, e, DENIED_BY_RULE]);
    });
    t.both("several addresses behind an alias", |c, f| {
        let both = plain(f).with(CNAME, 60, &labels("cdn.example")).has(&FAR, f).has(&PRIVATE, f);
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(both, f)).enters(LAN1, to(&FAR, f)).enters(LAN1, to(&PRIVATE, f)).is([RULE, e, RULE, RULE]);
    });
    t.both("a name below one with a star", |c, f| {
        let name = "a.b.Mirrors.example";
        c.enters(LAN1, asked(name, f)).leaves(LAN1, ROUTER_ITSELF, answer(Message::asks(7, name, f).answered().has(&FAR, f), f)).enters(LAN1, up(&PUMP, &FAR, f, syn(7444))).is([RULE, e, RULE]);
    });
    t.both("the name itself behind a star", |c, f| {
        c.mirrors("a star means the name itself, too");
        c.enters(LAN1, asked("mirrors.example", f)).leaves(LAN1, ROUTER_ITSELF, answer(Message::asks(7, "mirrors.example", f).answered().has(&FAR, f), f)).enters(LAN1, up(&PUMP, &FAR, f, syn(7444))).is([RULE, e, NO_RULE]);
    });
    t.both("a name that ends alike", |c, f| {
        c.mirrors("names are compared as texts, not label by label");
        let name = "evilmirrors.example";
        c.enters(LAN1, asked(name, f)).leaves(LAN1, ROUTER_ITSELF, answer(Message::asks(7, name, f).answered().has(&FAR, f), f)).enters(LAN1, up(&PUMP, &FAR, f, syn(7444))).is([RULE, e, NO_RULE]);
    });
    t.both("a resolver that the policy names", |c, f| {
        let question = asks(&PUMP, &MEDIA, f, 40_000, Message::asks(7, NAME, f));
        c.enters(LAN1, question).leaves(LAN1, UPLINK, says(&MEDIA, &PUMP, f, 40_000, plain(f).has(&FAR, f))).enters(LAN1, to(&FAR, f)).is([RULE, e, RULE]);
    });
    t.both("a resolver that the policy does not name", |c, f| {
        c.mirrors("any answer from port 53 counts");
        let question = asks(&PUMP, &ARCHIVE, f, 40_000, Message::asks(7, NAME, f));
        c.enters(LAN1, question).leaves(LAN1, UPLINK, says(&ARCHIVE, &PUMP, f, 40_000, plain(f).has(&FAR, f))).enters(LAN1, to(&FAR, f)).is([RULE, e, NO_RULE]);
    });
    t.both("an answer to a question with another identifier", |c, f| {
        c.mirrors("the identifier does not count");
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(Message::asks(8, NAME, f).answered().has(&FAR, f), f)).enters(LAN1, to(&FAR, f)).is([RULE, e, NO_RULE]);
    });
    t.both("an answer with the name in other letters", |c, f| {
        c.mirrors("a mix of upper and lower case does not count");
        let other = Message::asks(7, "updates.vendor.eXample", f).answered().has(&FAR, f);
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(other, f)).enters(LAN1, to(&FAR, f)).is([RULE, e, NO_RULE]);
    });
    t.both("an answer with the mix of letters of the question", |c, f| {
        let mixed = "uPdAtEs.VENDOR.exAmple";
        c.enters(LAN1, asked(mixed, f)).leaves(LAN1, ROUTER_ITSELF, answer(Message::asks(7, mixed, f).answered().has(&FAR, f), f)).enters(LAN1, to(&FAR, f)).is([RULE, e, RULE]);
    });
    t.both("an answer to another name", |c, f| {
        c.mirrors("the owners of records count, not the question");
        let other = Message::asks(7, "other.example", f).answered().has(&FAR, f);
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(other, f)).enters(LAN1, to(&FAR, f)).is([RULE, e, NO_RULE]);
    });
    t.both("a second answer", |c, f| {
        c.mirrors("a question is answered any number of times");
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(plain(f), f)).leaves(LAN1, ROUTER_ITSELF, answer(plain(f).has(&FAR, f), f)).enters(LAN1, to(&FAR, f)).is([RULE, e, e, NO_RULE]);
    });
    t.both("a resolver's answer to another port", |c, f| {
        let other = asks(&PUMP, &ROUTER, f, 40_001, Message::asks(9, NAME, f));
        c.enters(LAN1, asked(NAME, f)).enters(LAN1, other).leaves(LAN1, ROUTER_ITSELF, says(&ROUTER, &PUMP, f, 40_001, plain(f).has(&FAR, f))).enters(LAN1, to(&FAR, f)).is([RULE, RULE, e, NO_RULE]);
    });
    t.both("a resolver's answer that nobody asked for", |c, f| {
        c.leaves(LAN1, ROUTER_ITSELF, answer(plain(f).has(&FAR, f), f)).enters(LAN1, to(&FAR, f)).is([NO_RULE, NO_RULE]);
    });
    t.both("an answer from another, with the resolver's address", |c, f| {
        let question = asks(&PUMP, &MEDIA, f, 40_000, Message::asks(7, NAME, f));
        c.enters(LAN1, question).enters(LAN2, up(&MEDIA, &PUMP, f, Udp::new(53, 40_000, plain(f).has(&FAR, f).0))).enters(LAN1, to(&FAR, f)).is([RULE, UNKNOWN_DEVICE, NO_RULE]);
    });
    t.both("an answer with an error", |c, f| {
        let mut error = plain(f).has(&FAR, f);
        error.put(2, 0x8183);
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(error, f)).enters(LAN1, to(&FAR, f)).is([RULE, e, NO_RULE]);
    });
    t.both("an address that is over", |c, f| {
        let short = match FAR.at(f) {
            IpAddr::V4(it) => plain(f).with(A, 1, &it.octets()),
            IpAddr::V6(it) => plain(f).with(AAAA, 1, &it.octets()),
        };
        c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(short.clone(), f)).enters(LAN1, to(&FAR, f)).after(85).enters(LAN1, up(&PUMP, &FAR, f, Tcp::new(40_005, 7443, SYN))).after(10).is([RULE, e, RULE, NO_RULE]);
    });
    // Whoever answers for a name must not open the way to what is inside.
    for (name, party) in [("a device", &RECORDS), ("a zone", &SERVER), ("the router", &LOCAL)] {
        t.both(&format!("an address of {name}"), |c, f| {
            c.mirrors("a name may stand for an address inside");
            c.enters(LAN1, asked(NAME, f)).leaves(LAN1, ROUTER_ITSELF, answer(plain(f).has(party, f), f)).enters(LAN1, to(party, f)).is([RULE, e, NO_RULE]);
        });
    }
    t.case("IPv4 in the record of IPv6").enters(LAN1, asked(NAME, V6)).leaves(LAN1, ROUTER_ITSELF, answer(plain(V6).with(AAAA, 300, &FAR.v4.to_ipv6_mapped().octets()), V6)).enters(LAN1, to(&FAR, V4)).is([RULE, e, NO_RULE]);
    // Messages that lie.
    let far = FAR.v4.octets();
    for (name, message) in [
        ("a record that is longer than the message", { let mut it = plain(V4).has(&FAR, V4); let at = it.0.len() - 6; it.put(at, 5); it }),
        ("a record before that is longer than the message", { let mut it = plain(V4).with(CNAME, 60, &[0]).has(&FAR, V4); let at = plain(V4).0.len() + 10; it.put(at, 400); it }),
        ("an address of five bytes", plain(V4).with(A, 300, &[far[0], far[1], far[2], far[3], 0])),
        ("an address of another class", { let mut it = plain(V4).has(&FAR, V4); let at = it.0.len() - 12; it.put(at, 3); it }),
        ("no record of the section of answers", { let mut it = plain(V4).has(&FAR, V4); it.put(6, 0); it.put(8, 1); it }),
        ("two questions", { let mut it = plain(V4).has(&FAR, V4); it.put(4, 2); it }),
        ("an owner that is no label and no pointer", { let mut it = plain(V4).has(&FAR, V4); let at = plain(V4).0.len(); it.put(at, 0x8000); it }),
        ("a message that ends in the question", Message(plain(V4).0[..20].to_vec())),
        ("a header alone", Message(plain(V4).0[..12].to_vec())),
        ("less than a header", Message(plain(V4).0[..7].to_vec())),
    ] {
        t.case(format!("an answer with {name}")).enters(LAN1, asked(NAME, V4)).leaves(LAN1, ROUTER_ITSELF, answer(message, V4)).enters(LAN1, to(&FAR, V4)).is([RULE, e, NO_RULE]);
    }
    let mut pointer = Message::asks(7, NAME, V4);
    pointer.put(12, 0xc00c);
    t.case("a question whose name points to itself").enters(LAN1, asks(&PUMP, &ROUTER, V4, 40_000, pointer.clone())).leaves(LAN1, ROUTER_ITSELF, answer(pointer.answered().has(&FAR, V4), V4)).enters(LAN1, to(&FAR, V4)).is([RULE, e, NO_RULE]);
    let many = (1..=40u8).fold(plain(V4), |it, n| it.with(A, 300, &[192, 0, 2, n]));
    t.case("an answer with forty addresses").enters(LAN1, asked(NAME, V4)).leaves(LAN1, ROUTER_ITSELF, answer(many, V4)).enters(LAN1, to(&FAR, V4)).is([RULE, e, RULE]);
    let uncompressed = { let mut it = plain(V4); it.put(6, 1); it.0.extend(labels("a.b.c.d.e.example")); it.0.extend([A, 1].map(u16::to_be_bytes).concat()); it.0.extend(300u32.to_be_bytes()); it.0.extend([0, 4]); it.0.extend(far); it };
    t.case("an owner that is not compressed").enters(LAN1, asked(NAME, V4)).leaves(LAN1, ROUTER_ITSELF, answer(uncompressed, V4)).enters(LAN1, to(&FAR, V4)).is([RULE, e, RULE]);
    t.both("two questions from one port", |c, f| {
        let (first, second) = (Message::asks(1, NAME, f), Message::asks(2, NAME, f));
        c.enters(LAN1, asks(&PUMP, &ROUTER, f, 40_000, first.clone())).enters(LAN1, asks(&PUMP, &ROUTER, f, 40_000, second.clone()))
            .leaves(LAN1, ROUTER_ITSELF, answer(second.answered().has(&FAR, f), f)).leaves(LAN1, ROUTER_ITSELF, answer(first.answered().has(&PRIVATE, f), f))
            .enters(LAN1, asks(&PUMP, &ROUTER, f, 40_000, Message::asks(3, NAME, f))).leaves(LAN1, ROUTER_ITSELF, answer(Message::asks(3, NAME, f).answered().has(&PUBLIC, f), f))
            .enters(LAN1, to(&FAR, f)).enters(LAN1, to(&PRIVATE, f)).enters(LAN1, to(&PUBLIC, f)).is([RULE, e, e, e, e, e, RULE, RULE, RULE]);
    });
}

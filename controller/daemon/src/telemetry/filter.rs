//! Which events are wanted: all conditions together, and of the values of one condition any.
//!
//! The journal asks the same in SQL (`journal::read`); a test holds the two together.

use std::net::IpAddr;

use jiff::Timestamp;
use wardline_ebpf::abi::Reason;
use wardline_policy::{
    catalogue,
    document::Document,
    words::{mac::Mac, service::Service},
};

use super::event::{Event, Verdict};

/// What wanted events have; a list without values asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The first moment.
    pub since: Option<Timestamp>,
    /// The last moment.
    pub until: Option<Timestamp>,
    /// One of these is one of the two ends.
    pub devices: Vec<Who>,
    /// One of these is the zone of one of the two ends.
    pub zones: Vec<String>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// The rule that decided.
    pub rules: Vec<String>,
    /// What was asked for.
    pub services: Vec<Asked>,
    /// One of these is the other end.
    pub peers: Vec<Who>,
    /// Where.
    pub interfaces: Vec<String>,
    /// What happened.
    pub verdicts: Vec<Verdict>,
}

/// A device by its name, or an end by its address or MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// As it was asked for: perhaps a name.
    pub name: String,
    /// The same as an event writes it, if it is an address or a MAC.
    pub end: Option<String>,
}

impl Who {
    /// Reads a name, an address or a MAC.
    pub fn of(text: &str) -> Self {
        let address = text.parse().map(|it: IpAddr| it.to_canonical().to_string());
        let mac = || text.parse().map(|it: Mac| it.to_string());
        Self {
            name: text.to_owned(),
            end: address.ok().or_else(|| mac().ok()),
        }
    }

    fn is_end(&self, end: &str) -> bool {
        self.end.as_deref() == Some(end)
    }

    fn is_an_end_of(&self, event: &Event) -> bool {
        self.is_device(event)
            || self.is_peer(event)
            || self.is_end(&event.source_mac)
            || self.is_end(&event.source)
            || self.is_end(&event.destination)
    }

    fn is_device(&self, event: &Event) -> bool {
        !event.device.is_empty() && self.name == event.device
    }

    fn is_peer(&self, event: &Event) -> bool {
        !event.peer.is_empty() && self.name == event.peer || self.is_end(event.peer_address())
    }
}

impl Event {
    /// The address of the other end, or its MAC where the frame has no address.
    pub fn peer_address(&self) -> &str {
        if self.towards {
            &self.source
        } else {
            &self.destination
        }
    }
}

/// A service that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As an event may write it.
    pub text: String,
    /// The keys that it stands for.
    pub keys: Vec<Service>,
}

impl Asked {
    /// Reads the name of a service, of the document or of the catalogue; or a protocol and ports; or
    /// what an event says of what has none, as `arp` or `0x88cc`.
    ///
    /// # Errors
    /// What is wrong, when the text is none of these.
    pub fn of(text: &str, policy: &Document) -> Result<Self, String> {
        let own = policy.services.iter().find(|it| it.name == text);
        let keys: Vec<Service> = match (own, catalogue::known(text)) {
            (Some(own), _) => own
                .ports
                .iter()
                .filter_map(|port| port.parse().ok())
                .collect(),
            (None, Some(known)) => known.services().collect(),
            (None, None) if text.contains('/') => match text.parse() {
                Ok(service) => vec![service],
                Err(error) => return Err(format!("{error}")),
            },
            (None, None) if text == "arp" || text.starts_with("0x") => Vec::new(),
            (None, None) => {
                return Err(format!(
                    "no service {text:?}; write a service's name, or a port as tcp/443"
                ));
            }
        };
        Ok(Self {
            text: text.to_owned(),
            keys,
        })
    }

    fn is_of(&self, event: &Event) -> bool {
        let has = |key| {
            self.keys
                .iter()
                .any(|it| (it.first..=it.last).contains(&key))
        };
        event.service == self.text || event.asked.is_some_and(has)
    }
}

impl Filter {
    /// Whether an event is wanted.
    pub fn passes(&self, event: &Event) -> bool {
        fn any<T>(wanted: &[T], is: impl Fn(&T) -> bool) -> bool {
            wanted.is_empty() || wanted.iter().any(is)
        }
        let zone = |it: &String| *it == event.zone || *it == event.peer_zone;
        self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time <= until)
            && any(&self.devices, |it| it.is_an_end_of(event))
            && any(&self.zones, |it| !it.is_empty() && zone(it))
            && any(&self.reasons, |it| event.reason == Some(*it))
            && any(&self.rules, |it| !it.is_empty() && *it == event.rule)
            && any(&self.services, |it| it.is_of(event))
            && any(&self.peers, |it| it.is_peer(event))
            && any(&self.interfaces, |it| {
                !it.is_empty() && *it == event.interface
            })
            && any(&self.verdicts, |it| *it == event.verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_named_in_any_form() {
        assert_eq!(Who::of("10.20.1.11").end.as_deref(), Some("10.20.1.11"));
        assert_eq!(Who::of("FD20:0::5").end.as_deref(), Some("fd20::5"));
        assert_eq!(
            Who::of("02:00:00:00:0A:0b").end.as_deref(),
            Some("02:00:00:00:0a:0b")
        );
        assert_eq!(Who::of("pump-1").end, None);
    }

    #[test]
    fn services_are_names_or_ports_and_nothing_else() {
        let policy = Document::default();
        assert!(Asked::of("https", &policy).is_ok_and(|it| it.keys.len() == 1));
        assert!(Asked::of("tcp/1-100", &policy).is_ok_and(|it| it.keys.len() == 1));
        assert!(Asked::of("arp", &policy).is_ok_and(|it| it.keys.is_empty()));
        for wrong in ["htps", "tcp/", "tcp/70000"] {
            assert!(Asked::of(wrong, &policy).is_err(), "{wrong}");
        }
    }
}

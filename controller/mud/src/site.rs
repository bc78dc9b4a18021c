//! Who is meant at this site: the classes of RFC 8520 as selectors of the document.
//!
//! A class is a label, so a device that gets the label later belongs to it without another import:
//! `mud` has the URL of a device's file, `mud-maker` the authority of that URL, and `mud-controller`, or
//! `mud-controller/ANYTHING`, the class that a controller is in.

use ipnet::IpNet;
use wardline_proto::v1::{Policy, Rule};

use crate::{
    entry::{Direction, Family, Peer},
    words::{MudUrl, label_value},
};

/// The label with the URL of a device's file; also of the rules that were made of it.
pub(crate) const FILE: &str = "mud";
/// The label with the authority of that URL.
pub(crate) const MAKER: &str = "mud-maker";
/// The label with the class of a controller.
const CONTROLLER: &str = "mud-controller";
/// The label by which a zone is no local network, with the value `no`.
const LOCAL: &str = "mud-local";
/// The label of a rule that says which list its entry was in.
pub(crate) const DIRECTION: &str = "mud-direction";
/// What MUDgee calls the router; it is registered nowhere.
const GATEWAY: &str = "urn:ietf:params:mud:gateway";

/// What is known of the site when a file is read.
pub(crate) struct Site<'a> {
    /// The document, in which the device has its labels already.
    pub(crate) document: &'a Policy,
    /// The classes of controllers that the router itself is in.
    pub(crate) router_is: &'a [String],
    pub(crate) url: &'a MudUrl,
    /// The selector of the devices that the file is for.
    pub(crate) subject: &'a str,
    /// Whether a person has approved of the file, with the addresses in it.
    pub(crate) is_approved: bool,
}

/// Why a class means nobody whom a rule could name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Nobody {
    pub(crate) why: String,
    /// The class, if somebody may still be put into it.
    pub(crate) class: Option<String>,
}

impl Nobody {
    fn held(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            class: None,
        }
    }
}

impl Site<'_> {
    /// The selectors of an entry's other end.
    pub(crate) fn selectors(
        &self,
        peer: &Peer,
        family: Family,
        direction: Direction,
    ) -> Result<Vec<String>, Nobody> {
        let mut selectors = match peer {
            Peer::Anybody => {
                self.approved("it names nobody, so it reaches everybody")?;
                vec![match family {
                    Family::V4 => "cidr:0.0.0.0/0".to_owned(),
                    Family::V6 => "cidr:::/0".to_owned(),
                }]
            }
            Peer::At(net) => {
                self.approved("it names addresses, which mean something else at each site")?;
                vec![format!("cidr:{net}")]
            }
            Peer::Local => self.local()?,
            Peer::LocalAt(net) => self.local_at(*net)?,
            Peer::Controller(class) => self.controllers(class)?,
            Peer::MyController => self.controllers(&self.url.whole)?,
            Peer::Manufacturer(authority) => self.made_by(authority)?,
            Peer::SameManufacturer => self.made_by(&self.url.authority)?,
            Peer::Model(url) => self.with_file(url)?,
            // The addresses that the device itself is told for the name.
            Peer::Name(name) if direction == Direction::FromDevice => vec![format!("name:{name}")],
            Peer::Name(name) => {
                return Err(Nobody::held(format!(
                    "{name} would open connections, and a rule names hosts only as the other end: who has \
                     an address of a name is not known before the device has asked for it; give the host \
                     a device or a zone, and write a rule for that"
                )));
            }
        };
        selectors.sort();
        selectors.dedup();
        Ok(selectors)
    }

    fn approved(&self, why: &str) -> Result<(), Nobody> {
        if self.is_approved {
            return Ok(());
        }
        let message = format!("{why}; a person has to approve of that with --approve REASON");
        Err(Nobody::held(message))
    }

    /// The zones that are local networks: all but those that hold the default route, or are told not to be.
    fn local_zones(&self) -> impl Iterator<Item = (&str, Vec<IpNet>)> {
        self.document.zones.iter().filter_map(|zone| {
            let subnets = zone.subnets.iter().filter_map(|it| it.parse().ok());
            let subnets: Vec<IpNet> = subnets.collect();
            let is_told_not = zone.labels.get(LOCAL).is_some_and(|it| it == "no");
            let is_everything = subnets.iter().any(|it| it.prefix_len() == 0);
            (!is_told_not && !is_everything).then_some((zone.name.as_str(), subnets))
        })
    }

    fn local(&self) -> Result<Vec<String>, Nobody> {
        let zones: Vec<String> = self
            .local_zones()
            .map(|it| format!("zone:{}", it.0))
            .collect();
        if zones.is_empty() {
            return Err(Nobody {
                why: "no zone is a local network".to_owned(),
                class: Some("local-networks".to_owned()),
            });
        }
        Ok(zones)
    }

    /// Addresses, as far as they are of local networks; groups and broadcasts that no router forwards are.
    fn local_at(&self, net: IpNet) -> Result<Vec<String>, Nobody> {
        let stays = match net {
            IpNet::V4(net) => {
                let (first, length) = (net.network().octets(), net.prefix_len());
                let link = first[..3] == [224, 0, 0] && length >= 24;
                let site = first[0] == 239 && length >= 8;
                link || site || first == [255; 4] && length == 32
            }
            IpNet::V6(net) => {
                // Groups of an interface, a link, an administrator or a site.
                let [first, scope, ..] = net.network().octets();
                first == 0xff && net.prefix_len() >= 16 && matches!(scope & 15, 1..=5)
            }
        };
        if stays {
            return Ok(vec![format!("cidr:{net}")]);
        }
        let zones = self.local_zones();
        let within = zones.flat_map(|it| it.1).filter_map(|subnet| {
            if net.contains(&subnet) {
                Some(format!("cidr:{subnet}"))
            } else if subnet.contains(&net) {
                Some(format!("cidr:{net}"))
            } else {
                None
            }
        });
        let within: Vec<String> = within.collect();
        if within.is_empty() {
            return Err(Nobody::held(format!("{net} is of no local network")));
        }
        Ok(within)
    }

    /// Who is in a class of controllers. The class is only a name, also when it is a URL.
    pub(crate) fn controllers(&self, class: &str) -> Result<Vec<String>, Nobody> {
        let value = label_value(class);
        let is_key = |key: &str| {
            let rest = key.strip_prefix(CONTROLLER);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let labels = self.labels().filter(|it| is_key(it.0) && *it.1 == value);
        let mut members: Vec<String> = labels
            .map(|(key, value)| format!("label:{key}={value}"))
            .collect();
        if class == GATEWAY || self.router_is.iter().any(|it| it == class) {
            members.push("router".to_owned());
        }
        if members.is_empty() {
            return Err(Nobody {
                why: format!(
                    "nobody is the controller {class}: give a device or a zone the label \
                     {CONTROLLER}: {value:?}, or add the class to mud.router_is if it is the router"
                ),
                class: Some(format!("controller {class}")),
            });
        }
        Ok(members)
    }

    /// The devices whose files have URLs of an authority.
    fn made_by(&self, authority: &str) -> Result<Vec<String>, Nobody> {
        let of_profiles = profiles(self.document)
            .filter(|(url, _)| MudUrl::read(url).is_ok_and(|it| it.authority == authority));
        let own = (self.url.authority == authority).then_some(self.subject);
        let class = || format!("manufacturer {authority}");
        self.labelled(MAKER, authority, of_profiles.map(|it| it.1), own, class)
    }

    /// The devices that have exactly this file.
    fn with_file(&self, url: &str) -> Result<Vec<String>, Nobody> {
        let of_profiles = profiles(self.document).filter(|it| it.0 == url);
        let own = (self.url.whole == url).then_some(self.subject);
        let class = || format!("model {url}");
        self.labelled(FILE, url, of_profiles.map(|it| it.1), own, class)
    }

    fn labelled<'b>(
        &self,
        key: &str,
        value: &str,
        profiles: impl Iterator<Item = &'b str>,
        own: Option<&'b str>,
        class: impl Fn() -> String,
    ) -> Result<Vec<String>, Nobody> {
        let value = label_value(value);
        let has = self.labels().any(|it| it.0 == key && *it.1 == value);
        let label = has.then(|| format!("label:{key}={value}"));
        // Devices that are bound by a label of the site do not have ours.
        let others = profiles
            .chain(own)
            .filter(|it| !has || !it.starts_with("label:mud="));
        let mut members: Vec<String> = others.map(str::to_owned).collect();
        members.extend(label);
        if members.is_empty() {
            let class = class();
            return Err(Nobody {
                why: format!(
                    "no device of the {class} is here: none has the label {key}: {value:?}"
                ),
                class: Some(class),
            });
        }
        Ok(members)
    }

    fn labels(&self) -> impl Iterator<Item = (&String, &String)> {
        let of_zones = self.document.zones.iter().flat_map(|it| &it.labels);
        of_zones.chain(self.document.devices.iter().flat_map(|it| &it.labels))
    }
}

/// The profiles of a document, by their rules: the URL of the file, and the selector of its devices.
fn profiles(document: &Policy) -> impl Iterator<Item = (&str, &str)> {
    let rules = document.rules.iter();
    rules.filter_map(|rule| Some((rule.ticket.as_str(), subject_of(rule)?)))
}

/// The selector of the devices of a profile, by one of its rules.
pub(crate) fn subject_of(rule: &Rule) -> Option<&str> {
    rule.labels.get(FILE)?;
    let end = match rule.labels.get(DIRECTION)?.as_str() {
        "from-device" => rule.from.first(),
        _ => rule.to.first(),
    };
    end.map(String::as_str)
}

/// Whether a rule came of the file of a device with these labels, its zone's among them.
pub fn is_rule_of<'a>(
    rule: &Rule,
    mut labels: impl Iterator<Item = (&'a String, &'a String)>,
) -> bool {
    let label = subject_of(rule).and_then(|it| it.strip_prefix("label:"));
    let label = label.and_then(|it| it.split_once('='));
    label.is_some_and(|(key, value)| labels.any(|it| it.0 == key && it.1 == value))
}

//! Questions to groups by rules that let others answer, and whether a packet answers one.

use std::{collections::BTreeSet, net::IpAddr};

use wardline_proto::v1::Reason;

use super::{Sequence, is_to_group};
use crate::{
    dissect::{Frame, Ip, Upper},
    oracle::{Drop, End, Sender},
};

/// Questions that one sender may have open.
const OPEN: usize = 8;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asker {
    Router,
    Other(Sender),
}

/// A question: where its answers go, and the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    address: IpAddr,
    port: u16,
    rule: String,
}

impl Sequence<'_> {
    /// Notes what a packet asks that policy has admitted by these rules.
    pub(super) fn ask(
        &mut self,
        frame: &Frame,
        ip: &Ip,
        source: End<'_>,
        rules: &BTreeSet<String>,
    ) {
        let Upper::Udp { from: port, .. } = ip.upper else {
            return;
        };
        let asks = rules.iter().find(|name| self.oracle.lets_answer(name));
        let (true, Some(rule)) = (is_to_group(frame, ip), asks) else {
            return;
        };
        let asker = match source {
            End::Router => Asker::Router,
            End::Other { device, .. } => Asker::Other(Sender::new(device, frame.source)),
        };
        let question = Question {
            address: ip.source,
            port,
            rule: rule.clone(),
        };
        let own = self.questions.entry(asker).or_default();
        if own.contains(&question) {
            return;
        }
        if own.len() < OPEN {
            own.push(question);
        } else {
            // All have as long to go, since no time passes here.
            own[0] = question;
        }
    }

    /// The verdict on what may be an answer, from the end that opens the flow to the one that has
    /// asked at an address and port.
    pub(super) fn answered(
        &self,
        admitted: Result<BTreeSet<String>, Drop>,
        (opener, asker): (End<'_>, End<'_>),
        (address, port): (IpAddr, u16),
    ) -> Result<BTreeSet<String>, Drop> {
        let denied = match admitted {
            Err(drop) if matches!(drop.reason, Reason::NoRule | Reason::Expired) => drop,
            admitted => return admitted,
        };
        let who = match asker {
            End::Router => Some(Asker::Router),
            End::Other {
                device: Some(device),
                ..
            } => Some(Asker::Other(Sender::Device(device.name.clone()))),
            End::Other { device: None, .. } => self.oracle.guest_of(address).map(Asker::Other),
        };
        let questions = who.and_then(|who| self.questions.get(&who));
        let mut questions = questions.into_iter().flatten();
        let question = questions.find(|it| (it.address, it.port) == (address, port));
        let Some(question) = question else {
            return Err(denied);
        };
        if self.oracle.may_answer(&question.rule, opener, asker) {
            Ok(BTreeSet::from([question.rule.clone()]))
        } else {
            Err(denied)
        }
    }
}

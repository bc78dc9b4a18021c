//! What a device may still do in quarantine.

use wardline_policy::{
    failsafe::Failsafe,
    intent::{Action, Device, Intent, Selector},
};

/// The rules and the failsafe that hold for a device in quarantine, as warnings.
pub(super) fn goes_on(intent: &Intent, device: &Device, failsafe: &[Failsafe]) -> Vec<String> {
    let names = |selectors: &[Selector]| {
        selectors.iter().any(|selector| match selector {
            Selector::Any => true,
            Selector::Router | Selector::Internet => false,
            Selector::Zone(zone) => *zone == device.zone,
            Selector::Device(at) => intent.devices[at.0].name == device.name,
            Selector::Cidr(net) => device.addresses.iter().any(|it| net.contains(it)),
        })
    };
    let kept = intent.rules.iter().filter(|rule| {
        let keeps = rule.kept && rule.action == Action::Allow;
        keeps && (names(&rule.from) || names(&rule.to))
    });
    let kept = kept.map(|rule| format!("rule {} holds in quarantine, too", rule.name));
    let spared = failsafe.iter().filter(|failsafe| {
        let mut addresses = device.addresses.iter();
        addresses.any(|address| failsafe.has(*address))
    });
    let spared = spared.map(|failsafe| {
        let services = failsafe.service_texts().join(", ");
        format!("by the router's failsafe it may still reach the router: {services}")
    });
    kept.chain(spared).collect()
}

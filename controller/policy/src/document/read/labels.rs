//! Finds who has the labels that rules name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    document::Document,
    intent::{DeviceIndex, LabelIndex, Labelled},
    words::{label::Label, name::Names, problem::Quoted},
};

/// Most values of a key that a message names.
const NAMED: usize = 6;

/// The labels that rules name and somebody has, and what else there is for a message.
pub(super) struct Labels {
    /// By key and value.
    pub(super) named: Vec<Labelled>,
    /// The values of each key that a rule names, a few of them.
    values: BTreeMap<String, BTreeSet<String>>,
}

impl Labels {
    pub(super) fn of(document: &Document, devices: &Names<'_>) -> Self {
        let rules = document.rules.iter();
        let texts = rules.flat_map(|it| it.from.iter().chain(&it.to).chain(&it.answers_from));
        let labels = texts.filter_map(|it| it.strip_prefix("label:")?.parse().ok());
        let wanted: BTreeSet<Label> = labels.collect();
        if wanted.is_empty() {
            return Self {
                named: Vec::new(),
                values: BTreeMap::new(),
            };
        }
        let mut values: BTreeMap<String, BTreeSet<String>> = wanted
            .iter()
            .map(|it| (it.key.clone(), BTreeSet::new()))
            .collect();
        let mut found: BTreeMap<Label, Vec<DeviceIndex>> = BTreeMap::new();
        // The labels of an object that rules name.
        let mut look = |labels: &BTreeMap<String, String>| -> Vec<Label> {
            let mut have = Vec::new();
            for (key, value) in labels {
                let Some(seen) = values.get_mut(key) else {
                    continue;
                };
                if seen.len() < NAMED {
                    seen.insert(value.clone());
                }
                let label = Label {
                    key: key.clone(),
                    value: value.clone(),
                };
                if wanted.contains(&label) {
                    have.push(label);
                }
            }
            have
        };
        let mut of_zone: HashMap<&str, Vec<Label>> = HashMap::new();
        for zone in &document.zones {
            let have = look(&zone.labels);
            for label in &have {
                found.entry(label.clone()).or_default();
            }
            of_zone.insert(&zone.name, have);
        }
        for device in &document.devices {
            let mut have = look(&device.labels);
            have.extend(
                of_zone
                    .get(device.zone.as_str())
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
            for label in have {
                let at = devices.find(&device.name).map(DeviceIndex);
                found.entry(label).or_default().extend(at);
            }
        }
        let named = found.into_iter().map(|(label, mut devices)| {
            devices.sort_unstable();
            devices.dedup();
            Labelled { label, devices }
        });
        Self {
            named: named.collect(),
            values,
        }
    }

    /// Reads the label of a selector.
    ///
    /// # Errors
    /// What is wrong with it: also that nobody has it, because a rule that means nobody by mistake
    /// would not deny what it should.
    pub(super) fn read(&self, text: &str) -> Result<LabelIndex, String> {
        let label: Label = text.parse()?;
        let at = self.named.binary_search_by(|it| it.label.cmp(&label));
        at.map(LabelIndex).map_err(|_| {
            let quoted = Quoted(text);
            let (key, cure) = (&label.key, "give it to one, or correct it here");
            match self.values.get(key).filter(|it| !it.is_empty()) {
                None => format!("no device and no zone has a label {key}; {cure}"),
                Some(values) => {
                    let some: Vec<String> =
                        values.iter().map(|it| Quoted(it).to_string()).collect();
                    let some = some.join(", ");
                    format!(
                        "no device and no zone has the label {quoted}; of {key} there is {some}"
                    )
                }
            }
        })
    }
}

//! A file with its signature becomes an edit of the document; whom it is trusted by comes first.

use std::collections::BTreeSet;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use wardline_proto::v1::{Policy, Rule};

use crate::{
    anchors::Anchors,
    file::File,
    profile::{Default, Profile, Told},
    signature::{Signer, verify},
    site::{FILE, MAKER, Site, subject_of},
    words::{hex, label_value, shown},
};

/// The label of a rule with the key that its file was signed by.
const SIGNER: &str = "mud-signer";
/// The label of a rule that says what its file was believed by.
const TRUST: &str = "mud-trust";

/// A file, and what it is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The file's bytes.
    pub file: &'a [u8],
    /// A detached signature over them; empty: there is none.
    pub signature: &'a [u8],
    /// Whom the site trusts to sign.
    pub anchors: &'a Anchors,
    /// The time at which certificates have to be good.
    pub now: Timestamp,
    /// Whom the file is for; none: nobody yet.
    pub subject: Option<&'a Subject>,
    /// Whether a person approves of the file.
    pub is_approved: bool,
    /// The document in force.
    pub document: &'a Policy,
    /// The classes of controllers that the router itself is in.
    pub router_is: &'a [String],
}

/// Whom a file is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A device, which gets the labels of the file.
    Device(String),
    /// The devices that have a label, as `KEY=VALUE`.
    Label(String),
}

/// Why a file is believed, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its signature holds.
    Verified,
    /// A person approves of it.
    Approved,
    /// There is no signature, and nobody approves of it.
    Unsigned,
    /// There is a signature, and it does not hold.
    Refused,
}

impl Trust {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Approved => "approved",
            Self::Unsigned => "unsigned",
            Self::Refused => "refused",
        }
    }

    /// Whether rules may come of the file.
    pub fn suffices(self) -> bool {
        matches!(self, Self::Verified | Self::Approved)
    }
}

/// What came of a file.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Whether it is believed.
    pub trust: Trust,
    /// Why.
    pub why: String,
    /// Who has signed it.
    pub signer: Option<Signer>,
    /// The SHA-256 of the file.
    pub sha256: String,
    /// The URL that the file is known by; empty for one that was not read.
    pub url: String,
    /// What its maker says the device is.
    pub systeminfo: String,
    /// The value of the label `mud` that its devices and rules have.
    pub profile: String,
    /// What became of each entry.
    pub aces: Vec<Told>,
    /// What became of what every device may.
    pub defaults: Vec<Default>,
    /// The classes that nobody is in, and the names that can't be used.
    pub unresolved: Vec<String>,
    /// What is odd, and what follows.
    pub notices: Vec<String>,
    /// The objects to put into the document.
    pub put: Policy,
    /// The rules to delete: those of an earlier version of the file.
    pub delete: Vec<String>,
}

/// Why nothing came of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Refused {
    /// Where: `file`, `device`, `label`, or a rule.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

fn refused(path: &str, message: impl Into<String>) -> Refused {
    Refused {
        path: path.to_owned(),
        message: message.into(),
    }
}

/// Makes of a file an edit of the document, or says why not.
///
/// # Errors
/// Why the file, or whom it is for, is refused. A signature that does not hold is no error: then the file is
/// not read, and [`Imported::trust`] says so.
pub fn import(request: &Request<'_>) -> Result<Imported, Refused> {
    let sha256 = hex(digest(&SHA256, request.file).as_ref());
    // Before anything of the file is read.
    let signer = match request.signature {
        [] => None,
        signature => match verify(request.file, signature, request.anchors, request.now) {
            Ok(signer) => Some(signer),
            Err(why) => return Ok(Imported::unread(sha256, format!("the signature: {why}"))),
        },
    };
    let file = File::read(request.file).map_err(|why| refused("file", why))?;
    let profile_label = label_value(&file.url.whole);
    let of_profile =
        |it: &&Rule| it.labels.get(FILE) == Some(&profile_label) && it.ticket == file.url.whole;
    let earlier: Vec<&Rule> = request.document.rules.iter().filter(of_profile).collect();
    let mut notices = file.notices.clone();
    let before = earlier.iter().find_map(|it| it.labels.get(SIGNER));
    let (trust, why) = trust(request, signer.as_ref(), before);
    let subject = match request.subject {
        Some(Subject::Label(label)) => format!("label:{label}"),
        Some(Subject::Device(_)) | None => format!("label:{FILE}={profile_label}"),
    };
    let mut others = earlier.iter().filter_map(|it| subject_of(it));
    if let Some(other) = others.find(|it| *it != subject && request.subject.is_some()) {
        notices.push(format!(
            "the rules of this file were for {other}, and are for {subject} now"
        ));
    }
    let mut document = request.document.clone();
    let mut put = Policy {
        version: 1,
        ..Policy::default()
    };
    if let Some(Subject::Device(name)) = request.subject {
        let device = document.devices.iter_mut().find(|it| it.name == *name);
        let device = device.ok_or_else(|| {
            refused(
                "device",
                format!("no device {} in the document", shown(name)),
            )
        })?;
        let maker = label_value(&file.url.authority);
        device.labels.insert(MAKER.to_owned(), maker);
        let other = device.labels.insert(FILE.to_owned(), profile_label.clone());
        if let Some(other) = other.filter(|it| *it != profile_label) {
            notices.push(format!("the device {name} had the file {other} until now"));
        }
        put.devices.push(device.clone());
    }
    let site = Site {
        document: &document,
        router_is: request.router_is,
        url: &file.url,
        subject: &subject,
        is_approved: request.is_approved,
    };
    let mut profile = Profile::of(&file, &site);
    for rule in &mut profile.rules {
        rule.labels
            .insert(TRUST.to_owned(), trust.word().to_owned());
        if let Some(signer) = &signer {
            rule.labels.insert(SIGNER.to_owned(), signer.key.clone());
        }
    }
    let names: BTreeSet<&str> = profile.rules.iter().map(|it| it.name.as_str()).collect();
    let foreign = |it: &&Rule| names.contains(it.name.as_str()) && !of_profile(it);
    if let Some(rule) = request.document.rules.iter().find(foreign) {
        let message = "is there already, and is no rule of this file; rename it first";
        return Err(refused(&format!("rule/{}", rule.name), message));
    }
    let gone = earlier
        .iter()
        .filter(|it| !names.contains(it.name.as_str()));
    let delete = gone.map(|it| format!("rule/{}", it.name)).collect();
    put.rules = profile.rules;
    Ok(Imported {
        trust,
        why,
        signer,
        sha256,
        url: file.url.whole,
        systeminfo: file.systeminfo,
        profile: profile_label,
        aces: profile.aces,
        defaults: profile.defaults,
        unresolved: profile.unresolved.into_iter().collect(),
        notices,
        put,
        delete,
    })
}

/// Whether a file is believed that has no signature, or one that holds.
fn trust(
    request: &Request<'_>,
    signer: Option<&Signer>,
    before: Option<&String>,
) -> (Trust, String) {
    match signer {
        Some(signer) if before.is_some_and(|it| *it != signer.key) => {
            let changed = "the signature holds, but by another key than the one before";
            if request.is_approved {
                (
                    Trust::Approved,
                    format!("{changed}; a person approves of it"),
                )
            } else {
                let cure = "ask the maker, then approve of it with --approve REASON";
                (Trust::Unsigned, format!("{changed}; {cure}"))
            }
        }
        Some(signer) => (Trust::Verified, format!("signed by {}", signer.subject)),
        None if request.is_approved => (
            Trust::Approved,
            "there is no signature; a person approves of it".to_owned(),
        ),
        None => {
            let cure = "give it with --signature, or approve of the file with --approve REASON";
            (Trust::Unsigned, format!("there is no signature; {cure}"))
        }
    }
}

impl Imported {
    /// What comes of a file that is not read.
    fn unread(sha256: String, why: String) -> Self {
        Self {
            trust: Trust::Refused,
            why,
            signer: None,
            sha256,
            url: String::new(),
            systeminfo: String::new(),
            profile: String::new(),
            aces: Vec::new(),
            defaults: Vec::new(),
            unresolved: Vec::new(),
            notices: Vec::new(),
            put: Policy::default(),
            delete: Vec::new(),
        }
    }
}

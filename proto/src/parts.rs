//! A document in parts, one for each file: reads them as one, and says of each problem where it is.

use std::fmt::Write as _;

use crate::{
    document::{EMPTY, Problem, read_part},
    tree::{Node, Placed},
    v1::Policy,
};

/// A text, and the name by which people know it: its file.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file.
    pub name: &'a str,
    /// What it says.
    pub text: &'a str,
}

/// A document that was read from parts.
#[derive(Debug, Default)]
pub struct Parts {
    /// What could be read: the objects of all parts, one part after the other.
    pub policy: Policy,
    /// What could not, by part.
    problems: Vec<(usize, Problem)>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: String,
    root: Placed,
    /// Where its objects begin among those of all parts, by list.
    begins: [usize; LISTS.len()],
}

/// Whether a path leads into a document; a request has other fields, too.
fn is_of_document(path: &str) -> bool {
    let field = path.split(['.', '[']).next().unwrap_or_default();
    ["", "version"].contains(&field) || LISTS.contains(&field)
}

/// The lists of a document.
const LISTS: [&str; 6] = [
    "zones",
    "ports",
    "devices",
    "services",
    "rules",
    "resolvers",
];

impl Parts {
    /// Reads a document in parts. Each part may have the version, and one of them must.
    pub fn read(sources: &[Source<'_>]) -> Self {
        let mut all = Self::default();
        for source in sources {
            all.add(source, sources.len() == 1);
        }
        if sources.len() > 1 && all.parts.iter().all(|part| part.root.node == Node::Nothing) {
            all.found(0, "", EMPTY.to_owned());
        }
        all
    }

    /// Reads a few objects in parts; the version may be left out.
    pub fn read_fragment(sources: &[Source<'_>]) -> Self {
        let mut all = Self::read(sources);
        if all.policy.version == 0 {
            all.policy.version = 1;
        }
        all
    }

    /// Whether all of it could be read.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether some of it could be read, so that it makes sense to ask for further problems.
    pub fn is_readable(&self) -> bool {
        self.problems.iter().all(|(_, it)| !it.path.is_empty())
    }

    /// What could not be read, and further problems of the document, each with its place. Those at a place
    /// that could not be read are left out, because they only follow from that.
    pub fn told(&self, further: &[Problem]) -> Vec<Problem> {
        let own = self.problems.iter();
        let mut told: Vec<Problem> = own
            .map(|(part, problem)| self.parts[*part].told(&problem.path, &problem.message))
            .collect();
        let follows = |problem: &Problem| {
            let (part, path) = self.locate(&problem.path);
            self.problems.iter().any(|(unread_in, unread)| {
                let rest = path.strip_prefix(&unread.path);
                part.is_none_or(|part| part == *unread_in)
                    && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            })
        };
        let further = further.iter().filter(|it| !follows(it));
        told.extend(further.map(|it| self.placed(it)));
        told
    }

    /// A problem of the whole document, as the author of its parts knows it: by the position in the
    /// part, the object's name, file and line. Other objects that its message names are placed, too.
    pub fn placed(&self, problem: &Problem) -> Problem {
        let message = self.place_all(&problem.message);
        match (self.locate(&problem.path), &self.parts[..]) {
            ((Some(part), path), _) => self.parts[part].told(&path, &message),
            ((None, path), [part]) if is_of_document(&path) => part.told(&path, &message),
            ((None, path), _) => Problem { path, message },
        }
    }

    fn add(&mut self, source: &Source<'_>, is_all: bool) {
        let (root, policy, problems) = read_part(source.text);
        let (part, is_nothing) = (self.parts.len(), root.node == Node::Nothing);
        self.parts.push(Part {
            name: source.name.to_owned(),
            root,
            begins: counts(&self.policy),
        });
        // A part may have nothing to say; a whole document may not.
        if is_all || !is_nothing {
            self.problems
                .extend(problems.into_iter().map(|it| (part, it)));
        }
        match (self.policy.version, policy.version) {
            (0, version) => self.policy.version = version,
            (one, other) if one == other || other == 0 => {}
            (one, other) => {
                self.found(
                    part,
                    "version",
                    format!("{other} here, and {one} in a part before"),
                );
            }
        }
        self.policy.zones.extend(policy.zones);
        self.policy.ports.extend(policy.ports);
        self.policy.devices.extend(policy.devices);
        self.policy.services.extend(policy.services);
        self.policy.rules.extend(policy.rules);
        self.policy.resolvers.extend(policy.resolvers);
    }

    fn found(&mut self, part: usize, path: &str, message: String) {
        let path = path.to_owned();
        self.problems.push((part, Problem { path, message }));
    }

    /// The part that a path of the whole document is in, and the path there.
    fn locate(&self, path: &str) -> (Option<usize>, String) {
        let found = indexed(path).and_then(|(list, position, rest)| {
            let at = LISTS.iter().position(|it| *it == list)?;
            let part = self
                .parts
                .iter()
                .rposition(|it| it.begins[at] <= position)?;
            let local = position - self.parts[part].begins[at];
            Some((part, format!("{list}[{local}]{rest}")))
        });
        match found {
            Some((part, path)) => (Some(part), path),
            None => (None, path.to_owned()),
        }
    }

    /// A message in which every object that it names by position has its place.
    fn place_all(&self, message: &str) -> String {
        let mut placed = String::new();
        let mut rest = message;
        while let Some(at) = LISTS.iter().filter_map(|list| find(rest, list)).min() {
            let (before, named) = rest.split_at(at);
            let is_path = |c: char| c.is_ascii_alphanumeric() || "_.[]".contains(c);
            let end = named.find(|c| !is_path(c)).unwrap_or(named.len());
            let (path, after) = named.split_at(end);
            placed += before;
            let (part, path) = self.locate(path);
            placed += &path;
            if let Some(part) = part {
                // A message can always be written to.
                let _ = write!(placed, " ({})", self.parts[part].place(&path));
            }
            rest = after;
        }
        placed + rest
    }
}

impl Part {
    /// A problem of this part, with the object's name, and its place.
    fn told(&self, path: &str, message: &str) -> Problem {
        let place = match path {
            "" => self.name.clone(),
            path => self.place(path),
        };
        let name = self.object(path).map(|name| format!("{name}, "));
        let name = name.unwrap_or_default();
        Problem {
            path: path.to_owned(),
            message: format!("{message} ({name}{place})"),
        }
    }

    /// `FILE:LINE` of a path, or of as much of it as is there.
    fn place(&self, path: &str) -> String {
        let mut here = &self.root;
        let mut line = here.line;
        for step in path.split(['.', '[']).filter(|it| !it.is_empty()) {
            let next = match (&here.node, step.strip_suffix(']')) {
                (Node::List(nodes), Some(position)) => {
                    position.parse().ok().and_then(|at: usize| nodes.get(at))
                }
                (Node::Mapping(_), None) => field(here, step),
                _ => None,
            };
            let Some(next) = next else { break };
            here = next;
            line = here.line;
        }
        let name = &self.name;
        match line {
            0 => name.clone(),
            line => format!("{name}:{line}"),
        }
    }

    /// The object that a path is inside of, as `device pump-1`.
    fn object(&self, path: &str) -> Option<String> {
        let (list, position, _) = indexed(path)?;
        let Node::List(objects) = &field(&self.root, list)?.node else {
            return None;
        };
        let name = match list {
            "ports" => "interface",
            "resolvers" => "address",
            _ => "name",
        };
        match &field(objects.get(position)?, name)?.node {
            Node::Text(name) => Some(format!("{} {name}", list.strip_suffix('s')?)),
            _ => None,
        }
    }
}

/// A field of a mapping.
fn field<'a>(of: &'a Placed, name: &str) -> Option<&'a Placed> {
    let Node::Mapping(entries) = &of.node else {
        return None;
    };
    let mut entries = entries.iter();
    let found = entries.find(|(key, _)| matches!(key, Node::Text(key) if key == name));
    found.map(|(_, value)| value)
}

/// The list, the position and the rest of a path as `devices[1].zone`.
fn indexed(path: &str) -> Option<(&str, usize, &str)> {
    let (list, rest) = path.split_once('[')?;
    let (position, rest) = rest.split_once(']')?;
    LISTS.contains(&list).then_some(())?;
    Some((list, position.parse().ok()?, rest))
}

/// Where a text names an object of a list by its position.
fn find(text: &str, list: &str) -> Option<usize> {
    let mut places = text.match_indices(list).map(|(at, _)| at);
    places.find(|at| {
        let before = text[..*at].chars().next_back();
        let is_inside = before.is_some_and(|c| c.is_ascii_alphanumeric() || "_\".".contains(c));
        !is_inside && indexed(&text[*at..]).is_some_and(|(found, ..)| found == list)
    })
}

fn counts(policy: &Policy) -> [usize; LISTS.len()] {
    [
        policy.zones.len(),
        policy.ports.len(),
        policy.devices.len(),
        policy.services.len(),
        policy.rules.len(),
        policy.resolvers.len(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONES: &str = "# zones\nversion: 1\nzones:\n  - name: pumps\n";
    const DEVICES: &str = "devices:\n  - name: a\n    zone: pumps\n  - {name: b, zone: pumsp}\n";
    const MORE: &str = "version: 1\ndevices:\n  - {name: a, zone: pumps}\n";

    fn source<'a>(name: &'a str, text: &'a str) -> Source<'a> {
        Source { name, text }
    }

    fn problem(path: &str, message: &str) -> Problem {
        Problem {
            path: path.to_owned(),
            message: message.to_owned(),
        }
    }

    fn parts() -> Parts {
        Parts::read(&[
            source("zones.yaml", ZONES),
            source("d/devices.yaml", DEVICES),
            source("empty.yaml", "# nothing yet\n"),
            source("more.yaml", MORE),
        ])
    }

    #[test]
    fn parts_are_one_document() {
        let all = parts();
        assert!(all.is_whole(), "{:?}", all.told(&[]));
        let names: Vec<_> = all
            .policy
            .devices
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(names, ["a", "b", "a"]);
        assert_eq!((all.policy.version, all.policy.zones.len()), (1, 1));
    }

    #[test]
    fn a_problem_is_placed_in_its_part_and_names_the_other_place_too() {
        let all = parts();
        let line = |path: &str, message: &str| all.placed(&problem(path, message)).to_string();
        assert_eq!(
            line("devices[1].zone", "no zone \"pumsp\""),
            "devices[1].zone: no zone \"pumsp\" (device b, d/devices.yaml:4)"
        );
        assert_eq!(
            line("devices[2].name", "\"a\" is the name of devices[0] already"),
            "devices[0].name: \"a\" is the name of devices[0] (d/devices.yaml:2) already \
             (device a, more.yaml:3)"
        );
        assert_eq!(
            line(
                "devices[2].addresses[0]",
                "is at devices[1].zone, rules[7] and \"rules[0]\""
            ),
            "devices[0].addresses[0]: is at devices[1].zone (d/devices.yaml:4), \
             rules[7] (more.yaml:1) and \"rules[0]\" (device a, more.yaml:3)"
        );
        assert_eq!(
            line("devices", "3 devices, but limits.devices is 2"),
            "devices: 3 devices, but limits.devices is 2"
        );
    }

    #[test]
    fn what_can_not_be_read_is_placed_and_what_follows_from_it_left_out() {
        let all = Parts::read(&[
            source("a.yaml", "version: 1\ndevices:\n  - 7\n"),
            source(
                "b.yaml",
                "version: 2\ndevices:\n  - name: b\n    zone: [x]\n",
            ),
        ]);
        assert!(!all.is_whole() && all.is_readable());
        let further = [
            "devices[0].name",
            "devices[1].zone",
            "devices[1].name",
            "version",
        ];
        let further = further.map(|path| problem(path, "wrong"));
        let told: Vec<String> = all.told(&further).iter().map(Problem::to_string).collect();
        assert!(
            told[0].starts_with("devices[0]: expected a mapping"),
            "{told:?}"
        );
        assert!(told[0].ends_with("found 7 (a.yaml:3)"), "{told:?}");
        assert_eq!(
            told[1..],
            [
                "devices[0].zone: expected text, found a list (device b, b.yaml:4)",
                "version: 2 here, and 1 in a part before (b.yaml:1)",
                "devices[0].name: wrong (device b, b.yaml:3)",
            ]
        );
    }

    #[test]
    fn a_text_that_is_none_is_told_with_its_file() {
        for (texts, told) in [
            (
                vec!["a: ["],
                "not YAML: unclosed bracket '[' at line 1, column 4 (0.yaml)",
            ),
            (vec![""], "the document is empty (0.yaml)"),
            (vec!["", "# x"], "the document is empty (0.yaml)"),
            (
                vec!["version: 1", "a: b: c"],
                "at line 1, column 5 (1.yaml)",
            ),
        ] {
            let names: Vec<String> = (0..texts.len()).map(|i| format!("{i}.yaml")).collect();
            let sources = names
                .iter()
                .zip(&texts)
                .map(|(name, text)| source(name, text));
            let all = Parts::read(&sources.collect::<Vec<_>>());
            assert!(!all.is_readable());
            let lines: Vec<String> = all.told(&[]).iter().map(Problem::to_string).collect();
            assert!(lines[0].ends_with(told), "{lines:?}");
        }
    }

    #[test]
    fn a_fragment_needs_no_version() {
        let fragment = Parts::read_fragment(&[source("f.yaml", "zones: [{name: a}]")]);
        assert_eq!((fragment.policy.version, fragment.is_whole()), (1, true));
        let fragment = Parts::read_fragment(&[source("f.yaml", "version: 2")]);
        assert_eq!(fragment.policy.version, 2);
        let whole = Parts::read(&[source("f.yaml", "zones: [{name: a}]")]);
        assert_eq!(whole.policy.version, 0);
    }
}

//! Checks the pages: their links resolve, every path in them exists, and their policies are valid.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use wardline_daemon::config::Config;
use wardline_policy::{intent::Intent, limits::Limits};
use wardline_proto::document;

/// Folders whose names begin a path of this repository.
const FOLDERS: [&str; 9] = [
    "bench/",
    "cli/",
    "controller/",
    "docs/",
    "ebpf/",
    "examples/",
    "proto/",
    "tests/",
    "xtask/",
];

/// The most lines that the README may have, because its readers want to get started.
const README_LINES: usize = 150;

/// One page: where it is, and what it holds.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    /// All pages for readers, with their paths from the repository's root.
    fn all() -> Vec<Self> {
        let top = fs::read_dir(root()).expect("a folder").flatten();
        let mut paths: Vec<PathBuf> = top.map(|entry| entry.path()).collect();
        paths.extend(below(&root().join("docs")));
        paths.retain(|path| path.extension().is_some_and(|it| it == "md"));
        paths.sort();
        let read = |path: PathBuf| Self {
            text: fs::read_to_string(&path).expect("a page"),
            path,
        };
        paths.into_iter().map(read).collect()
    }

    fn events(&self) -> Parser<'_> {
        Parser::new_ext(&self.text, Options::ENABLE_TABLES)
    }

    fn name(&self) -> String {
        let path = self.path.strip_prefix(root()).unwrap_or(&self.path);
        path.display().to_string()
    }

    fn links(&self) -> Vec<String> {
        let link = |event| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some(dest_url.to_string())
            }
            _ => None,
        };
        self.events().filter_map(link).collect()
    }

    /// The targets of a link's `#`: headings, in the form that Git forges give their anchors.
    fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        let mut heading = None;
        for event in self.events() {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let slug = heading.take().map(|text| slug(&text)).unwrap_or_default();
                    let numbered = (1..).map(|number| format!("{slug}-{number}"));
                    let mut names = std::iter::once(slug.clone()).chain(numbered);
                    anchors.extend(names.find(|name| !anchors.contains(name)));
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        anchors
    }

    /// Code within the text that names a file or folder of this repository.
    fn paths(&self) -> Vec<String> {
        let path = |event| match event {
            Event::Code(code) => Some(code.to_string()),
            _ => None,
        };
        self.events()
            .filter_map(path)
            .filter(|code| {
                let known = FOLDERS.iter().any(|folder| code.starts_with(folder));
                // For example `proto/47`, which is a service.
                let service = code.ends_with(|last: char| last.is_ascii_digit());
                !code.contains(['*', ' ']) && !service && (known || code.ends_with(".rs"))
            })
            .collect()
    }

    /// Code within the text that can only be the name of a test, because tests are named in
    /// sentences.
    fn tests(&self) -> Vec<String> {
        let test = |event| match event {
            Event::Code(code) => Some(code.to_string()),
            _ => None,
        };
        // A test may be named with its modules before it.
        let last = |code: String| code.rsplit("::").next().map(str::to_owned);
        self.events()
            .filter_map(test)
            .filter_map(last)
            .filter(|code| {
                let word = |letter: char| letter.is_ascii_lowercase() || letter == '_';
                code.chars().all(word)
                    && code.matches('_').count() > 2
                    && !code.starts_with("wardline_")
            })
            .collect()
    }

    /// Blocks of code in a language.
    fn blocks(&self, language: &str) -> Vec<String> {
        let mut blocks = Vec::new();
        let mut block = None;
        for event in self.events() {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) if *info == *language => {
                    block = Some(String::new());
                }
                Event::Text(text) => {
                    if let Some(block) = &mut block {
                        block.push_str(&text);
                    }
                }
                Event::End(TagEnd::CodeBlock) => blocks.extend(block.take()),
                _ => {}
            }
        }
        blocks
    }
}

#[test]
fn links_resolve() {
    let mut broken = Vec::new();
    let pages = Page::all();
    for page in &pages {
        for link in page.links() {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = page.path.parent().expect("a page is in a folder");
            let target = match file {
                "" => page.path.clone(),
                file => folder.join(file),
            };
            let Ok(target) = target.canonicalize() else {
                broken.push(format!("{}: {link}: there is no such file", page.name()));
                continue;
            };
            let known = pages.iter().find(|page| page.path == target);
            let found = known.is_some_and(|page| page.anchors().contains(anchor));
            if !anchor.is_empty() && !found {
                broken.push(format!("{}: {link}: there is no such heading", page.name()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_path_that_a_page_names_exists() {
    let mut missing = Vec::new();
    for page in Page::all() {
        let paths = page.paths().into_iter();
        let gone = paths.filter(|path| !root().join(path).exists());
        missing.extend(gone.map(|path| format!("{}: {path}", page.name())));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_test_that_a_page_names_exists() {
    let mut sources = String::new();
    for folder in ["tests", "controller", "ebpf"] {
        for path in below(&root().join(folder)) {
            if path.extension().is_some_and(|it| it == "rs") {
                sources.push_str(&fs::read_to_string(path).expect("a source"));
            }
        }
    }
    let mut missing = Vec::new();
    for page in Page::all() {
        let tests = page.tests().into_iter();
        let gone = tests.filter(|test| !sources.contains(&format!("fn {test}(")));
        missing.extend(gone.map(|test| format!("{}: {test}", page.name())));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_page_can_be_reached_from_the_readme() {
    let pages = Page::all();
    let mut reached = BTreeSet::new();
    let mut next = vec![root().join("README.md")];
    while let Some(path) = next.pop() {
        let Some(page) = pages.iter().find(|page| page.path == path) else {
            continue;
        };
        if !reached.insert(path.clone()) {
            continue;
        }
        let folder = path.parent().expect("a page is in a folder");
        let files = page.links().into_iter().filter_map(|link| {
            let file = link.split('#').next().unwrap_or_default().to_owned();
            folder.join(file).canonicalize().ok()
        });
        next.extend(files);
    }
    let lost = pages.iter().filter(|page| !reached.contains(&page.path));
    let lost: Vec<String> = lost.map(Page::name).collect();
    assert!(lost.is_empty(), "no way leads to: {}", lost.join(", "));
}

#[test]
fn every_policy_in_a_page_is_accepted() {
    let mut refused = Vec::new();
    let mut count = 0;
    for page in Page::all() {
        // A block without a version is a fragment, which is not a document by itself.
        let whole = |block: &String| block.lines().any(|line| line == "version: 1");
        for block in page.blocks("yaml").iter().filter(|block| whole(block)) {
            count += 1;
            let (policy, mut problems) = document::parse(block);
            let intent = Intent::from_policy(&policy, &Limits::default(), Timestamp::UNIX_EPOCH);
            match intent {
                Ok(intent) => refused.extend(intent.warnings),
                Err(more) => problems.extend(more),
            }
            let problems = problems.iter();
            refused.extend(problems.map(|problem| format!("{}: {problem}", page.name())));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(count > 10, "only {count} policies");
}

#[test]
fn every_configuration_in_a_page_is_accepted() {
    for page in Page::all() {
        for block in page.blocks("toml") {
            let read = Config::parse(&block, &page.path);
            assert!(read.is_ok(), "{}: {read:?}", page.name());
        }
    }
}

#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let lines = readme.lines().count();
    assert!(lines <= README_LINES, "{lines} lines");
}

#[test]
fn anchors_are_those_of_git_forges() {
    assert_eq!(slug("Who may do what"), "who-may-do-what");
    assert_eq!(slug("mDNS, SSDP & co."), "mdns-ssdp--co");
    assert_eq!(slug("no_rule"), "no_rule");
}

/// The anchor of a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        letter => letter.is_alphanumeric().then_some(letter),
    });
    kept.flat_map(char::to_lowercase).collect()
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the repository")
}

/// All files below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

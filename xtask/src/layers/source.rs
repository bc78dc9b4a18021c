//! A crate's sources as modules: which paths each of them names, and where.
//!
//! A module is a file: what is inline in a file counts as the file's own. Code that only tests
//! compile is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, Item, ItemUse, Meta, UseTree, spanned::Spanned as _, visit::Visit};

/// What a module is called in messages when it is the root of its crate, which has no name.
pub(crate) const ROOT: &str = "(root)";

/// The modules of one target (a library or a program), by their path. The root's path is empty.
#[derive(Default)]
pub(crate) struct Source {
    modules: BTreeMap<Names, Module>,
}

/// The names of a path.
type Names = Vec<String>;

/// What one file holds.
#[derive(Default)]
struct Module {
    /// The file, for messages.
    file: PathBuf,
    imports: Vec<Import>,
    /// Paths outside of `use`.
    mentions: Vec<Mention>,
    /// Every word outside of `use`.
    words: BTreeSet<String>,
    /// Names of the items that are defined here, and of the modules within the file.
    items: BTreeSet<String>,
}

/// One name that a `use` brings, or all of them.
struct Import {
    /// The module that has the `use`; it may be one within the file.
    scope: Names,
    path: Names,
    /// What it is called here; none for `*`.
    name: Option<String>,
    /// Whether other modules may import it from here.
    public: bool,
    line: usize,
}

struct Mention {
    scope: Names,
    path: Names,
    line: usize,
}

/// A path that a module names, after all imports were followed.
pub(crate) struct Named {
    /// The module that names it, as `server::calls`.
    pub(crate) module: String,
    pub(crate) place: Place,
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A module of the crate, and a name in it, which is empty for the module itself.
    Here { module: String, name: String },
    /// A path of another crate, as `std::fs::read`.
    Elsewhere(String),
}

impl Source {
    /// Reads a target from its first file on; files in messages are relative to `base`.
    ///
    /// # Errors
    /// When a file can't be read or is not Rust.
    pub(crate) fn read(base: &Path, root: &Path) -> anyhow::Result<Self> {
        let mut source = Self::default();
        let mut open = vec![(Names::new(), root.to_owned())];
        while let Some((module, file)) = open.pop() {
            let text =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let shown = file.strip_prefix(base).unwrap_or(&file).to_owned();
            let children = source
                .add(&module, &shown, &text)
                .with_context(|| format!("parsing {}", file.display()))?;
            for child in children {
                let place = child.find(&module, &file)?;
                open.push((child.module, place));
            }
        }
        Ok(source)
    }

    /// Takes in one file, and answers which other files it declares.
    fn add(&mut self, module: &[String], file: &Path, text: &str) -> syn::Result<Vec<Declared>> {
        let parsed = syn::parse_file(text)?;
        let mut reader = Reader {
            module: Module {
                file: file.to_owned(),
                ..Module::default()
            },
            declared: Vec::new(),
        };
        reader.items(module, &parsed.items);
        self.modules.insert(module.to_vec(), reader.module);
        Ok(reader.declared)
    }

    /// Every path that a module names, in the order of modules and lines.
    ///
    /// To hand something on is not to name it: a parent may show what its children define. A
    /// `pub use` counts only where the file itself uses the name.
    pub(crate) fn named(&self) -> Vec<Named> {
        let mut all = Vec::new();
        for (path, module) in &self.modules {
            let mut add = |scope: &[String], names: &[String], line| {
                all.push(Named {
                    module: joined(path),
                    place: self.place(module, scope, names),
                    file: module.file.clone(),
                    line,
                });
            };
            for import in &module.imports {
                if !import.public || self.is_used(module, import) {
                    add(&import.scope, &import.path, import.line);
                }
            }
            for mention in &module.mentions {
                add(&mention.scope, &mention.path, mention.line);
            }
        }
        all.sort_by(|a, b| (&a.module, a.line).cmp(&(&b.module, b.line)));
        all
    }

    fn is_used(&self, module: &Module, import: &Import) -> bool {
        if let Some(name) = &import.name {
            return module.words.contains(name);
        }
        match self.place(module, &import.scope, &import.path) {
            Place::Here { module: target, .. } => {
                let target = self.modules.get(&split(&target));
                target.is_some_and(|it| !it.items.is_disjoint(&module.words))
            }
            Place::Elsewhere(_) => true,
        }
    }

    /// Follows a path through imports to where it leads.
    fn place<'a>(&'a self, module: &'a Module, scope: &[String], path: &[String]) -> Place {
        let (mut module, mut scope, mut path) = (module, scope.to_vec(), path.to_vec());
        // No import is followed twice, so that a circle of them has an end.
        let mut followed: Vec<&Import> = Vec::new();
        loop {
            let is_new = |import: &&Import| !followed.iter().any(|it| std::ptr::eq(*it, *import));
            let Some(absolute) = self.absolute(module, &scope, &path) else {
                let first = path.first();
                let named = |import: &&Import| import.name.as_ref() == first;
                match module.imports.iter().filter(is_new).find(named) {
                    Some(import) => {
                        path = [&import.path[..], &path[1..]].concat();
                        scope.clone_from(&import.scope);
                        followed.push(import);
                    }
                    None => return Place::Elsewhere(joined(&path)),
                }
                continue;
            };
            let owner = self.owner(&absolute);
            let (target, rest) = absolute.split_at(owner.len());
            let here = || Place::Here {
                module: joined(target),
                name: joined(rest),
            };
            let (Some(next), Some(name)) = (self.modules.get(target), rest.first()) else {
                return here();
            };
            // What a module only hands on belongs to the one that defines it.
            match self.import(next, name).filter(is_new) {
                Some(import) => {
                    let names = usize::from(import.name.is_some());
                    path = [&import.path[..], &rest[names..]].concat();
                    scope.clone_from(&import.scope);
                    module = next;
                    followed.push(import);
                }
                None => return here(),
            }
        }
    }

    /// The `use` that brings a name into a module.
    fn import<'a>(&'a self, module: &'a Module, name: &str) -> Option<&'a Import> {
        if module.items.contains(name) {
            return None;
        }
        let brings = |import: &&Import| match &import.name {
            Some(its) => its == name,
            None => self
                .absolute(module, &import.scope, &import.path)
                .and_then(|target| self.modules.get(&target))
                .is_some_and(|target| target.items.contains(name)),
        };
        module.imports.iter().find(brings)
    }

    /// A path from the crate's root; none if it begins with an import or with another crate.
    fn absolute(&self, module: &Module, scope: &[String], path: &[String]) -> Option<Names> {
        let first = path.first()?.as_str();
        let climbs = path.iter().take_while(|it| *it == "super").count();
        match first {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([scope, &path[1..]].concat()),
            "super" => {
                let up = scope.len().saturating_sub(climbs);
                Some([&scope[..up], &path[climbs..]].concat())
            }
            _ => {
                let child = [scope, &path[..1]].concat();
                let is_here = self.modules.contains_key(&child) || module.items.contains(first);
                is_here.then(|| [scope, path].concat())
            }
        }
    }

    /// The module, as a part of the path, that a path from the root ends in.
    fn owner<'a>(&self, path: &'a [String]) -> &'a [String] {
        (0..=path.len())
            .rev()
            .map(|length| &path[..length])
            .find(|prefix| self.modules.contains_key(*prefix))
            .unwrap_or_default()
    }
}

/// A `mod` without a body.
struct Declared {
    module: Names,
    /// What `#[path]` says.
    path: Option<String>,
}

impl Declared {
    /// The file, for a module that `parent` declares in `file`.
    fn find(&self, parent: &[String], file: &Path) -> anyhow::Result<PathBuf> {
        let beside = file.parent().unwrap_or(Path::new(""));
        if let Some(path) = &self.path {
            return Ok(beside.join(path));
        }
        let stem = file.file_stem().unwrap_or_default();
        let holds_root = parent.is_empty() || stem == "mod";
        let mut folder = if holds_root {
            beside.to_owned()
        } else {
            beside.join(stem)
        };
        folder.extend(&self.module[parent.len()..self.module.len() - 1]);
        let name = self.module.last().context("a module without a name")?;
        let file = folder.join(format!("{name}.rs"));
        Ok(if file.is_file() {
            file
        } else {
            folder.join(name).join("mod.rs")
        })
    }
}

/// Collects what a file names.
struct Reader {
    module: Module,
    declared: Vec<Declared>,
}

impl Reader {
    fn items(&mut self, scope: &[String], items: &[Item]) {
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            self.item(scope, item);
        }
    }

    fn item(&mut self, scope: &[String], item: &Item) {
        match item {
            Item::Mod(module) => {
                let name = module.ident.to_string();
                let path = [scope, std::slice::from_ref(&name)].concat();
                match &module.content {
                    Some((_, items)) => {
                        self.module.items.insert(name);
                        self.items(&path, items);
                    }
                    None => self.declared.push(Declared {
                        module: path,
                        path: module.attrs.iter().find_map(path_attribute),
                    }),
                }
            }
            Item::Use(item) => self.import(scope, item),
            Item::Impl(item) => {
                let mut item = item.clone();
                item.items.retain(|it| match it {
                    syn::ImplItem::Fn(it) => !is_test(&it.attrs),
                    syn::ImplItem::Const(it) => !is_test(&it.attrs),
                    _ => true,
                });
                self.code(scope, &Item::Impl(item));
            }
            other => {
                self.module.items.extend(name(other));
                self.code(scope, other);
            }
        }
    }

    fn code(&mut self, scope: &[String], item: &Item) {
        // A `use` may stand in a function, too.
        let mut inner = Inner(Vec::new());
        inner.visit_item(item);
        for item in &inner.0 {
            self.import(scope, item);
        }
        self.tokens(scope, item.to_token_stream());
    }

    /// Finds paths by their tokens, because those inside of macros are nothing else.
    fn tokens(&mut self, scope: &[String], tokens: TokenStream) {
        let mut path: Names = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        let mut in_use = false;
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            if in_use {
                in_use = !matches!(&token, TokenTree::Punct(it) if it.as_char() == ';');
                continue;
            }
            match token {
                TokenTree::Ident(word) => {
                    let span = word.span();
                    let word = word.to_string();
                    if colons != 2 {
                        self.mention(scope, &mut path, line);
                        line = span.start().line;
                    }
                    colons = 0;
                    // `use<…>` in a type is no import.
                    let captures =
                        matches!(tokens.peek(), Some(TokenTree::Punct(it)) if it.as_char() == '<');
                    if word == "use" && !captures {
                        in_use = true;
                        continue;
                    }
                    self.module.words.insert(word.clone());
                    path.push(word);
                }
                TokenTree::Punct(it) if it.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.mention(scope, &mut path, line);
                    colons = 0;
                    self.tokens(scope, group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.mention(scope, &mut path, line);
                    colons = 0;
                }
            }
        }
        self.mention(scope, &mut path, line);
    }

    /// Notes a path of at least two names: a single one is an import's, or the file's own.
    fn mention(&mut self, scope: &[String], path: &mut Names, line: usize) {
        let path = std::mem::take(path);
        if path.len() > 1 && path.first().is_some_and(|it| it != "Self") {
            self.module.mentions.push(Mention {
                scope: scope.to_vec(),
                path,
                line,
            });
        }
    }

    fn import(&mut self, scope: &[String], item: &ItemUse) {
        let public = !matches!(item.vis, syn::Visibility::Inherited);
        self.tree(scope, Vec::new(), &item.tree, public);
    }

    fn tree(&mut self, scope: &[String], mut path: Names, tree: &UseTree, public: bool) {
        let line = tree.span().start().line;
        let name = match tree {
            UseTree::Path(it) => {
                path.push(it.ident.to_string());
                return self.tree(scope, path, &it.tree, public);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(scope, path.clone(), tree, public);
                }
                return;
            }
            UseTree::Glob(_) => None,
            UseTree::Name(it) if it.ident == "self" => path.last().cloned(),
            UseTree::Name(it) => {
                path.push(it.ident.to_string());
                Some(it.ident.to_string())
            }
            UseTree::Rename(it) => {
                if it.ident != "self" {
                    path.push(it.ident.to_string());
                }
                Some(it.rename.to_string())
            }
        };
        self.module.imports.push(Import {
            scope: scope.to_vec(),
            path,
            name,
            public,
            line,
        });
    }
}

/// The imports within an item.
struct Inner(Vec<ItemUse>);

impl<'ast> Visit<'ast> for Inner {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.0.push(item.clone());
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Union(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(it) => &it.ident,
        Item::Enum(it) => &it.ident,
        Item::Fn(it) => &it.sig.ident,
        Item::Macro(it) => it.ident.as_ref()?,
        Item::Static(it) => &it.ident,
        Item::Struct(it) => &it.ident,
        Item::Trait(it) => &it.ident,
        Item::Type(it) => &it.ident,
        Item::Union(it) => &it.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Whether only tests compile what has these attributes.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        Meta::List(_) | Meta::NameValue(_) => false,
    })
}

fn path_attribute(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) if pair.path.is_ident("path") => Some(text.value()),
        _ => None,
    }
}

fn joined(path: &[String]) -> String {
    path.join("::")
}

fn split(path: &str) -> Names {
    path.split("::")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A target of made-up files, each with the path of its module.
#[cfg(test)]
pub(crate) fn made_up(files: &[(&str, &str)]) -> Source {
    let mut source = Source::default();
    for (module, text) in files {
        let file = PathBuf::from(format!("src/{}.rs", module.replace("::", "/")));
        source.add(&split(module), &file, text).expect(module);
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(files: &[(&str, &str)], module: &str) -> Vec<String> {
        let named = made_up(files).named();
        let of = named.into_iter().filter(|it| it.module == module);
        of.map(|it| match it.place {
            Place::Here { module, name } => format!("{module} {name}"),
            Place::Elsewhere(path) => path,
        })
        .collect()
    }

    #[test]
    fn every_way_to_name_something_is_seen() {
        let files = [
            ("", "mod a; mod b;"),
            ("b", "pub fn f() {} pub const N: u8 = 0;"),
            (
                "a",
                "use std::{fs as files, time::{self, Instant}};
                use crate::b::{self, N};
                type T = super::b::U<crate::b::V>;
                fn g() { files::read(); time::Duration::ZERO; Instant::now(); b::f(); }
                fn h() { use std::env; println!(\"{}\", env::args()); }",
            ),
        ];
        assert_eq!(
            places(&files, "a"),
            [
                "std::fs",
                "std::time",
                "std::time::Instant",
                "b ",
                "b N",
                "b U",
                "b V",
                "std::fs::read",
                "std::time::Duration::ZERO",
                "std::time::Instant::now",
                "b f",
                "std::env",
                "std::env::args",
            ]
        );
    }

    #[test]
    fn what_only_tests_compile_is_left_out() {
        let files = [
            ("", "mod a; mod b;"),
            ("b", ""),
            (
                "a",
                "struct A;
                impl A { #[cfg(test)] fn f() { crate::b::f(); } }
                #[cfg(test)] use crate::b;
                #[cfg(all(test, unix))] fn g() { crate::b::f(); }
                #[cfg(test)] mod tests { use crate::b; }",
            ),
        ];
        assert_eq!(places(&files, "a"), [""; 0]);
    }

    #[test]
    fn what_is_handed_on_belongs_to_where_it_is_defined() {
        let files = [
            ("", "mod a; mod b; mod c; pub use a::X;"),
            ("a", "pub struct X;"),
            ("b", "use crate::X; use crate::c::Y;"),
            ("c", "mod d; pub use d::*;"),
            ("c::d", "pub struct Y;"),
        ];
        assert_eq!(places(&files, "b"), ["a X", "c::d Y"]);
        assert_eq!(places(&files, ""), [""; 0]);
        assert_eq!(places(&files, "c"), [""; 0]);
    }

    #[test]
    fn a_parent_that_uses_what_it_hands_on_names_it() {
        for import in ["pub use d::Y;", "pub use d::*;"] {
            let files = [
                ("", "mod c;"),
                ("c", &format!("mod d; {import} fn f() -> Y {{ Y }}")),
                ("c::d", "pub struct Y;"),
            ];
            assert_eq!(places(&files, "c").len(), 1, "{import}");
        }
    }

    #[test]
    fn modules_within_a_file_are_the_files_own() {
        let files = [
            ("", "mod a; mod b;"),
            (
                "a",
                "mod inner { use super::super::b::B; use super::A; } struct A;",
            ),
            ("b", ""),
        ];
        assert_eq!(places(&files, "a"), ["b B", "a A"]);
    }
}

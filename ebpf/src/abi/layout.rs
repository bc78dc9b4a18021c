//! Guards [`ABI_VERSION`]: the test fails when shared bytes change without a new version.
//!
//! The test reads the source of this module, so no type can be forgotten: structures with the name,
//! the offset and the type of each field, enumerations, numbers with a name, and the functions that
//! make keys; and the maps. It ignores comments, methods and tests.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use quote::ToTokens;
use syn::{Attribute, Expr, Fields, ImplItem, Item, Lit, Type};

use super::{ABI_VERSION, SIZES};

/// The hash of each version, the newest last. Append; a version that was in use never changes.
const HASHES: &[(u32, u64)] = &[
    (4, 0x5631_beaa_f443_7777),
    (5, 0xc50a_5ef0_9f8a_a801),
    (6, 0x9d47_c73a_2d85_12b9),
    (7, 0x9de4_173a_ef9f_461f),
    (8, 0xebcf_b0d4_79a2_aab1),
    (9, 0xe0c9_7e7d_2282_3a12),
    (10, 0x6686_6f37_643e_58fc),
    (11, 0x74f4_7ac7_041e_40e4),
    (12, 0xaf95_1de6_b84e_cfef),
    (13, 0xfc97_a511_a65f_c089),
    (14, 0x6f12_f669_a0ef_d67f),
    (15, 0xda1c_7fd9_00cb_2d0c),
    (16, 0xe142_ae55_a76e_8477),
    (17, 0xa7ea_d0a3_ce8c_642a),
    (18, 0x9f4d_e911_9e86_f049),
    (19, 0x9f39_bdc2_b8d3_1a3e),
    (20, 0x93d7_a20c_7344_cf15),
    (21, 0x6aab_6eea_2dfb_e80c),
    (22, 0xc99e_c54e_5c80_041b),
];

/// What is wrong with the layout, for the developer who changed it.
type Problem = String;

/// Everything of `abi` that kernel and daemon have to agree on.
#[derive(Default)]
struct Layout {
    text: String,
    constants: BTreeMap<String, usize>,
    /// Size and alignment of each structure.
    structures: BTreeMap<String, (usize, usize)>,
}

impl Layout {
    /// Reads sources.
    fn of(sources: &[String]) -> Result<Self, Problem> {
        let mut layout = Self::default();
        let mut items = Vec::new();
        for source in sources {
            let file = syn::parse_file(source).map_err(|error| error.to_string())?;
            items.extend(file.items);
        }
        // Arrays have constants as their lengths, so those come first.
        layout.read_constants("", &items);
        let mut waiting = layout.read_others("", &items)?;
        // A structure can be measured once all those inside it have been.
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut problems = Vec::new();
            waiting.retain(|structure| match layout.measure(structure) {
                Ok(()) => false,
                Err(problem) => {
                    problems.push(problem);
                    true
                }
            });
            if waiting.len() == before {
                return Err(problems.join("; "));
            }
        }
        // The order of files and items means nothing.
        let mut lines: Vec<&str> = layout.text.lines().collect();
        lines.sort_unstable();
        layout.text = lines.join("\n");
        Ok(layout)
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn read_constants(&mut self, path: &str, items: &[Item]) {
        for item in items {
            match item {
                Item::Const(it) if it.ident != "ABI_VERSION" && it.ident != "_" => {
                    self.constant(&format!("{path}{}", it.ident), &it.ty, &it.expr);
                }
                Item::Mod(it) if !is_test(&it.attrs) => {
                    if let Some((_, items)) = &it.content {
                        self.read_constants(&format!("{path}{}::", it.ident), items);
                    }
                }
                Item::Impl(it) if it.trait_.is_none() => {
                    let path = format!("{path}{}::", tokens(&it.self_ty));
                    for item in &it.items {
                        if let ImplItem::Const(it) = item {
                            self.constant(&format!("{path}{}", it.ident), &it.ty, &it.expr);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn constant(&mut self, name: &str, kind: &Type, value: &Expr) {
        let kind = tokens(kind);
        if !matches!(kind.as_str(), "u8" | "u16" | "u32" | "u64" | "usize") {
            return;
        }
        if let Some(value) = number(value) {
            self.constants.insert(name.to_owned(), value);
        }
        self.line(&format!("const {name}: {kind} = {}", tokens(value)));
    }

    /// Reads everything else, and returns the structures.
    fn read_others(&mut self, path: &str, items: &[Item]) -> Result<Vec<syn::ItemStruct>, Problem> {
        let mut structures = Vec::new();
        for item in items {
            match item {
                Item::Struct(it) => structures.push(it.clone()),
                Item::Enum(it) => {
                    let variants = it.variants.iter().map(tokens_without_comments);
                    let variants = variants.collect::<Vec<_>>().join(", ");
                    self.line(&format!("enum {path}{}: {variants}", it.ident));
                }
                Item::Fn(it) if !is_test(&it.attrs) => {
                    let (signature, body) = (tokens(&it.sig), tokens(&it.block));
                    self.line(&format!("{path}{signature} {body}"));
                }
                Item::Mod(it) if !is_test(&it.attrs) => {
                    if let Some((_, items)) = &it.content {
                        let path = format!("{path}{}::", it.ident);
                        structures.extend(self.read_others(&path, items)?);
                    }
                }
                Item::Static(it) => {
                    self.line(&format!("map {}: {}", it.ident, tokens(&it.ty)));
                }
                Item::Const(_) | Item::Impl(_) | Item::Use(_) | Item::Fn(_) | Item::Mod(_) => {}
                Item::Macro(it) if it.ident.is_some() || it.mac.path.is_ident("sizes") => {}
                _ => return Err(format!("what does this declare: {}", tokens(item))),
            }
        }
        Ok(structures)
    }

    /// Lays out a structure as `repr(C)` does.
    fn measure(&mut self, structure: &syn::ItemStruct) -> Result<(), Problem> {
        let name = structure.ident.to_string();
        let is_c = |it: &Attribute| {
            it.path().is_ident("repr") && tokens(it).replace(' ', "").contains("repr(C")
        };
        if !structure.attrs.iter().any(is_c) {
            return Err(format!("{name} is not repr(C)"));
        }
        if matches!(structure.fields, Fields::Unit) {
            return Err(format!("{name} has no fields"));
        }
        let mut line = format!("struct {name}:");
        let (mut end, mut alignment) = (0usize, 1);
        for (n, field) in structure.fields.iter().enumerate() {
            let (size, align) = self
                .size_of(&field.ty)
                .ok_or_else(|| format!("{name}: what size is {}?", tokens(&field.ty)))?;
            if end % align != 0 {
                return Err(format!("{name} has padding before its field {n}"));
            }
            let field_name = field
                .ident
                .as_ref()
                .map_or(n.to_string(), ToString::to_string);
            // Writing to a string can't fail.
            let _ = write!(line, " {end} {field_name}: {},", tokens(&field.ty));
            end += size;
            alignment = alignment.max(align);
        }
        if end % alignment != 0 {
            return Err(format!("{name} has padding at its end"));
        }
        self.line(&line);
        self.structures.insert(name, (end, alignment));
        Ok(())
    }

    fn size_of(&self, kind: &Type) -> Option<(usize, usize)> {
        match kind {
            Type::Array(array) => {
                let (size, align) = self.size_of(&array.elem)?;
                let length = number(&array.len)
                    .or_else(|| self.constants.get(&tokens(&array.len)).copied())?;
                Some((size * length, align))
            }
            _ => match tokens(kind).as_str() {
                "u8" => Some((1, 1)),
                "u16" => Some((2, 2)),
                "u32" | "Cell32" => Some((4, 4)),
                "u64" | "Cell64" => Some((8, 8)),
                name => self.structures.get(name).copied(),
            },
        }
    }

    /// FNV-1a: short, and the same with every compiler.
    fn hash(&self) -> u64 {
        let bytes = self.text.bytes();
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

fn tokens(item: &impl ToTokens) -> String {
    item.to_token_stream().to_string()
}

fn tokens_without_comments(variant: &syn::Variant) -> String {
    let mut variant = variant.clone();
    variant.attrs.clear();
    tokens(&variant)
}

fn number(value: &Expr) -> Option<usize> {
    match value {
        Expr::Lit(value) => match &value.lit {
            Lit::Int(number) => number.base10_parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    let mut attributes = attributes.iter();
    attributes.any(|it| it.path().is_ident("cfg") && tokens(it).contains("test"))
}

/// The sources of this module, but for this file, and the maps of the kernel's side.
fn sources() -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = fs::read_dir(src.join("abi")).expect("the folder of this file");
    let mut files: Vec<_> = files
        .map(|file| file.expect("a file of this folder").path())
        .filter(|path| !path.ends_with("layout.rs"))
        .collect();
    files.push(src.join("abi.rs"));
    let read = |path: &PathBuf| fs::read_to_string(path).expect("source is text");
    let mut sources: Vec<_> = files.iter().map(read).collect();
    let kernel = fs::read_dir(src.join("kernel")).expect("the kernel's side");
    let mut kernel: Vec<_> = kernel
        .map(|file| file.expect("a file of the kernel's side").path())
        .collect();
    kernel.sort();
    for file in kernel {
        let file = syn::parse_file(&read(&file)).expect("source of the kernel's side");
        sources.extend(file.items.iter().filter_map(map));
    }
    sources
}

/// The part of a map's declaration that counts: its name and its type, wherever the declaration is.
fn map(item: &Item) -> Option<String> {
    let Item::Static(item) = item else {
        return None;
    };
    let is_map = item.attrs.iter().any(|it| it.path().is_ident("btf_map"));
    is_map.then(|| format!("static {}: {} = ();", item.ident, tokens(&item.ty)))
}

fn layout(source: &str) -> Result<Layout, Problem> {
    Layout::of(&[source.to_owned()])
}

#[test]
fn a_layout_changes_only_with_the_version() {
    let layout = Layout::of(&sources()).unwrap_or_else(|problem| panic!("abi: {problem}"));
    let recorded = HASHES[HASHES.len() - 1];
    assert!(
        recorded == (ABI_VERSION, layout.hash()),
        "a layout that the kernel's maps share has changed: raise ABI_VERSION and record the new \
         hash. Append (ABI_VERSION, {:#018x}) to HASHES in ebpf/src/abi/layout.rs; now it ends with \
         version {} and the hash {:#018x}. The layout is now:\n{}",
        layout.hash(),
        recorded.0,
        recorded.1,
        layout.text,
    );
    assert!(HASHES.is_sorted_by_key(|(version, _)| *version));
}

#[test]
fn every_structure_is_as_large_as_it_was_measured() {
    let layout = Layout::of(&sources()).unwrap_or_else(|problem| panic!("abi: {problem}"));
    let measured = layout.structures.iter();
    let measured: BTreeMap<_, _> = measured.map(|(name, it)| (name.as_str(), it.0)).collect();
    let listed: BTreeMap<_, _> = SIZES.iter().copied().collect();
    assert_eq!(
        measured, listed,
        "every structure of abi has to be in `sizes!`"
    );
}

#[test]
fn a_renamed_field_two_swapped_ones_and_another_type_are_seen() {
    let was = "pub const N: usize = 2;
        #[repr(C)] pub struct A { pub x: u32, pub y: u32, pub z: [u16; N] }";
    let hash = |source: &str| {
        layout(source)
            .unwrap_or_else(|problem| panic!("{problem}"))
            .hash()
    };
    assert_eq!(
        hash(was),
        hash(&format!("/* comment */ {was} impl A {{ fn f() {{}} }}"))
    );
    for (from, to) in [
        ("pub x", "pub renamed"),
        ("pub x: u32, pub y: u32", "pub y: u32, pub x: u32"),
        ("pub x: u32", "pub x: Cell32"),
        ("pub x: u32", "pub x: [u16; 2]"),
        ("N: usize = 2", "N: usize = 4"),
        ("pub struct A", "pub struct B"),
    ] {
        assert!(was.contains(from));
        assert_ne!(
            hash(was),
            hash(&was.replace(from, to)),
            "{from} became {to}"
        );
    }
    for more in [
        "#[repr(C)] struct New { it: u8 }",
        "pub const NEW: u32 = 1;",
        "fn new_key(it: u32) -> u32 { it << 1 }",
        "#[repr(u8)] enum New { It = 1 }",
        "impl A { const NEW: u32 = 1; }",
        "mod new { const NEW: u32 = 1; }",
        "static NEW: Array<A, 1> = Array::new();",
    ] {
        assert_ne!(hash(was), hash(&format!("{was} {more}")), "{more}");
    }
}

#[test]
fn a_structure_without_a_fixed_layout_is_refused() {
    for (source, problem) in [
        ("struct A { x: u32 }", "A is not repr(C)"),
        (
            "#[repr(C)] struct A { x: u8, y: u16 }",
            "A has padding before its field 1",
        ),
        (
            "#[repr(C)] struct A { x: u32, y: u16 }",
            "A has padding at its end",
        ),
        ("#[repr(C)] struct A { x: usize }", "A: what size is usize?"),
        ("make!(A);", "what does this declare: make ! (A) ;"),
    ] {
        assert_eq!(layout(source).err().as_deref(), Some(problem), "{source}");
    }
}

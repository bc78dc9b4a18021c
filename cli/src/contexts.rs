//! The file of contexts: routers, and how to connect to each.
//!
//! ```yaml
//! current: ward-3
//! contexts:
//!   ward-3:
//!     server: https://ward-3.example:7443
//!     ca: /home/ada/wardline/ca.pem
//!     cert: /home/ada/wardline/ada.pem
//!     key: /home/ada/wardline/ada.key
//! ```

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf, absolute},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    args::{Connection, Context, Format, Server},
    exit::{Exit, Failure},
    output,
    table::{cell, filled, table},
};

/// A router's address and the files to authenticate with.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) server: Server,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
}

impl Target {
    /// The files that are missing for a connection.
    fn lacks(&self) -> Vec<&'static str> {
        let files = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        let missing = files.into_iter().filter(|(_, file)| file.is_none());
        match self.server {
            Server::Unix(_) => Vec::new(),
            Server::Tls(_) => missing.map(|(name, _)| name).collect(),
        }
    }
}

/// The router that a command asks: the server of the command line or the environment, else the
/// context that is named, else the current one, else the socket of this machine.
///
/// # Errors
/// The file can't be read, there is no such context, or something is missing in it.
pub(crate) fn target(connection: &Connection) -> Result<Target, Failure> {
    let Connection {
        server,
        context,
        ca,
        cert,
        key,
        ..
    } = connection;
    let asked = Target {
        server: server.clone().unwrap_or_default(),
        ca: ca.clone(),
        cert: cert.clone(),
        key: key.clone(),
    };
    if server.is_some() {
        return Ok(asked);
    }
    let place = place(connection);
    let file = match &place {
        Some(place) => File::read(place)?,
        None => File::default(),
    };
    let Some(name) = context.as_ref().or(file.current.as_ref()) else {
        return Ok(asked);
    };
    let known = file.get(name)?;
    // Relative paths in a file are relative to its folder.
    let from_there = |path: &Option<PathBuf>| {
        let folder = place.as_deref().and_then(Path::parent);
        let path = path.as_ref()?;
        Some(folder.map_or_else(|| path.clone(), |folder| folder.join(path)))
    };
    let target = Target {
        server: known.server.clone(),
        ca: asked.ca.or_else(|| from_there(&known.ca)),
        cert: asked.cert.or_else(|| from_there(&known.cert)),
        key: asked.key.or_else(|| from_there(&known.key)),
    };
    match target.lacks().as_slice() {
        [] => Ok(target),
        lacks => Err(Failure::refused(format!(
            "context {name:?} has no {}; `wardctl context set {name} --{} FILE` gives it one",
            lacks.join(", no "),
            lacks.join(" FILE --"),
        ))),
    }
}

/// The names of all contexts; none when there is no file that can be read.
pub(crate) fn names(connection: &Connection) -> Vec<String> {
    let file = place(connection).and_then(|place| File::read(&place).ok());
    file.map(|file| file.contexts.into_keys().collect())
        .unwrap_or_default()
}

/// Lists and changes contexts.
///
/// # Errors
/// The file can't be read or written, or there is no such context.
pub(crate) fn contexts(
    connection: &Connection,
    format: Format,
    command: Context,
) -> Result<Exit, Failure> {
    let place = place(connection).ok_or_else(|| {
        Failure::refused("there is no home for contexts; name the file with --contexts")
    })?;
    let mut file = File::read(&place)?;
    match command {
        Context::List => return file.list(format),
        Context::Use { name } => {
            file.get(&name)?;
            file.current = Some(name);
        }
        Context::Set { name } => {
            let target = file.set(&name, connection)?;
            for path in [&target.ca, &target.cert, &target.key]
                .into_iter()
                .flatten()
            {
                if let Err(error) = fs::File::open(path) {
                    output::warn(&[format!("can't read {}: {error}", path.display())]);
                }
            }
            // If it is the only context, it becomes the current one.
            file.current.get_or_insert(name);
        }
        Context::Delete { name } => {
            file.get(&name)?;
            file.contexts.remove(&name);
            file.current.take_if(|current| *current == name);
        }
    }
    file.write(&place)?;
    Ok(Exit::Done)
}

/// The path of the file of contexts; none without a home folder.
fn place(connection: &Connection) -> Option<PathBuf> {
    let named = |variable| env::var_os(variable).filter(|value| !value.is_empty());
    let home = || {
        let own = named("XDG_CONFIG_HOME").map(PathBuf::from);
        own.or_else(|| Some(Path::new(&named("HOME")?).join(".config")))
    };
    let usual = || Some(home()?.join("wardline/contexts.yaml"));
    connection.contexts.clone().or_else(usual)
}

#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Target>,
}

impl File {
    fn read(place: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(place) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(Failure::refused(format!(
                    "can't read {}: {error}",
                    place.display()
                )));
            }
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text)
            .map_err(|error| Failure::refused(format!("{}: {error}", place.display())))
    }

    /// Writes the file so that an interruption leaves the previous one.
    fn write(&self, place: &Path) -> Result<(), Failure> {
        let failed =
            |error: io::Error| Failure::failed(format!("can't write {}: {error}", place.display()));
        let text = serde_saphyr::to_string(self)
            .map_err(|error| failed(io::Error::other(error.to_string())))?;
        if let Some(folder) = place.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(folder).map_err(failed)?;
        }
        let next = place.with_extension("yaml.next");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&next)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&next, place))
            .map_err(failed)
    }

    fn get(&self, name: &str) -> Result<&Target, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let cure = match known.as_slice() {
                [] => {
                    "there is none yet; `wardctl context set NAME --server …` makes one".to_owned()
                }
                known => format!("there are: {}", known.join(", ")),
            };
            Failure::refused(format!("no context {name:?}; {cure}"))
        })
    }

    /// Adds a context, or changes those of its settings that are given.
    fn set(&mut self, name: &str, connection: &Connection) -> Result<&Target, Failure> {
        let Connection {
            server,
            ca,
            cert,
            key,
            ..
        } = connection;
        let before = self.contexts.get(name).cloned();
        let kept = |which: fn(&Target) -> &Option<PathBuf>| {
            before.as_ref().and_then(|target| which(target).clone())
        };
        // Made absolute, because the next command may run in another folder.
        let here = |path: &Option<PathBuf>| path.as_ref().and_then(|path| absolute(path).ok());
        let server = server
            .clone()
            .or_else(|| before.as_ref().map(|it| it.server.clone()));
        let target = Target {
            server: server.ok_or_else(|| {
                Failure::usage(format!("context {name:?} is new; say where with --server"))
            })?,
            ca: here(ca).or_else(|| kept(|it| &it.ca)),
            cert: here(cert).or_else(|| kept(|it| &it.cert)),
            key: here(key).or_else(|| kept(|it| &it.key)),
        };
        if !target.lacks().is_empty() {
            let lacks = target.lacks().join(", --");
            return Err(Failure::usage(format!(
                "an https:// server needs --{lacks} too"
            )));
        }
        Ok(self
            .contexts
            .entry(name.to_owned())
            .insert_entry(target)
            .into_mut())
    }

    fn list(&self, format: Format) -> Result<Exit, Failure> {
        match format {
            Format::Json | Format::Yaml | Format::Csv => {
                let context = |(name, target): (&String, &Target)| {
                    json!({
                        "name": name, "server": target.server, "ca": target.ca,
                        "cert": target.cert, "key": target.key,
                    })
                };
                let contexts: Vec<_> = self.contexts.iter().map(context).collect();
                output::value(
                    format,
                    &json!({ "current": self.current, "contexts": contexts }),
                )
            }
            Format::Table => output::styled(&self.table()),
        }
    }

    fn table(&self) -> String {
        let path = |path: &Option<PathBuf>| {
            cell(
                path.as_ref()
                    .map(|it| it.display().to_string())
                    .unwrap_or_default(),
            )
        };
        let rows = self.contexts.iter().map(|(name, target)| {
            let mark = if self.current.as_ref() == Some(name) {
                "*"
            } else {
                ""
            };
            vec![
                cell(mark),
                cell(name),
                cell(String::from(target.server.clone())),
                path(&target.cert),
            ]
        });
        filled(
            table(&["", "NAME", "SERVER", "CERTIFICATE"]),
            rows,
            "contexts",
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{args::Args, table::uncoloured};

    fn connection(line: &str) -> Connection {
        let words = ["wardctl"].into_iter().chain(line.split_whitespace());
        Args::try_parse_from(words.chain(["status"]))
            .expect(line)
            .connection
    }

    const TLS: &str = "--server https://ward-3:7443 --ca /a --cert /c --key /k";

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let mut file = File::default();
        file.set("ward-3", &connection(TLS)).expect("a context");
        file.set("here", &connection("--server unix:///run/a.sock"))
            .expect("a context");
        file.current = Some("here".to_owned());
        let text = serde_saphyr::to_string(&file).expect("YAML");
        assert_eq!(serde_saphyr::from_str::<File>(&text).expect("a file"), file);
        assert_eq!(
            uncoloured(&file.table()),
            "   NAME    SERVER                CERTIFICATE\n*  here    unix:///run/a.sock\n   \
             ward-3  https://ward-3:7443/  /c\n"
        );
    }

    #[test]
    fn setting_again_changes_only_what_is_said() {
        let mut file = File::default();
        file.set("w", &connection(TLS)).expect("a context");
        file.set("w", &connection("--cert /other"))
            .expect("the same");
        let target = &file.contexts["w"];
        assert_eq!(target.cert.as_deref(), Some(Path::new("/other")));
        assert_eq!(target.key.as_deref(), Some(Path::new("/k")));
        assert!(file.set("new", &connection("--cert /other")).is_err());
        assert!(
            file.set("new", &connection("--server https://x:1 --ca /a"))
                .is_err()
        );
        assert!(!file.contexts.contains_key("new"));
    }

    #[test]
    fn an_odd_file_is_refused_with_its_place() {
        for (text, expected) in [
            (
                "contexts: {a: {server: ftp://x}}",
                "expected unix:///PATH or https://HOST:PORT",
            ),
            ("contexts: {a: {}}", "missing field `server`"),
            (
                "contexts: {a: {server: unix:/x, cart: y}}",
                "unknown field `cart`",
            ),
            ("contexts: []", "expected mapping"),
            ("- a", "expected mapping"),
        ] {
            let error = serde_saphyr::from_str::<File>(text)
                .expect_err(text)
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

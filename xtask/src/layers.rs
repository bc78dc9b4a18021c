//! The layers: what each may depend on and name. `cargo xtask layers` checks the sources.
//!
//! Dependencies run one way: `daemon → datapath → policy → ebpf`; the client knows only the API. A
//! layer can't break what it can't reach: policy, without a clock and a kernel, gives the same
//! result on every machine, and only `datapath` has code that can leave a port unguarded.

pub(crate) mod check;
mod circles;
mod dependencies;
mod names;
mod source;

/// A crate of the workspace that belongs to a layer.
struct Layer {
    name: &'static str,
    /// The crates of the workspace that it may build on.
    builds_on: &'static [&'static str],
    /// Why it may use no others.
    why: &'static str,
}

const LAYERS: &[Layer] = &[
    Layer {
        name: "wardline-ebpf",
        builds_on: &[],
        why: "the kernel runs it: it can't depend on what runs outside",
    },
    Layer {
        name: "wardline-proto",
        builds_on: &[],
        why: "clients depend on it, and must not come to depend on the router's insides",
    },
    Layer {
        name: "wardline-policy",
        builds_on: &["wardline-ebpf", "wardline-proto"],
        why: "from a document to tables and verdicts, by arguments alone",
    },
    Layer {
        name: "wardline-mud",
        builds_on: &["wardline-proto"],
        why: "from a vendor's file to a document's rules, by arguments alone",
    },
    Layer {
        name: "wardline-datapath",
        builds_on: &["wardline-ebpf", "wardline-policy"],
        why: "it puts tables into the kernel and knows neither clients nor the store",
    },
    Layer {
        name: "wardline-daemon",
        builds_on: &[
            "wardline-datapath",
            "wardline-ebpf",
            "wardline-mud",
            "wardline-policy",
            "wardline-proto",
        ],
        why: "it is the top of the router's layers",
    },
    Layer {
        name: "wardline-cli",
        builds_on: &["wardline-proto"],
        why: "it runs on other machines and knows the router by its interface",
    },
    Layer {
        name: "wardline-oracle",
        builds_on: &["wardline-proto"],
        why: "what it shared with the code that it checks could be wrong in both",
    },
];

/// Crates of the workspace that may use everything: they build, test and measure the others.
const FREE: &[&str] = &[
    "wardline-bench",
    "wardline-bench-kernel",
    "wardline-host-tests",
    "wardline-pages",
    "wardline-tests",
    "xtask",
];

/// External crates that only some layers may use.
struct Reserved {
    /// A name that ends in `*` stands for all names with that beginning; `crate/feature` is a
    /// feature.
    crates: &'static [&'static str],
    layers: &'static [&'static str],
    why: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        // With its feature `user`, `ebpf` implements a trait of aya, so that aya may copy its
        // types.
        crates: &["aya"],
        layers: &["wardline-datapath", "wardline-ebpf"],
        why: "only the datapath talks to bpf(2)",
    },
    Reserved {
        crates: &["aya-obj", "aya-log", "wardline-ebpf/user"],
        layers: &["wardline-datapath"],
        why: "only the datapath talks to bpf(2)",
    },
    Reserved {
        crates: &["aya-ebpf*", "aya-log-ebpf"],
        layers: &["wardline-ebpf"],
        why: "it is the kernel's side",
    },
    Reserved {
        crates: &["rtnetlink", "netlink-*"],
        layers: &["wardline-datapath"],
        why: "only the datapath talks to the kernel's network",
    },
    Reserved {
        crates: &["tokio", "tokio-*", "futures*"],
        layers: &["wardline-datapath", "wardline-daemon", "wardline-cli"],
        why: "what waits can't be judged by its arguments alone",
    },
    Reserved {
        crates: &["tonic", "tonic-*", "hyper*", "tower*"],
        layers: &["wardline-proto", "wardline-daemon", "wardline-cli"],
        why: "how clients reach the router is the daemon's matter",
    },
    Reserved {
        crates: &["rusqlite"],
        layers: &["wardline-daemon"],
        why: "the daemon alone keeps revisions",
    },
    Reserved {
        crates: &["rustix", "libc", "nix"],
        layers: &["wardline-datapath", "wardline-daemon"],
        why: "policy makes no system calls, and the client needs none of its own",
    },
];

/// Paths that only some modules of a layer may name.
struct Rule {
    layer: &'static str,
    paths: &'static [&'static str],
    /// Modules, with those below them, that may name the paths anyway, and why.
    except: &'static [(&'static str, &'static str)],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        layer: "wardline-policy",
        paths: &[
            "std::fs",
            "std::env",
            "std::process",
            "std::io",
            "std::os",
            "std::thread",
            "std::net::TcpListener",
            "std::net::TcpStream",
            "std::net::UdpSocket",
        ],
        except: &[],
        why: "policy is judged by its arguments alone",
    },
    Rule {
        layer: "wardline-policy",
        paths: &[
            "std::time::SystemTime",
            "std::time::Instant",
            "jiff::Timestamp::now",
            "jiff::Zoned::now",
        ],
        except: &[],
        why: "the time is an argument of whatever decides by it",
    },
    Rule {
        layer: "wardline-mud",
        paths: &[
            "std::fs",
            "std::env",
            "std::process",
            "std::io",
            "std::os",
            "std::thread",
            "std::net::TcpListener",
            "std::net::TcpStream",
            "std::net::UdpSocket",
            "std::time::SystemTime",
            "std::time::Instant",
            "jiff::Timestamp::now",
            "jiff::Zoned::now",
        ],
        except: &[],
        why: "a vendor's file is judged by arguments alone, and fetches nothing",
    },
    Rule {
        layer: "wardline-policy",
        paths: &["wardline_proto::v1"],
        except: &[
            (
                "document",
                "a document is changed, compared, and read into intent there",
            ),
            ("snapshot", "it keeps the document that is in force"),
        ],
        why: "what rules mean must not depend on how documents are sent",
    },
    Rule {
        layer: "wardline-daemon",
        paths: &["wardline_proto::v1"],
        except: &[("server", "it converts messages on their way in and out")],
        why: "what is sent over the wire may change without what is done",
    },
    Rule {
        layer: "wardline-daemon",
        paths: &["tonic", "tonic_types", "tonic_health", "tonic_reflection"],
        except: &[
            ("access", "it answers who may not"),
            ("server", "it answers calls"),
        ],
        why: "what happens does not depend on who asks, and how",
    },
    Rule {
        layer: "wardline-daemon",
        paths: &["std::fs", "std::env", "tokio::fs"],
        except: &[
            ("config", "it reads the configuration"),
            ("store", "it keeps revisions"),
            ("telemetry", "it keeps events"),
            ("access::audit", "it keeps the audit"),
            (
                "server::serve",
                "it makes the socket, with its folder and its mode",
            ),
            ("daemon", "it takes the socket away again"),
        ],
        why: "what is on the disk, and in the environment, has few places to look for",
    },
];

//! The shape of the crate, checked over its source: which module may use which, what the pure modules must
//! not touch, and how long a file may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file before its tests; a longer one needs a reason at its top.
const MAX_LINES: usize = 800;

/// Which modules of the crate a module may use, besides itself.
const MAY_USE: [(&str, &[&str]); 19] = [
    // Errors of the layers below are gathered there by their causes.
    ("error", &["store", "verify"]),
    ("limits", &[]),
    ("time", &[]),
    ("rng", &[]),
    // Values of spans and events; the edge speaks, what decides is silent.
    ("trace", &["error", "chain", "peer"]),
    // A `block` message carries the raw block of the commands.
    ("wire", &["error", "limits", "time", "rng", "chain::command"]),
    ("chain", &["error", "limits", "time", "rng", "wire"]),
    ("consensus", &["error", "limits", "time", "rng", "wire", "chain"]),
    ("peer", &["error", "limits", "time", "rng", "wire", "chain", "consensus"]),
    ("sync", &["error", "limits", "time", "rng", "wire", "chain", "consensus", "peer"]),
    ("relay", &["error", "limits", "time", "rng", "wire", "chain", "consensus", "peer"]),
    ("engine", &["error", "limits", "time", "rng", "wire", "chain", "consensus", "peer", "sync", "relay"]),
    ("verify", &["error", "limits", "time", "rng", "wire", "chain", "consensus"]),
    // The suite for verifiers signs with the forge's keys.
    (VERIFIER_SUITE, &["rng", "chain", "consensus", "verify", "sim::wallet"]),
    ("store", &["error", "limits", "time", "rng", "chain::command", "chain::params"]),
    ("chainstate", &["error", "limits", "time", "rng", "wire", "chain", "consensus", "verify", "store"]),
    ("net", ANY_BUT_NODE),
    ("node", ANY_BUT_NODE),
    ("sim", &ANY),
];

const VERIFIER_SUITE: &str = "verify::conformance";

const ANY_BUT_NODE: &[&str] = ANY.split_at(ANY.len() - 1).0;

const ANY: [&str; 17] = [
    "error",
    "limits",
    "time",
    "rng",
    "trace",
    "wire",
    "chain",
    "consensus",
    "peer",
    "sync",
    "relay",
    "engine",
    "verify",
    "store",
    "chainstate",
    "net",
    "node",
];

/// Modules that decide: no I/O, no clock, no threads, nothing that waits.
const PURE: [&str; 7] = ["wire", "chain", "consensus", "peer", "sync", "relay", "engine"];

/// Single files of other modules that decide too.
const PURE_FILES: [&str; 5] =
    ["net/nat/mod.rs", "net/nat/natpmp.rs", "net/nat/pcp.rs", "net/nat/stun.rs", "verify/remote.rs"];

/// What pure modules must not name. Addresses are plain values, so these types of `std::net` are allowed.
const BANNED: [&str; 14] = [
    "std::fs",
    "std::io",
    "std::thread",
    "std::process",
    "std::env",
    "std::sync::mpsc",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::Condvar",
    "std::time::Instant",
    "std::time::SystemTime",
    "parking_lot",
    "crossbeam_channel",
    "futures",
];
const ADDRESS_TYPES: [&str; 7] =
    ["SocketAddr", "SocketAddrV4", "SocketAddrV6", "IpAddr", "Ipv4Addr", "Ipv6Addr", "AddrParseError"];

struct Source {
    path: PathBuf,
    module: String,
    /// The lines before the tests, without comments.
    code: Vec<String>,
    /// How many lines the file has before its tests.
    lines: usize,
    top: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(read(&root, path));
            }
        }
    }
    assert!(found.len() > 40, "the sources were found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn read(root: &Path, path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).unwrap();
    let inside = path.strip_prefix(root).unwrap();
    let module = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    // A file that holds tests only is one altogether.
    let is_tests =
        inside.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")));
    let before: Vec<&str> =
        text.lines().take_while(|line| !is_tests && !line.trim_start().starts_with("#[cfg(test)]")).collect();
    let module = if inside.starts_with("verify/conformance") { VERIFIER_SUITE } else { module };
    Source {
        module: module.trim_end_matches(".rs").to_owned(),
        lines: before.len(),
        code: before.iter().map(|line| line.split("//").next().unwrap_or("").to_owned()).collect(),
        top: text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n"),
        path,
    }
}

/// Every path after `prefix` in the code, groups taken apart.
fn paths_after(code: &[String], prefix: &str) -> BTreeSet<String> {
    let text = code.join("\n");
    let mut paths = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let before = text[..at].chars().next_back();
        if before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            expand(&text[at + prefix.len()..], "", &mut paths);
        }
    }
    paths
}

/// The paths that begin here, each after `head`.
fn expand(text: &str, head: &str, paths: &mut BTreeSet<String>) {
    let text = text.trim_start();
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let head = format!("{head}{path}");
    let Some(group) = rest.strip_prefix('{').filter(|_| path.is_empty() || path.ends_with("::")) else {
        if !path.is_empty() {
            paths.insert(head.trim_end_matches(':').to_owned());
        }
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                expand(&group[start..at], &head, paths);
                start = at + 1;
                if c == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// Whether a path is `rule` or below it.
fn is_below(path: &str, rule: &str) -> bool {
    path.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The faults of one file against the rules of imports.
fn import_faults(source: &Source, allowed: &BTreeMap<&str, &[&str]>) -> Vec<String> {
    if source.module == "lib" {
        return Vec::new();
    }
    let name = source.path.display();
    let Some(may_use) = allowed.get(source.module.as_str()) else {
        return vec![format!("{name}: module {} has no rule here", source.module)];
    };
    paths_after(&source.code, "crate::")
        .into_iter()
        .filter(|path| {
            let head = path.split("::").next().unwrap_or("").trim();
            // Words exported at the crate's top (macros) have no module.
            let is_module = allowed.contains_key(head);
            is_module && head != source.module && !may_use.iter().any(|rule| is_below(path, rule))
        })
        .map(|path| format!("{name}: {} may not use crate::{path}", source.module))
        .collect()
}

/// The faults of one pure file against what it must not touch.
fn purity_faults(source: &Source) -> Vec<String> {
    let name = source.path.display();
    let mut faults = Vec::new();
    for banned in BANNED {
        let root = banned.split("::").next().unwrap_or(banned);
        let paths = paths_after(&source.code, root);
        if paths.iter().any(|path| is_below(&format!("{root}{path}"), banned)) {
            faults.push(format!("{name}: a pure module names {banned}"));
        }
    }
    for path in paths_after(&source.code, "std::net::") {
        if !ADDRESS_TYPES.contains(&path.split("::").next().unwrap_or("")) {
            faults.push(format!("{name}: a pure module names std::net::{path}"));
        }
    }
    faults
}

fn rules() -> BTreeMap<&'static str, &'static [&'static str]> {
    MAY_USE.into_iter().collect()
}

#[test]
fn imports_point_downwards() {
    let rules = rules();
    let faults: Vec<String> = sources().iter().flat_map(|source| import_faults(source, &rules)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn pure_modules_touch_nothing_outside() {
    let faults: Vec<String> = sources()
        .iter()
        .filter(|source| {
            let is_one = |file: &&str| source.path.ends_with(file);
            PURE.contains(&source.module.as_str()) || PURE_FILES.iter().any(is_one)
        })
        .flat_map(purity_faults)
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn files_are_short_and_open_with_their_purpose() {
    let mut faults = Vec::new();
    for source in sources() {
        let name = source.path.display();
        if source.top.len() < 12 && !source.path.components().any(|part| part.as_os_str() == "tests") {
            faults.push(format!("{name}: does not open with its purpose"));
        }
        if source.lines >= MAX_LINES && !source.top.contains("Longer than") {
            faults.push(format!("{name}: {} lines before its tests", source.lines));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_checks_find_what_they_look_for() {
    let source = |module: &str, code: &str| Source {
        path: PathBuf::from("made_up.rs"),
        module: module.into(),
        code: code.lines().map(str::to_owned).collect(),
        lines: 1,
        top: String::new(),
    };
    let rules = rules();
    for (module, code) in [
        ("chain", "use crate::engine::Engine;"),
        ("store", "use crate::chain::{block_tree::BlockTree, command::BlockRef};"),
        ("wire", "fn f() { crate::peer::x() }"),
        ("engine", "use crate::{\n    chain::params, node::Node};"),
        ("net", "use crate::node::Node;"),
    ] {
        assert_eq!(import_faults(&source(module, code), &rules).len(), 1, "{module}: {code}");
    }
    assert!(
        import_faults(&source("engine", "use crate::sync::fsm;\nuse crate::engine::x;"), &rules).is_empty()
    );
    for code in [
        "use std::net::TcpStream;",
        "use std::net::{IpAddr, UdpSocket};",
        "use std::sync::{Arc, Mutex};",
        "let t = std::time::Instant::now();",
        "use std::{fs, path::Path};",
        "use futures::channel::mpsc;",
        "use parking_lot::RwLock;",
    ] {
        assert_eq!(purity_faults(&source("peer", code)).len(), 1, "{code}");
    }
    assert!(
        purity_faults(&source("peer", "use std::net::{IpAddr, SocketAddr};\nuse std::sync::Arc;")).is_empty()
    );
}

//! `finding`, `model`, `policy`, `segment`, `suggest` and `preview` stay pure: no I/O, no clock, no client, none of
//! the parts that use them.

use std::fs;
use std::path::{Path, PathBuf};

const FORBIDDEN: [&str; 22] = [
    "kube::",
    "tokio",
    "aya",
    "prometheus_client",
    "axum",
    "hyper",
    "reqwest",
    "crate::cluster",
    "crate::capture",
    "crate::audit",
    "crate::serve",
    "crate::cli",
    "std::fs",
    "std::io",
    "std::process",
    "std::env",
    "std::os",
    "std::thread",
    "SystemTime",
    "Instant",
    "TcpStream",
    "UdpSocket",
];

/// The Rust files of a module and below, without its tests.
fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    let is_tests = |path: &Path| path.file_stem().is_some_and(|stem| stem == "tests");
    if is_tests(path) {
        return;
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// Whether a line of code names the path or a path inside it, not merely a word that begins like it.
fn names(code: &str, path: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        !before.is_some_and(part_of_name) && (path.ends_with(':') || !after.is_some_and(part_of_name))
    })
}

/// What a file imports or names of what it must not, as `line: path`.
fn offences(text: &str) -> Vec<String> {
    // Unit tests at a file's end may do as they please.
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut grouped = String::new();
    for (at, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default().trim();
        // A `use` that spans lines: `use std::{` and then `fs,`.
        if let Some(start) = line.strip_prefix("use ").and_then(|rest| rest.strip_suffix('{')) {
            grouped = start.to_owned();
        } else if line.contains('}') {
            grouped.clear();
        }
        let mut candidates = vec![line.to_owned()];
        if let Some((start, items)) = line.split_once('{').filter(|(start, _)| start.starts_with("use ")) {
            candidates.extend(items.split(',').map(|item| format!("{start}{}", item.trim())));
        }
        if !grouped.is_empty() {
            candidates.extend(line.split(',').map(|item| format!("{grouped}{}", item.trim())));
        }
        for path in FORBIDDEN {
            if candidates.iter().any(|candidate| names(candidate, path)) {
                found.push(format!("{}: {path}", at + 1));
            }
        }
    }
    found
}

#[test]
fn pure_parts_import_nothing_that_acts() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for name in ["finding", "model", "policy", "preview", "segment", "suggest"] {
        sources(&src.join(name).with_extension("rs"), &mut files);
        sources(&src.join(name), &mut files);
    }
    assert!(files.len() > 25, "only {} files were found", files.len());
    for file in files {
        // The one place that formats times may name the system's clock type; it never reads the clock. A preview
        // takes objects and edges and asks the judges that the live agent asks.
        let allowed: &[&str] = if file.ends_with("model/time.rs") {
            &["SystemTime"]
        } else if file.starts_with(src.join("preview")) || file == src.join("preview.rs") {
            &["crate::cluster", "crate::audit"]
        } else {
            &[]
        };
        let found = offences(&fs::read_to_string(&file).unwrap());
        let found: Vec<String> =
            found.into_iter().filter(|offence| !allowed.iter().any(|end| offence.ends_with(end))).collect();
        assert!(found.is_empty(), "{}: {}", file.display(), found.join(", "));
    }
}

#[test]
fn offences_are_found_however_they_are_written() {
    for (text, count) in [
        ("use kube::Client;", 1),
        ("use std::{fs, net::IpAddr};", 1),
        ("use std::{\n    sync::Arc,\n    fs,\n};", 1),
        ("let now = std::time::Instant::now();", 1),
        ("    crate::cluster::index()", 1),
        ("use std::net::{IpAddr, TcpStream};", 1),
        ("// use tokio::sync", 0),
        ("use std::net::IpAddr;", 0),
        ("let kubernetes = ayah;", 0),
        ("fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}", 0),
    ] {
        assert_eq!(offences(text).len(), count, "{text}");
    }
}

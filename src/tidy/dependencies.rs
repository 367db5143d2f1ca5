//! What the house is built from, asked of cargo without a network: no OpenSSL and no aws-lc (they need C toolchains and are a second TLS beside
//! rustls), no two major versions of what is large, and only licences that let us ship a binary.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Parts of names that no package may have.
const BANNED: [&str; 4] = ["openssl", "native-tls", "aws-lc", "boringssl"];

/// It only looks for the place where the system keeps its certificates.
const NOT_BANNED: [&str; 1] = ["openssl-probe"];

/// Large, or dangerous to have twice because their types meet.
const ONCE: [&str; 20] = [
    "bollard",
    "clap",
    "fjall",
    "hickory-proto",
    "http",
    "http-body",
    "hyper",
    "hyper-util",
    "imbl",
    "indexmap",
    "reqwest",
    "ring",
    "rustix",
    "rustls",
    "serde",
    "serde_json",
    "tokio",
    "tower",
    "tracing",
    "warp",
];

const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// All packages that are built for this platform: name, version, licence.
fn packages() -> Vec<(String, String, String)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["metadata", "--offline", "--locked", "--format-version", "1"]);
    let output = command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |package: &Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(|package| (text(package, "name"), text(package, "version"), text(package, "license"))).collect()
}

/// The part of a version that must be equal for types to be.
fn major(version: &str) -> String {
    let parts: Vec<&str> = version.split('.').collect();
    let significant = parts.iter().position(|part| *part != "0").map_or(parts.len(), |at| at + 1);
    parts[..significant].join(".")
}

/// True when we may choose a licence of the list, wherever the expression leaves the choice.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    either(&mut words) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>) -> bool {
    let mut allowed = both(words);
    while words.next_if_eq(&"OR").is_some() {
        allowed |= both(words);
    }
    allowed
}

fn both(words: &mut Words<'_>) -> bool {
    let mut allowed = one(words);
    while words.next_if_eq(&"AND").is_some() {
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut Words<'_>) -> bool {
    match words.next() {
        Some("(") => {
            let allowed = either(words);
            words.next() == Some(")") && allowed
        }
        Some(licence) => {
            // An exception only ever allows more.
            if words.next_if_eq(&"WITH").is_some() {
                words.next();
            }
            LICENCES.contains(&licence.trim_end_matches('+'))
        }
        None => false,
    }
}

fn complaints(packages: &[(String, String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut majors: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, version, licence) in packages {
        if BANNED.iter().any(|banned| name.contains(banned)) && !NOT_BANNED.contains(&name.as_str()) {
            found.push(format!("{name} {version} is banned; `cargo tree -i {name}` says who brings it"));
        }
        if name != "xtao" && !is_allowed(licence) {
            found.push(format!("{name} {version} has the licence '{licence}', which is not on the list"));
        }
        majors.entry(name).or_default().insert(major(version));
    }
    let twice = majors.iter().filter(|(name, versions)| ONCE.contains(name) && versions.len() > 1);
    found.extend(twice.map(|(name, versions)| format!("{name} is there twice: {versions:?}; `cargo tree -i {name}@VERSION` says why")));
    found
}

#[test]
fn what_we_build_from_is_fit_to_ship() {
    let packages = packages();
    assert!(packages.len() > 100, "only {} packages were found", packages.len());
    let found = complaints(&packages);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn planted_packages_are_caught() {
    let check = |packages: &[(&str, &str, &str)], expected: &[&str]| {
        let packages: Vec<_> =
            packages.iter().map(|(name, version, licence)| ((*name).into(), (*version).into(), (*licence).into())).collect();
        let found = complaints(&packages);
        assert!(found.len() == expected.len() && expected.iter().zip(&found).all(|(part, found)| found.contains(part)), "{found:?}");
    };
    check(&[("tokio", "1.2.3", "MIT"), ("openssl-probe", "0.2.0", "MIT OR Apache-2.0")], &[]);
    check(&[("openssl-sys", "0.9.1", "MIT"), ("aws-lc-rs", "1.0.0", "ISC")], &["openssl-sys 0.9.1 is banned", "aws-lc-rs 1.0.0 is banned"]);
    check(&[("http", "0.2.9", "MIT"), ("http", "1.0.0", "MIT")], &["http is there twice"]);
    check(&[("rustix", "0.38.1", "MIT"), ("rustix", "0.38.2", "MIT"), ("syn", "2.0.0", "MIT"), ("syn", "3.0.0", "MIT")], &[]);
    check(&[("x", "1.0.0", "GPL-3.0"), ("y", "1.0.0", "")], &["'GPL-3.0'", "''"]);
}

#[test]
fn licence_expressions_are_understood() {
    for good in ["MIT", "MIT/GPL-3.0", "(MIT OR GPL-3.0) AND Zlib", "Apache-2.0 WITH LLVM-exception", "MPL-2.0+", "GPL-3.0 AND MIT OR ISC"]
    {
        assert!(is_allowed(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "(MIT", "MIT ISC"] {
        assert!(!is_allowed(bad), "{bad}");
    }
}

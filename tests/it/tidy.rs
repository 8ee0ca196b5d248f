//! The shape of the code, held by a test: layers, sizes, names, who may name what (HOUSE-STYLE.md), and that every
//! configuration key and every command of the README is real.
//!
//! Promises: a new source file fails here until it has its line in `LAYERS`; all findings are told at once, with
//! file and line. It reads text only and relies on `cargo fmt`; it never asks the compiler.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lowest first. A file names only files of lower layers; inside a directory the parent names its children.
const LAYERS: &[&[&str]] = &[
    &["id", "clock", "metrics"],
    &["event", "config", "secret"],
    &["wake", "frame", "token", "limits"],
    &["store"],
    &["cursor", "publish"],
    &["features"],
    &["http"],
    &["accept"],
    &["server"],
    &["cli"],
    &["lib", "main"],
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const NAMES_BANNED: &[&str] = &[
    "hub", "room", "channel", "offset", "manager", "helper", "util", "common", "misc", "utils",
    "helpers",
];

/// Crates that only these modules may name.
const NAMED_BY: &[(&str, &[&str])] = &[
    ("sled", &["store"]),
    ("crossbeam_epoch", &["store"]),
    ("axum", &["http", "server", "accept", "cli"]),
    ("hyper", &["http", "server", "accept", "cli"]),
    ("hyper_util", &["http", "server", "accept", "cli"]),
];

struct Source {
    path: PathBuf,
    /// Path below its directory, without extension: `store/log`.
    name: String,
    text: String,
}

impl Source {
    /// The first part of the name: the module whose layer counts.
    fn module(&self) -> &str {
        self.name.split('/').next().unwrap_or(&self.name)
    }

    /// The lines with their numbers, without comments, up to the unit tests; nothing of a file of unit tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_tests = self.name.split('/').any(|part| part == "tests");
        let lines = self.text.lines().enumerate().take_while(move |_| !is_tests);
        let code = lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
        code.filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(n, line)| (n + 1, line))
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &str) -> Vec<Source> {
    let base = root().join(directory);
    let mut waiting = vec![base.clone()];
    let mut sources = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).expect("the directory is in the repository") {
            let path = entry.expect("the directory can be read").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path
                    .strip_prefix(&base)
                    .expect("found below it")
                    .with_extension("");
                let text = std::fs::read_to_string(&path).expect("source files are UTF-8");
                sources.push(Source {
                    name: below.display().to_string(),
                    path,
                    text,
                });
            }
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    sources
}

/// The program and its tests, and the load tool, which keeps to the same sizes, openings and names.
fn all_sources() -> Vec<Source> {
    let directories = ["src", "tests/it", "loadtest/src", "loadtest/tests"];
    directories.into_iter().flat_map(sources).collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

#[track_caller]
fn assert_none(findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

#[test]
fn a_file_names_only_files_of_lower_layers() {
    let sources = sources("src");
    let files: BTreeSet<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let mut findings = Vec::new();
    for source in &sources {
        let Some(own) = layer(source.module()) else {
            findings.push(format!("{} has no line in LAYERS", source.path.display()));
            continue;
        };
        let parent = source.name.rsplit_once('/').map(|(parent, _)| parent);
        for (line, text) in source.code() {
            for path in crate_paths(text) {
                let named = path.split("::").next().unwrap_or("");
                let fits = match layer(named) {
                    Some(layer) if named == source.module() => {
                        // Inside a directory: children may name their siblings, never the parent.
                        let below = path.split("::").nth(1).unwrap_or("");
                        let sibling = format!("{}/{below}", parent.unwrap_or(named));
                        layer == own && (parent.is_none() || files.contains(sibling.as_str()))
                    }
                    Some(layer) => layer < own,
                    // An item of the crate's root: there are none but modules.
                    None => false,
                };
                if !fits {
                    findings.push(format!("{}: {} names {path}", source.at(line), source.name));
                }
            }
            let names_parent = parent.is_some() && text.contains("super::") && {
                let below = text.split("super::").nth(1).unwrap_or("");
                let below: String = below
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                !files.contains(format!("{}/{below}", parent.unwrap_or("")).as_str())
            };
            if names_parent {
                findings.push(format!("{}: a child names its parent", source.at(line)));
            }
        }
    }
    assert_none(&findings);
}

/// The paths below `crate::` and `tidings::` on one line, groups in braces taken apart.
fn crate_paths(line: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for prefix in ["crate::", "tidings::"] {
        for (position, _) in line.match_indices(prefix) {
            let before = line[..position].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &line[position + prefix.len()..];
            let is_path = |c: &char| c.is_alphanumeric() || *c == '_' || *c == ':';
            let path: String = rest.chars().take_while(is_path).collect();
            let group = rest[path.len()..]
                .strip_prefix('{')
                .and_then(|rest| rest.split('}').next());
            match group {
                Some(group) => {
                    let names = group
                        .split(',')
                        .map(str::trim)
                        .filter(|name| !name.is_empty());
                    paths.extend(names.map(|name| format!("{path}{name}")));
                }
                None => paths.push(path),
            }
        }
    }
    paths
}

#[test]
fn paths_are_found_in_every_form_of_use() {
    assert_eq!(
        crate_paths("use crate::store::keys::Key;"),
        ["store::keys::Key"]
    );
    assert_eq!(
        crate_paths("use crate::{clock, event::Event};"),
        ["clock", "event::Event"]
    );
    assert_eq!(
        crate_paths("    crate::id::fresh(crate::clock::now())"),
        ["id::fresh", "clock::now"]
    );
    assert_eq!(crate_paths("let mycrate::x"), Vec::<String>::new());
}

#[test]
fn files_and_functions_are_short() {
    let mut findings = Vec::new();
    for source in &all_sources() {
        let count = source.text.lines().count();
        if count > FILE_LINES_MAX {
            findings.push(format!("{} has {count} lines", source.path.display()));
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            if !is_function(line) || line.ends_with(['}', ';']) {
                continue;
            }
            let indent = &line[..line.len() - line.trim_start().len()];
            let ends =
                |line: &&str| *line == format!("{indent}}}") || *line == format!("{indent});");
            let Some(length) = lines[start..].iter().position(ends) else {
                continue;
            };
            if length + 1 > FUNCTION_LINES_MAX {
                findings.push(format!(
                    "{}: a function of {} lines",
                    source.at(start + 1),
                    length + 1
                ));
            }
        }
    }
    assert_none(&findings);
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || ["const", "async", "unsafe", "extern", "\"C\""].contains(word)
    });
    words.next() == Some("fn")
}

#[test]
fn every_file_says_first_what_it_owns() {
    let mut findings = Vec::new();
    for source in &all_sources() {
        let header = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        let is_tests = source
            .path
            .components()
            .any(|part| part.as_os_str() == "src")
            && source.name.split('/').any(|part| part == "tests");
        if !(3..=8).contains(&header) && !is_tests {
            findings.push(format!(
                "{} opens with {header} lines",
                source.path.display()
            ));
        }
    }
    assert_none(&findings);
}

#[test]
fn names_are_those_of_the_house() {
    let mut findings = Vec::new();
    for source in &all_sources() {
        let stem = source.name.rsplit('/').next().unwrap_or("").to_owned();
        let defined = source.code().flat_map(|(line, text)| {
            defined_names(text)
                .into_iter()
                .map(move |name| (line, name))
        });
        for (line, name) in defined.chain([(1, stem)]) {
            for word in words(&name) {
                if NAMES_BANNED.contains(&word.as_str()) {
                    findings.push(format!("{}: the name {name}", source.at(line)));
                }
            }
        }
    }
    assert_none(&findings);
}

/// The names that a line defines: after a keyword, or before a colon at the start of the line.
fn defined_names(line: &str) -> Vec<String> {
    const KEYWORDS: [&str; 9] = [
        "fn", "struct", "enum", "mod", "trait", "type", "const", "static", "let",
    ];
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let line = line.split('"').next().unwrap_or("");
    let tokens: Vec<&str> = line.split(|c: char| !is_name(c) && c != ':').collect();
    let mut names = Vec::new();
    for pair in tokens.windows(3) {
        if KEYWORDS.contains(&pair[0]) {
            let name = if pair[1] == "mut" { pair[2] } else { pair[1] };
            names.push(name.trim_end_matches(':').to_owned());
        }
    }
    let field = line
        .trim_start()
        .trim_start_matches("pub ")
        .split(": ")
        .next()
        .unwrap_or("");
    if line.contains(": ") && !field.is_empty() && field.chars().all(is_name) {
        names.push(field.to_owned());
    }
    names
}

/// `ConnIdMax` and `conn_id_max` as their words, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for character in name.chars() {
        if character == '_' || character.is_uppercase() {
            words.push(String::new());
        }
        if character != '_' {
            words
                .last_mut()
                .expect("begun above")
                .extend(character.to_lowercase());
        }
    }
    words
}

#[test]
fn names_are_found_where_they_are_defined() {
    assert_eq!(defined_names("    let mut offset = 1;"), ["offset"]);
    assert_eq!(defined_names("pub struct RoomList {"), ["RoomList"]);
    assert_eq!(defined_names("    pub channel: u8,"), ["channel"]);
    assert_eq!(words("RoomList"), ["", "room", "list"]);
    assert_eq!(words("poll_wait_ms"), ["poll", "wait", "ms"]);
}

#[test]
fn a_crate_is_named_only_by_the_module_that_owns_it() {
    let mut findings = Vec::new();
    for source in &sources("src") {
        for (line, text) in source.code() {
            for (name, owners) in NAMED_BY {
                let is_named =
                    text.contains(&format!("{name}::")) || text.contains(&format!("use {name};"));
                let is_whole = !text.contains(&format!("_{name}::"));
                if is_named && is_whole && !owners.contains(&source.module()) {
                    findings.push(format!("{}: {} names {name}", source.at(line), source.name));
                }
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn only_frame_knows_what_the_wire_looks_like() {
    let mut findings = Vec::new();
    for source in sources("src")
        .iter()
        .filter(|source| source.module() != "frame")
    {
        for (line, text) in source.code() {
            let is_wire = ["data: ", "event: ", "retry: "].iter().any(|field| {
                text.contains(&format!("\"{field}")) || text.contains(&format!("\\n{field}"))
            });
            if is_wire {
                findings.push(format!("{}: writes frames", source.at(line)));
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn results_are_neither_swallowed_nor_unwrapped() {
    let mut findings = Vec::new();
    for source in &sources("src") {
        for (line, text) in source.code() {
            if text.contains(".unwrap()") || text.contains("let _ =") || text.contains("todo!(") {
                findings.push(format!("{}: {}", source.at(line), text.trim()));
            }
        }
    }
    assert_none(&findings);
}

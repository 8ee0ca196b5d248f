//! What documents promise, held by a test: configuration keys and the commands of the README.
//!
//! Promises: a key of PROTOCOL.md section 7 that is missing from `config.toml`, a key there without a comment, and a
//! README command that the binary does not know are told by name. It never runs what a document says.

use std::path::Path;

use crate::harness;

/// The keys of PROTOCOL.md section 7, with the defaults that it states.
const KEYS: &[(&str, &str)] = &[
    ("server.listen", "\"127.0.0.1:8082\""),
    ("server.data_dir", "\"data\""),
    ("server.allowed_origins", "[]"),
    ("server.drain_seconds", "10"),
    ("auth.hs256_secret", "\"\""),
    ("auth.jwks", ""),
    ("auth.public_keys", ""),
    ("auth.issuer", ""),
    ("auth.audience", ""),
    ("auth.allow_query_token", "false"),
    ("demo.enabled", ""),
    ("demo.allow_public", "false"),
    ("log.retention_events", "10000"),
    ("log.retention_days", "30"),
    ("log.retention_bytes", "16777216"),
    ("limits.connections_per_user", "32"),
    ("limits.connections", "10000"),
    ("limits.event_bytes", "65536"),
    ("limits.body_bytes", "4194304"),
    ("limits.recipients", "5000"),
    ("limits.user_writes_per_second", "10"),
    ("limits.user_writes_burst", "30"),
    ("limits.publish_per_second", "20000"),
    ("limits.auth_failures_per_minute", "20"),
    ("stream.ping_seconds", "20"),
    ("stream.retry_ms_min", "2000"),
    ("stream.retry_ms_max", "6000"),
    ("stream.write_timeout_seconds", "30"),
    ("ws.ping_seconds", "30"),
    ("ws.pong_timeout_seconds", "10"),
    ("ws.auth_timeout_seconds", "5"),
    ("ws.deflate", "true"),
    ("presence.offline_after_seconds", "10"),
    ("typing.repeat_seconds", "2"),
    ("typing.clear_seconds", "5"),
    ("notifications.inbox_max", "10000"),
    ("notifications.digest_threshold", "20"),
    ("notifications.digest_window_seconds", "10"),
    ("notifications.digest_every_seconds", "5"),
    ("feed.digest_seconds", "30"),
];

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One `key = value` line of `config.toml`, and whether a comment stands above or beside it.
struct Key {
    name: String,
    value: String,
    is_documented: bool,
}

fn keys_of(text: &str) -> Vec<Key> {
    let mut section = String::new();
    let mut keys = Vec::new();
    let mut has_comment = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            has_comment = false;
        } else if line.starts_with('#') {
            has_comment = true;
        } else if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name.to_owned();
            has_comment = false;
        } else if let Some((name, value)) = line.split_once('=') {
            let (value, beside) = value
                .split_once(" #")
                .map_or((value, false), |(value, _)| (value, true));
            let name = format!("{section}.{}", name.trim());
            let value = value.trim().to_owned();
            keys.push(Key {
                name,
                value,
                is_documented: has_comment || beside,
            });
        }
    }
    keys
}

#[test]
fn every_configuration_key_is_there_with_its_default_and_a_comment() {
    let keys = keys_of(&file("config.toml"));
    for key in &keys {
        assert!(
            key.is_documented,
            "{} has no comment in config.toml",
            key.name
        );
    }
    for (name, default) in KEYS {
        let key = keys.iter().find(|key| key.name == *name);
        let key = key.unwrap_or_else(|| panic!("{name} is missing from config.toml"));
        let value = key.value.replace('_', "");
        assert!(
            default.is_empty() || value == default.replace('_', ""),
            "{name} is {value}"
        );
    }
}

#[test]
fn every_command_of_the_readme_is_known_to_the_binary() {
    let readme = file("README.md");
    let help = harness::run(&["--help"], &[]).stdout;
    let known: Vec<&str> = help
        .lines()
        .filter(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut count = 0;
    for line in shell_lines(&readme) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let binary = words
            .iter()
            .position(|word| *word == "tidings" || word.ends_with("/tidings"));
        let Some(command) = binary.and_then(|position| words.get(position + 1)) else {
            continue;
        };
        if !command.starts_with('-') {
            assert!(
                known.contains(command),
                "the README runs `tidings {command}`: {line}"
            );
            count += 1;
        }
    }
    assert!(count > 0, "the README shows no command of tidings");
}

/// The lines of the blocks marked `sh`, continued lines joined.
fn shell_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut is_shell = false;
    let mut line = String::new();
    for raw in text.lines() {
        if raw.trim_start().starts_with("```") {
            is_shell = !is_shell && raw.trim() == "```sh";
        } else if is_shell {
            match raw.strip_suffix('\\') {
                Some(begun) => line.push_str(begun),
                None => {
                    line.push_str(raw.trim_start_matches("$ "));
                    lines.push(std::mem::take(&mut line));
                }
            }
        }
    }
    lines
}

#[test]
fn documents_are_read_as_written() {
    let keys = keys_of("[a]\n# Why.\nb = 1_000\nc = 2\n\nd = \"x\" # beside\n\n[e]\nf = 3\n");
    let told: Vec<_> = keys
        .iter()
        .map(|key| (key.name.as_str(), key.is_documented))
        .collect();
    assert_eq!(
        told,
        [("a.b", true), ("a.c", true), ("a.d", true), ("e.f", false)]
    );
    assert_eq!(
        shell_lines("x\n```sh\ntidings a \\\n  b\n```\ny\n```\nz\n```"),
        ["tidings a   b"]
    );
}

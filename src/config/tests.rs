use super::document::read;
use proptest::prelude::*;
use secrecy::ExposeSecret;
use std::time::Duration;

use super::*;

fn set(settings: &[&str]) -> Sources {
    Sources {
        set: settings.iter().map(|&setting| setting.to_owned()).collect(),
        ..Sources::default()
    }
}

fn from_text(text: &str) -> Result<Config, ConfigError> {
    let mut values = Values::of_default(DEFAULT_TEXT);
    values.overlay_file("t.toml", text)?;
    Config::of(&values)
}

fn sentence(result: Result<Config, ConfigError>) -> String {
    result.map_or_else(
        |error| error.to_string(),
        |_| "nothing was refused".to_owned(),
    )
}

#[test]
fn the_default_is_what_the_protocol_says() {
    let config = Config::default();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8082");
    assert_eq!(config.server.data_dir, Path::new("data"));
    assert_eq!(config.server.drain_seconds, Duration::from_secs(10));
    assert!(config.demo.enabled && !config.demo.allow_public);
    assert!(config.auth.hs256_secret.expose_secret().is_empty());
    assert_eq!(config.log.retention_events, 10_000);
    assert_eq!(config.log.retention_days, 30.0);
    assert_eq!(config.limits.publish_per_second.get(), 20_000);
    assert_eq!(config.stream.retry_ms_max, Duration::from_millis(6000));
    assert!(config.ws.deflate);
    assert_eq!(config.store.min_free_bytes, 268_435_456);
}

#[test]
fn a_later_source_wins() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mine.toml");
    std::fs::write(
        &file,
        "stream.ping_seconds = 1\n[limits]\nrecipients = 1\nconnections = 1\nbody_bytes = 70_000\n",
    )
    .unwrap();
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let sources = Sources {
        file: Some(file),
        environment: vec![
            variable("TIDINGS_LIMITS__RECIPIENTS", "2"),
            variable("TIDINGS_LIMITS__CONNECTIONS", "2"),
            variable("TIDINGS_AUTH__AUDIENCE", "app, web,"),
            variable("TIDINGS_AUTH__ISSUER", "007"),
            variable("TIDINGS_PORT", "tcp://10.0.0.1:80"),
            variable("OTHER_LIMITS__NONE", "1"),
        ],
        set: vec![
            "limits.connections=3".to_owned(),
            "server.listen=127.0.0.1:1".to_owned(),
            "server.allowed_origins=[\"https://a.example\", 'http://b.example:81']".to_owned(),
        ],
        listen: Some("localhost:0".to_owned()),
        data: Some(PathBuf::from("/tmp/x")),
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.stream.ping_seconds, Duration::from_secs(1));
    assert_eq!(config.limits.body_bytes, 70_000);
    assert_eq!(
        (config.limits.recipients, config.limits.connections),
        (2, 3)
    );
    assert_eq!(config.auth.audience, ["app", "web"]);
    assert_eq!(config.auth.issuer, "007");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.server.data_dir, Path::new("/tmp/x"));
    assert_eq!(
        config.server.allowed_origins,
        ["https://a.example", "http://b.example:81"]
    );
}

#[test]
fn durations_may_be_fractions() {
    let config = Config::load(&set(&[
        "stream.ping_seconds=0.2",
        "stream.retry_ms_min=1.5",
    ]));
    let stream = config.unwrap().stream;
    assert_eq!(stream.ping_seconds, Duration::from_millis(200));
    assert_eq!(stream.retry_ms_min, Duration::from_micros(1500));
}

#[test]
fn the_demo_is_off_on_a_public_address_unless_asked_for() {
    let demo = |settings: &[&str]| Config::load(&set(settings)).map(|config| config.demo.enabled);
    assert_eq!(demo(&["server.listen=[::1]:80"]), Ok(true));
    assert_eq!(demo(&["server.listen=0.0.0.0:80"]), Ok(false));
    assert_eq!(demo(&["demo.enabled=false"]), Ok(false));
    let public = [
        "server.listen=0.0.0.0:80",
        "demo.enabled=true",
        "demo.allow_public=true",
    ];
    assert_eq!(demo(&public), Ok(true));
    assert!(demo(&public[..2]).is_err());
}

#[track_caller]
fn check_sentences(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(sentence(from_text(text)), *expected, "for {text:?}");
    }
}

/// Each bad file with the sentence it gets.
#[test]
fn a_bad_value_in_a_file_is_refused_with_key_place_and_cure() {
    let cases = [
        (
            "[limits]\nconnections = 0\n",
            "`limits.connections` must be a whole number from 1 to 1000000, not 0 (t.toml, line 2, column 15)",
        ),
        (
            "[limits]\nrecipients = 1.5",
            "`limits.recipients` must be a whole number from 1 to 1000000, not 1.5 (t.toml, line 2, column 14)",
        ),
        (
            "[log]\nretention_events = 9223372036854775808",
            "`log.retention_events` must be a whole number from 0 to 1000000000, not a number beyond 64 bits \
             (t.toml, line 2, column 20)",
        ),
        (
            "[log]\nretention_days = nan",
            "`log.retention_days` must be a number from 0 to 36500, not NaN (t.toml, line 2, column 18)",
        ),
        (
            "\n[stream]\n  ping_seconds = \"20\"",
            "`stream.ping_seconds` must be a number from 0.01 to 3600, not \"20\" (t.toml, line 3, column 18)",
        ),
        (
            "ws.deflate = \"yes\"",
            "`ws.deflate` must be true or false, not \"yes\" (t.toml, line 1, column 14)",
        ),
        (
            "demo.enabled = 1",
            "`demo.enabled` must be true, false or \"auto\", not 1 (t.toml, line 1, column 16)",
        ),
        (
            "auth.audience = [1]",
            "`auth.audience` must be a list of texts such as [\"a\", \"b\"], not a list of something else than texts \
             (t.toml, line 1, column 17)",
        ),
    ];
    check_sentences(&cases);
}

#[test]
fn a_file_of_another_shape_is_refused_with_place_and_cure() {
    let cases = [
        (
            "[typing]\nrepeat = 1",
            "`typing.repeat` is not a key of the configuration; the section `typing` has clear_seconds, \
             repeat_seconds (t.toml, line 2, column 1)",
        ),
        (
            "listen = \"127.0.0.1:1\"",
            "`listen` is not a key of the configuration; every key stands in one of the sections auth, conversations, \
             demo, feed, limits, log, notifications, presence, server, store, stream, typing, ws (t.toml, line 1, \
             column 1)",
        ),
        (
            "server = 8082",
            "`server` is a section: write [server] on a line of its own and its keys below it \
             (t.toml, line 1, column 1)",
        ),
        (
            "[demo]\nenabled = true\nenabled = false",
            "the file is not valid TOML: duplicate key (t.toml, line 3, column 1)",
        ),
        (
            "[stream]\nretry_ms_min = 7000",
            "`stream.retry_ms_min` (7000) must be no more than `stream.retry_ms_max` (6000): lower the one or raise \
             the other (t.toml, line 2, column 16)",
        ),
        (
            "[limits]\nbody_bytes = 1000",
            "`limits.event_bytes` (65536) must be no more than `limits.body_bytes` (1000): an event comes in a body, \
             so lower the one or raise the other (t.toml, line 2, column 14)",
        ),
    ];
    check_sentences(&cases);
}

/// Each bad setting with words of the sentence it gets.
#[test]
fn a_bad_setting_is_refused_with_key_and_cure() {
    let cases = [
        ("limits.connections", "there is no `=`"),
        (
            "limits.connections=many",
            "`limits.connections` must be a whole number from 1 to 1000000, not \"many\" (--set)",
        ),
        ("limits.connections=", "not \"\" (--set)"),
        ("limits.connections=-1", "not -1 (--set)"),
        ("limits.x=1", "`limits.x` is not a key"),
        ("=1", "`` is not a key"),
        ("stream.ping_seconds=0", "from 0.01 to 3600, not 0 (--set)"),
        ("stream.ping_seconds=inf", "not inf (--set)"),
        ("server.listen=8082", "IP address with a port"),
        ("server.listen=example.com:80", "IP address with a port"),
        ("server.data_dir=", "must be the path of a directory"),
        (
            "auth.jwks=ftp://keys.example/jwks",
            "path of a file or an http(s) URL",
        ),
        ("server.allowed_origins=*", "without `*`"),
        (
            "server.allowed_origins=https://*.example.com",
            "without `*`",
        ),
        ("server.allowed_origins=example.com", "scheme://host"),
        (
            "server.allowed_origins=HTTPS://App.example.com:443/",
            "here https://app.example.com,",
        ),
        (
            "server.allowed_origins=https://a.example/x",
            "here https://a.example,",
        ),
        (
            "server.allowed_origins=https://u@a.example",
            "here https://a.example,",
        ),
        ("server.allowed_origins=null", "scheme://host"),
    ];
    for (setting, expected) in cases {
        let sentence = sentence(Config::load(&set(&[setting])));
        assert!(
            sentence.contains(expected),
            "{setting}: {sentence:?} lacks {expected:?}"
        );
    }
}

#[test]
fn a_bad_variable_is_refused_by_its_name() {
    let load = |name: &str, value: &str| {
        let environment = vec![(name.to_owned(), value.to_owned())];
        sentence(Config::load(&Sources {
            environment,
            ..Sources::default()
        }))
    };
    let bad_value = load("TIDINGS_WS__DEFLATE", "1");
    assert!(
        bad_value.ends_with("not \"1\" (variable TIDINGS_WS__DEFLATE)"),
        "{bad_value}"
    );
    let bad_name = load("TIDINGS_WS__INFLATE", "true");
    assert!(
        bad_name.starts_with("`ws.inflate` is not a key"),
        "{bad_name}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("long.toml");
    std::fs::write(&long, "#".repeat(1024 * 1024 + 1)).unwrap();
    let binary = directory.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    for path in [directory.path().join("none.toml"), long, binary] {
        let file = Some(path.clone());
        let sentence = sentence(Config::load(&Sources {
            file,
            ..Sources::default()
        }));
        assert!(
            sentence.contains(path.to_str().unwrap()) && sentence.contains("--config"),
            "{sentence}"
        );
    }
}

#[test]
fn a_secret_is_never_shown() {
    let short = sentence(Config::load(&set(&["auth.hs256_secret=hunter2"])));
    assert!(
        short.starts_with("`auth.hs256_secret` must have at least 32 bytes"),
        "{short}"
    );
    assert!(!short.contains("hunter2"), "{short}");
    let typed = sentence(from_text("auth.hs256_secret = 12345678"));
    assert_eq!(
        typed,
        "`auth.hs256_secret` must be a text in quotes (t.toml, line 1, column 21)"
    );
    let long = format!("auth.hs256_secret={}", "hunter2-".repeat(4));
    let config = Config::load(&set(&[&long])).unwrap();
    assert_eq!(
        config.auth.hs256_secret.expose_secret(),
        "hunter2-".repeat(4)
    );
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// A key that nobody reads would take any value in silence.
#[test]
fn every_key_is_read_and_checked() {
    for found in read(DEFAULT_TEXT).unwrap() {
        let refused = sentence(from_text(&format!("{} = 1979-05-27", found.key)));
        assert!(
            refused.starts_with(&format!("`{}` must be", found.key)),
            "{refused}"
        );
    }
}

/// Every key stands below a comment, and the comment names the bounds that the code holds.
#[test]
fn every_key_has_a_comment_with_its_bounds() {
    let lines: Vec<&str> = DEFAULT_TEXT.lines().collect();
    for found in read(DEFAULT_TEXT).unwrap() {
        let above = lines[..found.key_place.line - 1].iter().rev();
        let comment: Vec<&str> = above
            .take_while(|line| line.starts_with("# "))
            .copied()
            .collect();
        assert!(!comment.is_empty(), "{} has no comment", found.key);
        let refused = sentence(from_text(&format!("{} = -1", found.key)));
        if let Some((_, bounds)) = refused.split_once("number from ") {
            let bounds = bounds.split(", not").next().unwrap();
            let comment: Vec<&str> = comment.into_iter().rev().collect();
            let comment = comment.join(" ").replace("# ", "");
            assert!(
                comment.contains(bounds),
                "the comment of {} lacks {bounds:?}: {comment}",
                found.key
            );
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_loaded_or_refused(text in "\\PC*") {
        sentence(from_text(&text));
    }

    #[test]
    fn any_toml_like_text_is_loaded_or_refused(
        text in r#"(\[(log|ws|server)\]\n|(log\.|deflate|listen|retention_days|x)|=|"[a-z:.ä]*"|[0-9eE+-]{1,20}|[{},\n \[\]#'é\x00-\x1f]){0,20}"#
    ) {
        sentence(from_text(&text));
    }

    #[test]
    fn any_value_of_any_key_is_loaded_or_refused(index in 0_usize..60, text in "\\PC{0,40}|-?[0-9]{1,30}(\\.[0-9]{0,30})?(e[0-9]{1,4})?") {
        let keys = read(DEFAULT_TEXT).unwrap();
        let key = &keys[index % keys.len()].key;
        sentence(Config::load(&set(&[&format!("{key}={text}")])));
        sentence(from_text(&format!("{key} = {text}")));
    }
}

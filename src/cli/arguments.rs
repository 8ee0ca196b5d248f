//! The command line: every command, its options and their help.
//!
//! Promises: what is wrong in itself (an unknown option, JSON that is none, a duration without unit) is refused here
//! with exit code 2, before anything is read or sent. It never acts on what it read.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;

use crate::event::{EventId, EventType, Json, Topic, UserId};
use crate::token::TopicPattern;

const EXAMPLES: &str = "\
Examples:
  tidings                             serve on 127.0.0.1:8082, data in ./data
  tidings serve --listen 127.0.0.1:0 --data /var/lib/tidings
  tidings token --sub alice --ttl 8h  a token for the user alice
  tidings publish --to alice --type note.new --data '{\"text\":\"hello\"}'
  git log --format='{\"commit\":\"%H\"}' |
      tidings publish --to alice --type git.commit --ndjson -
  tidings tail --user alice --cursor start | jq .data
  tidings completions bash > /etc/bash_completion.d/tidings

Configuration: the built-in config.toml, then --config FILE (else ./config.toml where there is one), then variables \
such as TIDINGS_LIMITS__CONNECTIONS=20000, then --set; the later wins. `tidings check-config` checks it.

Exit codes: 0 done, 1 could not (one sentence on stderr says why), 2 wrong arguments.";

const TOKEN_EXAMPLES: &str = "\
Examples:
  tidings token --sub alice                              alice, for one hour
  tidings token --sub backend --scope publish --ttl 30d  publishes to anyone
  tidings token --sub bob --topics 'feed:*,entity:*'     what bob may subscribe to
  curl -N -H \"Authorization: Bearer $(tidings token --sub alice)\" \\
      http://127.0.0.1:8082/v1/events";

const PUBLISH_EXAMPLES: &str = "\
One event: the server's reply is printed on stdout. Many (--ndjson): each line of the input becomes the data of one \
event, in order, in batches of up to 500; a summary comes on stderr. It stops at a line that is no JSON or that the \
server refuses, and names it.

Every event has an id, so what is sent again after a lost connection is not published twice. With --id X the ids are \
X-1, X-2 … by line number, so that even the whole command may be run again.

Examples:
  tidings publish --to alice --type note.new --data '{\"text\":\"hello\"}'
  tidings publish --to alice --to bob --type build.done --id build-7-done
  tail -f events.ndjson |
      tidings publish --to alice --type app.log --ndjson -";

const TAIL_EXAMPLES: &str = "\
Prints one JSON object per line and goes on for ever: it reconnects by itself and resumes where it stood. Notes about \
the connection go to stderr. Where events are gone for good it says so and goes on with the oldest that is left.

Examples:
  tidings tail --user alice                     what is new from now on
  tidings tail --user alice --cursor start --types 'message.*,notification.new'
  tidings tail --user alice --cursor-file alice.cursor >> alice.ndjson
                                                goes on where the last run ended";

const BACKUP_NOTES: &str = "\
The server must be stopped. The file holds all events and the secret that signs tokens, so that tokens stay good after
a restore: keep it as safe as the data directory.

Examples:
  tidings backup /backup/tidings-monday --data /var/lib/tidings
  tidings backup - | zstd | ssh backup 'cat > tidings.zst'";

const RESTORE_NOTES: &str = "\
The server must be stopped. The whole file is checked before anything is put in place. Readers begin with a reset,
since every epoch changes.

Examples:
  tidings restore /backup/tidings-monday --data /var/lib/tidings
  ssh backup 'zstd -dc tidings.zst' | tidings restore - --force";

/// A push service: one durable log per user, read over SSE, long poll, NDJSON and WebSocket.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: ServeArguments,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT
    Serve(ServeArguments),
    /// Print a token made with the configured secret
    #[command(after_help = TOKEN_EXAMPLES)]
    Token(TokenArguments),
    /// Publish one event, or each line of an input as one
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish(PublishArguments),
    /// Print a user's events as they come
    #[command(after_help = TAIL_EXAMPLES)]
    Tail(TailArguments),
    /// Say whether the configuration holds
    CheckConfig(ServeArguments),
    /// Write all that is kept into one file
    #[command(after_help = BACKUP_NOTES)]
    Backup(BackupArguments),
    /// Fill an empty data directory from a backup; every epoch changes
    #[command(after_help = RESTORE_NOTES)]
    Restore(BackupArguments),
    /// Check a stopped data directory and change nothing
    Verify(ConfigArguments),
    /// Make a damaged, stopped data directory usable again
    Repair(ConfigArguments),
    /// Write a stopped data directory anew, so that its files hold nothing that was deleted
    Compact(ConfigArguments),
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    #[command(flatten)]
    pub settings: SettingArguments,
    /// The data directory, which is `server.data_dir`
    #[arg(long, value_name = "DIR", visible_alias = "data-dir")]
    pub data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SettingArguments {
    /// A configuration file [default: ./config.toml where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One key of the configuration, such as limits.connections=20000; may be given often
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = parse_setting)]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ServeArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// IP address and port to listen on, which is `server.listen`; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

#[derive(Debug, Args)]
pub struct BackupArguments {
    /// The backup; `-` is stdout or stdin
    pub file: PathBuf,
    /// Put the new in the place of what is there: a backup is replaced, a data directory is moved aside
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub config: ConfigArguments,
}

#[derive(Debug, Args)]
pub struct TokenArguments {
    /// The user whom the token is for
    #[arg(long, value_name = "USER")]
    pub sub: UserId,
    /// What it may do beyond acting for this user: publish, admin, or both with a space between
    #[arg(long, default_value = "", value_parser = parse_scope, hide_default_value = true)]
    pub scope: String,
    /// Topics that the user may subscribe itself to; a `*` at the end stands for any end
    #[arg(long, value_delimiter = ',', value_name = "PATTERN,…", value_parser = parse_pattern)]
    pub topics: Vec<String>,
    /// How long it is good, such as 30s, 15m, 8h or 90d
    #[arg(long, default_value = "1h", value_parser = parse_ttl)]
    pub ttl: Duration,
    #[command(flatten)]
    pub config: ConfigArguments,
}

/// Which server a client command talks to, and as whom.
#[derive(Debug, Args)]
pub struct ServerArguments {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8082", value_parser = parse_url)]
    pub url: reqwest::Url,
    /// A token; without one, a token is made with the secret of the configuration or of the data directory
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true, value_parser = parse_token)]
    pub token: Option<SecretString>,
}

#[derive(Debug, Args)]
pub struct PublishArguments {
    /// The user who gets it; may be given often
    #[arg(long, value_name = "USER", required = true)]
    pub to: Vec<UserId>,
    /// What happened: a dotted name such as message.new
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub event_type: EventType,
    /// The event's data [default: null]
    #[arg(long, value_name = "JSON", conflicts_with = "ndjson", value_parser = parse_json)]
    pub data: Option<Json>,
    /// A file (`-` is stdin) of which each line is one event's data
    #[arg(long, value_name = "FILE")]
    pub ndjson: Option<PathBuf>,
    /// The event's id [default: a new one]; with --ndjson the beginning of all ids
    #[arg(long)]
    pub id: Option<EventId>,
    /// What the event is about, such as conversation:9f
    #[arg(long)]
    pub topic: Option<Topic>,
    /// How long to try again while the server cannot be reached or says that it is busy
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub retry_for: Duration,
    #[command(flatten)]
    pub server: ServerArguments,
    #[command(flatten)]
    pub settings: SettingArguments,
    /// The data directory, which is `server.data_dir`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct TailArguments {
    /// Whose events, when no token says it
    #[arg(long, visible_alias = "sub", required_unless_present = "token")]
    pub user: Option<UserId>,
    /// Where to begin: a cursor, a seq, `start`, `now`, or -N for the last N
    #[arg(long, default_value = "now", allow_hyphen_values = true, value_parser = parse_cursor)]
    pub cursor: String,
    /// A file that keeps the place from run to run; once it is there it goes before --cursor
    #[arg(long, value_name = "FILE")]
    pub cursor_file: Option<PathBuf>,
    /// Only these types, such as message.new or notification.*
    #[arg(long, value_delimiter = ',', value_name = "TYPE,…")]
    pub types: Vec<String>,
    /// Only events about these topics
    #[arg(long, value_delimiter = ',', value_name = "TOPIC,…")]
    pub topics: Vec<String>,
    /// Print signals too (typing, presence, badge): they have no seq and are not kept
    #[arg(long)]
    pub signals: bool,
    /// Print the stream's own objects too (sys.ready, sys.reset …), not as notes on stderr
    #[arg(long)]
    pub control: bool,
    #[command(flatten)]
    pub server: ServerArguments,
    #[command(flatten)]
    pub config: ConfigArguments,
}

fn parse_setting(text: &str) -> Result<String, String> {
    let is_setting = text
        .split_once('=')
        .is_some_and(|(key, _)| key.contains('.'));
    is_setting
        .then(|| text.to_owned())
        .ok_or_else(|| "write section.key=value, such as limits.connections=20000".to_owned())
}

fn parse_scope(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text
        .split([' ', ','])
        .filter(|word| !word.is_empty())
        .collect();
    match words
        .iter()
        .find(|word| !["publish", "admin"].contains(word))
    {
        Some(word) => Err(format!(
            "there is no scope {word:?}: write publish, admin, or both"
        )),
        None => Ok(words.join(" ")),
    }
}

fn parse_pattern(text: &str) -> Result<String, &'static str> {
    text.parse::<TopicPattern>().map(|_| text.to_owned())
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    /// A longer-lived token is better made again than kept.
    const TTL_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=TTL_MAX).contains(&ttl) {
        return Ok(ttl);
    }
    Err("a token is good for 1 second to 10 years".to_owned())
}

fn parse_url(text: &str) -> Result<reqwest::Url, String> {
    const RULE: &str = "write the server's address as http://host:port";
    let mut url = reqwest::Url::parse(text).map_err(|error| format!("{RULE}: {error}"))?;
    let is_plain = ["http", "https"].contains(&url.scheme())
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty();
    if !is_plain {
        return Err(RULE.to_owned());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// Takes any text: a refusal here would show it.
fn parse_token(text: &str) -> Result<SecretString, Infallible> {
    Ok(SecretString::from(text))
}

fn parse_type(text: &str) -> Result<EventType, String> {
    EventType::published(text).map_err(|invalid| invalid.message)
}

fn parse_json(text: &str) -> Result<Json, String> {
    Json::parse(text).map_err(|invalid| {
        format!(
            "{}; a text needs its quotes: --data '\"hello\"'",
            invalid.message
        )
    })
}

fn parse_cursor(text: &str) -> Result<String, &'static str> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err("write a cursor, a seq, start, now, or -N for the last N")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;
    use secrecy::ExposeSecret;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split('|').map(str::trim))
    }

    #[test]
    fn the_commands_are_consistent_and_explained() {
        Arguments::command().debug_assert();
        let help = Arguments::command().render_long_help().to_string();
        for command in Arguments::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{command}");
            assert!(help.contains(command.get_name()), "{command}");
            let unexplained: Vec<_> = command
                .get_arguments()
                .filter(|argument| argument.get_long().is_some() && argument.get_help().is_none())
                .map(|argument| argument.get_id())
                .collect();
            assert!(unexplained.is_empty(), "{command}: {unexplained:?}");
        }
    }

    #[test]
    fn serving_is_what_happens_without_a_command() {
        for line in [
            "tidings | --listen | [::1]:0 | --data | d | --set | log.retention_days=1 | --set | ws.deflate=false",
            "tidings | serve | --listen | [::1]:0 | --data-dir | d | --set | log.retention_days=1 | --set | ws.deflate=false",
        ] {
            let arguments = parse(line).unwrap();
            let serve = match arguments.command {
                Some(Command::Serve(serve)) => serve,
                None => arguments.serve,
                other => panic!("{other:?}"),
            };
            assert_eq!(serve.listen.as_deref(), Some("[::1]:0"));
            assert_eq!(serve.config.data, Some(PathBuf::from("d")));
            assert_eq!(
                serve.config.settings.set,
                ["log.retention_days=1", "ws.deflate=false"]
            );
        }
    }

    #[test]
    fn wrong_arguments_are_refused_before_anything_happens() {
        let cases = [
            ("tidings | bogus", "unrecognized subcommand"),
            ("tidings | --bogus", "unexpected argument"),
            (
                "tidings | serve | --set | limits.connections",
                "write section.key=value",
            ),
            (
                "tidings | serve | --set | connections=1",
                "write section.key=value",
            ),
            ("tidings | token", "--sub"),
            ("tidings | token | --sub | a b", "a user id must be"),
            (
                "tidings | token | --sub | a | --ttl | 5",
                "time unit needed",
            ),
            (
                "tidings | token | --sub | a | --ttl | 0s",
                "1 second to 10 years",
            ),
            (
                "tidings | token | --sub | a | --scope | root",
                "there is no scope \"root\"",
            ),
            (
                "tidings | token | --sub | a | --topics | a*b",
                "topic pattern",
            ),
            ("tidings | publish | --type | t", "--to"),
            ("tidings | publish | --to | a", "--type"),
            ("tidings | publish | --to | a | --type | sys.x", "reserved"),
            (
                "tidings | publish | --to | a | --type | t | --data | hello",
                "a text needs its quotes",
            ),
            (
                "tidings | publish | --to | a | --type | t | --data | 1 | --ndjson | -",
                "cannot be used with",
            ),
            (
                "tidings | publish | --to | a | --type | t | --url | ftp://x",
                "http://host:port",
            ),
            (
                "tidings | tail | --user | a | --cursor | ",
                "write a cursor",
            ),
            ("tidings | backup", "<FILE>"),
            ("tidings | completions | dos", "possible values"),
        ];
        for (line, expected) in cases {
            let error = parse(line).unwrap_err();
            let words = error.to_string();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(
                words.contains(expected),
                "{line}: {words:?} lacks {expected:?}"
            );
        }
        let error = parse("tidings | --version").unwrap_err();
        assert_eq!(
            (error.kind(), error.exit_code()),
            (ErrorKind::DisplayVersion, 0)
        );
    }

    #[test]
    fn options_are_read_into_their_types() {
        let Some(Command::Token(token)) =
            parse("tidings | token | --sub | bob | --scope | publish,admin | --topics | feed:*,a | --ttl | 2h 30m")
                .unwrap()
                .command
        else {
            panic!("no token command");
        };
        assert_eq!(
            (token.scope.as_str(), token.ttl),
            ("publish admin", Duration::from_secs(9000))
        );
        assert_eq!(token.topics, ["feed:*", "a"]);

        let Some(Command::Publish(publish)) =
            parse("tidings | publish | --to | a | --to | b | --type | t.x | --ndjson | - | --url | http://h:1/base")
                .unwrap()
                .command
        else {
            panic!("no publish command");
        };
        assert_eq!(publish.to.len(), 2);
        assert_eq!(publish.ndjson, Some(PathBuf::from("-")));
        assert_eq!(publish.server.url.as_str(), "http://h:1/base/");

        let line = "tidings | tail | --token | x.y.z | --cursor | -5 | --types | a.*,b";
        let Some(Command::Tail(tail)) = parse(line).unwrap().command else {
            panic!("no tail command");
        };
        assert_eq!((tail.cursor.as_str(), tail.types.len()), ("-5", 2));
        assert_eq!(tail.server.token.as_ref().unwrap().expose_secret(), "x.y.z");
        assert!(!format!("{tail:?}").contains("x.y.z"));
    }
}

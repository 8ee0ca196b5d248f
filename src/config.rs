//! The configuration: text from five sources in, one validated `Config` out.
//!
//! `config.toml` is built in and is the default; a file, the environment and the command line go over it, in this
//! order. Promises: unknown keys, wrong types, values out of bounds and contradictions stop with one sentence that
//! names key, place and cure; a `Config` that was loaded holds none of them, and its `Debug` shows no secret. It
//! never reads the environment or the working directory by itself.

mod document;
mod sections;
#[cfg(test)]
mod tests;
mod values;

use std::io::Read;
use std::path::{Path, PathBuf};

pub use sections::{
    AuthConfig, ConversationsConfig, DemoConfig, FeedConfig, LimitsConfig, LogConfig,
    NotificationsConfig, PresenceConfig, ServerConfig, StoreConfig, StreamConfig, TypingConfig,
    WsConfig,
};
pub use values::ConfigError;
use values::Values;

/// The built-in default.
const DEFAULT_TEXT: &str = include_str!("../config.toml");
/// Bytes of a configuration file; every key with its comment takes a hundredth of this.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where the configuration comes from, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// All variables; those that are none of ours are passed over.
    pub environment: Vec<(String, String)>,
    /// `section.key=value`, as `--set` takes it.
    pub set: Vec<String>,
    /// `--listen`, which is `server.listen`.
    pub listen: Option<String>,
    /// `--data`, which is `server.data_dir`.
    pub data: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub server: ServerConfig,
    pub auth: AuthConfig,
    pub demo: DemoConfig,
    pub log: LogConfig,
    pub limits: LimitsConfig,
    pub stream: StreamConfig,
    pub ws: WsConfig,
    pub presence: PresenceConfig,
    pub typing: TypingConfig,
    pub conversations: ConversationsConfig,
    pub notifications: NotificationsConfig,
    pub feed: FeedConfig,
    pub store: StoreConfig,
}

impl Config {
    /// Reads all sources and checks the whole.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let mut values = Values::of_default(DEFAULT_TEXT);
        if let Some(path) = &sources.file {
            values.overlay_file(&path.display().to_string(), &read_file(path)?)?;
        }
        values.overlay_environment(&sources.environment)?;
        for setting in &sources.set {
            values.overlay_setting(setting)?;
        }
        if let Some(listen) = &sources.listen {
            values.overlay_argument("--listen", "server.listen", listen)?;
        }
        if let Some(data) = &sources.data {
            let data = data.to_str().ok_or_else(|| {
                ConfigError::new("`server.data_dir` must be a path in UTF-8: name another (--data)")
            })?;
            values.overlay_argument("--data", "server.data_dir", data)?;
        }
        Config::of(&values)
    }

    fn of(values: &Values) -> Result<Config, ConfigError> {
        let server = sections::server(values)?;
        let demo = sections::demo(values, server.listen)?;
        Ok(Config {
            server,
            auth: sections::auth(values)?,
            demo,
            log: sections::log(values)?,
            limits: sections::limits(values)?,
            stream: sections::stream(values)?,
            ws: sections::ws(values)?,
            presence: sections::presence(values)?,
            typing: sections::typing(values)?,
            conversations: sections::conversations(values)?,
            notifications: sections::notifications(values)?,
            feed: sections::feed(values)?,
            store: sections::store(values)?,
        })
    }
}

/// `config.toml` as it is built in.
impl Default for Config {
    fn default() -> Config {
        Config::load(&Sources::default()).expect("the built-in config.toml loads, as a test checks")
    }
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let shown = path.display();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| {
            ConfigError::new(format!(
                "the configuration file {shown} cannot be read: {error}; name another with --config"
            ))
        })?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes <= FILE_BYTES_MAX) {
        return Ok(text);
    }
    Err(ConfigError::new(format!(
        "the configuration file {shown} is longer than {FILE_BYTES_MAX} bytes; name another with --config"
    )))
}

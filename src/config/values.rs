//! Configuration before it has types: for each known key its value and where that value came from.
//!
//! Promises: only keys of the built-in default exist here, a later source replaces an earlier one, and every
//! refusal is one sentence that names the key, the place and the cure. It never shows the value of a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Found, Place, Value, read};

/// Variables that set a key: `TIDINGS_<SECTION>__<KEY>`.
const VARIABLE_PREFIX: &str = "TIDINGS_";
/// Keys whose value no sentence repeats.
const SECRET_KEYS: [&str; 1] = ["auth.hs256_secret"];

/// Why the configuration cannot be used: one sentence with key, place and cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub fn new(sentence: impl Into<String>) -> ConfigError {
        ConfigError(sentence.into())
    }
}

/// Where a value came from, told to the person who has to change it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Default,
    File { path: String, place: Place },
    Variable(String),
    Argument(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => formatter.write_str("the default"),
            Origin::File { path, place } => write!(
                formatter,
                "{path}, line {}, column {}",
                place.line, place.column
            ),
            Origin::Variable(name) => write!(formatter, "variable {name}"),
            Origin::Argument(name) => formatter.write_str(name),
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    value: Value,
    origin: Origin,
}

/// Every key as `section.key`, with the value that counts.
#[derive(Clone)]
pub struct Values(BTreeMap<String, Entry>);

impl Values {
    /// The values of the built-in default, which also says which keys there are and of what type each is.
    pub fn of_default(text: &str) -> Values {
        let found = read(text).expect("the built-in config.toml is valid TOML, as a test checks");
        let entry = |found: Found| {
            let origin = Origin::Default;
            (
                found.key,
                Entry {
                    value: found.value,
                    origin,
                },
            )
        };
        Values(found.into_iter().map(entry).collect())
    }

    /// Lays the TOML `text` of the file `path` over what is there.
    pub fn overlay_file(&mut self, path: &str, text: &str) -> Result<(), ConfigError> {
        let origin = |place| Origin::File {
            path: path.to_owned(),
            place,
        };
        let all_found = read(text).map_err(|fault| {
            let sentence = format!(
                "the file is not valid TOML: {} ({})",
                fault.message,
                origin(fault.place)
            );
            ConfigError(sentence)
        })?;
        for found in all_found {
            if let Some(entry) = self.0.get_mut(&found.key) {
                entry.value = found.value;
                entry.origin = origin(found.value_place);
                continue;
            }
            if !self.has_section(&found.key) {
                return Err(self.unknown(&found.key, &origin(found.key_place)));
            }
            if found.value != Value::Foreign("an empty section") {
                let sentence = format!(
                    "`{0}` is a section: write [{0}] on a line of its own and its keys below it ({1})",
                    found.key,
                    origin(found.key_place)
                );
                return Err(ConfigError(sentence));
            }
        }
        Ok(())
    }

    /// Lays those variables over it that are named `TIDINGS_<SECTION>__<KEY>`; orchestrators set others that begin
    /// with the same word, so names without `__` are none of ours.
    pub fn overlay_environment(
        &mut self,
        variables: &[(String, String)],
    ) -> Result<(), ConfigError> {
        for (name, text) in variables {
            let Some((section, key)) = name
                .strip_prefix(VARIABLE_PREFIX)
                .and_then(|rest| rest.split_once("__"))
            else {
                continue;
            };
            let key = format!("{section}.{key}").to_lowercase();
            self.overlay_text(&key, text, Origin::Variable(name.clone()))?;
        }
        Ok(())
    }

    /// Lays one `section.key=value` of the command line over it.
    pub fn overlay_setting(&mut self, setting: &str) -> Result<(), ConfigError> {
        let Some((key, text)) = setting.split_once('=') else {
            return Err(ConfigError::new(
                "--set takes section.key=value, but there is no `=`: write for example --set limits.connections=20000",
            ));
        };
        self.overlay_text(key.trim(), text, Origin::Argument("--set"))
    }

    /// Lays the value of an argument with a name of its own over it.
    pub fn overlay_argument(
        &mut self,
        argument: &'static str,
        key: &str,
        text: &str,
    ) -> Result<(), ConfigError> {
        self.overlay_text(key, text, Origin::Argument(argument))
    }

    /// The default's type decides how `text` is read, so that a secret of digits stays a text.
    fn overlay_text(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let Some(entry) = self.0.get_mut(key) else {
            return Err(self.unknown(key, &origin));
        };
        entry.value = entry.value.same_type_from(text);
        entry.origin = origin;
        Ok(())
    }

    pub fn text(&self, key: &str) -> Result<&str, ConfigError> {
        match &self.entry(key).value {
            Value::Text(text) => Ok(text),
            _ => Err(self.refuse(key, "must be a text in quotes")),
        }
    }

    pub fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        match self.entry(key).value {
            Value::Flag(flag) => Ok(flag),
            _ => Err(self.refuse(key, "must be true or false")),
        }
    }

    /// True, false, or `None` for "auto".
    pub fn flag_or_auto(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        match &self.entry(key).value {
            Value::Flag(flag) => Ok(Some(*flag)),
            Value::Text(text) if text == "true" => Ok(Some(true)),
            Value::Text(text) if text == "false" => Ok(Some(false)),
            Value::Text(text) if text == "auto" => Ok(None),
            _ => Err(self.refuse(key, "must be true, false or \"auto\"")),
        }
    }

    /// A list of texts; one text alone is a list of one.
    pub fn list(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        match &self.entry(key).value {
            Value::List(texts) => Ok(texts.clone()),
            Value::Text(text) => Ok(vec![text.clone()]),
            _ => Err(self.refuse(key, "must be a list of texts such as [\"a\", \"b\"]")),
        }
    }

    pub fn whole<T: TryFrom<u64>>(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
    ) -> Result<T, ConfigError> {
        let number = match self.entry(key).value {
            Value::Integer(number) => u64::try_from(number).ok(),
            _ => None,
        };
        number
            .filter(|number| bounds.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                let (least, most) = (bounds.start(), bounds.end());
                self.refuse(
                    key,
                    &format!("must be a whole number from {least} to {most}"),
                )
            })
    }

    /// A rate or burst: a whole number from 1 to `most`.
    pub fn rate(&self, key: &str, most: u32) -> Result<NonZeroU32, ConfigError> {
        let number: u32 = self.whole(key, 1..=u64::from(most))?;
        Ok(NonZeroU32::new(number).expect("the bounds begin at 1"))
    }

    pub fn fraction(&self, key: &str, bounds: RangeInclusive<f64>) -> Result<f64, ConfigError> {
        let number = match self.entry(key).value {
            // A whole number beyond 2^53 loses its last digits here, and is out of any bounds.
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            _ => f64::NAN,
        };
        if bounds.contains(&number) {
            return Ok(number);
        }
        let (least, most) = (bounds.start(), bounds.end());
        Err(self.refuse(key, &format!("must be a number from {least} to {most}")))
    }

    /// A duration in whole or fractional seconds.
    pub fn seconds(&self, key: &str, bounds: RangeInclusive<f64>) -> Result<Duration, ConfigError> {
        self.fraction(key, bounds).map(Duration::from_secs_f64)
    }

    /// A duration in whole or fractional milliseconds.
    pub fn milliseconds(
        &self,
        key: &str,
        bounds: RangeInclusive<f64>,
    ) -> Result<Duration, ConfigError> {
        let milliseconds = self.fraction(key, bounds)?;
        Ok(Duration::from_secs_f64(milliseconds / 1000.0))
    }

    /// "`key` must be …, not … (place)."
    pub fn refuse(&self, key: &str, rule: &str) -> ConfigError {
        let entry = self.entry(key);
        let origin = &entry.origin;
        if SECRET_KEYS.contains(&key) {
            return ConfigError(format!("`{key}` {rule} ({origin})"));
        }
        ConfigError(format!("`{key}` {rule}, not {} ({origin})", entry.value))
    }

    /// "`first` (7) must … `second` (6), … (place)", with the place of the key that a person wrote.
    pub fn contradiction(&self, first: &str, must: &str, second: &str, cure: &str) -> ConfigError {
        let (one, other) = (self.entry(first), self.entry(second));
        let origin = match one.origin {
            Origin::Default => &other.origin,
            _ => &one.origin,
        };
        let (one, other) = (&one.value, &other.value);
        ConfigError(format!(
            "`{first}` ({one}) must {must} `{second}` ({other}): {cure} ({origin})"
        ))
    }

    fn entry(&self, key: &str) -> &Entry {
        self.0
            .get(key)
            .expect("config.rs asks only for keys of config.toml, as every test that loads checks")
    }

    fn has_section(&self, name: &str) -> bool {
        self.0
            .keys()
            .any(|key| key.split_once('.').is_some_and(|parts| parts.0 == name))
    }

    fn unknown(&self, key: &str, origin: &Origin) -> ConfigError {
        let section = key.split_once('.').map_or(key, |parts| parts.0);
        let shown = Value::Text(key.to_owned()).to_string().replace('"', "`");
        let of_section = self.0.keys().filter_map(|known| {
            let (its_section, its_key) = known.split_once('.')?;
            (its_section == section).then_some(its_key)
        });
        let keys: Vec<&str> = of_section.collect();
        if !keys.is_empty() {
            let keys = keys.join(", ");
            return ConfigError(format!(
                "{shown} is not a key of the configuration; the section `{section}` has {keys} ({origin})"
            ));
        }
        let mut sections: Vec<&str> = self
            .0
            .keys()
            .filter_map(|key| key.split('.').next())
            .collect();
        sections.dedup();
        let sections = sections.join(", ");
        ConfigError(format!(
            "{shown} is not a key of the configuration; every key stands in one of the sections {sections} ({origin})"
        ))
    }
}

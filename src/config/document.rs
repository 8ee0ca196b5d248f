//! TOML text as a list of keys and values, each with its place in the text.
//!
//! Promises: any text gives a list or a fault with line and column, never a panic. It knows nothing of which keys
//! exist.

use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Characters of a wrong value that a sentence repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// A value in the few types that the configuration has.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Flag(bool),
    List(Vec<String>),
    /// Something that no key takes, in words.
    Foreign(&'static str),
}

/// A place in a text, counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// `section.key` and its value; only `section` where the text has no key there.
#[derive(Debug)]
pub struct Found {
    pub key: String,
    pub value: Value,
    pub key_place: Place,
    pub value_place: Place,
}

/// Why a text is not TOML.
#[derive(Debug)]
pub struct Fault {
    pub message: String,
    pub place: Place,
}

/// Reads the keys of all sections.
pub fn read(text: &str) -> Result<Vec<Found>, Fault> {
    let place = |span: Range<usize>| place_of(text, span.start);
    let document = DeTable::parse(text).map_err(|error| Fault {
        message: error.message().trim().replace('\n', ", "),
        place: place(error.span().unwrap_or_default()),
    })?;
    let mut all_found = Vec::new();
    for (section, section_value) in document.get_ref() {
        let keys = match section_value.get_ref() {
            DeValue::Table(keys) if !keys.is_empty() => keys,
            other => {
                all_found.push(Found {
                    key: section.get_ref().to_string(),
                    value: match other {
                        DeValue::Table(_) => Value::Foreign("an empty section"),
                        _ => Value::of(other),
                    },
                    key_place: place(section.span()),
                    value_place: place(section_value.span()),
                });
                continue;
            }
        };
        let found = keys.iter().map(|(key, value)| Found {
            key: format!("{}.{}", section.get_ref(), key.get_ref()),
            value: Value::of(value.get_ref()),
            key_place: place(key.span()),
            value_place: place(value.span()),
        });
        all_found.extend(found);
    }
    Ok(all_found)
}

fn place_of(text: &str, byte: usize) -> Place {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

impl Value {
    fn of(value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .map_or(Value::Foreign("a number beyond reading"), Value::Float),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Foreign("a number beyond 64 bits"), Value::Integer),
            DeValue::Array(values) => {
                let texts = values.iter().map(|value| match value.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                });
                texts.collect::<Option<Vec<String>>>().map_or(
                    Value::Foreign("a list of something else than texts"),
                    Value::List,
                )
            }
            DeValue::Table(_) => Value::Foreign("a table"),
            DeValue::Datetime(_) => Value::Foreign("a time"),
        }
    }

    /// Reads `text` as a value of this value's type; where that fails it stays a text, which its key then refuses.
    pub fn same_type_from(&self, text: &str) -> Value {
        let as_text = || Value::Text(text.to_owned());
        let trimmed = text.trim();
        match self {
            Value::Integer(_) | Value::Float(_) => {
                let digits = trimmed.replace('_', "");
                let whole = digits.parse().map(Value::Integer).ok();
                whole
                    .or_else(|| digits.parse().map(Value::Float).ok())
                    .unwrap_or_else(as_text)
            }
            Value::Flag(_) => trimmed.parse().map_or_else(|_| as_text(), Value::Flag),
            Value::List(_) if trimmed.starts_with('[') => {
                let found = read(&format!("section.key = {trimmed}")).ok();
                found
                    .and_then(|mut found| found.pop())
                    .map_or_else(as_text, |found| found.value)
            }
            Value::List(_) => {
                let items = trimmed.split(',').map(str::trim);
                Value::List(
                    items
                        .filter(|item| !item.is_empty())
                        .map(str::to_owned)
                        .collect(),
                )
            }
            Value::Text(_) | Value::Foreign(_) => as_text(),
        }
    }
}

/// As it would be written, shortened, for a sentence about it.
impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => formatter.write_str(&shortened(&format!("{text:?}"))),
            Value::Integer(number) => write!(formatter, "{number}"),
            Value::Float(number) => write!(formatter, "{number}"),
            Value::Flag(flag) => write!(formatter, "{flag}"),
            Value::List(texts) => formatter.write_str(&shortened(&format!("{texts:?}"))),
            Value::Foreign(words) => formatter.write_str(words),
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

//! JSON values as readers get them: valid, one line, bounded in depth, without a key that stands twice.
//!
//! Promises: what is accepted means the same to every parser, and its bytes are those that were sent, less the white
//! space between tokens. It never builds the value in memory.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use memchr::memchr2;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::event::invalid::Invalid;

const FEW_KEYS: usize = 8;

/// One JSON value as text: valid, without white space between tokens, no key twice, at most 127 levels deep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// JSON `null`, the data of an event that carries none.
    pub fn null() -> Json {
        Json("null".to_owned())
    }

    /// The text of a value that our own code built.
    pub fn of(value: &serde_json::Value) -> Json {
        Json(value.to_string())
    }

    /// Checks `raw` and takes out the white space between its tokens.
    pub fn checked(raw: &RawValue) -> Result<Json, Invalid> {
        Json::parse(raw.get())
    }

    /// Reads one JSON value from `text`.
    pub fn parse(text: &str) -> Result<Json, Invalid> {
        serde_json::from_str::<Strict>(text).map_err(|error| {
            Invalid::new(
                "invalid_data",
                format!("data is not acceptable JSON: {error}"),
            )
        })?;
        Ok(Json(compact(text)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Takes out the white space between the tokens of valid JSON; strings stay as they are.
fn compact(json: &str) -> String {
    let bytes = json.as_bytes();
    let mut compact = String::with_capacity(json.len());
    let (mut at, mut kept) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at + 1),
            b' ' | b'\t' | b'\r' | b'\n' => {
                compact.push_str(&json[kept..at]);
                at += 1;
                kept = at;
            }
            _ => at += 1,
        }
    }
    compact.push_str(&json[kept..]);
    compact
}

/// Where the string ends whose first character is at `at`.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr2(b'"', b'\\', &json[at..]) {
        at += found + 1;
        match json[at - 1] {
            b'"' => return at,
            // The next character is escaped.
            _ => at += 1,
        }
    }
    json.len()
}

/// A key as it stands in the text where nothing in it is escaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Keys of one object, so few nearly always that looking through them is faster than hashing.
#[derive(Default)]
struct Keys<'de> {
    few: SmallVec<[Cow<'de, str>; FEW_KEYS]>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    /// Tells whether the key is new.
    fn add(&mut self, key: Cow<'de, str>) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        match self.few.len() < FEW_KEYS {
            true => self.few.push(key),
            false => return self.many.insert(key),
        }
        true
    }
}

/// Walks a JSON value and keeps nothing: strings must be valid Unicode, numbers in range, keys unique. The depth is
/// bounded by serde_json (127 levels).
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(Strict)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Strict;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        while items.next_element::<Strict>()?.is_some() {}
        Ok(Strict)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        let mut seen = Keys::default();
        while let Some(Key(key)) = entries.next_key()? {
            if !seen.add(key.clone()) {
                return Err(de::Error::custom(format_args!(
                    "the key {key:?} stands twice"
                )));
            }
            entries.next_value::<Strict>()?;
        }
        Ok(Strict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_readers_would_disagree_on_is_refused() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for bad in [
            "",
            "{",
            "[1,]",
            "NaN",
            "1e400",
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"1":0,"2":0,"3":0,"4":0,"5":0,"6":0,"7":0,"8":0,"9":0,"10":0,"9":0}"#,
            r#"{"1":0,"2":0,"3":0,"4":0,"5":0,"6":0,"7":0,"8":0,"9":0,"10":0,"1":0}"#,
            r#""\ud800""#,
            "\u{feff}1",
            "1 2",
            &deep(128),
            &deep(100_000),
        ] {
            assert!(
                Json::parse(bad).is_err(),
                "{:?} was taken for data",
                &bad[..bad.len().min(40)]
            );
        }
        for good in [
            "null",
            "-0",
            "18446744073709551616",
            r#"{"a":1,"b":{"a":1}}"#,
            r#"{"1":0,"2":0,"3":0,"4":0,"5":0,"6":0,"7":0,"8":0,"9":0,"10":0}"#,
            &deep(127),
        ] {
            assert_eq!(Json::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn only_the_white_space_between_tokens_goes() {
        for (given, kept) in [
            (
                " { \"a b\" :\t[ 1 ,\r\n\" \\\" \\\\\" , \"é \" ] } ",
                "{\"a b\":[1,\" \\\" \\\\\",\"é \"]}",
            ),
            ("\n1 ", "1"),
        ] {
            assert_eq!(Json::parse(given).unwrap().as_str(), kept);
        }
    }
}

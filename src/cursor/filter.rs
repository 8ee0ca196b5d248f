//! Which events a reader wants to see.
//!
//! Promises: a filter is bounded and cheap, patterns are plain names or beginnings of names. It hides events from one
//! reader; it never moves another's position.

use crate::event::Invalid;

/// Patterns in one filter.
const PATTERNS_MAX: usize = 64;

/// Patterns of types and topics that are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    types: Vec<Pattern>,
    topics: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exactly(String),
    /// Everything that starts so.
    Prefix(String),
}

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Exactly(exact) => exact == text,
            Pattern::Prefix(prefix) => text.starts_with(prefix.as_str()),
        }
    }
}

impl Filter {
    /// Reads comma-separated patterns; an empty list hides nothing.
    pub fn parse(types: &str, topics: &str) -> Result<Filter, Invalid> {
        let is_type =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
        let is_topic = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@/-".contains(&byte);
        Ok(Filter {
            types: patterns("types", types, is_type)?,
            topics: patterns("topics", topics, is_topic)?,
        })
    }

    pub fn shows(&self, event_type: &str, topic: Option<&str>) -> bool {
        let is_type_shown =
            self.types.is_empty() || self.types.iter().any(|pattern| pattern.matches(event_type));
        let is_topic_shown = self.topics.is_empty()
            || topic.is_some_and(|topic| self.topics.iter().any(|pattern| pattern.matches(topic)));
        is_type_shown && is_topic_shown
    }
}

fn patterns(name: &str, list: &str, allowed: impl Fn(u8) -> bool) -> Result<Vec<Pattern>, Invalid> {
    let refused = |why: &str| Invalid::new("invalid_filter", format!("{name}: {why}"));
    let mut patterns = Vec::new();
    for item in list
        .split(',')
        .map(|item| item.trim_matches(' '))
        .filter(|item| !item.is_empty())
    {
        let (text, is_prefix) = match item.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (item, false),
        };
        if text.len() > 128 || !text.bytes().all(&allowed) {
            return Err(refused(
                "a pattern is a name, or the beginning of one followed by *",
            ));
        }
        patterns.push(match is_prefix {
            true => Pattern::Prefix(text.to_owned()),
            false => Pattern::Exactly(text.to_owned()),
        });
    }
    match patterns.len() <= PATTERNS_MAX {
        true => Ok(patterns),
        false => Err(refused("at most 64 patterns")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_shows_what_its_patterns_name() {
        let filter = Filter::parse("notification.*, message.new", "").unwrap();
        assert!(filter.shows("notification.read", None) && filter.shows("message.new", Some("x")));
        assert!(!filter.shows("message.deleted", None) && !filter.shows("notifications", None));
        let filter = Filter::parse("", "feed:*,a").unwrap();
        assert!(filter.shows("x", Some("feed:1")) && filter.shows("x", Some("a")));
        assert!(!filter.shows("x", Some("ab")) && !filter.shows("x", None));
        assert!(Filter::default().shows("x", None));
        for bad in ["a b", "A", "*.x", "a\n", "a**"] {
            assert!(
                Filter::parse(bad, "").is_err(),
                "{bad:?} was taken for a filter"
            );
        }
        assert!(Filter::parse(&"a,".repeat(65), "").is_err());
    }
}

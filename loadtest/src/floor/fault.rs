//! How the floor breaks on purpose, so that the verification can be seen to fail: `drop=50` drops every fiftieth event.
//!
//! Promises: without a fault it costs nothing and changes nothing; each fault is one that a real server could have.

use std::collections::HashMap;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

#[derive(Clone, Debug, Default)]
pub struct Fault {
    kind: Option<Kind>,
    every: u64,
    count: u64,
    /// Events of each track that wait for the next one to overtake them.
    held: HashMap<u32, (u64, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Drop,
    Repeat,
    Swap,
    Forge,
    Damage,
}

pub const KINDS: [&str; 5] = ["drop", "repeat", "swap", "forge", "damage"];

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Fault> {
        let (kind, every) = text.split_once('=').context("a fault is KIND=EVERY")?;
        let kind = match kind {
            "drop" => Kind::Drop,
            "repeat" => Kind::Repeat,
            "swap" => Kind::Swap,
            "forge" => Kind::Forge,
            "damage" => Kind::Damage,
            _ => anyhow::bail!("there is no fault {kind}; there are {}", KINDS.join(", ")),
        };
        let every = every.parse().context("EVERY is a number")?;
        ensure!(every > 0, "EVERY is at least 1");
        Ok(Fault {
            kind: Some(kind),
            every,
            ..Fault::default()
        })
    }
}

impl Fault {
    /// Gives what becomes of an event and its id: itself, nothing, or more.
    pub fn apply(
        &mut self,
        track: u32,
        (id, event): (u64, &[u8]),
        emit: &mut dyn FnMut(u64, &[u8]),
    ) {
        let Some(kind) = self.kind else {
            return emit(id, event);
        };
        self.count += 1;
        if !self.count.is_multiple_of(self.every) {
            emit(id, event);
            if let Some((id, event)) = self.held.remove(&track) {
                emit(id, &event);
            }
            return;
        }
        match kind {
            Kind::Drop => {}
            Kind::Repeat => {
                emit(id, event);
                emit(id, event);
            }
            Kind::Swap => {
                if let Some((id, event)) = self.held.insert(track, (id, event.to_vec())) {
                    emit(id, &event);
                }
            }
            Kind::Forge => {
                emit(id, event);
                emit(id, &forged(event));
            }
            Kind::Damage => emit(id, &event[..event.len() - 1]),
        }
    }
}

/// The same event of another run: the first digit behind the mark's beginning is another.
fn forged(event: &[u8]) -> Vec<u8> {
    let mut forged = event.to_vec();
    let digit = forged.get_mut(4);
    if let Some(digit) = digit {
        *digit = if *digit == b'8' { b'9' } else { b'8' };
    }
    forged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fault: &str, expected: &[(u64, &str)]) {
        let mut fault: Fault = fault.parse().unwrap();
        let mut given = Vec::new();
        for (id, event) in (1..).zip(["~lt~1", "~lt~2", "~lt~3", "~lt~4"]) {
            fault.apply(0, (id, event.as_bytes()), &mut |id, event| {
                given.push((id, String::from_utf8(event.to_vec()).unwrap()));
            });
        }
        let given: Vec<(u64, &str)> = given
            .iter()
            .map(|(id, event)| (*id, event.as_str()))
            .collect();
        assert_eq!(given, expected);
    }

    #[test]
    fn each_fault_does_what_it_says() {
        let [one, two, three, four] = [(1, "~lt~1"), (2, "~lt~2"), (3, "~lt~3"), (4, "~lt~4")];
        check("drop=2", &[one, three]);
        check("repeat=3", &[one, two, three, three, four]);
        check("swap=2", &[one, three, two]);
        check("forge=4", &[one, two, three, four, (4, "~lt~8")]);
        check("damage=4", &[one, two, three, (4, "~lt~")]);
        assert!("lose=2".parse::<Fault>().is_err());
        assert!("drop=0".parse::<Fault>().is_err());
        let mut given = 0;
        Fault::default().apply(0, (7, b"x"), &mut |id, event| {
            assert_eq!((id, event), (7, &b"x"[..]));
            given += 1;
        });
        assert_eq!(given, 1);
    }
}

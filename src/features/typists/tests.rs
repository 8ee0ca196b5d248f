use proptest::prelude::*;

use super::*;

const REPEAT: Ms = 2_000;
const CLEAR: Ms = 5_000;

fn place(number: u8) -> Place {
    (
        format!("c{}", number % 2).parse().unwrap(),
        UserNo(u32::from(number / 2)),
    )
}

fn run(typists: &mut Typists, until: Ms, told: &mut Vec<(Ms, Place, Change)>) {
    while let Some(now) = typists.next_due().filter(|due| *due <= until) {
        let now = now.max(told.last().map_or(0, |(at, ..)| *at));
        for (place, change) in typists.take_due(now, 1) {
            told.push((now, place, change));
        }
    }
}

/// What is told of one place when these calls are made: `(at, is_start)`.
#[track_caller]
fn check(calls: &[(Ms, bool)], expected: &[(Ms, Change)]) {
    let (mut typists, mut told) = (Typists::new(REPEAT, CLEAR), Vec::new());
    for (at, is_start) in calls {
        run(&mut typists, *at, &mut told);
        match is_start {
            true => typists.start(place(0), *at),
            false => typists.stop(place(0), *at),
        }
        run(&mut typists, *at, &mut told);
    }
    run(&mut typists, Ms::MAX / 2, &mut told);
    let told: Vec<(Ms, Change)> = told.iter().map(|(at, _, change)| (*at, *change)).collect();
    assert_eq!(told, expected, "{calls:?}");
    assert!(
        typists.is_empty() && typists.by_user.is_empty(),
        "nothing is kept"
    );
}

#[test]
fn the_three_clocks() {
    use Change::{Start, Stop};
    const GO: bool = true;
    const NO: bool = false;
    check(&[(10, GO)], &[(10, Start), (5_010, Stop)]);
    check(&[(10, GO), (1_000, NO)], &[(10, Start), (1_000, Stop)]);
    check(&[(10, NO)], &[]);
    // A repeat too soon is swallowed; it still says that the user goes on.
    check(&[(0, GO), (1_999, GO)], &[(0, Start), (6_999, Stop)]);
    check(
        &[(0, GO), (2_000, GO)],
        &[(0, Start), (2_000, Start), (7_000, Stop)],
    );
    let each_half_second: Vec<(Ms, bool)> = (0..9).map(|turn| (turn * 500, GO)).collect();
    check(
        &each_half_second,
        &[(0, Start), (2_000, Start), (4_000, Start), (9_000, Stop)],
    );
    // After a stop another start waits for its turn, and is not told if it is over by then.
    check(
        &[(0, GO), (500, NO), (600, GO)],
        &[(0, Start), (500, Stop), (2_000, Start), (5_600, Stop)],
    );
    check(
        &[(0, GO), (500, NO), (600, GO), (900, NO)],
        &[(0, Start), (500, Stop)],
    );
    check(
        &[(0, GO), (500, NO), (3_000, GO)],
        &[(0, Start), (500, Stop), (3_000, Start), (8_000, Stop)],
    );
}

#[test]
fn several_type_and_one_who_is_gone_types_nowhere() {
    let (mut typists, mut told) = (Typists::new(REPEAT, CLEAR), Vec::new());
    for number in 0..4 {
        typists.start(place(number), 0);
    }
    run(&mut typists, 0, &mut told);
    let conversation = place(0).0;
    assert_eq!(
        typists.typing(&conversation, 1_000),
        [(UserNo(0), 4_000), (UserNo(1), 4_000)]
    );
    typists.gone(UserNo(0), 1_000);
    run(&mut typists, 1_000, &mut told);
    let stopped: Vec<&Place> = told[4..].iter().map(|(_, place, _)| place).collect();
    assert_eq!(stopped, [&place(0), &place(1)]);
    assert_eq!(typists.typing(&conversation, 1_000), [(UserNo(1), 4_000)]);
}

proptest! {
    /// Of every place: starts keep their distance, every start is followed by a stop in time, and who types or not at
    /// the end is what was told last.
    #[test]
    fn any_typing_is_told_in_order(
        calls in prop::collection::vec((0u64..1_500, 0u8..4, 0u8..5), 1..80),
    ) {
        let (mut typists, mut told) = (Typists::new(REPEAT, CLEAR), Vec::new());
        let mut now = 0;
        let mut until = [None; 4];
        for (wait, number, call) in calls {
            now += wait;
            run(&mut typists, now, &mut told);
            match call {
                0 => {
                    typists.stop(place(number), now);
                    until[usize::from(number)] = None;
                }
                1 => {
                    typists.gone(place(number).1, now);
                    for other in 0..4 {
                        if place(other).1 == place(number).1 {
                            until[usize::from(other)] = None;
                        }
                    }
                }
                _ => {
                    typists.start(place(number), now);
                    until[usize::from(number)] = Some(now + CLEAR);
                }
            }
            run(&mut typists, now, &mut told);
            for number in 0..4 {
                let (conversation, user) = place(number);
                let types = until[usize::from(number)].is_some_and(|until| until > now);
                let of_place: Vec<_> = told.iter().filter(|(_, other, _)| *other == place(number)).collect();
                let last = of_place.last().map(|(_, _, change)| *change);
                let last_start = of_place.iter().rev().find(|(_, _, change)| *change == Change::Start);
                let may_be_told = last_start.is_none_or(|(at, ..)| at + REPEAT <= now);
                prop_assert!(!types || last == Some(Change::Start) || !may_be_told);
                prop_assert!(types || last != Some(Change::Start), "told as typing at {}", now);
                let pictured = typists.typing(&conversation, now).iter().any(|(other, _)| *other == user);
                prop_assert_eq!(pictured, last == Some(Change::Start));
            }
        }
        run(&mut typists, Ms::MAX / 2, &mut told);
        for number in 0..4 {
            let of_place: Vec<_> = told.iter().filter(|(_, other, _)| *other == place(number)).collect();
            prop_assert!(of_place.last().is_none_or(|(_, _, change)| *change == Change::Stop));
            let starts: Vec<Ms> = of_place.iter().filter(|(_, _, change)| *change == Change::Start)
                .map(|(at, ..)| *at).collect();
            prop_assert!(starts.windows(2).all(|pair| pair[0] + REPEAT <= pair[1]));
            let stops_follow = of_place.windows(2)
                .all(|pair| pair[0].2 == Change::Start || pair[1].2 == Change::Start);
            prop_assert!(stops_follow, "a stop without a start");
        }
        prop_assert!(typists.is_empty() && typists.next_due().is_none(), "nothing is kept");
    }
}

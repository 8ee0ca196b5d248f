use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::features::person::Activity;

const AFTER: Ms = 10_000;
const ALICE: UserNo = UserNo(1);

fn conn(number: u8) -> ConnId {
    format!("c{number}").parse().unwrap()
}

fn said(status: Option<Status>, activity: Option<&str>) -> Said {
    let activity = activity.map(|text| text.parse::<Activity>().unwrap());
    Said { status, activity }
}

/// The wall clock of these tests runs a million ahead of the other.
fn at(now: Ms) -> (Ms, UnixMs) {
    (now, now + 1_000_000)
}

/// Runs the task's part up to `until`: loads and settles whoever is due. Gives what was told, and when.
fn run(people: &mut People, until: Ms, told: &mut Vec<(Ms, Tell)>) {
    while let Some(due) = people.next_due().filter(|due| *due <= until) {
        let now = due.max(told.last().map_or(0, |(at, _)| *at));
        for user in people.take_due(now, 2) {
            people.load(user, Facts::default(), now);
            let tell = people.settle(user, now);
            if !tell.is_nothing() {
                told.push((now, tell));
            }
        }
    }
}

fn statuses(told: &[(Ms, Tell)]) -> Vec<(Ms, Status)> {
    told.iter()
        .filter_map(|(at, tell)| tell.others.as_ref().map(|shown| (*at, shown.status)))
        .collect()
}

#[test]
fn the_first_connection_shows_at_once_and_the_last_one_after_a_while() {
    let (mut people, mut told) = (People::new(AFTER), Vec::new());
    people.opened(ALICE, 100);
    run(&mut people, 5_000, &mut told);
    assert_eq!(people.ended(ALICE, &conn(1), Departure::Cut, at(5_000)), 0);
    run(&mut people, 14_999, &mut told);
    assert_eq!(statuses(&told), [(100, Status::Online)]);
    run(&mut people, 60_000, &mut told);
    assert_eq!(
        statuses(&told),
        [(100, Status::Online), (15_000, Status::Offline)]
    );
    let last = &told.last().unwrap().1;
    assert_eq!(last.others.as_ref().unwrap().last_seen_ms, Some(1_005_000));
    assert_eq!((last.is_here, last.seen_ms), (Some(false), Some(1_005_000)));
    assert_eq!(
        people.next_due(),
        None,
        "nothing is due while nobody is here"
    );
}

#[test]
fn who_closes_on_purpose_is_gone_at_once_unless_another_device_was_cut_just_now() {
    let (mut people, mut told) = (People::new(AFTER), Vec::new());
    people.opened(ALICE, 0);
    run(&mut people, 2_000, &mut told);
    people.ended(ALICE, &conn(1), Departure::Closed, at(2_000));
    run(&mut people, 3_000, &mut told);
    assert_eq!(
        statuses(&told),
        [(0, Status::Online), (2_000, Status::Offline)]
    );
    for _ in 0..2 {
        people.opened(ALICE, 3_000);
    }
    run(&mut people, 5_000, &mut told);
    people.ended(ALICE, &conn(2), Departure::Cut, at(5_000));
    people.ended(ALICE, &conn(3), Departure::Closed, at(6_000));
    run(&mut people, 60_000, &mut told);
    assert_eq!(statuses(&told)[3..], [(15_000, Status::Offline)]);
}

#[test]
fn one_who_comes_and_goes_all_the_time_is_told_of_once_a_second() {
    let (mut people, mut told) = (People::new(0), Vec::new());
    for turn in 0..200 {
        people.opened(ALICE, turn * 25);
        run(&mut people, turn * 25, &mut told);
        people.ended(ALICE, &conn(1), Departure::Cut, at(turn * 25 + 10));
        run(&mut people, turn * 25 + 24, &mut told);
    }
    run(&mut people, 60_000, &mut told);
    let told = statuses(&told);
    assert!(told.len() <= 7, "{told:?}");
    assert_eq!(
        told.last().map(|(_, status)| *status),
        Some(Status::Offline)
    );
}

#[test]
fn the_most_available_connection_counts_and_the_hand_wins() {
    let (mut people, mut told) = (People::new(AFTER), Vec::new());
    people.opened(ALICE, 0);
    people.opened(ALICE, 0);
    run(&mut people, 0, &mut told);
    let shown = |people: &People| {
        let shown = people.seen_by_others(ALICE, 1);
        (shown.status, shown.activity)
    };
    people.say(ALICE, conn(1), said(Some(Status::Away), Some("tea")), 1);
    assert_eq!(shown(&people), (Status::Online, None));
    people.say(ALICE, conn(2), said(Some(Status::Busy), Some("call")), 1);
    assert_eq!(shown(&people), (Status::Busy, "call".parse().ok()));
    people.say_by_hand(ALICE, said(Some(Status::Away), None), at(1));
    assert_eq!(shown(&people), (Status::Away, "call".parse().ok()));
    people.say_by_hand(ALICE, said(None, Some("lunch")), at(1));
    assert_eq!(shown(&people), (Status::Busy, "lunch".parse().ok()));
    people.say_by_hand(ALICE, said(Some(Status::Offline), Some("lunch")), at(1));
    assert_eq!(shown(&people), (Status::Offline, None));
    people.say_by_hand(ALICE, Said::default(), at(1));
    people.say(ALICE, conn(1), Said::default(), 1);
    assert_eq!(shown(&people), (Status::Online, None));
}

#[test]
fn who_looks_offline_by_choice_is_not_given_away_by_its_last_time() {
    let (mut people, mut told) = (People::new(AFTER), Vec::new());
    people.opened(ALICE, 0);
    run(&mut people, 0, &mut told);
    people.say_by_hand(ALICE, said(Some(Status::Offline), None), at(5_000));
    run(&mut people, 5_000, &mut told);
    people.ended(ALICE, &conn(1), Departure::Cut, at(50_000));
    run(&mut people, 90_000, &mut told);
    let shown = people.seen_by_others(ALICE, 90_000);
    assert_eq!(
        (shown.status, shown.last_seen_ms),
        (Status::Offline, Some(1_005_000))
    );
    assert_eq!(
        statuses(&told).len(),
        2,
        "nobody hears when it really leaves"
    );
}

#[test]
fn a_hidden_user_looks_like_nobody_to_all_but_itself() {
    let (mut people, mut told) = (People::new(AFTER), Vec::new());
    people.opened(ALICE, 0);
    run(&mut people, 0, &mut told);
    people.choose(ALICE, true, 2_000);
    run(&mut people, 2_000, &mut told);
    assert_eq!(told.last().unwrap().1.others, Some(Shown::NOBODY));
    assert_eq!(people.seen_by_others(ALICE, 2_000), Shown::NOBODY);
    assert_eq!(people.seen_by_itself(ALICE, 2_000).status, Status::Online);
    people.choose(ALICE, false, 4_000);
    run(&mut people, 4_000, &mut told);
    assert_eq!(statuses(&told).last(), Some(&(4_000, Status::Online)));
}

#[test]
fn those_who_were_here_at_the_stop_have_time_to_return_and_nobody_hears_of_it() {
    let (mut people, mut told) = (People::new(AFTER), Vec::new());
    let (bob, carol) = (UserNo(2), UserNo(3));
    for user in [ALICE, bob] {
        people.returning(user, 999_000, 0);
    }
    people.opened(ALICE, 4_000);
    people.opened(carol, 4_000);
    people.freeze();
    assert_eq!(
        people.next_due(),
        None,
        "a server that stops tells of nobody"
    );
    people.is_frozen = false;
    run(&mut people, 60_000, &mut told);
    let told = statuses(&told);
    assert_eq!(told, [(4_000, Status::Online), (10_000, Status::Offline)]);
    assert_eq!(
        people.seen_by_others(bob, 60_000).last_seen_ms,
        Some(999_000)
    );
}

#[test]
fn a_frozen_machine_lets_nobody_leave() {
    let mut people = People::new(AFTER);
    people.opened(ALICE, 0);
    run(&mut people, 0, &mut Vec::new());
    people.freeze();
    assert_eq!(people.ended(ALICE, &conn(1), Departure::Closed, at(1)), 0);
    assert!(people.take_due(100_000, 10).is_empty() && people.next_due().is_none());
    assert!(
        people.is_anyone_here(),
        "the store still knows who was here"
    );
}

#[test]
fn a_user_who_is_nobodys_business_is_never_due_until_somebody_comes() {
    let (mut people, mut told) = (People::new(AFTER), Vec::new());
    people.opened(ALICE, 0);
    run(&mut people, 0, &mut told);
    let acquaintances = people.acquaintances();
    people.has_nobody(ALICE, acquaintances, 0);
    run(&mut people, 0, &mut told);
    told.clear();
    people.ended(ALICE, &conn(1), Departure::Cut, at(2_000));
    people.opened(ALICE, 3_000);
    assert_eq!(people.next_due(), None);
    people.acquainted(&[ALICE], 4_000);
    run(&mut people, 4_000, &mut told);
    assert_eq!(statuses(&told), [(4_000, Status::Online)]);
    people.has_nobody(ALICE, acquaintances, 4_000);
    assert!(!people.is_plain(ALICE), "an older look is not believed");
}

#[test]
fn one_idle_user_costs_48_bytes_and_whoever_is_away_can_be_forgotten() {
    assert!(std::mem::size_of::<(UserNo, Person)>() <= 48);
    let mut people = People::new(AFTER);
    people.sweep_at = 4;
    people.opened(ALICE, 0);
    for number in 10..13 {
        people.load(UserNo(number), Facts::default(), 0);
    }
    people.load(UserNo(20), Facts::default(), 0);
    let known: Vec<u32> = people.known.keys().map(|user| user.0).collect();
    assert!(
        known.len() == 2 && known.contains(&1) && known.contains(&20),
        "{known:?}"
    );
}

/// The same rules, written down as plainly as possible.
#[derive(Default)]
struct Oracle {
    open: BTreeMap<u8, Said>,
    lingering: Vec<Ms>,
    left: Said,
    by_hand: Said,
    is_hidden: bool,
}

impl Oracle {
    fn pass(&mut self, now: Ms) {
        self.lingering.retain(|until| *until > now);
        if self.lingering.is_empty() {
            self.left = Said::default();
        }
    }

    fn others(&self) -> (Status, Option<Activity>) {
        let status = |said: &Said| said.status.unwrap_or(Status::Online);
        let mut automatic: Vec<Said> = self.open.values().cloned().collect();
        if automatic.is_empty() && !self.lingering.is_empty() {
            automatic.push(self.left.clone());
        }
        let Some(best) = automatic.iter().map(status).max() else {
            return (Status::Offline, None);
        };
        if self.is_hidden {
            return (Status::Offline, None);
        }
        let shown = match self.by_hand.status {
            Some(by_hand) if best != Status::Offline => by_hand,
            _ => best,
        };
        if shown == Status::Offline {
            return (Status::Offline, None);
        }
        let own = automatic.iter().filter(|said| status(said) == best);
        let own: Vec<&Activity> = own.filter_map(|said| said.activity.as_ref()).collect();
        // Which of several that are equally available speaks is not fixed, so the steps below let one speak at most.
        (
            shown,
            self.by_hand
                .activity
                .clone()
                .or(own.first().copied().cloned()),
        )
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open(u8),
    End(u8, bool),
    Say(u8, Option<Status>),
    Hand(Option<Status>, bool),
    Hide(bool),
}

fn steps() -> impl Strategy<Value = Vec<(Ms, Step)>> {
    let status = prop::option::of(prop::sample::select(vec![
        Status::Away,
        Status::Busy,
        Status::Online,
        Status::Offline,
    ]));
    let step = prop_oneof![
        3 => (0u8..4).prop_map(Step::Open),
        3 => (0u8..4, any::<bool>()).prop_map(|(conn, cut)| Step::End(conn, cut)),
        2 => (0u8..4, status.clone()).prop_map(|(conn, status)| Step::Say(conn, status)),
        1 => (status, any::<bool>()).prop_map(|(status, acts)| Step::Hand(status, acts)),
        1 => any::<bool>().prop_map(Step::Hide),
    ];
    let wait = prop_oneof![3 => 0u64..300, 2 => 300u64..3_000, 1 => 9_000u64..12_000];
    prop::collection::vec((wait, step), 1..60)
}

proptest! {
    /// Any sequence of connections, words, choices and time of several devices, against the plain rules: what others
    /// would see is right at every step, what they heard becomes right within a second, and never more than one a second.
    #[test]
    fn any_life_is_shown_and_told_as_the_plain_rules_say(steps in steps()) {
        let (mut people, mut oracle, mut told) = (People::new(AFTER), Oracle::default(), Vec::new());
        let mut now = 0;
        for (wait, step) in steps {
            now += wait;
            run(&mut people, now, &mut told);
            oracle.pass(now);
            match step {
                Step::Open(number) if !oracle.open.contains_key(&number) => {
                    people.opened(ALICE, now);
                    if !oracle.lingering.is_empty() {
                        oracle.lingering.remove(0);
                    }
                    oracle.open.insert(number, Said::default());
                }
                Step::End(number, is_cut) if oracle.open.contains_key(&number) => {
                    let departure = if is_cut { Departure::Cut } else { Departure::Closed };
                    let left = people.ended(ALICE, &conn(number), departure, at(now));
                    let said = oracle.open.remove(&number).unwrap();
                    prop_assert_eq!(left as usize, oracle.open.len());
                    if is_cut {
                        oracle.lingering.push(now + AFTER);
                        oracle.left = said;
                    }
                }
                Step::Say(number, status) if oracle.open.contains_key(&number) => {
                    let words = if number == 0 { Some("typing") } else { None };
                    people.say(ALICE, conn(number), said(status, words), now);
                    oracle.open.insert(number, said(status, words));
                }
                Step::Hand(status, acts) => {
                    let by_hand = said(status, acts.then_some("hand"));
                    people.say_by_hand(ALICE, by_hand.clone(), at(now));
                    if oracle.open.is_empty() && status != Some(Status::Offline) {
                        oracle.lingering = vec![now + AFTER];
                    }
                    oracle.by_hand = by_hand;
                }
                Step::Hide(is_hidden) if !people.must_load(ALICE) => {
                    people.choose(ALICE, is_hidden, now);
                    oracle.is_hidden = is_hidden;
                }
                _ => continue,
            }
            oracle.pass(now);
            run(&mut people, now, &mut told);
            let shown = people.seen_by_others(ALICE, now);
            prop_assert_eq!((shown.status, shown.activity), oracle.others(), "at {}", now);
        }
        let end = now + AFTER + 2 * TELL_EVERY_MS;
        run(&mut people, end, &mut told);
        oracle.pass(end);
        let mut heard = (Status::Offline, None);
        let mut heard_at = None;
        let mut is_here = false;
        for (at, tell) in &told {
            is_here = tell.is_here.unwrap_or(is_here);
            let Some(shown) = &tell.others else { continue };
            prop_assert!(heard_at.is_none_or(|before| before + TELL_EVERY_MS <= *at));
            let told = (shown.status, shown.activity.clone());
            prop_assert_ne!(&told, &heard, "nothing is told twice");
            (heard, heard_at) = (told, Some(*at));
        }
        prop_assert_eq!(heard, oracle.others(), "at the end");
        let is_open = !oracle.open.is_empty();
        let all_offline = oracle.open.values().all(|said| said.status == Some(Status::Offline));
        prop_assert_eq!(is_here, is_open && !all_offline);
        prop_assert_eq!(people.next_due(), None, "nothing is due any more");
    }
}

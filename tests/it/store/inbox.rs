//! The inbox against a plain list: random notifications, reads and pages, over restarts and a small bound.
//!
//! Promises: after each step list, filter, paging and count are those of the list; no row is left behind that the list
//! does not have.

use proptest::prelude::*;
use serde_json::json;
use tidings::features::inbox::{self, Ask, Notification};
use tidings::store::shared::StoreError;

use super::*;

const INBOX_MAX: usize = 6;

#[derive(Debug, Clone)]
enum Step {
    Notify {
        is_muted: bool,
    },
    /// Those of the list at these places, and one that is in no inbox.
    Read(Vec<usize>),
    ReadAll,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => any::<bool>().prop_map(|is_muted| Step::Notify { is_muted }),
        3 => prop::collection::vec(0usize..10, 0..4).prop_map(Step::Read),
        1 => Just(Step::ReadAll),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

/// Ids, oldest first, and whether each is read.
type List = Vec<(String, bool)>;

async fn run(steps: Vec<Step>) {
    let mut bench = Bench::new(KEEP_ALL);
    let mut list: List = Vec::new();
    let mut sent = 0;
    for step in steps {
        match step {
            Step::Notify { is_muted } => {
                sent += 1;
                let id = format!("n{sent}");
                list.push((id.clone(), is_muted));
                if list.len() > INBOX_MAX {
                    list.remove(0);
                }
                notify(&bench, &id, is_muted).await;
            }
            Step::Read(places) => {
                let mut ids: Vec<String> = Vec::new();
                let mut expected = Vec::new();
                for place in places {
                    ids.push(
                        list.get(place)
                            .map_or("unknown".to_owned(), |(id, _)| id.clone()),
                    );
                    if let Some((id, is_read @ false)) = list.get_mut(place) {
                        *is_read = true;
                        expected.push(id.clone());
                    }
                }
                assert_eq!(read(&bench, ids).await, expected);
            }
            Step::ReadAll => {
                let had_unread = list.iter().any(|(_, is_read)| !is_read);
                list.iter_mut().for_each(|(_, is_read)| *is_read = true);
                let changed = bench.store.commit(64, |tx| {
                    let user = alice(tx);
                    inbox::read_all(tx, user)
                });
                let changed = changed.await;
                assert_eq!(changed, Ok::<bool, StoreError>(had_unread));
            }
            Step::Restart => bench = bench.restart(0).await,
        }
        check(&bench, &list).await;
    }
}

fn alice(tx: &mut tidings::store::transaction::Transaction<'_>) -> UserNo {
    tx.user(&"alice".parse().unwrap())
}

async fn notify(bench: &Bench, id: &str, is_muted: bool) {
    let (id, kind) = (id.parse().unwrap(), "like".parse().unwrap());
    // Some are longer than one row.
    let data =
        json!({"id": id, "kind": "like", "body": "x".repeat(if is_muted { 5_000 } else { 10 })});
    let notification = Notification::new(id, kind, NOON_MS, data);
    let added = bench
        .store
        .commit(64, move |tx| {
            let user = alice(tx);
            inbox::add(tx, user, notification, !is_muted, INBOX_MAX as u64)
        })
        .await;
    added
        .map_err(|error: StoreError| error.to_string())
        .unwrap();
}

async fn read(bench: &Bench, ids: Vec<String>) -> Vec<String> {
    let ids = ids.iter().map(|id| id.parse().unwrap()).collect();
    let read = bench.store.commit(64, move |tx| {
        let user = alice(tx);
        inbox::read_these(tx, user, ids)
    });
    let read: Result<Vec<_>, StoreError> = read.await;
    read.unwrap().iter().map(ToString::to_string).collect()
}

async fn page(bench: &Bench, ask: Ask) -> (List, u64, bool) {
    let page = bench.store.look(move |tx| {
        let user = alice(tx);
        inbox::page(tx, user, &ask)
    });
    let page = page.await.unwrap().expect("`before` is in the inbox");
    let told = page.notifications.iter();
    let told = told.map(|one| (one["id"].as_str().unwrap().to_owned(), one["read"] == true));
    (told.collect(), page.unread, page.is_more)
}

async fn check(bench: &Bench, list: &List) {
    let unread = list.iter().filter(|(_, is_read)| !is_read).count() as u64;
    for is_unread_only in [false, true] {
        let expected: List = list
            .iter()
            .rev()
            .filter(|(_, is_read)| !(is_unread_only && *is_read))
            .cloned()
            .collect();
        for limit in [1, 4, 200] {
            let (mut found, mut before) = (List::new(), None);
            loop {
                let ask = Ask {
                    is_unread_only,
                    before,
                    limit,
                };
                let (some, told_unread, is_more) = page(bench, ask).await;
                assert_eq!(told_unread, unread);
                found.extend(some);
                assert_eq!(is_more, found.len() < expected.len());
                if !is_more {
                    break;
                }
                before = found.last().map(|(id, _)| id.parse().unwrap());
            }
            assert_eq!(found, expected);
        }
    }
    // A row for each that is there, and a waiting row at most for each: what was trimmed is gone.
    let rows = |kind: u8| {
        let mut count = 0;
        let (from, to) = keys::states(kind);
        let scanned = bench.disk.scan(&from, &to, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        scanned.unwrap();
        count
    };
    assert_eq!(rows(b'N'), list.len());
    assert!(rows(b'W') <= list.len() && rows(b'W') as u64 >= unread);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_inbox_is_a_plain_list(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(run(steps));
    }
}

#[tokio::test(start_paused = true)]
async fn an_erased_inbox_leaves_no_row() {
    let bench = Bench::new(KEEP_ALL);
    for number in 0..INBOX_MAX {
        notify(&bench, &format!("n{number}"), number % 2 == 0).await;
    }
    let mut rounds = 0;
    let erase = async || {
        let erased = bench.store.commit(64, |tx| {
            let user = alice(tx);
            inbox::erase(tx, user, 5)
        });
        let is_left: Result<bool, StoreError> = erased.await;
        is_left.unwrap()
    };
    while erase().await {
        rounds += 1;
    }
    assert!(rounds > 2, "in steps of five rows");
    check(&bench, &Vec::new()).await;
    assert_eq!(bench.rows(b's'), 0, "rows of features");
}

//! The tool itself, from outside: it passes where all is right, fails where anything is wrong, and leaves nothing behind.
//!
//! The server is the floor, so that these tests need no other program. Bounds of time are generous: only an end that
//! does not come at all should fail them.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const END_TIME_MAX: Duration = Duration::from_secs(60);

fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(arguments).arg("--quiet");
    command
}

fn run(arguments: &[&str]) -> (Output, String) {
    let output = tool(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

#[track_caller]
fn passes(scenario: &str) {
    let (output, text) = run(&[scenario, "--small", "--only", "floor"]);
    assert_eq!(output.status.code(), Some(0), "{text}{output:?}");
    assert!(text.contains(&format!("| {scenario}")), "{text}");
}

/// `expected` as the verdict says it, with any number before it.
#[track_caller]
fn fails(fault: &str, expected: &str) {
    let arguments = [
        "fanout",
        "--small",
        "--only",
        "floor",
        "--floor-fault",
        fault,
    ];
    let (output, text) = run(&arguments);
    assert_eq!(output.status.code(), Some(1), "{text}{output:?}");
    let verdict = text.lines().find(|line| line.starts_with("FAILED fanout"));
    let counts = verdict.expect("a verdict").rsplit(": ").next().unwrap();
    let mut counts = counts
        .split(", ")
        .map(|count| count.split_once(' ').unwrap());
    let count = counts.find(|(_, what)| *what == expected).unwrap().0;
    assert_ne!(count, "0", "{text}");
}

#[test]
fn the_floor_passes_every_scenario_that_it_has() {
    for scenario in ["idle", "fanout", "unicast", "catchup", "storm", "poll"] {
        passes(scenario);
    }
}

#[test]
fn an_event_that_is_dropped_is_missing() {
    fails("drop=50", "missing");
}

#[test]
fn an_event_that_comes_twice_is_repeated() {
    fails("repeat=50", "repeated");
}

#[test]
fn events_that_change_places_are_out_of_order() {
    fails("swap=50", "out of order");
}

#[test]
fn an_event_of_another_run_is_foreign() {
    fails("forge=50", "foreign");
}

#[test]
fn an_event_that_changed_on_the_way_is_damaged() {
    fails("damage=50", "damaged");
}

#[test]
fn figures_are_written_for_programs_and_for_people() {
    let directory = tempfile::tempdir().unwrap();
    let [json, html] = ["run.json", "run.html"].map(|name| directory.path().join(name));
    let paths = [&json, &html].map(|path| path.to_str().unwrap());
    let arguments = [
        "fanout",
        "--only",
        "floor",
        "--connections",
        "30",
        "--seconds",
        "0.5",
    ];
    let (output, text) = run(&[&arguments[..], &["--json", paths[0], "--html", paths[1]]].concat());
    assert_eq!(output.status.code(), Some(0), "{text}{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(json["faults"], 0);
    let single = &json["outcomes"][0];
    assert_eq!(
        single["deliveries"],
        30 * 10,
        "20 a second for half a second, to 30 readers"
    );
    assert!(single["cpu_us_per_delivery"].as_f64().unwrap() > 0.0);
    assert!(single["latency"]["p50_us"].as_f64().unwrap() > 0.0);
    assert_eq!(json["rows"][3]["row"], "4");
    assert!(json["rows"][3]["floor"].as_f64().unwrap() > 0.0);
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("<svg") && html.contains("fanout, 16 at once"));
}

#[test]
fn other_machines_are_never_a_target() {
    let (output, _) = run(&[
        "fanout",
        "--url",
        "http://192.168.0.1:8082",
        "--secret",
        "x",
    ]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_bound_that_is_not_kept_ends_the_run_with_1() {
    let (output, _) = run(&["fanout", "--small", "--only", "floor", "--at-most", "4=2"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("row 4 has no figure"), "{said}");
    let (output, _) = run(&["fanout", "--small", "--only", "floor", "--at-most", "4"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_server_that_is_not_there_is_said_in_a_sentence() {
    let (output, _) = run(&["fanout", "--small", "--server", "/nowhere/tidings"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("there is no server at /nowhere/tidings"),
        "{said}"
    );
}

/// A run that would go on for minutes, with its floor's pid.
fn long_run(directory: &Path) -> (Child, u32) {
    let directory = directory.to_str().unwrap();
    let child = tool(&[
        "fanout",
        "--only",
        "floor",
        "--seconds",
        "300",
        "--connections",
        "20",
    ])
    .args(["--directory", directory])
    .stdout(Stdio::null())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let floor = eventually(|| {
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let pid = std::fs::read_to_string(children).unwrap_or_default();
        let pid = pid.split_whitespace().next()?.parse().ok()?;
        // Once it is the floor, its guard has set up its end.
        is_floor(pid).then_some(pid)
    });
    (child, floor)
}

fn is_floor(pid: u32) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut arguments = command.split(|byte| *byte == 0);
    arguments.nth(1) == Some(b"floor-server")
}

fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Some(found) => return found,
            None => assert!(began.elapsed() < END_TIME_MAX, "it did not happen"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_interrupted_run_fails_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, floor) = long_run(directory.path());
    Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    let status = eventually(|| child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(!is_floor(floor));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_killed_run_takes_its_server_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, floor) = long_run(directory.path());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually(|| (!is_floor(floor)).then_some(()));
}

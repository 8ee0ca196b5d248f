//! What a server's process costs, as the kernel counts it: time on a processor, and memory.
//!
//! Promises: children count with their parent (nginx works in one); time is exact to the microsecond while no thread
//! ends, else to the tick. It reads `/proc` and nothing else.

use std::fs;

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;

/// Seconds on a processor since the process began, of it and its children.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut seconds = 0.0;
    for pid in family(pid) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the server is gone")?;
        let ticks = ticks(&stat).context("/proc/PID/stat has another form")?;
        let by_ticks = ticks as f64 / clock_ticks_per_second() as f64;
        // The threads' own clocks are finer, but forget threads that ended.
        seconds += by_ticks.max(threads_seconds(pid));
    }
    Ok(seconds)
}

/// User and system time in ticks; the name of the program may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn threads_seconds(pid: u32) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0.0;
    };
    let on_cpu_ns = |text: String| text.split_whitespace().next()?.parse::<u64>().ok();
    let times = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        on_cpu_ns(text)
    });
    times.sum::<u64>() as f64 / 1e9
}

/// KiB of memory that the process and its children use, shared pages divided among those that share them.
pub fn pss_kib(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for pid in family(pid) {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .context("smaps_rollup cannot be read: another user's process?")?;
        sum += field_kib(&rollup, "Pss:").context("smaps_rollup has no Pss")?;
    }
    Ok(sum)
}

/// KiB at the highest, of the process alone.
pub fn peak_kib(pid: u32) -> Option<u64> {
    field_kib(
        &fs::read_to_string(format!("/proc/{pid}/status")).ok()?,
        "VmHWM:",
    )
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    if let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) {
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            family.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_behind_whatever_name_a_program_has() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 9 0 0 0 250 31 0 0 20 0 1 0 5";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("7 (x) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_uses_time() {
        let pid = std::process::id();
        assert!(pss_kib(pid).unwrap() > 100);
        assert!(peak_kib(pid).unwrap() > 100);
        let before = cpu_seconds(pid).unwrap();
        let began = std::time::Instant::now();
        while cpu_seconds(pid).unwrap() - before < 0.02 {
            assert!(began.elapsed().as_secs() < 60, "no time was counted");
        }
        assert_eq!(field_kib("Rss: 12 kB\nPss:   7 kB\n", "Pss:"), Some(7));
    }
}

//! What processes use, by what Linux says of them.

use std::fs;
use std::process::Command;

/// Where what is measured runs, and where all else does, on a machine that has two processors.
pub(crate) const MEASURED: &str = "0";
const OTHERS: &str = "1";

/// Moves this process off the processor of what is measured, and gives what to start that with; nothing where there is but
/// one processor.
pub(crate) fn apart() -> Vec<String> {
    if std::thread::available_parallelism().map_or(1, Into::into) < 2 {
        return Vec::new();
    }
    let moved = Command::new("taskset").args(["-acp", OTHERS, &std::process::id().to_string()]).output();
    if !moved.is_ok_and(|moved| moved.status.success()) {
        return Vec::new();
    }
    ["taskset", "-c", MEASURED].map(str::to_owned).to_vec()
}

/// What all threads of a process have run for, in nanoseconds.
pub(crate) fn cpu_ns(process: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let ran = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    ran.sum()
}

/// Its part of the memory that it and others share, and all that is its own, in bytes.
pub(crate) fn memory(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib: u64 = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    kib * 1024
}

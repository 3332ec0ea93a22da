//! What processes use, by what Linux says of them.

use std::collections::HashMap;
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

/// What a process has run for, at one moment.
#[derive(Default)]
pub(crate) struct Cpu {
    /// Nanoseconds of each thread that is there.
    threads: HashMap<u32, u64>,
    /// Hundredths of a second of all, those that have ended included.
    ticks: u64,
}

impl Cpu {
    pub(crate) fn of(process: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().filter_map(|thread| {
            let thread = thread.ok()?;
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((thread.file_name().to_str()?.parse().ok()?, text.split(' ').next()?.parse().ok()?))
        });
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Self { threads: threads.collect(), ticks }
    }

    /// Of several processes.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.threads.extend(other.threads);
        self.ticks += other.ticks;
        self
    }

    /// Nanoseconds since an earlier moment. Of threads that have ended meanwhile only the ticks tell, which may be two too many.
    pub(crate) fn since(&self, before: &Self) -> u64 {
        let ran = |(thread, ran): (&u32, &u64)| ran.saturating_sub(before.threads.get(thread).copied().unwrap_or(0));
        let ticks = self.ticks.saturating_sub(before.ticks).saturating_sub(2);
        self.threads.iter().map(ran).sum::<u64>().max(ticks * 10_000_000)
    }
}

/// Its part of the memory that it and others share, and all that is its own, in bytes.
pub(crate) fn memory(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib: u64 = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    kib * 1024
}

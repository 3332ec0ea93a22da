//! Monotonic and wall time.
//!
//! Everything that asks what time it is asks a [`Clock`]: the system's time plus an offset that only tests move, so that
//! expiry, refill and cool-down are tested without waiting. Timers of the runtime are not moved by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 UTC, as JWT's `NumericDate` and the store count them.
pub type UnixSeconds = i64;

/// A source of time; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    advanced_ns: Arc<AtomicU64>,
    /// Of wall time alone.
    stepped_seconds: Arc<AtomicI64>,
}

impl Clock {
    /// The system's time.
    pub fn system() -> Self {
        Self::default()
    }

    /// Monotonic time.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's clock")]
    pub fn now(&self) -> Instant {
        Instant::now() + self.advanced()
    }

    /// Wall time.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's clock")]
    pub fn wall(&self) -> SystemTime {
        let now = SystemTime::now() + self.advanced();
        let seconds = self.stepped_seconds.load(Ordering::Relaxed);
        let by = Duration::from_secs(seconds.unsigned_abs());
        let stepped = if seconds < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        stepped.unwrap_or(UNIX_EPOCH)
    }

    /// Wall time since 1970; zero for a clock set before that.
    pub fn since_1970(&self) -> Duration {
        self.wall().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Wall time in whole seconds.
    pub fn unix(&self) -> UnixSeconds {
        UnixSeconds::try_from(self.since_1970().as_secs()).unwrap_or(UnixSeconds::MAX)
    }

    /// Wall time in milliseconds.
    pub fn unix_ms(&self) -> i64 {
        i64::try_from(self.since_1970().as_millis()).unwrap_or(i64::MAX)
    }

    /// Moves this clock and its clones forward; for tests.
    pub fn advance(&self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.advanced_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Sets wall time forward or back, as an operator or a time server does; for tests.
    pub fn step(&self, seconds: i64) {
        self.stepped_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    fn advanced(&self) -> Duration {
        Duration::from_nanos(self.advanced_ns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_move_together() {
        let clock = Clock::system();
        let (before, clone) = (clock.now(), clock.clone());
        clone.advance(Duration::from_hours(1));
        assert!(clock.now() >= before + Duration::from_hours(1));
        assert!(clock.unix() > 3600);
    }
}

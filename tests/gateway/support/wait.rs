//! Waiting without sleeping: until something is so, or a deadline passes.

use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long anything may take; generous, since tests run beside each other on small machines.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `probe` says `Ok`; fails with the last `Err` seen.
pub fn eventually<T, E: Debug>(what: &str, probe: impl FnMut() -> Result<T, E>) -> T {
    within(DEADLINE, what, probe)
}

/// [`eventually`] with a deadline of its own.
pub fn within<T, E: Debug>(deadline: Duration, what: &str, mut probe: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > deadline => {
                panic!("{what}: not within {deadline:?}; last seen: {seen:?}")
            }
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}

/// Something that one thread waits for until another opens it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open; fails at the deadline.
    pub fn wait(&self) {
        let (open, opened) = &*self.0;
        let (open, timeout) = opened.wait_timeout_while(open.lock().unwrap(), DEADLINE, |open| !*open).unwrap();
        assert!(*open, "the gate stayed shut: {timeout:?}");
    }
}

/// Seconds since 1970, as in JWTs.
pub fn unix_now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

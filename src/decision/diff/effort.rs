//! What a comparison may take: whatever two files say, its work and its memory have a bound.

use std::cell::Cell;

/// How much a comparison may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Nodes of patterns that are looked at, questions that are asked, names that are compared; some nanoseconds each.
    pub(super) steps: u64,
    /// Bytes that are kept of what is found, as nearly as they can be told.
    pub(super) bytes: u64,
}

impl Bounds {
    /// Of a command, for which somebody waits: some minutes.
    pub(super) const COMMAND: Self = Self { steps: 10_000_000_000, bytes: 2 << 30 };
    /// Of a process that serves meanwhile, and reads its file again behind it: about a second.
    pub(super) const RELOAD: Self = Self { steps: 50_000_000, bytes: 128 << 20 };
}

/// There is more to compare than is in reasonable time and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// It would take too long.
    #[error("the rules that differ cross in too many ways to compare: compare the files in smaller steps")]
    Work,
    /// What differs could not be kept.
    #[error("too much differs to be told at once: compare the files in smaller steps")]
    Memory,
}

/// What is left of the bounds.
#[derive(Debug)]
pub(super) struct Effort {
    pub(super) steps: Cell<u64>,
    pub(super) bytes: Cell<u64>,
}

impl Effort {
    pub(super) const fn within(bounds: Bounds) -> Self {
        Self { steps: Cell::new(bounds.steps), bytes: Cell::new(bounds.bytes) }
    }

    /// Takes so many steps.
    ///
    /// # Errors
    /// So many are not left.
    pub(super) fn spend(&self, steps: usize) -> Result<(), TooMuch> {
        take(&self.steps, steps, TooMuch::Work)
    }

    /// Keeps so many bytes.
    ///
    /// # Errors
    /// So many are not left.
    pub(super) fn keep(&self, bytes: usize) -> Result<(), TooMuch> {
        take(&self.bytes, bytes, TooMuch::Memory)
    }

    /// Whether there is room for so many bytes for a moment.
    ///
    /// # Errors
    /// There is not.
    pub(super) fn fits(&self, bytes: usize) -> Result<(), TooMuch> {
        if u64::try_from(bytes).is_ok_and(|bytes| bytes <= self.bytes.get()) { Ok(()) } else { Err(TooMuch::Memory) }
    }
}

fn take(from: &Cell<u64>, count: usize, error: TooMuch) -> Result<(), TooMuch> {
    let left = u64::try_from(count).ok().and_then(|count| from.get().checked_sub(count));
    // once there was not enough, there is not for less either
    from.set(left.unwrap_or(0));
    left.map(drop).ok_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_never_more_than_it_was() {
        let effort = Effort::within(Bounds { steps: 10, bytes: 10 });
        assert_eq!((effort.spend(6), effort.spend(4)), (Ok(()), Ok(())));
        assert_eq!(
            (effort.spend(1), effort.fits(10), effort.fits(11)),
            (Err(TooMuch::Work), Ok(()), Err(TooMuch::Memory))
        );
        assert_eq!(
            (effort.keep(11), effort.keep(1), effort.keep(0)),
            (Err(TooMuch::Memory), Err(TooMuch::Memory), Ok(()))
        );
    }
}

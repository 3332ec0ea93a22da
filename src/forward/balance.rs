//! Which server of those that may be used.
//!
//! Each worker counts its own requests under way and takes its own turns: nothing is shared between workers on the path
//! of a request. Turns begin at a random server, so that workers do not move in step.

use std::cell::Cell;

use super::Balance;

/// The state of one upstream's choice, in one worker.
pub(super) struct Chooser {
    balance: Balance,
    turn: Cell<usize>,
    random: Cell<u64>,
}

impl Chooser {
    /// `seed` is any random number.
    pub(super) fn new(balance: Balance, seed: u64) -> Self {
        Self { balance, turn: Cell::new((seed >> 32) as u32 as usize), random: Cell::new(seed | 1) }
    }

    /// The index of a server below `count` for which `load` gives its requests under way; `None` excludes it.
    pub(super) fn choose(&self, count: usize, load: impl Fn(usize) -> Option<usize>) -> Option<usize> {
        match count {
            0 => None,
            1 => load(0).map(|_| 0),
            _ => match self.balance {
                Balance::RoundRobin => self.in_turn(count, &load),
                Balance::LeastRequests => self.least_busy(count, &load),
                Balance::RandomTwoChoices => self.less_busy_of_two(count, &load),
            },
        }
    }

    fn in_turn(&self, count: usize, load: &impl Fn(usize) -> Option<usize>) -> Option<usize> {
        let first = self.turn.get() % count;
        let chosen = (0..count).map(|step| (first + step) % count).find(|&index| load(index).is_some())?;
        self.turn.set(chosen + 1);
        Some(chosen)
    }

    /// Among equals in turn: else the first server would get all requests of a quiet hour.
    fn least_busy(&self, count: usize, load: &impl Fn(usize) -> Option<usize>) -> Option<usize> {
        let first = self.turn.get() % count;
        let chosen = (0..count)
            .map(|step| (first + step) % count)
            .filter_map(|index| load(index).map(|load| (load, index)))
            .min_by_key(|&(load, _)| load)
            .map(|(_, index)| index)?;
        self.turn.set(chosen + 1);
        Some(chosen)
    }

    fn less_busy_of_two(&self, count: usize, load: &impl Fn(usize) -> Option<usize>) -> Option<usize> {
        let usable = (0..count).filter(|&index| load(index).is_some()).count();
        if usable == 0 {
            return None;
        }
        let nth = |n: usize| (0..count).filter_map(|index| load(index).map(|load| (load, index))).nth(n);
        let first = self.below(usable);
        // another one, where there is another one
        let second = if usable == 1 { first } else { (first + 1 + self.below(usable - 1)) % usable };
        let (a, b) = (nth(first)?, nth(second)?);
        Some(if b.0 < a.0 { b.1 } else { a.1 })
    }

    /// A number below `bound`: xorshift64, which needs to be even and not secret.
    fn below(&self, bound: usize) -> usize {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        ((x >> 33) as usize) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

    fn chosen(balance: Balance, loads: &[Option<usize>], times: usize) -> Vec<usize> {
        let chooser = Chooser::new(balance, SEED);
        let mut counts = vec![0; loads.len()];
        for _ in 0..times {
            if let Some(index) = chooser.choose(loads.len(), |index| loads[index]) {
                counts[index] += 1;
            }
        }
        counts
    }

    #[test]
    fn servers_are_chosen_as_the_setting_says() {
        for (name, balance, loads, expected) in [
            ("in turn whatever the load", Balance::RoundRobin, &[Some(9), Some(0), Some(5)][..], &[4, 4, 4][..]),
            ("in turn among those that may be used", Balance::RoundRobin, &[Some(0), None, Some(0)], &[6, 0, 6]),
            ("the least busy", Balance::LeastRequests, &[Some(2), Some(1), Some(2)], &[0, 12, 0]),
            ("equals in turn", Balance::LeastRequests, &[Some(1), Some(1), Some(2)], &[6, 6, 0]),
            ("the less busy of two is the less busy", Balance::RandomTwoChoices, &[Some(3), Some(1)], &[0, 12]),
            ("the only one left", Balance::RandomTwoChoices, &[None, Some(7), None], &[0, 12, 0]),
            ("none is left", Balance::LeastRequests, &[None, None], &[0, 0]),
            ("none is left of one", Balance::RoundRobin, &[None], &[0]),
        ] {
            assert_eq!(chosen(balance, loads, 12), expected, "{name}");
        }
    }

    #[test]
    fn two_random_choices_reach_every_server_but_the_busiest() {
        let counts = chosen(Balance::RandomTwoChoices, &[Some(0), Some(0), Some(0), Some(1)], 3000);
        assert!(counts[..3].iter().all(|&count| count > 700), "{counts:?}");
        assert_eq!(counts[3], 0);
    }
}

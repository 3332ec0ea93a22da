//! Sets of hosts and of methods, of which there are always more than anybody names.

use std::collections::BTreeSet;

/// Names that are written out for people; tools have them all.
pub(super) const PRINTED_MAX: usize = 100;

/// A set of names: these, or all but these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Names {
    /// These.
    Only(BTreeSet<String>),
    /// All but these.
    AllBut(BTreeSet<String>),
}

impl Names {
    /// Every name.
    pub fn all() -> Self {
        Self::AllBut(BTreeSet::new())
    }

    /// Those of `all` that are in `set`; the last of `all` stands for every name that is not among them.
    pub(super) fn of(set: &BTreeSet<&str>, all: &[&str]) -> Self {
        let (rest, named) = all.split_last().unwrap_or((&"", &[]));
        let owned = |names: Vec<&&str>| names.into_iter().map(|name| (*name).to_owned()).collect();
        if set.contains(rest) {
            Self::AllBut(owned(named.iter().filter(|name| !set.contains(**name)).collect()))
        } else {
            Self::Only(owned(named.iter().filter(|name| set.contains(**name)).collect()))
        }
    }

    /// What is in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Only(a), Self::Only(b)) => Self::Only(a & b),
            (Self::AllBut(a), Self::AllBut(b)) => Self::AllBut(a | b),
            (Self::Only(a), Self::AllBut(b)) | (Self::AllBut(b), Self::Only(a)) => Self::Only(a - b),
        }
    }

    /// What is in this one alone.
    pub(super) fn without(&self, other: &Self) -> Self {
        self.and(&match other {
            Self::Only(names) => Self::AllBut(names.clone()),
            Self::AllBut(names) => Self::Only(names.clone()),
        })
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Only(names) if names.is_empty())
    }

    /// How many names are written down for it.
    pub(super) fn len(&self) -> usize {
        let (Self::Only(names) | Self::AllBut(names)) = self;
        names.len()
    }

    /// Whether a name is in it.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(name),
            Self::AllBut(names) => !names.contains(name),
        }
    }

    /// As a list: empty for all, `*` and each exception behind `!` for all but some.
    pub fn list(&self) -> Vec<String> {
        match self {
            Self::Only(names) => names.iter().cloned().collect(),
            Self::AllBut(names) if names.is_empty() => Vec::new(),
            Self::AllBut(names) => {
                std::iter::once("*".to_owned()).chain(names.iter().map(|name| format!("!{name}"))).collect()
            }
        }
    }

    /// For people, `every` being all of them.
    pub(super) fn words(&self, every: &str) -> String {
        let list = |names: &BTreeSet<String>| {
            let mut words: Vec<&str> = names.iter().map(String::as_str).take(PRINTED_MAX).collect();
            let more =
                names.len().checked_sub(PRINTED_MAX).filter(|&more| more > 0).map(|more| format!("and {more} more"));
            words.extend(more.as_deref());
            words.join(", ")
        };
        match self {
            Self::Only(names) => list(names),
            Self::AllBut(names) if names.is_empty() => every.to_owned(),
            Self::AllBut(names) => format!("{every} but {}", list(names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Names {
        let (all_but, list) = text.strip_prefix('!').map_or((false, text), |list| (true, list));
        let names = list.chars().map(String::from).collect();
        if all_but { Names::AllBut(names) } else { Names::Only(names) }
    }

    #[test]
    fn sets_are_sets() {
        for (a, b, both, only_a) in [
            ("ab", "bc", "b", "a"),
            ("ab", "!bc", "a", "b"),
            ("!ab", "bc", "c", "!abc"),
            ("!ab", "!bc", "!abc", "c"),
            ("ab", "!", "ab", ""),
            ("!", "!", "!", ""),
            ("!", "", "", "!"),
        ] {
            assert_eq!(some(a).and(&some(b)), some(both), "{a} and {b}");
            assert_eq!(some(a).without(&some(b)), some(only_a), "{a} without {b}");
            for name in ["a", "b", "c", "d"] {
                let (in_a, in_b) = (some(a).contains(name), some(b).contains(name));
                assert_eq!(some(both).contains(name), in_a && in_b, "{name} in {a} and {b}");
                assert_eq!(some(only_a).contains(name), in_a && !in_b, "{name} in {a} without {b}");
            }
        }
        assert!(some("").is_empty() && !some("a").is_empty() && !some("!a").is_empty());
    }
}

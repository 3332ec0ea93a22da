//! Those who gain or lose.

use std::fmt;
use std::sync::Arc;

use super::fact::on_one_line;
use super::meaning::Who;
use super::names::PRINTED_MAX;

/// Some of those whom the rules of two files tell apart: roles, `@anyone`, `@authenticated`.
#[derive(Clone)]
pub struct People {
    everybody: Arc<[Box<str>]>,
    /// By their places there, in order.
    those: Arc<[u32]>,
}

impl People {
    /// Of `everybody` those at these places, in order.
    pub(super) fn of(everybody: &Arc<[Box<str>]>, those: &[usize]) -> Self {
        let those = those.iter().filter_map(|&place| u32::try_from(place).ok()).collect();
        Self { everybody: Arc::clone(everybody), those }
    }

    /// None of them.
    pub(super) fn none() -> Self {
        Self { everybody: Arc::from([]), those: Arc::from([]) }
    }

    /// Their places among everybody.
    pub(super) fn places(&self) -> &Arc<[u32]> {
        &self.those
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.those.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.those.is_empty()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.those.iter().filter_map(|&place| self.everybody.get(usize::try_from(place).ok()?)).map(|name| &**name)
    }

    /// In words, for people.
    pub fn words(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        if self.len() == self.everybody.len() {
            return "anyone".to_owned();
        }
        if self.len() + 1 == self.everybody.len() && !self.names().any(|name| name == Who::Anyone.name()) {
            return "any principal".to_owned();
        }
        let word = |name| match name {
            "@anyone" => "callers without credentials".to_owned(),
            "@authenticated" => "principals of any other role".to_owned(),
            role => on_one_line(role),
        };
        let mut words: Vec<String> = self.names().take(PRINTED_MAX).map(word).collect();
        if let Some(more) = self.len().checked_sub(PRINTED_MAX).filter(|&more| more > 0) {
            words.push(format!("and {more} more"));
        }
        words.join(", ")
    }
}

impl PartialEq for People {
    fn eq(&self, other: &Self) -> bool {
        self.names().eq(other.names())
    }
}

impl Eq for People {}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

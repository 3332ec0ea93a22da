//! Accounts of which the log was told something, so that it is told once however often they are met.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::principal::Subject;

/// Accounts that are told of, each once; of further ones nothing is said.
const TOLD_MAX: usize = 1_000;

/// Who was told of.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashSet<Subject>>);

impl Told {
    /// Whether `subject` is to be told of now.
    pub fn is_new(&self, subject: &Subject) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < TOLD_MAX && !told.contains(subject) && told.insert(subject.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_new_once_and_there_is_an_end_to_them() {
        let told = Told::default();
        let met = || (0..=TOLD_MAX).filter(|n| told.is_new(&Subject::user(n.to_string()))).count();
        assert_eq!((met(), met()), (TOLD_MAX, 0));
    }
}

//! Values that must never be seen.
//!
//! A [`Secret`] cannot be printed, compared or serialized by accident, and is wiped when dropped. There is one way out,
//! so `grep expose` lists every place that handles a secret in the clear.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A value that is never printed; it has no `Display`, `Clone`, `PartialEq` or `Serialize`.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value from here on.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Every use is a place to look at in a review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + AsRef<[u8]>> Secret<T> {
    /// Whether both hold the same bytes, in a time that depends on their lengths only.
    pub fn matches(&self, other: &[u8]) -> bool {
        self.0.as_ref().ct_eq(other).into()
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_output_holds_nothing_of_the_value() {
        assert_eq!(format!("{:?}", Secret::new("canary".to_owned())), "[secret]");
    }

    #[test]
    fn comparison_is_by_bytes() {
        let secret = Secret::new("abc".to_owned());
        assert!(secret.matches(b"abc"));
        assert!(!secret.matches(b"abd"));
        assert!(!secret.matches(b"abcd"));
    }
}

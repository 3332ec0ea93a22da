//! What the passwords of nobody are verified against, so that no time tells whether a name is known.
//!
//! One hash for all would do where all accounts have hashes of one make. In a table that another application filled they
//! are of several makes, some of which take ten times as long as others. So a name that nobody has is given the make that
//! a user of this name might have: each make as often as users have it, and always the same for the same name. Nothing
//! then follows from the time that a refusal takes: names that are known are spread over the makes in the same way.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};

use super::formats::DUMMY;
use crate::principal::{Subject, SubjectKind};
use crate::secret::Secret;

/// Hashes of the makes that are in use.
pub(super) struct Decoys {
    /// Of our own make; clients have no other.
    ours: Arc<Secret<String>>,
    /// One hash of each make that users have, by its recipe, and how many have it.
    makes: BTreeMap<String, (Arc<Secret<String>>, u64)>,
    users: u64,
    /// Spreads the names. It comes from the table, so that all processes on it and the next one agree.
    key: hmac::Key,
}

impl Decoys {
    /// From the hashes of users, always in the same order. One that cannot be verified counts for none.
    pub(super) fn of(hashes: Vec<Secret<String>>) -> Self {
        let mut seed = digest::digest(&digest::SHA256, b"");
        let mut makes: BTreeMap<String, (Arc<Secret<String>>, u64)> = BTreeMap::new();
        let mut users = 0;
        for hash in hashes {
            let Some(recipe) = recipe(hash.expose()).map(Cow::into_owned) else { continue };
            if users == 0 {
                seed = digest::digest(&digest::SHA256, hash.expose().as_bytes());
            }
            users += 1;
            makes.entry(recipe).or_insert_with(|| (Arc::new(hash), 0)).1 += 1;
        }
        let ours = Arc::new(Secret::new(DUMMY.to_owned()));
        // Whoever is added, registers or changes a password is the next to have our make. Were it nobody's until the table is
        // looked at again, the first of them in a table that another application filled would be known until then.
        if users > 0
            && let Some(recipe) = recipe(DUMMY)
        {
            users += 1;
            makes.entry(recipe.into_owned()).or_insert_with(|| (Arc::clone(&ours), 0)).1 += 1;
        }
        Self { ours, makes, users, key: hmac::Key::new(hmac::HMAC_SHA256, seed.as_ref()) }
    }

    /// What a password is verified against that is said to be of `subject`, who is nobody.
    pub(super) fn of_nobody(&self, subject: &Subject) -> Arc<Secret<String>> {
        let spread = match subject.kind {
            SubjectKind::Client | SubjectKind::Foreign(_) => return Arc::clone(&self.ours),
            SubjectKind::User => hmac::sign(&self.key, subject.name.as_bytes()),
        };
        let spread = spread.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        // a fraction of all users, and whose make is found there
        let at = u64::try_from((u128::from(spread) * u128::from(self.users)) >> 64).unwrap_or(0);
        let mut before = 0;
        for (hash, users) in self.makes.values() {
            before += users;
            if at < before {
                return Arc::clone(hash);
            }
        }
        Arc::clone(&self.ours)
    }

    /// Whether an account's hash is of a make that nobody could have been given: a refusal would take a time of its own.
    pub(super) fn know(&self, subject: &Subject, hash: &str) -> bool {
        let Some(recipe) = recipe(hash) else { return false };
        match subject.kind {
            SubjectKind::User if self.users > 0 => self.makes.contains_key(&*recipe),
            SubjectKind::User | SubjectKind::Client | SubjectKind::Foreign(_) => recipe_is_ours(&recipe),
        }
    }
}

fn recipe_is_ours(other: &str) -> bool {
    recipe(DUMMY).is_some_and(|ours| ours == other)
}

/// The kind and cost of a hash: its text without salt and digest. `None` for what is no hash.
fn recipe(hash: &str) -> Option<Cow<'_, str>> {
    if hash.starts_with("{SHA}") {
        return Some(Cow::Borrowed("{SHA}"));
    }
    // Django's scrypt has its salt among the costs
    if let Some(rest) = hash.strip_prefix("scrypt$") {
        let mut parts = rest.split('$');
        let (n, _salt, r, p) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        return Some(Cow::Owned(format!("scrypt${n}${r}${p}")));
    }
    // salt and digest are the last two parts, in bcrypt's the last one; before them stands what it costs
    let is_bcrypt = ["$2a$", "$2b$", "$2y$"].iter().any(|form| hash.contains(form));
    let (before, _) = hash.rsplit_once('$')?;
    let recipe = if is_bcrypt { before } else { before.rsplit_once('$')?.0 };
    (!recipe.is_empty()).then_some(Cow::Borrowed(recipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(of: &[(&str, usize)]) -> Vec<Secret<String>> {
        of.iter().flat_map(|(hash, count)| std::iter::repeat_n(*hash, *count)).map(|h| Secret::new(h.into())).collect()
    }

    const BCRYPT: &str = "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW";
    const SHA: &str = "{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";

    #[test]
    fn a_recipe_is_what_a_hash_costs() {
        for (hash, expected) in [
            (DUMMY, Some("$argon2id$v=19$m=19456,t=2,p=1")),
            (BCRYPT, Some("$2b$12")),
            (
                "bcrypt_sha256$$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
                Some("bcrypt_sha256$$2b$12"),
            ),
            (SHA, Some("{SHA}")),
            ("$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00", Some("$apr1")),
            ("$6$rounds=5000$salt$hash", Some("$6$rounds=5000")),
            ("$6$salt$hash", Some("$6")),
            ("pbkdf2_sha256$600000$salt$hash", Some("pbkdf2_sha256$600000")),
            ("pbkdf2:sha256:600000$salt$hash", Some("pbkdf2:sha256:600000")),
            ("scrypt:32768:8:1$salt$hash", Some("scrypt:32768:8:1")),
            ("scrypt$16384$salt$8$5$hash", Some("scrypt$16384$8$5")),
            ("md5$salt$hash", Some("md5")),
            ("!", None),
            ("", None),
            ("!unusable$x", None),
        ] {
            assert_eq!(recipe(hash).as_deref(), expected, "{hash}");
        }
    }

    #[test]
    fn names_of_nobody_are_spread_as_users_are() {
        let decoys = Decoys::of(hashes(&[(DUMMY, 50), (BCRYPT, 30), ("!", 100), (SHA, 20)]));
        let mut counts = BTreeMap::<String, u32>::new();
        for number in 0..10_000 {
            let hash = decoys.of_nobody(&Subject::user(format!("nobody-{number}")));
            *counts.entry(hash.expose().clone()).or_default() += 1;
        }
        for (hash, expected) in [(DUMMY, 5_000), (BCRYPT, 3_000), (SHA, 2_000)] {
            // five standard deviations of the widest
            assert!(counts[hash].abs_diff(expected) < 250, "{hash}: {counts:?}");
        }
        assert_eq!(counts.len(), 3);
    }

    #[test]
    fn the_next_user_is_of_a_make_that_names_of_nobody_have_too() {
        let decoys = Decoys::of(hashes(&[(BCRYPT, 9)]));
        assert!(decoys.know(&Subject::user("ann"), DUMMY), "added, and refused as others are");
        let names = (0..2_000).map(|number| Subject::user(format!("nobody-{number}")));
        let as_ann = names.filter(|name| decoys.of_nobody(name).expose() == DUMMY).count();
        // one in ten, as of the users; five standard deviations
        assert!(as_ann.abs_diff(200) < 70, "{as_ann}");
    }

    #[test]
    fn a_name_is_given_the_same_make_by_every_process() {
        let table = [(DUMMY, 50), (BCRYPT, 50)];
        let (one, other) = (Decoys::of(hashes(&table)), Decoys::of(hashes(&table)));
        // another table spreads otherwise, or all could be known from one
        let elsewhere = Decoys::of(hashes(&[(BCRYPT, 50), (DUMMY, 50)]));
        let mut differ = 0;
        for number in 0..200 {
            let name = Subject::user(format!("nobody-{number}"));
            assert_eq!(one.of_nobody(&name).expose(), other.of_nobody(&name).expose());
            differ += usize::from(one.of_nobody(&name).expose() != elsewhere.of_nobody(&name).expose());
        }
        assert!((50..150).contains(&differ), "{differ}");
    }

    #[test]
    fn clients_and_an_empty_table_have_our_make() {
        for decoys in [Decoys::of(Vec::new()), Decoys::of(hashes(&[("!", 3)]))] {
            assert_eq!(decoys.of_nobody(&Subject::user("a")).expose(), DUMMY);
            assert!(decoys.know(&Subject::user("a"), DUMMY) && !decoys.know(&Subject::user("a"), BCRYPT));
        }
        let decoys = Decoys::of(hashes(&[(BCRYPT, 3)]));
        assert_eq!(decoys.of_nobody(&Subject::client("a")).expose(), DUMMY);
        assert!(decoys.know(&Subject::client("a"), DUMMY) && !decoys.know(&Subject::client("a"), BCRYPT));
        assert!(decoys.know(&Subject::user("a"), BCRYPT) && !decoys.know(&Subject::user("a"), SHA));
        assert!(!decoys.know(&Subject::user("a"), "!"));
    }
}

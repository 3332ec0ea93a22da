//! `key …`: the signing keys that the store holds.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::operator::{CliError, Console, Operator, seconds, when};
use crate::authenticate::keys::generate;
use crate::clock::UnixSeconds;
use crate::config::units;
use crate::endpoint::metadata::KEYS_KEPT_SECONDS;
use crate::store::StoredKey;

/// How long a new key is published before it signs, in seconds, unless more is asked for: every process on the store hears of
/// it within one, and whoever keeps our JWKS has time to ask again.
const PUBLISHED_BEFORE_SECONDS: i64 = 10;
const _: () = assert!(PUBLISHED_BEFORE_SECONDS > KEYS_KEPT_SECONDS + 1, "a kept copy outlives the old key's signing");

/// The longest time for which a new key waits, in days.
const AFTER_DAYS_MAX: u64 = 30;

/// `portcullis key …`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys that sign or verify
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a new signing key and print its id; the one before verifies until its last token has ended
    Rotate {
        /// How long it is published before it signs, such as `10m`: as long as those who verify tokens keep the keys
        #[arg(long, value_parser = after, default_value = "10s")]
        after: Duration,
    },
}

fn after(text: &str) -> Result<Duration, String> {
    let after = units::duration(text).map_err(|error| format!("it is {error}"))?;
    let least = Duration::from_secs(PUBLISHED_BEFORE_SECONDS.unsigned_abs());
    if !(least..=Duration::from_secs(AFTER_DAYS_MAX * 86_400)).contains(&after) {
        return Err(format!("it must be between {PUBLISHED_BEFORE_SECONDS}s and {AFTER_DAYS_MAX}d"));
    }
    Ok(after)
}

impl KeyCommand {
    /// Carries it out.
    ///
    /// # Errors
    /// The configuration brings its own keys; the store failed.
    pub fn run(self, operator: &Operator, console: &mut Console) -> Result<(), CliError> {
        if operator.keys_of_file {
            let why = "the signing keys are those of `auth.jwt.keys` in the configuration, the store's are not used";
            return Err(CliError::Usage(why.to_owned()));
        }
        match self {
            Self::List { json } => list(operator, console, json),
            Self::Rotate { after } => rotate(operator, console, seconds(after)),
        }
    }
}

fn rotate(operator: &Operator, console: &mut Console, after: i64) -> Result<(), CliError> {
    let now = operator.clock.unix();
    // with no key before it, waiting would leave nothing to sign with
    let first = operator.wait(operator.store().keys(now))?.iter().all(|key| key.verifies_until.is_some());
    let wait = if first { 0 } else { after };
    let key = generate(now.saturating_add(wait))
        .map_err(|error| CliError::Io("making a key", std::io::Error::other(error.to_string())))?;
    let id = key.id.clone();
    let begins = when(Some(key.signs_from));
    let verifies_until = operator.last_token_ends().saturating_add(wait);
    operator.wait(operator.store().rotate_key(key, verifies_until))?;
    operator.happened("key_rotated", None, &[("key", &id), ("signs_from", &begins)]);
    console.line(&id)
}

fn list(operator: &Operator, console: &mut Console, json: bool) -> Result<(), CliError> {
    let now = operator.clock.unix();
    let keys = operator.wait(operator.store().keys(now))?;
    // of those that may sign already, the newest does
    let signing = keys.iter().rfind(|key| key.signs_from <= now).map(|key| key.id.clone());
    let state = |key: &StoredKey| state(key, signing.as_deref(), now);
    if json {
        return console.json(&keys.iter().map(|key| as_json(key, state(key))).collect());
    }
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let (from, until) = (when(Some(key.signs_from)), when(key.verifies_until));
            [key.id.to_string(), key.algorithm.to_string(), state(key).to_owned(), from, until]
        })
        .collect();
    console.table(["ID", "ALGORITHM", "STATE", "SIGNS FROM", "VERIFIES UNTIL"], &rows)
}

fn state(key: &StoredKey, signing: Option<&str>, now: UnixSeconds) -> &'static str {
    if signing == Some(&*key.id) {
        "signs"
    } else if key.signs_from > now {
        "published"
    } else {
        "verifies"
    }
}

fn as_json(key: &StoredKey, state: &str) -> Value {
    json!({
        "id": *key.id, "algorithm": *key.algorithm, "state": state,
        "signs_from": key.signs_from, "verifies_until": key.verifies_until,
    })
}

#[cfg(test)]
mod tests {
    use super::super::secrets::tests::console;
    use super::*;

    fn key(operator: &Operator, command: KeyCommand) -> Result<String, CliError> {
        let (mut console, printed) = console("");
        command.run(operator, &mut console).map(|()| printed.take())
    }

    fn rotate() -> KeyCommand {
        KeyCommand::Rotate { after: Duration::from_secs(10) }
    }

    fn listed(operator: &Operator) -> Vec<(String, String)> {
        let listed = key(operator, KeyCommand::List { json: true }).unwrap();
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        listed.iter().map(|key| (text(&key["id"]), text(&key["state"]))).collect()
    }

    #[test]
    fn a_new_key_is_published_before_it_signs_and_the_old_one_verifies_on() {
        let directory = tempfile::tempdir().unwrap();
        let operator = Operator::of_directory(directory.path());
        let of = |text: Result<String, CliError>| text.unwrap().trim_end().to_owned();
        let first = of(key(&operator, rotate()));
        assert_eq!(listed(&operator), [(first.clone(), "signs".to_owned())], "the very first has nobody to wait for");
        let second = of(key(&operator, rotate()));
        let expected = [(first.clone(), "signs".to_owned()), (second.clone(), "published".to_owned())];
        assert_eq!(listed(&operator), expected);
        operator.clock.advance(Duration::from_secs(11));
        assert_eq!(listed(&operator), [(first, "verifies".to_owned()), (second.clone(), "signs".to_owned())]);
        // refresh_ttl is the longer one
        operator.clock.advance(Duration::from_secs(7_000 + 30));
        assert_eq!(listed(&operator), [(second.clone(), "signs".to_owned())]);
        // who keeps keys for longer is waited for
        let third = of(key(&operator, KeyCommand::Rotate { after: Duration::from_mins(10) }));
        operator.clock.advance(Duration::from_secs(595));
        assert_eq!(listed(&operator), [(second.clone(), "signs".to_owned()), (third.clone(), "published".to_owned())]);
        operator.clock.advance(Duration::from_secs(6));
        assert_eq!(listed(&operator), [(second, "verifies".to_owned()), (third, "signs".to_owned())]);
    }

    #[test]
    fn no_key_signs_before_a_kept_copy_of_the_keys_is_gone() {
        for (text, good) in [("10s", true), ("30d", true), ("9s", false), ("31d", false), ("0s", false), ("5", false)] {
            assert_eq!(after(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn keys_of_the_configuration_are_not_the_stores() {
        let directory = tempfile::tempdir().unwrap();
        let mut operator = Operator::of_directory(directory.path());
        operator.keys_of_file = true;
        assert_eq!(key(&operator, rotate()).unwrap_err().exit_code(), std::process::ExitCode::from(2));
        assert!(operator.wait(operator.store().keys(0)).unwrap().is_empty());
    }
}

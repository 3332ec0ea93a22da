//! `key …`: the signing keys that the store holds.

use clap::Subcommand;
use serde_json::{Value, json};

use super::operator::{CliError, Console, Operator, when};
use crate::authenticate::keys::generate;
use crate::clock::UnixSeconds;
use crate::store::StoredKey;

/// How long a new key is published before it signs, in seconds: every process on the store hears of it within one, and
/// whoever keeps our JWKS has time to ask again.
const PUBLISHED_BEFORE_SECONDS: i64 = 10;

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
    Rotate,
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
            Self::Rotate => rotate(operator, console),
        }
    }
}

fn rotate(operator: &Operator, console: &mut Console) -> Result<(), CliError> {
    let now = operator.clock.unix();
    // with no key before it, waiting would leave nothing to sign with
    let first = operator.wait(operator.store().keys(now))?.iter().all(|key| key.verifies_until.is_some());
    let wait = if first { 0 } else { PUBLISHED_BEFORE_SECONDS };
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
        let first = of(key(&operator, KeyCommand::Rotate));
        assert_eq!(listed(&operator), [(first.clone(), "signs".to_owned())], "the very first has nobody to wait for");
        let second = of(key(&operator, KeyCommand::Rotate));
        let expected = [(first.clone(), "signs".to_owned()), (second.clone(), "published".to_owned())];
        assert_eq!(listed(&operator), expected);
        operator.clock.advance(std::time::Duration::from_secs(11));
        assert_eq!(listed(&operator), [(first, "verifies".to_owned()), (second.clone(), "signs".to_owned())]);
        // refresh_ttl is the longer one
        operator.clock.advance(std::time::Duration::from_secs(7_000 + 30));
        assert_eq!(listed(&operator), [(second, "signs".to_owned())]);
    }

    #[test]
    fn keys_of_the_configuration_are_not_the_stores() {
        let directory = tempfile::tempdir().unwrap();
        let mut operator = Operator::of_directory(directory.path());
        operator.keys_of_file = true;
        assert_eq!(key(&operator, KeyCommand::Rotate).unwrap_err().exit_code(), std::process::ExitCode::from(2));
        assert!(operator.wait(operator.store().keys(0)).unwrap().is_empty());
    }
}

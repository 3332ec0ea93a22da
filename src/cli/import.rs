//! `import htpasswd`: the users of an Apache password file, with the hashes that they have.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::accounts::too_long;
use super::operator::{CliError, Console, Operator};
use crate::principal::{Subject, name_fault};
use crate::secret::Secret;
use crate::store::Added;

/// A larger password file is not one.
const IMPORT_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// What a hash in a password file may begin with; the others cannot be verified.
const IMPORTED_HASHES: [&str; 8] = ["$2a$", "$2b$", "$2y$", "$5$", "$6$", "$apr1$", "$argon2", "{SHA}"];

/// `portcullis import …`
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Add the users of an Apache password file, with their hashes
    Htpasswd {
        /// The file
        file: PathBuf,
    },
    /// Print routes for the paths of an `OpenAPI` 3.x document
    Openapi {
        /// The document, in JSON or YAML
        spec: PathBuf,
    },
}

impl ImportCommand {
    /// Carries it out: all or, where a line is wrong, nothing. Users who are there already stay as they are.
    ///
    /// # Errors
    /// The file cannot be read or has a wrong line; a name is taken; the store failed.
    pub fn run(self, operator: &Operator, console: &mut Console) -> Result<(), CliError> {
        let users = match self {
            Self::Htpasswd { file } => parse_htpasswd(&read(&file)?)?,
            Self::Openapi { spec } => return super::openapi::import(&spec, console),
        };
        let (mut added, mut taken, mut refused) = (0_usize, Vec::new(), Vec::new());
        for (name, hash) in users {
            let subject = Subject::user(name.as_str());
            let roles = vec![operator.tokens.default_role.clone()];
            match operator.wait(operator.store().add_account(subject.clone(), hash, roles, Vec::new()))? {
                Added::Yes => {
                    added += 1;
                    let role = operator.tokens.default_role.as_str();
                    operator.happened("account_added", Some(&subject), &[("roles", role)]);
                }
                Added::Taken => taken.push(name),
                Added::TooLong(most) => refused.push(format!("{name}: {}", too_long(most))),
            }
        }
        console.line(&format!("{added} added"))?;
        if !taken.is_empty() {
            refused.push(format!("already there, left as they are: {}", taken.join(", ")));
        }
        if refused.is_empty() { Ok(()) } else { Err(CliError::No(refused.join("; "))) }
    }
}

fn read(file: &Path) -> Result<String, CliError> {
    let failed = |error| CliError::Io("reading the password file", error);
    if std::fs::metadata(file).map_err(failed)?.len() > IMPORT_BYTES_MAX {
        return Err(CliError::Usage("the password file is too large".to_owned()));
    }
    std::fs::read_to_string(file).map_err(failed)
}

/// `name:hash` a line; what follows a second colon is a comment. Every wrong line is reported, by its number alone.
fn parse_htpasswd(text: &str) -> Result<Vec<(String, Secret<String>)>, CliError> {
    let (mut users, mut names, mut problems) = (Vec::new(), HashSet::new(), Vec::new());
    // editors of Windows begin a file with a mark that nobody sees
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let fields = line.split_once(':').map(|(name, rest)| (name, rest.split(':').next().unwrap_or(rest)));
        let fault = match fields {
            None => Some("there is no colon"),
            Some((name, _)) if name_fault(name).is_some() => name_fault(name),
            Some((name, _)) if !names.insert(name) => Some("the name came before"),
            Some((_, hash)) if !IMPORTED_HASHES.iter().any(|prefix| hash.starts_with(prefix)) => {
                Some("the hash is of no form that can be verified")
            }
            Some((name, hash)) => {
                users.push((name.to_owned(), Secret::new(hash.trim_end().to_owned())));
                None
            }
        };
        problems.extend(fault.map(|fault| format!("line {number}: {fault}")));
    }
    if problems.is_empty() { Ok(users) } else { Err(CliError::Usage(problems.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;

    use super::super::secrets::tests::console;
    use super::*;
    use crate::authenticate::password;
    use crate::principal::Role;

    #[test]
    fn a_password_file_is_taken_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let operator = Operator::of_directory(directory.path());
        let file = directory.path().join("htpasswd");
        let import = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let (mut console, printed) = console("");
            let command = ImportCommand::Htpasswd { file: file.clone() };
            command
                .run(&operator, &mut console)
                .map(|()| printed.take())
                .map_err(|error| (error.exit_code(), error.to_string()))
        };
        let (code, text) = import("ann:$apr1$UHamBNTT$oS1ieisW6MjBpDHfveaLr1\nbob\ncid:plain\n:x\n").unwrap_err();
        assert_eq!(code, ExitCode::from(2));
        assert!(text.contains("line 2:") && text.contains("line 3:") && text.contains("line 4:"), "{text}");
        assert!(!text.contains("plain"), "{text}");
        assert!(operator.wait(operator.store().account(Subject::user("ann"))).unwrap().is_none());

        let good =
            "# users\r\nann:$apr1$UHamBNTT$oS1ieisW6MjBpDHfveaLr1\r\n\nbob:{SHA}h0Vy56WuaklGamrFeLmK26eMaqY=:Bob\n";
        assert_eq!(import(good).unwrap(), "2 added\n");
        for name in ["ann", "bob"] {
            let account = operator.wait(operator.store().account(Subject::user(name))).unwrap().unwrap();
            assert!(password::verify(account.password_hash.expose(), "Tr0ub4dor&3"), "{name}");
            assert_eq!(&*account.roles, [Role::from("user")]);
        }
        assert_eq!(import(good).unwrap_err().0, ExitCode::from(1));
        assert_eq!(import("\u{feff}cid:{SHA}h0Vy56WuaklGamrFeLmK26eMaqY=\n").unwrap(), "1 added\n");
        assert!(operator.wait(operator.store().account(Subject::user("cid"))).unwrap().is_some());
    }
}

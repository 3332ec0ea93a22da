//! `user …` and `client …`: who there is, with what roles.

use std::collections::HashSet;

use clap::Subcommand;
use serde_json::{Value, json};

use super::operator::{CliError, Console, Operator, when};
use super::secrets::{NewSecret, generated, new_secret, tell};
use crate::authenticate::password::{self, Bounds};
use crate::principal::{Role, Scope, Subject, SubjectKind, name_fault};
use crate::secret::Secret;
use crate::store::{Account, Added};

/// `portcullis user …`
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user
    Add {
        /// The name
        name: String,
        /// A role; may be repeated; by default the one of `tokens.default_role`
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Give a user a new password, which ends every session
    Password {
        /// The name
        name: String,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Replace a user's roles
    Roles {
        /// The name
        name: String,
        /// The new roles; the first is what `{role}` stands for
        #[arg(required = true)]
        roles: Vec<String>,
    },
    /// List the users
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one user
    Show {
        /// The name
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Disable a user, which ends every session
    Disable {
        /// The name
        name: String,
    },
    /// Enable a user again
    Enable {
        /// The name
        name: String,
    },
    /// Remove a user with every session and token
    Remove {
        /// The name
        name: String,
    },
}

/// `portcullis client …`
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Add a client
    Add {
        /// The `client_id`
        id: String,
        /// A role; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// A scope that it may ask for; may be repeated
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Read the secret from standard input
        #[arg(long)]
        secret_stdin: bool,
    },
    /// List the clients
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a client a new generated secret, which ends every session, those that it got for users included
    Rotate {
        /// The `client_id`
        id: String,
    },
    /// Disable a client, which ends every session, those that it got for users included
    Disable {
        /// The `client_id`
        id: String,
    },
    /// Enable a client again
    Enable {
        /// The `client_id`
        id: String,
    },
    /// Remove a client with every session and token, those that it got for users included
    Remove {
        /// The `client_id`
        id: String,
    },
}

impl UserCommand {
    /// Carries it out.
    ///
    /// # Errors
    /// There is no such user, the name is taken or cannot be one, the store failed.
    pub fn run(self, operator: &Operator, console: &mut Console) -> Result<(), CliError> {
        let kind = SubjectKind::User;
        match self {
            Self::Add { name, roles, password_stdin } => {
                let roles =
                    if roles.is_empty() { vec![operator.tokens.default_role.clone()] } else { checked_roles(roles)? };
                add(operator, console, &Subject::user(name), password_stdin, roles, Vec::new())
            }
            Self::Password { name, password_stdin } => {
                let subject = existing(operator, kind, name)?.subject;
                let new = new_secret(console, password_stdin, &subject, bounds(operator, kind))?;
                replace(operator, console, &subject, &new)
            }
            Self::Roles { name, roles } => {
                let subject = Subject::user(name);
                let roles = checked_roles(roles)?;
                let names = listed(&roles, Role::as_str);
                let done = operator.wait(operator.store().set_roles(subject.clone(), roles))?;
                found(done, &subject)?;
                operator.happened("roles_changed", Some(&subject), &[("roles", &names)]);
                Ok(())
            }
            Self::List { json } => list(operator, console, kind, json),
            Self::Show { name, json } => show(console, &existing(operator, kind, name)?, json),
            Self::Disable { name } => set_disabled(operator, &Subject::user(name), true),
            Self::Enable { name } => set_disabled(operator, &Subject::user(name), false),
            Self::Remove { name } => remove(operator, &Subject::user(name)),
        }
    }
}

impl ClientCommand {
    /// Carries it out.
    ///
    /// # Errors
    /// There is no such client, the id is taken or cannot be one, the store failed.
    pub fn run(self, operator: &Operator, console: &mut Console) -> Result<(), CliError> {
        let kind = SubjectKind::Client;
        match self {
            Self::Add { id, roles, scopes, secret_stdin } => {
                let (roles, scopes) = (checked_roles(roles)?, checked_scopes(scopes)?);
                add(operator, console, &Subject::client(id), secret_stdin, roles, scopes)
            }
            Self::List { json } => list(operator, console, kind, json),
            Self::Rotate { id } => {
                let subject = existing(operator, kind, id)?.subject;
                replace(operator, console, &subject, &generated()?)
            }
            Self::Disable { id } => set_disabled(operator, &Subject::client(id), true),
            Self::Enable { id } => set_disabled(operator, &Subject::client(id), false),
            Self::Remove { id } => remove(operator, &Subject::client(id)),
        }
    }
}

/// The account of this name, or a no.
pub(super) fn existing(operator: &Operator, kind: SubjectKind, name: String) -> Result<Account, CliError> {
    let subject = Subject { kind, name: name.into() };
    operator.wait(operator.store().account(subject.clone()))?.ok_or_else(|| none(&subject))
}

fn none(subject: &Subject) -> CliError {
    CliError::No(format!("there is no {} {:?}", subject.kind.name(), subject.name))
}

/// Names as the audit log has them.
fn listed<T>(names: &[T], text: impl Fn(&T) -> &str) -> String {
    names.iter().map(text).collect::<Vec<_>>().join(",")
}

fn found(done: bool, subject: &Subject) -> Result<(), CliError> {
    if done { Ok(()) } else { Err(none(subject)) }
}

/// A secret of a client is made by programs, so only its upper bound counts.
fn bounds(operator: &Operator, kind: SubjectKind) -> Bounds {
    let (min, max) = (operator.tokens.password_bytes_min, operator.tokens.password_bytes_max);
    match kind {
        SubjectKind::User | SubjectKind::Foreign(_) => Bounds { min, max },
        SubjectKind::Client => Bounds { min: 1, max },
    }
}

/// What is said of a name for which the table has no room.
pub(super) fn too_long(chars_max: i64) -> String {
    format!("the users table has room for {chars_max} characters of a name")
}

fn add(
    operator: &Operator,
    console: &mut Console,
    subject: &Subject,
    from_input: bool,
    roles: Vec<Role>,
    scopes: Vec<Scope>,
) -> Result<(), CliError> {
    if let Some(fault) = name_fault(&subject.name) {
        return Err(CliError::Usage(fault.to_owned()));
    }
    let taken = CliError::No(format!("there is a {} {:?} already", subject.kind.name(), subject.name));
    // before anybody is asked for a password; adding asks again
    if operator.wait(operator.store().account(subject.clone()))?.is_some() {
        return Err(taken);
    }
    let new = new_secret(console, from_input, subject, bounds(operator, subject.kind))?;
    let (names, granted) = (listed(&roles, Role::as_str), listed(&scopes, Scope::as_str));
    match operator.wait(operator.store().add_account(subject.clone(), hashed(&new)?, roles, scopes))? {
        Added::Yes => {
            operator.happened("account_added", Some(subject), &[("roles", &names), ("scopes", &granted)]);
            tell(console, &new)
        }
        Added::Taken => Err(taken),
        Added::TooLong(most) => Err(CliError::Usage(too_long(most))),
    }
}

fn replace(operator: &Operator, console: &mut Console, subject: &Subject, new: &NewSecret) -> Result<(), CliError> {
    let done = operator.wait(operator.store().set_password(subject.clone(), hashed(new)?))?;
    found(done, subject)?;
    operator.happened("password_changed", Some(subject), &[]);
    tell(console, new)
}

fn hashed(new: &NewSecret) -> Result<Secret<String>, CliError> {
    password::hash(new.secret.expose()).map_err(|error| CliError::Usage(error.to_string()))
}

fn set_disabled(operator: &Operator, subject: &Subject, disabled: bool) -> Result<(), CliError> {
    let done = operator.wait(operator.store().set_disabled(subject.clone(), disabled))?;
    found(done, subject)?;
    operator.happened(if disabled { "account_disabled" } else { "account_enabled" }, Some(subject), &[]);
    Ok(())
}

fn remove(operator: &Operator, subject: &Subject) -> Result<(), CliError> {
    let done = operator.wait(operator.store().remove_account(subject.clone()))?;
    found(done, subject)?;
    operator.happened("account_removed", Some(subject), &[]);
    Ok(())
}

fn checked_roles(roles: Vec<String>) -> Result<Vec<Role>, CliError> {
    let mut seen = HashSet::new();
    for role in &roles {
        if role.is_empty() || role.len() > 255 || role.starts_with('@') || role.chars().any(char::is_control) {
            let usage = "a role is empty, begins with `@`, has a control character or over 255 bytes";
            return Err(CliError::Usage(usage.to_owned()));
        }
        if !seen.insert(role) {
            return Err(CliError::Usage(format!("the role {role:?} is given twice")));
        }
    }
    Ok(roles.into_iter().map(Role::from).collect())
}

/// RFC 6749 3.3: visible ASCII but for quotes and backslashes.
fn checked_scopes(scopes: Vec<String>) -> Result<Vec<Scope>, CliError> {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    match scopes.iter().find(|scope| scope.is_empty() || scope.len() > 255 || !scope.bytes().all(fits)) {
        Some(scope) => Err(CliError::Usage(format!("{scope:?} is no scope"))),
        None => Ok(scopes.into_iter().map(Scope::from).collect()),
    }
}

fn list(operator: &Operator, console: &mut Console, kind: SubjectKind, json: bool) -> Result<(), CliError> {
    let accounts = operator.wait(operator.store().accounts(kind))?;
    if json {
        return console.json(&accounts.iter().map(as_json).collect());
    }
    let rows: Vec<_> = accounts
        .iter()
        .map(|account| {
            let roles: Vec<_> = account.roles.iter().map(Role::as_str).collect();
            [
                account.subject.name.to_string(),
                roles.join(","),
                state(account).to_owned(),
                when(Some(account.created_at)),
            ]
        })
        .collect();
    let name = match kind {
        SubjectKind::User | SubjectKind::Foreign(_) => "NAME",
        SubjectKind::Client => "ID",
    };
    console.table([name, "ROLES", "STATE", "CREATED"], &rows)
}

fn show(console: &mut Console, account: &Account, json: bool) -> Result<(), CliError> {
    if json {
        return console.json(&as_json(account));
    }
    let roles: Vec<_> = account.roles.iter().map(Role::as_str).collect();
    for (what, value) in [
        ("name", account.subject.name.to_string()),
        ("id", account.id.to_string()),
        ("roles", roles.join(",")),
        ("state", state(account).to_owned()),
        ("created", when(Some(account.created_at))),
        ("sessions ended", when(Some(account.sessions_ended_at))),
    ] {
        console.line(&format!("{what}: {value}"))?;
    }
    Ok(())
}

fn state(account: &Account) -> &'static str {
    if account.disabled { "disabled" } else { "enabled" }
}

fn as_json(account: &Account) -> Value {
    let roles: Vec<_> = account.roles.iter().map(Role::as_str).collect();
    let (disabled, created_at) = (account.disabled, account.created_at);
    match account.subject.kind {
        SubjectKind::User | SubjectKind::Foreign(_) => json!({
            "name": *account.subject.name, "id": *account.id, "roles": roles, "disabled": disabled,
            "created_at": created_at, "sessions_ended_at": (account.sessions_ended_at > 0).then_some(account.sessions_ended_at),
        }),
        SubjectKind::Client => {
            let scopes: Vec<_> = account.scopes.iter().map(Scope::as_str).collect();
            json!({
                "id": *account.subject.name, "roles": roles, "scopes": scopes, "disabled": disabled,
                "created_at": created_at,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::secrets::tests::console;
    use super::*;

    fn user(operator: &Operator, command: UserCommand, input: &str) -> Result<String, String> {
        let (mut console, printed) = console(input);
        command.run(operator, &mut console).map(|()| printed.take()).map_err(|error| kind_of(&error))
    }

    fn client(operator: &Operator, command: ClientCommand, input: &str) -> Result<String, String> {
        let (mut console, printed) = console(input);
        command.run(operator, &mut console).map(|()| printed.take()).map_err(|error| kind_of(&error))
    }

    fn kind_of(error: &CliError) -> String {
        match error {
            CliError::No(_) => "no",
            CliError::Usage(_) => "usage",
            CliError::Store(_) | CliError::Untold(_) | CliError::Io(..) | CliError::Interrupted(_) => "failed",
        }
        .to_owned()
    }

    fn account(operator: &Operator, name: &str) -> Account {
        operator.wait(operator.store().account(Subject::user(name))).unwrap().unwrap()
    }

    fn add_ann(operator: &Operator) {
        let add = UserCommand::Add { name: "ann".into(), roles: vec![], password_stdin: true };
        assert_eq!(user(operator, add, "correct horse\n").as_deref(), Ok(""));
    }

    #[test]
    fn a_user_is_added_changed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let operator = Operator::of_directory(directory.path());
        add_ann(&operator);
        let ann = account(&operator, "ann");
        assert!(password::verify(ann.password_hash.expose(), "correct horse"));
        assert_eq!(&*ann.roles, [Role::from("user")]);
        let again = UserCommand::Add { name: "ann".into(), roles: vec![], password_stdin: true };
        assert_eq!(user(&operator, again, "correct horse").unwrap_err(), "no");

        let change = UserCommand::Password { name: "ann".into(), password_stdin: false };
        let told = user(&operator, change, "").unwrap();
        let ann = account(&operator, "ann");
        assert!(password::verify(ann.password_hash.expose(), told.trim_end()));
        assert_eq!(ann.session_version, 2);

        let roles = UserCommand::Roles { name: "ann".into(), roles: vec!["b".into(), "a".into()] };
        assert_eq!(user(&operator, roles, "").as_deref(), Ok(""));
        assert_eq!(user(&operator, UserCommand::Disable { name: "ann".into() }, "").as_deref(), Ok(""));
        let shown = user(&operator, UserCommand::Show { name: "ann".into(), json: true }, "").unwrap();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(
            (&shown["name"], &shown["roles"], &shown["disabled"]),
            (&json!("ann"), &json!(["b", "a"]), &json!(true))
        );
        assert_eq!(user(&operator, UserCommand::Enable { name: "ann".into() }, "").as_deref(), Ok(""));
        let listed = user(&operator, UserCommand::List { json: true }, "").unwrap();
        assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()[0]["disabled"], json!(false));
        let table = user(&operator, UserCommand::List { json: false }, "").unwrap();
        assert!(table.starts_with("NAME  ROLES  STATE    CREATED\nann   b,a    enabled  20"), "{table}");
        assert_eq!(user(&operator, UserCommand::Remove { name: "ann".into() }, "").as_deref(), Ok(""));
        let empty = user(&operator, UserCommand::List { json: true }, "").unwrap();
        assert_eq!(empty, "[]\n");
    }

    #[test]
    fn what_is_not_there_is_a_no() {
        let directory = tempfile::tempdir().unwrap();
        let operator = Operator::of_directory(directory.path());
        let name = || "nobody".to_owned();
        for command in [
            UserCommand::Password { name: name(), password_stdin: true },
            UserCommand::Roles { name: name(), roles: vec!["a".into()] },
            UserCommand::Show { name: name(), json: false },
            UserCommand::Disable { name: name() },
            UserCommand::Enable { name: name() },
            UserCommand::Remove { name: name() },
        ] {
            let shown = format!("{command:?}");
            assert_eq!(user(&operator, command, "correct horse").unwrap_err(), "no", "{shown}");
        }
        assert_eq!(client(&operator, ClientCommand::Rotate { id: name() }, "").unwrap_err(), "no");
        assert_eq!(client(&operator, ClientCommand::Remove { id: name() }, "").unwrap_err(), "no");
    }

    #[test]
    fn what_cannot_be_is_wrong_usage() {
        let directory = tempfile::tempdir().unwrap();
        let operator = Operator::of_directory(directory.path());
        let add = |name: &str, roles: &[&str]| UserCommand::Add {
            name: name.to_owned(),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            password_stdin: true,
        };
        for (what, command, input) in [
            ("a name with a colon", add("a:b", &[]), "correct horse"),
            ("an empty name", add("", &[]), "correct horse"),
            ("a short password", add("ann", &[]), "1234567"),
            ("an empty role", add("ann", &[""]), "correct horse"),
            ("a role twice", add("ann", &["a", "a"]), "correct horse"),
        ] {
            assert_eq!(user(&operator, command, input).unwrap_err(), "usage", "{what}");
        }
        let scope =
            ClientCommand::Add { id: "app".into(), roles: vec![], scopes: vec!["a b".into()], secret_stdin: true };
        assert_eq!(client(&operator, scope, "secret").unwrap_err(), "usage");
        assert!(operator.wait(operator.store().account(Subject::user("ann"))).unwrap().is_none());
    }

    #[test]
    fn a_client_is_told_its_secret_once() {
        let directory = tempfile::tempdir().unwrap();
        let operator = Operator::of_directory(directory.path());
        let add = ClientCommand::Add {
            id: "app".into(),
            roles: vec!["service".into()],
            scopes: vec!["orders:write".into()],
            secret_stdin: false,
        };
        let first = client(&operator, add, "").unwrap();
        let second = client(&operator, ClientCommand::Rotate { id: "app".into() }, "").unwrap();
        let app = operator.wait(operator.store().account(Subject::client("app"))).unwrap().unwrap();
        assert!(!password::verify(app.password_hash.expose(), first.trim_end()));
        assert!(password::verify(app.password_hash.expose(), second.trim_end()));
        let listed = client(&operator, ClientCommand::List { json: true }, "").unwrap();
        let listed: Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed[0]["id"], json!("app"));
        assert_eq!(listed[0]["scopes"], json!(["orders:write"]));
    }
}

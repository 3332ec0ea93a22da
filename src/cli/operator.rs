//! What an operator's command works with: the store of a configuration, and a console.
//!
//! Commands open the store beside a gateway that may be serving it; what they change, it hears of through the store.

use std::cell::RefCell;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::output::write;
use super::who::Who;
use crate::clock::{Clock, UnixSeconds};
use crate::config::report::is_unseen;
use crate::config::snapshot::Snapshot;
use crate::endpoint;
use crate::principal::Subject;
use crate::record::audit::Event;
use crate::store::sql::SqlStore;
use crate::store::{Answer, Store, StoreError};
use crate::wire::forwarded::new_request_id;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// There is no such thing, or the name is taken.
    #[error("{0}")]
    No(String),
    /// It cannot be asked for like this.
    #[error("{0}")]
    Usage(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is done, and nobody will be told.
    #[error("it is done, but no audit log will tell of it: {0}")]
    Untold(StoreError),
    /// A file, the terminal or a pipe failed.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    /// A signal, by its number, came where somebody was asked.
    #[error("interrupted")]
    Interrupted(u8),
}

impl CliError {
    /// The exit code (contract 7): 1 for no, 2 for whatever is wrong with the question or the set-up; after a signal what a
    /// shell says of one.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::No(_) => ExitCode::from(1),
            Self::Usage(_) | Self::Store(_) | Self::Untold(_) | Self::Io(..) => ExitCode::from(2),
            Self::Interrupted(signal) => ExitCode::from(signal.saturating_add(128)),
        }
    }
}

/// The store of a configuration, opened for one command.
#[derive(Debug)]
pub struct Operator {
    pub(super) store: SqlStore,
    pub(super) clock: Clock,
    /// The sections `tokens` and `passwords`.
    pub(super) tokens: endpoint::Settings,
    pub(super) leeway: Duration,
    /// The `iss` of others whose tokens are taken.
    pub(super) issuers: Vec<Box<str>>,
    /// Whether the configuration brings its own signing keys.
    pub(super) keys_of_file: bool,
    /// Events for the audit log of a gateway; `None`: no gateway has one.
    audit: Option<RefCell<Vec<String>>>,
    who: Who,
    /// Of this command, as a request has one.
    id: String,
    runtime: Runtime,
}

impl Operator {
    /// Opens the store that `snapshot` names.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(snapshot: &Snapshot) -> Result<Self, CliError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| CliError::Io("starting", error))?;
        let clock = Clock::system();
        let store =
            SqlStore::open(&snapshot.store, &snapshot.tables, runtime.handle().clone(), clock.clone(), |_, _| {})?;
        Ok(Self {
            store,
            clock,
            tokens: snapshot.tokens.clone(),
            leeway: snapshot.auth.jwt.leeway,
            issuers: snapshot.auth.issuers.iter().map(|issuer| issuer.claims.issuer.clone()).collect(),
            keys_of_file: snapshot.auth.jwt.keys.is_some(),
            audit: snapshot.log.audit.then(RefCell::default),
            who: Who::of_process(),
            id: command_id()?,
            runtime,
        })
    }

    /// Waits for the store.
    pub(super) fn wait<T>(&self, answer: Answer<'_, T>) -> Result<T, CliError> {
        Ok(self.runtime.block_on(answer)?)
    }

    /// Notes something that the command has done, to be told by [`Self::tell`].
    pub(super) fn happened(&self, kind: &'static str, subject: Option<&Subject>, details: &[(&'static str, &str)]) {
        let Some(events) = &self.audit else { return };
        let by = [("operator", &*self.who.user), ("host", &*self.who.host)];
        let details: Vec<_> = details.iter().copied().chain(by).collect();
        let event = Event { kind, subject, address: None, request_id: &self.id, details: &details };
        events.borrow_mut().push(event.written(&self.clock));
    }

    /// Leaves what was noted for a gateway on the same store to tell: one that serves does so within a second or two, else
    /// the next that starts.
    ///
    /// # Errors
    /// The store failed.
    pub fn tell(&self) -> Result<(), CliError> {
        let events = self.audit.as_ref().map(RefCell::take).unwrap_or_default();
        if events.is_empty() {
            return Ok(());
        }
        self.runtime.block_on(self.store.leave_entries(events)).map_err(CliError::Untold)
    }

    /// The store as commands see it.
    pub(super) fn store(&self) -> &dyn Store {
        &self.store
    }

    /// When the last JWT that is signed now has ended, with its refresh tokens.
    pub(super) fn last_token_ends(&self) -> UnixSeconds {
        self.clock.unix().saturating_add(seconds(self.tokens.access_ttl.max(self.tokens.refresh_ttl) + self.leeway))
    }

    #[cfg(test)]
    pub(super) fn of_directory(directory: &std::path::Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let clock = Clock::system();
        let file = crate::config::snapshot::StoreLocation::Sqlite(directory.join("store.db"));
        let store = SqlStore::open(
            &file,
            &crate::store::tables::Tables::default(),
            runtime.handle().clone(),
            clock.clone(),
            |_, _| {},
        )
        .unwrap();
        let tokens = endpoint::Settings {
            access_ttl: Duration::from_mins(15),
            refresh_ttl: Duration::from_secs(7_000),
            opaque_ttl: Duration::from_hours(24),
            default_role: "user".into(),
            refresh_format: endpoint::RefreshFormat::Opaque,
            refresh_grace: Duration::from_secs(10),
            claims: endpoint::template::Claims::default(),
            sub_as_json_text: false,
            password_bytes_min: 8,
            password_bytes_max: 1_024,
        };
        Self {
            store,
            clock,
            tokens,
            leeway: Duration::from_secs(30),
            issuers: Vec::new(),
            keys_of_file: false,
            audit: Some(RefCell::default()),
            who: Who { user: "root".into(), host: "here".into() },
            id: "command-1".into(),
            runtime,
        }
    }
}

fn command_id() -> Result<String, CliError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| CliError::Io("generating", io::Error::other(error)))?;
    let id = new_request_id(random);
    Ok(format!("command-{}", id.to_str().unwrap_or_default()))
}

impl Drop for Operator {
    fn drop(&mut self) {
        // what is not closed in order loses nothing, it only leaves more files behind
        self.runtime.block_on(self.store.close()).ok();
    }
}

/// Where a command reads and writes.
pub struct Console {
    pub(super) input: Box<dyn io::Read>,
    pub(super) output: Box<dyn Write>,
    /// Whether somebody can be asked.
    pub(super) terminal: bool,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Console")
    }
}

impl Console {
    /// Standard input and output.
    pub fn standard() -> Self {
        let terminal = io::IsTerminal::is_terminal(&io::stdin());
        Self { input: Box::new(io::stdin()), output: Box::new(io::stdout()), terminal }
    }

    /// Prints one line. What is not for a terminal is replaced: a name may come from a table that others write.
    pub(super) fn line(&mut self, text: &str) -> Result<(), CliError> {
        // an error where nobody reads on too: it may be a secret, which is shown once
        writeln!(self.output, "{}", shown(text))
            .and_then(|()| self.output.flush())
            .map_err(|error| CliError::Io("printing", error))
    }

    /// Prints rows in columns as wide as they need to be.
    pub(super) fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[String; N]]) -> Result<(), CliError> {
        let mut widths = head.map(|cell| cell.chars().count());
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        let mut print = |cells: [&str; N]| {
            let mut line = String::new();
            for (cell, width) in cells.into_iter().zip(widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
            }
            text.push_str(&shown(line.trim_end()));
            text.push('\n');
        };
        print(head);
        for row in rows {
            print(row.each_ref().map(String::as_str));
        }
        write(&mut *self.output, &text)
    }

    /// Prints a value as indented JSON.
    pub(super) fn json(&mut self, value: &serde_json::Value) -> Result<(), CliError> {
        write(&mut *self.output, &format!("{value:#}\n"))
    }
}

/// Without what is not for a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if is_unseen(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whole seconds, as times in the store are counted.
pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A time for people; `-` for none.
pub(super) fn when(at: Option<UnixSeconds>) -> String {
    let Some(seconds) = at.and_then(|at| u64::try_from(at).ok()).filter(|&seconds| seconds > 0) else {
        return "-".to_owned();
    };
    // the formatter knows years up to 9999
    let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::secrets::tests::console;
    use super::*;
    use crate::config::{Environment, load};
    use crate::secret::Secret;
    use crate::store::Added;

    #[test]
    fn the_store_is_the_one_that_the_configuration_names() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.yaml");
        let text = "store: sqlite:people.db\nupstreams: { demo: { builtin: echo } }\n\
                    routes: [{ path: /**, allow: anyone, to: demo }]\n";
        std::fs::write(&file, text).unwrap();
        let snapshot = load(&file, &Environment::of_process()).unwrap();
        for expected in [Added::Yes, Added::Taken] {
            let operator = Operator::open(&snapshot).unwrap();
            let hash = Secret::new("hash".to_owned());
            let added = operator.store().add_account(Subject::user("ann"), hash, vec![], vec![]);
            assert_eq!(operator.wait(added).unwrap(), expected);
        }
        let left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.contains(&"people.db".into()) && left.len() == 2, "{left:?}");
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_shows_no_control_characters() {
        let (mut console, printed) = console("");
        let rows = [["jörg\n".to_owned(), "b".to_owned()], ["a".to_owned(), "\u{1b}[2J".to_owned()]];
        console.table(["N", "ROLES"], &rows).unwrap();
        assert_eq!(printed.take(), "N      ROLES\njörg\u{fffd}  b\na      \u{fffd}[2J\n");
    }
}

//! What an operator's command works with: the store of a configuration, and a console.
//!
//! Commands open the store beside a gateway that may be serving it; what they change, it hears of through the store.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::clock::{Clock, UnixSeconds};
use crate::config::snapshot::{Snapshot, StoreLocation};
use crate::endpoint;
use crate::store::sql::SqlStore;
use crate::store::{Answer, Store, StoreError};

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
    /// A file, the terminal or a pipe failed.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
}

impl CliError {
    /// The exit code (contract 7): 1 for no, 2 for whatever is wrong with the question or the set-up.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::No(_) => ExitCode::from(1),
            Self::Usage(_) | Self::Store(_) | Self::Io(..) => ExitCode::from(2),
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
    /// Whether the configuration brings its own signing keys.
    pub(super) keys_of_file: bool,
    runtime: Runtime,
}

impl Operator {
    /// Opens the store that `snapshot` names.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(snapshot: &Snapshot) -> Result<Self, CliError> {
        let StoreLocation::Sqlite(path) = &snapshot.store;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .map_err(|error| CliError::Io("starting", error))?;
        let clock = Clock::system();
        let store = SqlStore::open(path, runtime.handle().clone(), clock.clone(), |_, _| {})?;
        Ok(Self {
            store,
            clock,
            tokens: snapshot.tokens.clone(),
            leeway: snapshot.auth.jwt.leeway,
            keys_of_file: snapshot.auth.jwt.keys.is_some(),
            runtime,
        })
    }

    /// Waits for the store.
    pub(super) fn wait<T>(&self, answer: Answer<'_, T>) -> Result<T, CliError> {
        Ok(self.runtime.block_on(answer)?)
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
        let file = directory.join("store.db");
        let store = SqlStore::open(&file, runtime.handle().clone(), clock.clone(), |_, _| {}).unwrap();
        let tokens = endpoint::Settings {
            access_ttl: Duration::from_mins(15),
            refresh_ttl: Duration::from_secs(7_000),
            opaque_ttl: Duration::from_hours(24),
            default_role: "user".into(),
            refresh_format: endpoint::RefreshFormat::Opaque,
            claims: endpoint::template::Claims::default(),
            sub_as_json_text: false,
            password_bytes_min: 8,
            password_bytes_max: 1_024,
        };
        Self { store, clock, tokens, leeway: Duration::from_secs(30), keys_of_file: false, runtime }
    }
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
        let shown: String =
            text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        writeln!(self.output, "{shown}")
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
        let mut print = |cells: [&str; N]| {
            let mut line = String::new();
            for (cell, width) in cells.into_iter().zip(widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
            }
            self.line(line.trim_end())
        };
        print(head)?;
        rows.iter().try_for_each(|row| print(row.each_ref().map(String::as_str)))
    }

    /// Prints a value as indented JSON.
    pub(super) fn json(&mut self, value: &serde_json::Value) -> Result<(), CliError> {
        writeln!(self.output, "{value:#}")
            .and_then(|()| self.output.flush())
            .map_err(|error| CliError::Io("printing", error))
    }
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

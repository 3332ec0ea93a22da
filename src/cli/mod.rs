//! The command line (contract 7): one file per command. Exit codes: 0 done; 1 the answer is no, or there is no such
//! thing; 2 wrong usage, or what keeps a command from being carried out.

pub mod run;
mod start;
mod admin_listener;
mod reload;
mod watch;
mod changes;
mod first_request;
mod bootstrap;
pub mod check;
pub mod explain;
pub mod diff;
pub mod test;
pub mod echo;
pub mod operator;
mod who;
pub mod secrets;
mod prompt;
pub mod accounts;
pub mod import;
mod openapi;
mod output;
pub mod tokens;
pub mod keys;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use crate::config::{self, Environment, Problems, Snapshot};
use accounts::{ClientCommand, UserCommand};
use import::ImportCommand;
use keys::KeyCommand;
use operator::{CliError, Console, Operator};
use tokens::TokenCommand;

pub use start::{Running, StartError, background, start};

/// The exit code of a command that could not be carried out.
const BROKEN: u8 = 2;

/// An authentication gateway: lets nobody reach your API who may not.
#[derive(Parser)]
#[command(name = "portcullis", version, about, max_term_width = 100)]
struct Arguments {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = "gateway.yaml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve; what is done without a command
    Run,
    /// Print every problem of a configuration file
    Check {
        /// The file
        file: PathBuf,
        /// How problems are written
        #[arg(long, value_enum, default_value_t)]
        format: check::Format,
    },
    /// Say what a request would get, and why; without a principal: who may; with a role alone: all that it reaches
    Explain(explain::ExplainArguments),
    /// Say who gains and who loses between two configuration files, by what their rules mean
    Diff(diff::DiffArguments),
    /// Run the expectations of a configuration file
    Test {
        /// The file
        file: PathBuf,
        /// Print the routes that no expectation touches, too
        #[arg(long)]
        coverage: bool,
    },
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Answer every request with what it was, as JSON: an upstream to try a configuration with
    Echo {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS")]
        listen: SocketAddr,
    },
    /// Users: who may log in, with what roles
    #[command(subcommand)]
    User(UserCommand),
    /// OAuth clients
    #[command(subcommand)]
    Client(ClientCommand),
    /// Opaque and refresh tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Keys that sign JWTs
    #[command(subcommand)]
    Key(KeyCommand),
    /// Bring users along, or the paths of an API
    #[command(subcommand)]
    Import(ImportCommand),
}

/// Parses the arguments, carries out the command, and says how it went.
pub fn main() -> ExitCode {
    let Arguments { config, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // the other commands on a file take it as it is
            if let Some(file) = file_given_to_run(&error) {
                output::complain(&format!("portcullis: to serve `{file}`, say `--config {file}`\n\n"));
            }
            error.exit()
        }
    };
    match command.unwrap_or(Command::Run) {
        Command::Run => run::run(&config),
        Command::Check { file, format } => check::check(&file, format),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Diff(arguments) => diff::diff(&arguments),
        Command::Test { file, coverage } => test::test(&file, coverage),
        Command::Schema => done(output::print(&format!("{:#}\n", config::schema::schema()))),
        Command::Echo { listen } => echo::echo(listen),
        Command::User(command) => operate(&config, |operator, console| command.run(operator, console)),
        Command::Client(command) => operate(&config, |operator, console| command.run(operator, console)),
        Command::Token(command) => operate(&config, |operator, console| command.run(operator, console)),
        Command::Key(command) => operate(&config, |operator, console| command.run(operator, console)),
        Command::Import(ImportCommand::Openapi { spec }) => done(openapi::import(&spec, &mut Console::standard())),
        Command::Import(command) => operate(&config, |operator, console| command.run(operator, console)),
    }
}

/// What looks like a file and stands where `run` takes none, or where a command should.
fn file_given_to_run(error: &clap::Error) -> Option<&str> {
    let word = if error.kind() == ErrorKind::UnknownArgument {
        error.get(ContextKind::InvalidArg)
    } else if error.kind() == ErrorKind::InvalidSubcommand {
        error.get(ContextKind::InvalidSubcommand)
    } else {
        None
    };
    let Some(ContextValue::String(word)) = word else { return None };
    let file = Path::new(word);
    let is_yaml = file.extension().is_some_and(|of| of.eq_ignore_ascii_case("yaml") || of.eq_ignore_ascii_case("yml"));
    let is_file = is_yaml || word.contains('/') || file.is_file();
    (is_file && !word.starts_with('-')).then_some(word)
}

/// The configuration in a file that a command asks; where it is broken, that is said.
fn load(file: &Path) -> Option<Snapshot> {
    read(config::load(file, &Environment::of_process()))
}

/// What was read; or tells what is wrong with it.
fn read(loaded: Result<Snapshot, Problems>) -> Option<Snapshot> {
    loaded.map_err(|problems| output::complain(&problems.to_string())).ok()
}

/// Carries out a command on the store of the configuration at `source`.
fn operate(source: &Path, command: impl FnOnce(&Operator, &mut Console) -> Result<(), CliError>) -> ExitCode {
    let Some(snapshot) = load(source) else { return ExitCode::from(BROKEN) };
    done(Operator::open(&snapshot).and_then(|operator| {
        let done = command(&operator, &mut Console::standard());
        // what was done before it failed, too
        let told = operator.tell();
        done.and(told)
    }))
}

/// How a command went.
fn done(outcome: Result<(), CliError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("portcullis: {error}\n"));
            error.exit_code()
        }
    }
}

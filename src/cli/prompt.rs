//! Asking whoever sits at the terminal for what is not to be shown.
//!
//! However the question ends, what is typed after it is shown again: signals are waited for beside the answer, since one that
//! ended the process where it stands would leave its owner typing blindly.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};

use futures_util::future::select_all;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::operator::CliError;
use crate::secret::Secret;

/// What a terminal gives at once: one line, which it holds to fewer bytes than this.
const LINE_BYTES_MAX: usize = 8192;

/// Asks, and waits for a line.
///
/// # Errors
/// There is no terminal, it was hung up or gave what is no text, or a signal came.
pub(super) fn ask(question: &str) -> Result<Secret<String>, CliError> {
    let failed = |error| CliError::Io("asking the terminal", error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let answered = runtime.block_on(async {
        // from here on no signal ends the process by itself, so that none comes between hiding and waiting
        let mut signals = Vec::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
            signals.push((kind, signal(kind).map_err(failed)?));
        }
        let hidden = Hidden::begin().map_err(failed)?;
        (&hidden.terminal).write_all(question.as_bytes()).map_err(failed)?;
        let terminal = hidden.terminal.try_clone().map_err(failed)?;
        let answer = tokio::task::spawn_blocking(move || line(&terminal));
        let interrupted = select_all(signals.iter_mut().map(|(kind, signal)| {
            Box::pin(async {
                signal.recv().await;
                kind.as_raw_value()
            })
        }));
        tokio::select! {
            biased;
            (signal, ..) = interrupted => Err(CliError::Interrupted(u8::try_from(signal).unwrap_or(u8::MAX))),
            answer = answer => answer.map_err(io::Error::other).flatten().map_err(failed),
        }
    });
    // nobody waits for an answer that may never come
    runtime.shutdown_background();
    answered
}

/// The terminal while it does not show what is typed.
struct Hidden {
    terminal: File,
    usual: Termios,
}

impl Hidden {
    fn begin() -> io::Result<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let usual = tcgetattr(&terminal)?;
        let mut modes = usual.clone();
        modes.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        // by lines, which the terminal lets its owner mend, and with keys that mean signals
        modes.local_modes.insert(LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
        Ok(Self { terminal, usual })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // a terminal that is gone has nobody who types
        tcsetattr(&self.terminal, OptionalActions::Now, &self.usual).ok();
        // what ended the line was not shown either
        drop((&self.terminal).write_all(b"\n"));
    }
}

/// The next line, without its end.
fn line(mut terminal: &File) -> io::Result<Secret<String>> {
    let mut bytes = Zeroizing::new([0; LINE_BYTES_MAX]);
    let read = loop {
        match terminal.read(bytes.as_mut_slice()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    let line = bytes.get(..read).unwrap_or_default();
    if line.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let text = str::from_utf8(line.strip_suffix(b"\n").unwrap_or(line));
    text.map(|text| Secret::new(text.to_owned())).map_err(|_| io::Error::new(ErrorKind::InvalidData, "not UTF-8"))
}

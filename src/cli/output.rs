//! What commands print. Whoever reads may have seen enough (`| head -1`), which is no failure and changes no answer.

use std::io::{self, BufWriter, ErrorKind, Write};

use super::operator::CliError;

/// Prints the answer of a command.
///
/// # Errors
/// It cannot be written, for another reason than that nobody reads on.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    write(&mut io::stdout().lock(), text)
}

/// Prints an answer as it is made, so that it is never held as a whole.
///
/// # Errors
/// As [`print`].
pub(super) fn print_by(make: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), CliError> {
    let mut output = BufWriter::new(io::stdout().lock());
    read_on(make(&mut output).and_then(|()| output.flush()))
}

/// Says what is wrong.
pub(super) fn complain(text: &str) {
    // where nobody hears of it, nobody hears of that either; the exit code says it still
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

/// Writes all of a text, or as much as is read.
pub(super) fn write(output: &mut (impl Write + ?Sized), text: &str) -> Result<(), CliError> {
    read_on(output.write_all(text.as_bytes()).and_then(|()| output.flush()))
}

fn read_on(written: io::Result<()>) -> Result<(), CliError> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Io("printing", error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails as told.
    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        for (kind, expected) in [(ErrorKind::BrokenPipe, true), (ErrorKind::StorageFull, false)] {
            assert_eq!(write(&mut Broken(kind), "rules\n").is_ok(), expected, "{kind}");
        }
        let mut printed = Vec::new();
        write(&mut printed, "rules\n").unwrap();
        assert_eq!(printed, b"rules\n");
    }
}

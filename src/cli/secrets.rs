//! Where a command takes a secret from: standard input, a prompt, or a generator. Never an argument, which everybody on
//! the machine can see.

use std::io::Read;

use zeroize::Zeroizing;

use super::operator::{CliError, Console, shown};
use super::prompt;
use crate::authenticate::password::Bounds;
use crate::principal::{Subject, SubjectKind};
use crate::secret::Secret;

/// What is read of standard input, in bytes.
const INPUT_BYTES_MAX: usize = 65_536;

/// Characters of a generated secret: 32 of 62 are 190 bits.
const GENERATED_CHARS: usize = 32;

/// A new secret, and whether its owner has yet to be told.
#[derive(Debug)]
pub(super) struct NewSecret {
    pub(super) secret: Secret<String>,
    pub(super) generated: bool,
}

/// A new secret for `whom`: from standard input where `from_input`, else from who sits at the terminal, else generated.
pub(super) fn new_secret(
    console: &mut Console,
    from_input: bool,
    whom: &Subject,
    bounds: Bounds,
) -> Result<NewSecret, CliError> {
    let what = match whom.kind {
        SubjectKind::User | SubjectKind::Foreign(_) => "password",
        SubjectKind::Client => "secret",
    };
    let given = if from_input {
        from_stdin(console)?
    } else if console.terminal {
        let first = prompt::ask(&format!("New {what} for {} (empty: generate one): ", shown(&whom.name)))?;
        if first.expose().is_empty() {
            return generated();
        }
        if !first.matches(prompt::ask("Again: ")?.expose().as_bytes()) {
            return Err(CliError::Usage("the two differ".to_owned()));
        }
        first
    } else {
        return generated();
    };
    match bounds.fault(given.expose()) {
        Some(wrong) => Err(CliError::Usage(format!("the {what} {wrong}"))),
        None => Ok(NewSecret { secret: given, generated: false }),
    }
}

/// A secret that nobody chose.
pub(super) fn generated() -> Result<NewSecret, CliError> {
    Ok(NewSecret { secret: generate()?, generated: true })
}

/// Prints a secret that its owner has yet to be told, and nothing else.
pub(super) fn tell(console: &mut Console, new: &NewSecret) -> Result<(), CliError> {
    if new.generated { console.line(new.secret.expose()) } else { Ok(()) }
}

/// All of standard input, without the newline at its end.
pub(super) fn from_stdin(console: &mut Console) -> Result<Secret<String>, CliError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(INPUT_BYTES_MAX + 1));
    let limit = u64::try_from(INPUT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    console
        .input
        .by_ref()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::Io("reading standard input", error))?;
    if bytes.len() > INPUT_BYTES_MAX {
        return Err(CliError::Usage("standard input holds too much".to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| CliError::Usage("standard input is not UTF-8".to_owned()))?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(Secret::new(text.to_owned()))
}

/// Letters and digits, each as likely as the others: bytes past the last whole multiple of 62 are thrown away.
pub(super) fn generate() -> Result<Secret<String>, CliError> {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(GENERATED_CHARS);
    while text.len() < GENERATED_CHARS {
        let mut bytes = Zeroizing::new([0_u8; 64]);
        getrandom::fill(bytes.as_mut_slice())
            .map_err(|_| CliError::Io("generating", std::io::Error::other("the system gives no random bytes")))?;
        let fair = bytes.iter().filter(|&&byte| byte < 248);
        let letters = fair.filter_map(|byte| LETTERS.get(usize::from(byte % 62))).map(|&letter| char::from(letter));
        text.extend(letters.take(GENERATED_CHARS - text.len()));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What a command printed.
    #[derive(Clone, Default)]
    pub(in crate::cli) struct Printed(Arc<Mutex<Vec<u8>>>);

    impl Printed {
        pub(in crate::cli) fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl std::io::Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A console without a terminal.
    pub(in crate::cli) fn console(input: &str) -> (Console, Printed) {
        let printed = Printed::default();
        let input = Box::new(std::io::Cursor::new(input.as_bytes().to_vec()));
        (Console { input, output: Box::new(printed.clone()), terminal: false }, printed)
    }

    const BOUNDS: Bounds = Bounds { min: 3, max: 5 };

    #[test]
    fn standard_input_is_the_secret_but_for_one_newline() {
        for (input, expected) in [
            ("abc", Some("abc")),
            ("abc\n", Some("abc")),
            ("abc\r\n", Some("abc")),
            ("abc\n\n", None),
            (" abc ", Some(" abc ")),
            ("abcde", Some("abcde")),
            ("abcdef", None),
            ("ab\n", None),
            ("", None),
            ("abc\0", None),
            ("ab\tc", None),
            ("ab\u{85}", None),
        ] {
            let new = new_secret(&mut console(input).0, true, &Subject::user("ann"), BOUNDS).ok();
            assert_eq!(new.as_ref().map(|new| new.secret.expose().as_str()), expected, "{input:?}");
        }
        assert!(from_stdin(&mut console(&"a".repeat(INPUT_BYTES_MAX)).0).is_ok());
        assert!(from_stdin(&mut console(&"a".repeat(INPUT_BYTES_MAX + 1)).0).is_err());
    }

    #[test]
    fn without_a_terminal_a_secret_is_generated_and_told_alone() {
        let (mut console, printed) = console("ignored");
        let new = new_secret(&mut console, false, &Subject::user("ann"), BOUNDS).unwrap();
        tell(&mut console, &new).unwrap();
        assert_eq!(printed.take(), format!("{}\n", new.secret.expose()));
        assert_eq!(new.secret.expose().len(), GENERATED_CHARS);
        assert!(new.secret.expose().bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert!(!generated().unwrap().secret.matches(new.secret.expose().as_bytes()));
    }
}

//! Who runs a command, for the audit log.

/// Where users of the system are, each with a number.
const USERS: &str = "/etc/passwd";

/// A user of the system, and the machine.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) user: String,
    pub(super) host: String,
}

impl Who {
    /// Whoever runs this process. By the number that the system knows them by, since variables may say anything.
    pub(super) fn of_process() -> Self {
        let id = rustix::process::getuid().as_raw().to_string();
        let known = std::fs::read_to_string(USERS).unwrap_or_default();
        let user = name(&known, &id).map_or_else(|| id.clone(), str::to_owned);
        Self { user, host: rustix::system::uname().nodename().to_string_lossy().into_owned() }
    }
}

/// The name of the user of this number: `name:password:number:…` a line (passwd(5)).
fn name<'t>(known: &'t str, id: &str) -> Option<&'t str> {
    known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_called_as_the_system_calls_them() {
        let known = "root:x:0:0:root:/root:/bin/sh\n\nbroken\nann:x:1000:1000::/home/ann:\n";
        for (id, expected) in [("0", Some("root")), ("1000", Some("ann")), ("1", None), ("x", None)] {
            assert_eq!(name(known, id), expected, "{id}");
        }
        let who = Who::of_process();
        assert!(!who.user.is_empty() && !who.host.is_empty(), "{who:?}");
    }
}

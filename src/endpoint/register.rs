//! `register`: a new user, with the role that the configuration gives, whatever else the body says.

use http::Response;

use super::credentials::unavailable;
use super::issue::Grant;
use super::template::Values;
use super::{Call, Incoming, Settings};
use crate::authenticate::password::{Bounds, HashError, QueueFull};
use crate::principal::Subject;
use crate::rejection::Rejection;
use crate::secret::Secret;
use crate::store::{Added, Change};
use crate::wire::body::Body;

/// The longest name of a new user, in bytes.
const NAME_BYTES_MAX: usize = 255;

impl Call<'_> {
    /// A new user.
    pub(super) async fn register(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let members = &incoming.members;
        let [name, password] = members.all(["username", "password"])?;
        check_name(members.spelt("username"), name)?;
        check_password(self.asked.tokens, members.spelt("password"), password)?;
        let subject = Subject::user(name);
        // asked first, so that a taken name costs no hash; what is added meanwhile is found by the store
        if self.is_taken(&subject).await? {
            return Err(Rejection::UsernameTaken);
        }
        let hash = self.hashed(password).await?;
        let roles = vec![self.asked.tokens.default_role.clone()];
        let added =
            self.service.store.add_account(subject.clone(), hash, roles, Vec::new()).await.map_err(unavailable)?;
        match added {
            Added::Yes => {}
            Added::Taken => return Err(Rejection::UsernameTaken),
            Added::TooLong(chars_max) => {
                let what = format!("`{}` must have at most {chars_max} characters", members.spelt("username"));
                return Err(Rejection::InvalidRequest(what.into()));
            }
        }
        self.note(&Change::Subject(subject.clone()));
        self.happened("registered", Some(&subject), &[]);
        self.asked.proven.is(&subject);
        self.registered(subject).await
    }

    /// Whether a stranger may not have this name: a user has it, or had it, or a client has it. Upstreams know a caller by
    /// the name alone, and would take the new user for the one of before, or for the client.
    async fn is_taken(&self, user: &Subject) -> Result<bool, Rejection> {
        let store = &self.service.store;
        let known = store.jwt_standing(user.clone(), Vec::new()).await.map_err(unavailable)?;
        if known.account.is_some() || known.removed.is_some() {
            return Ok(true);
        }
        Ok(store.account(Subject::client(&*user.name)).await.map_err(unavailable)?.is_some())
    }

    async fn registered(&self, subject: Subject) -> Result<Response<Body>, Rejection> {
        let reply = self.endpoint.reply();
        if self.endpoint.reply.is_none() {
            return Ok(self.answer(reply.render(&Values::none())));
        }
        let account = self.service.store.account(subject).await.map_err(unavailable)?.ok_or(Rejection::Internal)?;
        let grant = Grant::of(&account);
        let tokens = self.issue(&grant, reply.issues()).await?;
        Ok(self.answer(reply.render(&tokens.values(&grant.principal))))
    }

    /// The hash of a new password that [`check_password`] let pass.
    pub(super) async fn hashed(&self, password: &str) -> Result<Secret<String>, Rejection> {
        match self.service.passwords.hash(Secret::new(password.to_owned())).await {
            Ok(Ok(hash)) => Ok(hash),
            Ok(Err(HashError::Unusable)) => Err(Rejection::InvalidRequest("the new password cannot be used".into())),
            Ok(Err(error @ HashError::System)) => {
                tracing::error!(%error, "password not hashed");
                Err(Rejection::Internal)
            }
            Err(QueueFull) => Err(Rejection::PasswordQueueFull),
        }
    }
}

/// A colon would end the name in Basic (RFC 7617 2), and control characters have no place in it.
fn check_name(member: &str, name: &str) -> Result<(), Rejection> {
    let wrong = if name.is_empty() {
        "must not be empty".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        format!("must have at most {NAME_BYTES_MAX} bytes")
    } else if name.contains(':') {
        "must not have a colon".to_owned()
    } else if name.chars().any(char::is_control) {
        "must not have control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(Rejection::InvalidRequest(format!("`{member}` {wrong}").into()))
}

/// Holds a new password to the bounds of `passwords`.
pub(super) fn check_password(settings: &Settings, member: &str, password: &str) -> Result<(), Rejection> {
    let bounds = Bounds { min: settings.password_bytes_min, max: settings.password_bytes_max };
    match bounds.fault(password) {
        Some(wrong) => Err(Rejection::InvalidRequest(format!("`{member}` {wrong}").into())),
        None => Ok(()),
    }
}

impl Values<'_> {
    /// For a reply that is about nobody.
    pub(super) const fn none() -> Self {
        Self { access: None, refresh: None, token: None, expires_in: 0, principal: None, scope: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_used_everywhere_are_refused() {
        for (name, text, good) in [
            ("an address", "ann@example.com", true),
            ("beyond ASCII", "jürgen", true),
            ("a space", "ann b", true),
            ("the longest", &"a".repeat(NAME_BYTES_MAX), true),
            ("one byte longer", &"a".repeat(NAME_BYTES_MAX + 1), false),
            ("bytes count, not characters", &"ü".repeat(128), false),
            ("nothing", "", false),
            ("a colon", "a:b", false),
            ("a NUL", "a\0", false),
            ("a line's end", "a\n", false),
            ("a control character of C1", "a\u{85}", false),
        ] {
            assert_eq!(check_name("username", text).is_ok(), good, "{name}");
        }
    }
}

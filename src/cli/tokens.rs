//! `token …`: opaque tokens made, and tokens of every form revoked.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use serde_json::{Value, json};

use super::accounts::existing;
use super::operator::{CliError, Console, Operator, seconds, when};
use super::secrets::from_stdin;
use crate::authenticate::issuers::revocation_id;
use crate::authenticate::token::find;
use crate::config::units;
use crate::principal::{Subject, SubjectKind};
use crate::secret::Secret;
use crate::store::{NewToken, RefreshStanding, TokenListing};
use crate::wire::opaque::{OpaqueKind, digest, mint, plausible};

/// The longest life of a token, in days.
const TTL_DAYS_MAX: u64 = 3_650;

/// `portcullis token …`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a new opaque token of a user, for the scheme `Token`
    Issue {
        /// The user's name
        name: String,
        /// How long it lives, such as `1h`; by default `tokens.opaque_ttl`
        #[arg(long, value_parser = ttl)]
        ttl: Option<Duration>,
    },
    /// List the living opaque and refresh tokens, newest first
    List {
        /// Of this user only
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token; of a refresh token its whole family
    #[command(group(clap::ArgGroup::new("which").required(true).args(["id", "stdin"])))]
    Revoke {
        /// By its number in `token list`
        #[arg(long)]
        id: Option<i64>,
        /// By its text, from standard input: an opaque or refresh token, or a JWT
        #[arg(long)]
        stdin: bool,
    },
}

impl TokenCommand {
    /// Carries it out.
    ///
    /// # Errors
    /// There is no such user or token; the store failed.
    pub fn run(self, operator: &Operator, console: &mut Console) -> Result<(), CliError> {
        match self {
            Self::Issue { name, ttl } => issue(operator, console, name, ttl),
            Self::List { user, json } => list(operator, console, user, json),
            Self::Revoke { id: Some(id), .. } => {
                let revoking = operator.store().revoke_listed(id, operator.last_token_ends());
                let token = operator.wait(revoking)?.ok_or_else(no_token)?;
                operator.happened("token_revoked", Some(&token.owner), &[("tokens", token.kind)]);
                Ok(())
            }
            Self::Revoke { id: None, .. } => {
                let text = from_stdin(console)?;
                let (kind, owner) = revoke(operator, text.expose().trim())?.ok_or_else(no_token)?;
                operator.happened("token_revoked", owner.as_ref(), &[("tokens", kind)]);
                Ok(())
            }
        }
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = units::duration(text).map_err(|error| format!("it is {error}"))?;
    if !(Duration::from_secs(1)..=Duration::from_secs(TTL_DAYS_MAX * 86_400)).contains(&ttl) {
        return Err(format!("it must be between 1s and {TTL_DAYS_MAX}d"));
    }
    Ok(ttl)
}

fn issue(operator: &Operator, console: &mut Console, name: String, ttl: Option<Duration>) -> Result<(), CliError> {
    let owner = existing(operator, SubjectKind::User, name)?;
    if owner.disabled {
        return Err(CliError::No(format!("the user {:?} is disabled", owner.subject.name)));
    }
    let text = mint(OpaqueKind::Token)
        .map_err(|_| CliError::Io("generating", std::io::Error::other("the system gives no random bytes")))?;
    let token = NewToken {
        digest: digest(text.expose()),
        owner: owner.subject.clone(),
        scopes: Arc::default(),
        expires_at: operator.clock.unix().saturating_add(seconds(ttl.unwrap_or(operator.tokens.opaque_ttl))),
        session: None,
        client: None,
        session_version: owner.session_version,
    };
    operator.wait(operator.store().issue(Some(token), None))?;
    operator.happened("token_issued", Some(&owner.subject), &[("tokens", "token")]);
    console.line(text.expose())
}

fn list(operator: &Operator, console: &mut Console, user: Option<String>, json: bool) -> Result<(), CliError> {
    let owner: Option<Subject> =
        user.map(|name| existing(operator, SubjectKind::User, name).map(|account| account.subject)).transpose()?;
    let tokens = operator.wait(operator.store().tokens(owner, operator.clock.unix()))?;
    if json {
        return console.json(&tokens.iter().map(as_json).collect());
    }
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            let owner = format!("{} {}", token.owner.kind.name(), token.owner.name);
            [token.id.to_string(), token.kind.to_owned(), owner, when(Some(token.issued_at)), when(token.expires_at)]
        })
        .collect();
    console.table(["ID", "KIND", "OWNER", "ISSUED", "EXPIRES"], &rows)
}

fn as_json(token: &TokenListing) -> Value {
    json!({
        "id": token.id, "kind": token.kind, token.owner.kind.name(): *token.owner.name,
        "issued_at": token.issued_at, "expires_at": token.expires_at,
    })
}

fn no_token() -> CliError {
    CliError::No("there is no such token".to_owned())
}

/// Revokes by the token's text, whatever its form; what it was and, where that is known, whose. `None` where nothing is known
/// of it.
fn revoke(operator: &Operator, text: &str) -> Result<Option<(&'static str, Option<Subject>)>, CliError> {
    if !plausible(OpaqueKind::Token, text) && !plausible(OpaqueKind::Refresh, text) {
        return Ok(None);
    }
    let family = match operator.wait(operator.store().refresh_token(digest(text)))? {
        RefreshStanding::Unknown => None,
        RefreshStanding::Live(token) | RefreshStanding::Used { token, .. } | RefreshStanding::Revoked(token) => {
            Some((token.family, token.owner))
        }
    };
    if let Some((family, owner)) = family {
        operator.wait(operator.store().revoke_family(family, operator.last_token_ends()))?;
        return Ok(Some(("refresh", Some(owner))));
    }
    // whose it is, ahead of its end
    let token = operator.wait(Box::pin(find(operator.store(), text, operator.clock.unix())))?;
    if operator.wait(operator.store().revoke_token(digest(text)))?
        || operator.wait(operator.store().revoke_clear_token(Secret::new(text.to_owned())))?
    {
        return Ok(Some(("token", token.owner())));
    }
    let Some(Jwt { jti, issuer, expires_at }) = Jwt::read(text) else { return Ok(None) };
    let foreign = issuer.filter(|issuer| operator.issuers.iter().any(|known| **known == **issuer));
    let id = foreign.map_or_else(|| Arc::clone(&jti), |issuer| revocation_id(&issuer, &jti));
    // kept past the tolerance that verification grants
    let until = expires_at.map_or(i64::MAX, |at| at.saturating_add(seconds(operator.leeway)).saturating_add(1));
    operator.wait(operator.store().revoke_jwt(id, until))?;
    // whose it is, it says itself, and nobody has looked at its signature
    Ok(Some(("access", None)))
}

/// What a JWT is revoked by.
struct Jwt {
    jti: Arc<str>,
    issuer: Option<Box<str>>,
    expires_at: Option<i64>,
}

impl Jwt {
    /// Its signature is not looked at: one that does not verify has no use to revoke.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (payload, _signature) = (parts.nth(1)?, parts.next()?);
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let jti = claims.get("jti")?.as_str()?;
        #[expect(clippy::cast_possible_truncation, reason = "a NumericDate may have a fraction; the cast saturates")]
        let expires_at = claims.get("exp").and_then(Value::as_f64).map(|at| at.ceil() as i64);
        let issuer = claims.get("iss").and_then(Value::as_str).map(Into::into);
        (parts.next().is_none() && !jti.is_empty()).then(|| Self { jti: jti.into(), issuer, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use super::super::secrets::tests::console;
    use super::*;
    use crate::secret::Secret;
    use crate::store::{Account, RefreshToken};

    fn token(operator: &Operator, command: TokenCommand, input: &str) -> Result<String, u8> {
        let (mut console, printed) = console(input);
        command.run(operator, &mut console).map(|()| printed.take()).map_err(|error| match error {
            CliError::No(_) => 1,
            CliError::Usage(_)
            | CliError::Store(_)
            | CliError::Untold(_)
            | CliError::Io(..)
            | CliError::Interrupted(_) => 2,
        })
    }

    fn with_ann(directory: &std::path::Path) -> (Operator, Account) {
        let operator = Operator::of_directory(directory);
        let hash = Secret::new("hash".to_owned());
        operator.wait(operator.store().add_account(Subject::user("ann"), hash, vec![], vec![])).unwrap();
        let ann = operator.wait(operator.store().account(Subject::user("ann"))).unwrap().unwrap();
        (operator, ann)
    }

    fn issue(name: &str, ttl: Option<Duration>) -> TokenCommand {
        TokenCommand::Issue { name: name.into(), ttl }
    }

    fn by_text() -> TokenCommand {
        TokenCommand::Revoke { id: None, stdin: true }
    }

    #[test]
    fn an_issued_token_is_found_listed_and_revoked() {
        let directory = tempfile::tempdir().unwrap();
        let (operator, _) = with_ann(directory.path());
        let text = token(&operator, issue("ann", Some(Duration::from_mins(1))), "").unwrap();
        let now = operator.clock.unix();
        let find = |at| operator.wait(operator.store().token(digest(text.trim_end()), at)).unwrap().live();
        assert_eq!(find(now).unwrap().owner.subject, Subject::user("ann"));
        assert!(find(now + 61).is_none());
        let list = |user: Option<&str>| TokenCommand::List { user: user.map(str::to_owned), json: true };
        let listed: Value = serde_json::from_str(&token(&operator, list(Some("ann")), "").unwrap()).unwrap();
        assert_eq!((&listed[0]["kind"], &listed[0]["user"]), (&json!("token"), &json!("ann")));
        let by_id = || TokenCommand::Revoke { id: listed[0]["id"].as_i64(), stdin: false };
        assert_eq!(token(&operator, by_id(), ""), Ok(String::new()));
        assert!(find(now).is_none());
        assert_eq!(token(&operator, by_id(), ""), Err(1));
        assert_eq!(token(&operator, list(None), "").as_deref(), Ok("[]\n"));
        assert_eq!(token(&operator, list(Some("nobody")), ""), Err(1));
        assert_eq!(token(&operator, issue("nobody", None), ""), Err(1));
        operator.wait(operator.store().set_disabled(Subject::user("ann"), true)).unwrap();
        assert_eq!(token(&operator, issue("ann", None), ""), Err(1));
    }

    #[test]
    fn a_token_is_revoked_by_its_text() {
        let directory = tempfile::tempdir().unwrap();
        let (operator, ann) = with_ann(directory.path());
        let opaque = token(&operator, issue("ann", None), "").unwrap();
        assert_eq!(token(&operator, by_text(), &opaque), Ok(String::new()));
        assert_eq!(token(&operator, by_text(), &opaque), Err(1));

        let text = mint(OpaqueKind::Refresh).unwrap();
        let refresh = RefreshToken {
            owner: ann.subject.clone(),
            client: None,
            scopes: Arc::default(),
            family: "family".into(),
            expires_at: i64::MAX,
            session_version: ann.session_version,
        };
        operator.wait(operator.store().issue(None, Some((digest(text.expose()), refresh)))).unwrap();
        assert_eq!(token(&operator, by_text(), text.expose()), Ok(String::new()));
        let standing = operator.wait(operator.store().refresh_token(digest(text.expose()))).unwrap();
        assert!(matches!(standing, RefreshStanding::Revoked(_)));
        let revoked = |id: &str| {
            operator.wait(operator.store().jwt_standing(ann.subject.clone(), vec![id.into()])).unwrap().revoked
        };
        assert!(revoked("family"));

        let claims = URL_SAFE_NO_PAD.encode(br#"{"jti":"j1","exp":4102444800}"#);
        assert_eq!(token(&operator, by_text(), &format!("e30.{claims}.c2ln\n")), Ok(String::new()));
        assert!(revoked("j1"));
        operator.wait(operator.store().purge(4_102_444_800 + 30)).unwrap();
        assert!(revoked("j1"), "as long as it verifies");
    }

    #[test]
    fn what_is_no_token_is_a_no() {
        let directory = tempfile::tempdir().unwrap();
        let (operator, _) = with_ann(directory.path());
        let without_id = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(b"{}"));
        for text in ["", "pct_", "pct_short", "unknown", "a.b.c", "a.b", "..", &without_id, &format!("{without_id}.x")]
        {
            assert_eq!(token(&operator, by_text(), text), Err(1), "{text:?}");
        }
    }

    #[test]
    fn a_life_has_its_bounds() {
        for (text, seconds) in [("1s", Some(1)), ("1h", Some(3_600)), ("7d", Some(604_800)), ("0s", None), ("1", None)]
        {
            assert_eq!(ttl(text).ok(), seconds.map(Duration::from_secs), "{text}");
        }
        assert!(ttl("3650d").is_ok() && ttl("3651d").is_err() && ttl("").is_err());
    }
}

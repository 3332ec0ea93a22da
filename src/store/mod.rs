//! Where users, clients, tokens, revocations and keys live, in our words.
//!
//! Every mutation also writes a [`Change`] in the same transaction, so that each process on the same store hears of it
//! (contract 6). Digests, not tokens, cross this interface. No implementation logs a digest, a hash or a secret.

pub mod sql;
pub mod tables;
mod rows;
mod statements;
mod schema;
pub mod changes;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock::UnixSeconds;
use crate::principal::{Role, Scope, Subject};
use crate::secret::Secret;
pub use crate::wire::opaque::{TokenDigest, digest};

/// What a store's method returns: boxed, since only cache misses pay for it.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The store failed; it says nothing about the credential.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It does not answer: locked, unreachable, timed out.
    #[error("the store does not answer: {0}")]
    Unavailable(Arc<str>),
    /// It answers, but not with what it should hold: a foreign file, a schema of a newer version, a corrupt row.
    #[error("the store is not usable: {0}")]
    Broken(Arc<str>),
    /// It works, and this cannot be: another application's table has no place for it, or a constraint forbids it.
    #[error("the store cannot do this: {0}")]
    Cannot(Arc<str>),
}

/// A user or client as stored.
#[derive(Debug)]
pub struct Account {
    /// The name or id, exactly as stored.
    pub subject: Subject,
    /// The row's id; the template `{user_id}`.
    pub id: Arc<str>,
    /// A hash of the password or secret, in any format of [`crate::authenticate::password`].
    pub password_hash: Secret<String>,
    /// In the order in which they were given.
    pub roles: Arc<[Role]>,
    /// What a client may ask for; empty for users.
    pub scopes: Arc<[Scope]>,
    /// Whether it may do nothing.
    pub disabled: bool,
    /// Raised by each change that ends its sessions (password, disabling, removal); in issued JWTs as the claim `sv`.
    pub session_version: i64,
    /// When its sessions were last ended, in unix seconds, for JWTs without `sv`; 0 for never.
    pub sessions_ended_at: UnixSeconds,
    /// When it was made, in unix seconds.
    pub created_at: UnixSeconds,
}

/// What somebody claims to be, to whom nothing is proven yet.
#[derive(Debug)]
pub enum Claimed {
    /// An account, to be used once its password is proven.
    Account(Account),
    /// A row of another application's table that was not seen as it is now. What is kept beside is brought into step with it
    /// by [`Store::proven`] and not before: that takes time, which would tell whoever guesses that there is such a name.
    Unseen {
        /// What its password is to be proven by.
        password_hash: Secret<String>,
    },
}

/// What the store knows about a JWT that verified: its account and what was revoked.
#[derive(Debug)]
pub struct JwtStanding {
    /// The account of its subject; `None` where there is none.
    pub account: Option<Account>,
    /// Whether one of the ids asked for (`jti`, `sid`) was revoked.
    pub revoked: bool,
    /// Where the account was removed: its last session version and when, so that its JWTs stay dead.
    pub removed: Option<Tombstone>,
}

/// What is left of a removed account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Session versions up to here are dead.
    pub session_version: i64,
    /// When, in unix seconds.
    pub removed_at: UnixSeconds,
}

/// An opaque access token as stored, with its living owner.
#[derive(Debug)]
pub struct OpaqueToken {
    /// Whose.
    pub owner: Account,
    /// What it is limited to.
    pub scopes: Arc<[Scope]>,
    /// When it was issued, in unix seconds, where that is known.
    pub issued_at: Option<UnixSeconds>,
    /// When it ends, in unix seconds; `None`: never.
    pub expires_at: Option<UnixSeconds>,
    /// The family it was issued with, where a refresh token was issued beside.
    pub session: Option<Arc<str>>,
    /// The client it was issued to, where one authenticated.
    pub client: Option<IssuedTo>,
}

/// What is known of an opaque token.
#[derive(Debug)]
pub enum TokenStanding {
    /// Nothing: it was never issued, or its row has been deleted since it ended.
    Unknown,
    /// It is no good any more.
    Ended {
        /// Whose it was.
        owner: Subject,
        /// Whether its time is over; else it was revoked, or its owner or the client it was issued to is gone, disabled or
        /// logged out.
        expired: bool,
    },
    /// It is good.
    Live(Box<OpaqueToken>),
}

impl TokenStanding {
    /// The token, where it is good.
    pub fn live(self) -> Option<OpaqueToken> {
        match self {
            Self::Live(token) => Some(*token),
            Self::Ended { .. } | Self::Unknown => None,
        }
    }

    /// Whose it is or was.
    pub fn owner(self) -> Option<Subject> {
        match self {
            Self::Live(token) => Some(token.owner.subject),
            Self::Ended { owner, .. } => Some(owner),
            Self::Unknown => None,
        }
    }
}

/// The client that a token was issued to, which is not its owner (RFC 6749 6). It ends with that client's sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedTo {
    /// The client's id.
    pub id: Arc<str>,
    /// The client's session version when it authenticated.
    pub session_version: i64,
}

/// An opaque token to keep.
#[derive(Debug)]
pub struct NewToken {
    /// Its digest.
    pub digest: TokenDigest,
    /// Whose.
    pub owner: Subject,
    /// What it is limited to.
    pub scopes: Arc<[Scope]>,
    /// When it ends, in unix seconds.
    pub expires_at: UnixSeconds,
    /// The family of the refresh token issued beside.
    pub session: Option<Arc<str>>,
    /// The client it was issued to, where one authenticated.
    pub client: Option<IssuedTo>,
    /// The owner's session version when its credential was looked up: where sessions were ended between the look-up and
    /// the issue, the token is dead from the start.
    pub session_version: i64,
}

/// A refresh token as stored.
#[derive(Clone, Debug)]
pub struct RefreshToken {
    /// Whose.
    pub owner: Subject,
    /// The client it was issued to, where one authenticated (RFC 6749 6).
    pub client: Option<IssuedTo>,
    /// The scopes of the grant.
    pub scopes: Arc<[Scope]>,
    /// Its family, the `sid` of JWTs issued with it.
    pub family: Arc<str>,
    /// When it ends, in unix seconds.
    pub expires_at: UnixSeconds,
    /// The session version of the owner when the family began.
    pub session_version: i64,
}

/// How many living tokens ended with a subject's sessions. JWTs are not stored, so nobody knows how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Opaque tokens.
    pub opaque: u64,
    /// Refresh tokens.
    pub refresh: u64,
}

/// Where a refresh token stands.
#[derive(Clone, Debug)]
pub enum RefreshStanding {
    /// No such token.
    Unknown,
    /// It is good.
    Live(RefreshToken),
    /// It was used; within the grace, and until its successor is used too, `replay` is the sealed answer of that use.
    Used {
        /// The token.
        token: RefreshToken,
        /// When it was used, in unix milliseconds.
        used_at_ms: i64,
        /// The sealed answer, for [`crate::endpoint::refresh`] to open with the token itself.
        replay: Option<Vec<u8>>,
    },
    /// It, its family or its owner's sessions were revoked.
    Revoked(RefreshToken),
}

impl RefreshStanding {
    /// The token, where it is known.
    pub const fn token(&self) -> Option<&RefreshToken> {
        match self {
            Self::Unknown => None,
            Self::Live(token) | Self::Used { token, .. } | Self::Revoked(token) => Some(token),
        }
    }
}

/// What one use of a refresh token leaves behind; written in one transaction, or not at all.
#[derive(Debug)]
pub struct Rotation {
    /// The token that is used up.
    pub used: TokenDigest,
    /// The time of use, in unix milliseconds.
    pub used_at_ms: i64,
    /// The answer, sealed with the used token.
    pub replay: Vec<u8>,
    /// Its successor.
    pub successor: TokenDigest,
    /// When the successor ends, in unix seconds.
    pub successor_expires_at: UnixSeconds,
    /// The scopes of the successor.
    pub scopes: Arc<[Scope]>,
    /// An opaque access token issued beside.
    pub token: Option<NewToken>,
}

/// A token as listed for operators.
#[derive(Clone, Debug)]
pub struct TokenListing {
    /// A number to revoke it by.
    pub id: i64,
    /// Whose.
    pub owner: Subject,
    /// `token` or `refresh`.
    pub kind: &'static str,
    /// In unix seconds.
    pub issued_at: UnixSeconds,
    /// In unix seconds; `None`: never.
    pub expires_at: Option<UnixSeconds>,
}

/// A signing key as stored.
#[derive(Debug)]
pub struct StoredKey {
    /// Its `kid`.
    pub id: Arc<str>,
    /// The algorithm's JWA name.
    pub algorithm: Box<str>,
    /// PKCS#8, DER.
    pub private_key: Secret<Vec<u8>>,
    /// From when it signs, in unix seconds. Before, it is only published.
    pub signs_from: UnixSeconds,
    /// Until when it verifies, in unix seconds; `None`: it is current.
    pub verifies_until: Option<UnixSeconds>,
}

/// Something that was changed, as every process on the store hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A user or client: password, roles, state, presence.
    Subject(Subject),
    /// An opaque token was revoked.
    Token(TokenDigest),
    /// A JWT by its `jti`, or a family by its `sid`, was revoked.
    Session(Arc<str>),
    /// The signing keys.
    Keys,
    /// More than can be told: changes were forgotten before they were heard.
    All,
}

/// Whether a new account could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was.
    Yes,
    /// The name is taken.
    Taken,
    /// The name is longer than so many characters, which are all that another application's table has room for.
    TooLong(i64),
}

/// The store. An implementation may be called from any runtime and does its work on its own threads; once called, a
/// mutation is carried out even where its caller goes away.
pub trait Store: Send + Sync {
    /// What is claimed by whoever gives this name; `None` where there is none. Writes nothing, whoever it is.
    fn claimed(&self, subject: Subject) -> Answer<'_, Option<Claimed>>;
    /// The account of a name whose password was proven by `hash`; `None` where it has another one by now.
    fn proven(&self, subject: Subject, hash: Secret<String>) -> Answer<'_, Option<Account>>;
    /// The account of this name, for whoever may know that there is one; `None` where there is none.
    fn account(&self, subject: Subject) -> Answer<'_, Option<Account>>;
    /// The user whose row has this id ([`Account::id`], in its one spelling); `None` where there is none.
    fn account_by_id(&self, id: Arc<str>) -> Answer<'_, Option<Account>>;
    /// A living token that another application keeps in clear text, with its owner; `None` where it is unknown or expired,
    /// and where no such table is configured.
    fn clear_token(&self, text: Secret<String>, now: UnixSeconds) -> Answer<'_, Option<OpaqueToken>>;
    /// The living opaque token of this digest with its owner; `None` where it is unknown, expired, revoked or orphaned.
    fn token(&self, digest: TokenDigest, now: UnixSeconds) -> Answer<'_, TokenStanding>;
    /// What is known about a JWT's subject and ids (`jti`, `sid`).
    fn jwt_standing(&self, subject: Subject, ids: Vec<Arc<str>>) -> Answer<'_, JwtStanding>;
    /// Where a refresh token stands.
    fn refresh_token(&self, digest: TokenDigest) -> Answer<'_, RefreshStanding>;

    /// Makes an account. `hash` is of the password or secret.
    fn add_account(
        &self,
        subject: Subject,
        hash: Secret<String>,
        roles: Vec<Role>,
        scopes: Vec<Scope>,
    ) -> Answer<'_, Added>;
    /// Replaces the password or secret and ends every session of the account; false where there is no such account.
    fn set_password(&self, subject: Subject, hash: Secret<String>) -> Answer<'_, bool>;
    /// As [`Store::set_password`] for the account's owner, who proved an older password when the account had this session
    /// version; `None` where that is no longer so, or it is disabled: whoever reset or disabled it meanwhile has the last
    /// word.
    fn change_password(
        &self,
        subject: Subject,
        hash: Secret<String>,
        session_version: i64,
    ) -> Answer<'_, Option<Ended>>;
    /// Writes the same password in a better hash, only where the stored one is still `old`; ends nothing.
    fn rehash(&self, subject: Subject, old: Secret<String>, new: Secret<String>) -> Answer<'_, bool>;
    /// Whether other hashes than ours are to be replaced after a good login.
    fn rehashes(&self) -> bool;
    /// Replaces the roles; false where there is no such account.
    fn set_roles(&self, subject: Subject, roles: Vec<Role>) -> Answer<'_, bool>;
    /// Disables (which ends every session) or enables; false where there is no such account.
    fn set_disabled(&self, subject: Subject, disabled: bool) -> Answer<'_, bool>;
    /// Removes the account with its tokens and leaves a tombstone; false where there is no such account.
    fn remove_account(&self, subject: Subject) -> Answer<'_, bool>;
    /// All accounts of a kind, by name, without their hashes being of use to anybody.
    fn accounts(&self, kind: crate::principal::SubjectKind) -> Answer<'_, Vec<Account>>;

    /// Keeps an opaque token, a refresh token, or both, in one transaction.
    fn issue(&self, token: Option<NewToken>, refresh: Option<(TokenDigest, RefreshToken)>) -> Answer<'_, ()>;
    /// Uses up a refresh token where it is still live, and says where it stood before: `Live` means that it was done. An
    /// expired one is `Unknown`.
    fn rotate(&self, rotation: Rotation) -> Answer<'_, RefreshStanding>;
    /// Revokes an opaque token; false where there is none.
    fn revoke_token(&self, digest: TokenDigest) -> Answer<'_, bool>;
    /// Revokes a token that another application keeps in clear text; false where there is none.
    fn revoke_clear_token(&self, text: Secret<String>) -> Answer<'_, bool>;
    /// Revokes a family: its refresh tokens, opaque tokens and, by `sid`, its JWTs. Remembered until `until`.
    fn revoke_family(&self, family: Arc<str>, until: UnixSeconds) -> Answer<'_, ()>;
    /// Whether any of these ids was revoked: of a JWT whose subject is nobody's here.
    fn jwt_revoked(&self, ids: Vec<Arc<str>>) -> Answer<'_, bool>;
    /// Revokes the refresh tokens of a family; what was issued with them lives on.
    fn revoke_refresh_tokens(&self, family: Arc<str>) -> Answer<'_, ()>;
    /// Revokes a JWT by its `jti`, remembered until `until`.
    fn revoke_jwt(&self, jti: Arc<str>, until: UnixSeconds) -> Answer<'_, ()>;
    /// Revokes a token by its number in [`Store::tokens`], and says which it was; `None` where there is none. Of a refresh
    /// token the family, as [`Store::revoke_family`] does; remembered until `until`, and as long as the token would live.
    fn revoke_listed(&self, id: i64, until: UnixSeconds) -> Answer<'_, Option<TokenListing>>;
    /// Living opaque and refresh tokens, newest first, at most 10,000; of one subject where given.
    fn tokens(&self, owner: Option<Subject>, now: UnixSeconds) -> Answer<'_, Vec<TokenListing>>;

    /// The signing keys that still verify at `now`, oldest first.
    fn keys(&self, now: UnixSeconds) -> Answer<'_, Vec<StoredKey>>;
    /// Keeps `key` where the store has no current key (false: another process was first).
    fn add_first_key(&self, key: StoredKey) -> Answer<'_, bool>;
    /// Makes `key` the current one; the ones before verify until `verifies_until`.
    fn rotate_key(&self, key: StoredKey, verifies_until: UnixSeconds) -> Answer<'_, ()>;

    /// The changes after `position`, oldest first, and the new position. With `None`: none, and where the list ends now.
    /// Where some after `position` were already forgotten: [`Change::All`].
    fn changes(&self, position: Option<i64>) -> Answer<'_, (Vec<Change>, i64)>;
    /// Forgets what has expired by `now`; called now and then. Bounded work a call; whether there may be more.
    fn purge(&self, now: UnixSeconds) -> Answer<'_, bool>;
    /// Whether the store answers.
    fn ping(&self) -> Answer<'_, ()>;
}

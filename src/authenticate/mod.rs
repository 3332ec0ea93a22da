//! Credential to caller: a total match over schemes, behind a cache of looked-up principals.
//!
//! [`Authenticator::caller`] is the way of a request through this stage. Refused and failed are different from the first
//! line that can tell them apart: a [`Fault`] says that the credential is no good, every other [`Failure`] that nobody
//! could say.

pub mod basic;
pub mod token;
pub mod bearer;
pub mod claims;
mod claim_path;
pub mod keys;
pub mod issuers;
pub mod password;
pub mod cache;
mod recent;
mod shelf;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::num::NonZeroI64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{Context, SHA256};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use tokio::runtime::Handle;
use tokio::time::timeout;

use self::bearer::JwtKind;
pub use self::cache::Tie;
use self::cache::{Cache, Found, Keying, LOOK_UP_TIMEOUT, Verdict};
pub use self::claim_path::ClaimPath;
use self::claims::Claims;
use self::issuers::{Issuer, Issuers};
use self::keys::Keys;
use self::password::{PasswordPool, QueueFull};
pub use self::recent::Recent;
use crate::clock::{Clock, UnixSeconds};
use crate::limit::{Limits, Reserved};
use crate::principal::{NAME_BYTES_MAX, Principal, Scheme, SchemeSet, Subject, SubjectKind};
use crate::record::audit::{Audit, Event};
use crate::record::metrics::{AuthOutcome, CacheResult, WorkerMetrics};
use crate::rejection::{CredentialsFault, Exhausted, Rejection, TokenFault};
use crate::secret::Secret;
use crate::store::changes::Changes;
use crate::store::{Account, Store, StoreError};
use crate::wire::authorization::{Credential, CredentialError, Presented, presented};
use crate::wire::fields::{encode_identity, roles_field};

/// Whom Basic credentials name, be it the truth or not; for the audit log.
fn claimed(headers: &HeaderMap) -> Option<Subject> {
    match presented(headers).ok()??.read().ok()? {
        Credential::Basic { user, .. } => (user.len() <= NAME_BYTES_MAX).then(|| Subject::user(user)),
        Credential::Token(_) | Credential::Bearer(_) => None,
    }
}

/// The one credential that a request brings, of a scheme that is offered; or of which scheme it is, where it is malformed.
/// Whether it is any good is not looked at.
///
/// # Errors
/// There is none, or none of an offered scheme, or more than one.
pub fn brought(
    schemes: SchemeSet,
    headers: &HeaderMap,
) -> Result<Result<Presented<'_>, (Scheme, CredentialError)>, Rejection> {
    match presented(headers) {
        Ok(None) => Err(Rejection::MissingCredentials),
        Ok(Some(Presented { scheme, .. })) | Err(CredentialError::Malformed(scheme)) if !schemes.contains(scheme) => {
            Err(Rejection::UnsupportedScheme)
        }
        Ok(Some(presented)) => Ok(Ok(presented)),
        Err(error @ CredentialError::Malformed(scheme)) => Ok(Err((scheme, error))),
        Err(error @ (CredentialError::Repeated | CredentialError::UnsupportedScheme)) => Err(error.into()),
    }
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Nobody in particular: the route asks for no credential.
    Anyone,
    /// A principal that a credential proved.
    Known(Arc<Identity>),
}

/// A principal that a credential proved, with what is told upstream about it, ready to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub principal: Principal,
    /// By which scheme.
    pub scheme: Scheme,
    /// The name as an identity header bears it (contract 4: percent-encoded where needed).
    pub user_field: HeaderValue,
    /// The roles, comma separated, encoded likewise.
    pub roles_field: HeaderValue,
    /// When the credential ends, in unix seconds; `None` for one that does not. Of half the size that it would otherwise
    /// have, since a principal is remembered for each credential.
    pub expires_at: Option<NonZeroI64>,
    /// What it rests on.
    pub tie: Option<Tie>,
}

impl Identity {
    /// With the fields that tell an upstream of it.
    pub fn new(principal: Principal, scheme: Scheme, expires_at: Option<UnixSeconds>) -> Self {
        Self {
            user_field: encode_identity(&principal.subject.name, false),
            roles_field: roles_field(&principal.roles),
            principal,
            scheme,
            // what ended in 1970 has ended, and is none without an end
            expires_at: expires_at.map(|end| NonZeroI64::new(end).unwrap_or(NonZeroI64::MIN)),
            tie: None,
        }
    }
}

/// The section `auth`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The protection space named in challenges.
    pub realm: Box<str>,
    /// How long principals are remembered.
    pub cache: CacheSettings,
    /// How JWTs are read and written.
    pub jwt: Arc<JwtSettings>,
    /// Whose JWTs are taken beside ours.
    pub issuers: Arc<[Issuer]>,
}

/// The section `auth.cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// How long a looked-up principal serves without another look-up.
    pub ttl: Duration,
    /// Entries, at most.
    pub capacity: u64,
    /// How long a refusal is remembered.
    pub negative_ttl: Duration,
    /// How long past `ttl` a principal serves while the store does not answer.
    pub stale_if_store_down: Duration,
}

/// The section `auth.jwt`, without its keys' material.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct JwtSettings {
    /// `iss`, issued and required.
    pub issuer: Box<str>,
    /// `aud`, issued; one of them is required where there are any.
    pub audience: Vec<Box<str>>,
    /// Tolerance for `exp`, `nbf` and `iat`.
    pub leeway: Duration,
    /// Where roles come from.
    pub roles: RoleSource,
    /// The path of the user or client in the claims.
    pub subject: ClaimPath,
    /// Whether that claim holds the id of a user's row and not the name ([`Account::id`]). A user's name is what they chose:
    /// were it tried too, one who is called `1` would be taken for the user of that id.
    pub subject_is_id: bool,
    /// How access and refresh tokens are told apart.
    pub token_type: TypeSource,
    /// Whether a token without `exp` is refused.
    pub require_exp: bool,
    /// Whether a token without `iss` is refused. A token of another `iss` always is.
    pub require_iss: bool,
    /// Whether a token without `jti` is refused.
    pub require_jti: bool,
    /// Whether a token is refused whose subject has no account, and gives no role that the account has not: what is changed
    /// there holds for tokens of a replaced system too.
    pub require_account: bool,
    /// Whom a token is about that does not say it: whether by `sub_type`, as ours do, or by a `client_id` that is its
    /// subject.
    pub subject_kind: SubjectKind,
    /// The keys of the file; `None`: those in the store.
    pub keys: Option<Arc<keys::KeyRing>>,
}

impl JwtSettings {
    /// What tokens of `issuer` are read by where nothing else is set.
    #[must_use]
    pub fn of(issuer: impl Into<Box<str>>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: Vec::new(),
            leeway: Duration::from_secs(30),
            roles: RoleSource::Store,
            subject: ClaimPath(vec!["sub".into()]),
            subject_is_id: false,
            token_type: TypeSource::Header,
            require_exp: true,
            require_iss: true,
            require_jti: false,
            require_account: false,
            subject_kind: SubjectKind::User,
            keys: None,
        }
    }

    /// Whether claims bear the name of such a subject, and not the id of its row. A client goes by its name in any case.
    pub fn bears_name_of(&self, kind: SubjectKind) -> bool {
        !self.subject_is_id || kind == SubjectKind::Client
    }

    fn leeway_seconds(&self) -> UnixSeconds {
        UnixSeconds::try_from(self.leeway.as_secs()).unwrap_or(UnixSeconds::MAX)
    }

    /// Of everything above: what `Debug` shows, which is all but the keys themselves, and the keys.
    fn digest(&self, digest: &mut Context) {
        digest.update(format!("{self:?}").as_bytes());
        if let Some(keys) = &self.keys {
            digest.update(&keys.fingerprint());
        }
    }
}

/// Where the roles of a JWT's subject come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleSource {
    /// From the store, looked up by the subject.
    Store,
    /// From a claim: an array of texts, or a text split at spaces and commas. In tokens of ours, which bear `sv`, the claim
    /// is for others to read: their roles come from the store, so that changed ones take effect at once.
    Claim(ClaimPath),
}

/// How the type of a JWT is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeSource {
    /// By the `typ` header: `at+jwt`, `JWT` or none is an access token; `rt+jwt` a refresh token.
    Header,
    /// By a claim.
    Claim {
        /// The path of the claim.
        claim: ClaimPath,
        /// Its value in access tokens.
        access: Box<str>,
        /// Its value in refresh tokens.
        refresh: Box<str>,
        /// What a token without the claim is, if it is any.
        unmarked: Option<JwtKind>,
    },
}

/// How long a request waits for the store while it could be served by what was looked up before.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many look-ups of others a request waits for whose callers have no budget left.
const VISITS_MAX: usize = 3;

/// What a look-up needs.
pub struct LookUp {
    /// Accounts, tokens, revocations.
    pub store: Arc<dyn Store>,
    /// Verifies passwords.
    pub passwords: Arc<PasswordPool>,
    /// Our own keys.
    pub keys: Arc<Keys>,
    /// Those of other issuers.
    pub issuers: Arc<Issuers>,
    /// What makes remembered principals void.
    pub changes: Arc<Changes>,
    /// What time it is.
    pub clock: Clock,
}

/// Finds out who is calling; shared by all workers.
pub struct Authenticator {
    parts: Arc<LookUp>,
    cache: Arc<Cache>,
    limits: Arc<Limits>,
    /// How keys of the cache are made under the settings seen last.
    keyings: ArcSwapOption<Keyings>,
}

/// How keys are made. What a verdict was made under is part of its key, so that none survives a change of the settings; the
/// keys in the store are not, they are among the changes.
struct Keyings {
    realm: Box<str>,
    jwt: Arc<JwtSettings>,
    issuers: Arc<[Issuer]>,
    basic: Keying,
    token: Keying,
    bearer: Keying,
}

impl Keyings {
    fn are_of(&self, settings: &Settings) -> bool {
        Arc::ptr_eq(&self.jwt, &settings.jwt)
            && Arc::ptr_eq(&self.issuers, &settings.issuers)
            && self.realm == settings.realm
    }
}

/// What is known of a request before its credential is looked at.
#[derive(Clone, Copy)]
pub struct Visit<'a> {
    /// The caller's address, behind trusted proxies.
    pub address: IpAddr,
    /// When it came.
    pub now: Instant,
    /// Where it is counted.
    pub metrics: &'a WorkerMetrics,
    /// Whom the worker has met lately; `None` for requests that are seldom.
    pub recent: Option<&'a Recent>,
    /// Where it is told that a credential was refused.
    pub audit: &'a Audit,
    /// The request's; read where something is told.
    pub request_id: &'a HeaderValue,
}

impl Visit<'_> {
    /// Tells the audit log of a credential that is refused.
    fn tell(&self, headers: &HeaderMap, failure: &Failure) {
        let (kind, subject, detail) = match failure {
            Failure::Refused(Refused { fault: Fault::Credentials(fault), .. }) => {
                ("login_failed", claimed(headers), ("reason", fault.name()))
            }
            Failure::Refused(Refused { fault: Fault::Token(_, fault), whose }) => {
                ("token_refused", whose.as_deref().cloned(), ("reason", fault.name()))
            }
            Failure::Exhausted(exhausted) if exhausted.is_of_account() => {
                ("locked_out", claimed(headers), ("limit", exhausted.limit))
            }
            Failure::Exhausted(_) | Failure::Unavailable | Failure::NoKeys | Failure::Busy | Failure::Internal => {
                return;
            }
        };
        let (subject, address) = (subject.as_ref(), Some(self.address));
        let request_id = self.request_id.to_str().unwrap_or_default();
        self.audit.event(&Event { kind, subject, address, request_id, details: &[detail] });
    }
}

impl Authenticator {
    /// `background` is where look-ups run, so that they outlive the request that began them.
    ///
    /// # Errors
    /// The system has no randomness for the key of the cache.
    pub fn new(
        parts: LookUp,
        limits: Arc<Limits>,
        settings: &CacheSettings,
        background: Handle,
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let cache = Cache::new(settings, Arc::clone(&parts.changes), parts.clock.clone(), background)?;
        Ok(Self { parts: Arc::new(parts), cache: Arc::new(cache), limits, keyings: ArcSwapOption::empty() })
    }

    /// Takes the settings of a new snapshot, before it serves; principals stay remembered, and keys of issuers kept, where
    /// they are the same. Keys are fetched on `background`.
    pub fn configure(&self, settings: &Settings, background: &Handle) {
        self.cache.configure(&settings.cache);
        self.parts.issuers.apply(&settings.issuers, background);
    }

    /// Entries of the cache, for the gauge.
    pub fn entries(&self) -> u64 {
        self.cache.entries()
    }

    /// Forgets what is remembered and cannot serve any more. To be called every minute or so.
    pub fn sweep(&self) {
        self.cache.sweep();
    }

    /// Who sent a request to a route that asks for a principal and offers `schemes`. A credential that is refused is told to
    /// the audit log.
    ///
    /// # Errors
    /// The refusal: no credential, none that the route offers, one that is no good, too many of those from this
    /// address, or a failure that left the question open.
    pub async fn caller(
        &self,
        settings: &Settings,
        schemes: SchemeSet,
        headers: &HeaderMap,
        visit: Visit<'_>,
    ) -> Result<Caller, Rejection> {
        self.identify(settings, schemes, headers, visit).await.map(Caller::Known)
    }

    /// As [`Self::caller`], for endpoints that act for whom they identify.
    ///
    /// # Errors
    /// As [`Self::caller`].
    pub async fn identify(
        &self,
        settings: &Settings,
        schemes: SchemeSet,
        headers: &HeaderMap,
        visit: Visit<'_>,
    ) -> Result<Arc<Identity>, Rejection> {
        match brought(schemes, headers)? {
            Ok(presented) => {
                let proved = self.prove(settings, presented, visit).await;
                if let Some(outcome) = outcome(&proved) {
                    visit.metrics.auth(presented.scheme, outcome);
                }
                proved.map_err(|failure| {
                    visit.tell(headers, &failure);
                    failure.into()
                })
            }
            Err((scheme, error)) => {
                self.limits.failed(visit.address).await.map_err(Rejection::RateLimited)?;
                visit.metrics.auth(scheme, AuthOutcome::Refused);
                visit.tell(headers, &refused(error));
                Err(error.into())
            }
        }
    }

    /// Whether nothing that an identity rests on has changed; moves its tie on.
    pub fn holds(&self, tie: &mut Tie) -> bool {
        tie.holds(&self.parts.changes)
    }

    /// Who presents this value of `Authorization` now, for what is open since before. It draws on no budget: or a caller who
    /// has spent theirs could not be shut out.
    ///
    /// # Errors
    /// [`Failure::Refused`] where a request with it would be refused, or why nobody can say.
    pub async fn still(
        &self,
        settings: &Settings,
        schemes: SchemeSet,
        authorization: &HeaderValue,
    ) -> Result<Arc<Identity>, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.clone());
        let presented = presented(&headers).map_err(refused)?;
        let malformed = refused(CredentialError::UnsupportedScheme);
        let presented = presented.filter(|presented| schemes.contains(presented.scheme)).ok_or(malformed)?;
        let key = self.cache_key(settings, presented);
        match self.cache.find(&key) {
            Found::Fresh(entry) => Ok(Arc::clone(entry.outcome())),
            Found::Refused(entry) => Err(Failure::Refused(entry.outcome().refused.clone())),
            Found::Stale(_) | Found::Nothing => {
                let credential = presented.read().map_err(refused)?;
                self.look_up(key, settings, credential, false, None).await
            }
        }
    }

    async fn prove(
        &self,
        settings: &Settings,
        presented: Presented<'_>,
        visit: Visit<'_>,
    ) -> Result<Arc<Identity>, Failure> {
        let Visit { address, now, metrics, recent, .. } = visit;
        let key = self.cache_key(settings, presented);
        if let Some(met) = recent.and_then(|recent| recent.find(&self.cache, &key, now)) {
            metrics.cache(CacheResult::Hit);
            return match met {
                Ok(identity) => Ok(identity),
                Err(refused) => self.refuse_again(refused, address).await,
            };
        }
        let shelves = self.cache.shelves_number();
        let stale = match self.cache.find(&key) {
            Found::Fresh(entry) => {
                metrics.cache(CacheResult::Hit);
                if let Some(recent) = recent {
                    recent.note_accepted(shelves, &key, &entry);
                }
                return Ok(Arc::clone(entry.outcome()));
            }
            Found::Refused(entry) => {
                metrics.cache(CacheResult::Hit);
                if let Some(recent) = recent {
                    recent.note_refused(shelves, &key, &entry);
                }
                return self.refuse_again(entry.outcome().refused.clone(), address).await;
            }
            Found::Stale(identity) if !self.cache.may_ask() => {
                metrics.cache(CacheResult::Stale);
                return Ok(identity);
            }
            Found::Stale(_) => true,
            Found::Nothing => false,
        };
        // boxed, since a credential that is remembered has no need of room for a look-up
        Box::pin(self.prove_anew(settings, presented, key, stale, visit)).await
    }

    /// Refuses what is known to be no good; that it is known spares the caller's address nothing.
    async fn refuse_again(&self, refused: Refused, address: IpAddr) -> Result<Arc<Identity>, Failure> {
        self.limits.failed(address).await?;
        Err(Failure::Refused(refused))
    }

    /// The same where what is remembered does not tell, or is `stale` and serves if the store does not answer.
    async fn prove_anew(
        &self,
        settings: &Settings,
        presented: Presented<'_>,
        key: cache::CacheKey,
        stale: bool,
        Visit { address, metrics, .. }: Visit<'_>,
    ) -> Result<Arc<Identity>, Failure> {
        let mut visits = 0;
        let (looked_up, paid) = loop {
            visits += 1;
            let credential = presented.read();
            let mut toll = Toll::of(credential.as_ref().ok(), address, &self.limits);
            // who waits for another's look-up costs nothing until it is known how it ends; or a thousand requests at once
            // with one good credential would exhaust the budget for bad ones
            if !stale && !self.cache.is_looking_up(&key) {
                toll.reserve()?;
            }
            // it was good a moment ago: others' failures at the same address are not held against it
            let due = (!stale).then_some(&mut toll);
            let looked_up = match credential {
                Ok(credential) => self.look_up(key, settings, credential, stale, due).await,
                Err(error) => Err(refused(error)),
            };
            let paid = toll.end();
            match looked_up {
                // whoever began it had no budget left; this one may have
                Err(Failure::Exhausted(_)) if !paid && visits < VISITS_MAX => {}
                looked_up => break (looked_up, paid),
            }
        };
        if stale
            && looked_up == Err(Failure::Unavailable)
            && let Some(identity) = self.cache.find(&key).principal()
        {
            metrics.cache(CacheResult::Stale);
            return Ok(identity);
        }
        metrics.cache(CacheResult::Miss);
        // of the account nothing: the same guess again is no further one, and what was good before is none
        if !paid && matches!(looked_up, Err(Failure::Refused(_))) {
            self.limits.failed(address).await?;
        }
        looked_up
    }

    /// Looks a credential up, or waits for whoever is doing so. Whose look-up it is pays the toll, where one is due, in the
    /// look-up itself: once, whoever waits and whoever goes away.
    async fn look_up(
        &self,
        key: cache::CacheKey,
        settings: &Settings,
        credential: Credential,
        impatient: bool,
        due: Option<&mut Toll<'_>>,
    ) -> Result<Arc<Identity>, Failure> {
        let (parts, jwt, issuers) = (Arc::clone(&self.parts), Arc::clone(&settings.jwt), Arc::clone(&settings.issuers));
        let landing = self.cache.look_up(key, || {
            let toll = due.map(Toll::take);
            async move {
                let attempt = match toll {
                    Some(reserved) => Some(reserved?.confirm().await?),
                    None => None,
                };
                let verdict = timeout(LOOK_UP_TIMEOUT, verdict(&parts, &jwt, &issuers, credential)).await;
                let verdict = verdict.unwrap_or(Err(Failure::Unavailable));
                if let Some(attempt) = attempt
                    && !verdict.as_ref().is_ok_and(Verdict::is_refusal)
                {
                    attempt.succeeded().await;
                }
                verdict
            }
        });
        if !impatient {
            return landing.await;
        }
        timeout(PATIENCE, landing).await.unwrap_or_else(|_| {
            self.cache.store_is_down();
            Err(Failure::Unavailable)
        })
    }

    fn cache_key(&self, settings: &Settings, presented: Presented<'_>) -> cache::CacheKey {
        let seen = self.keyings.load();
        let made;
        let keyings = match &*seen {
            Some(seen) if seen.are_of(settings) => seen,
            Some(_) | None => {
                made = self.make_keyings(settings);
                &made
            }
        };
        let keying = match presented.scheme {
            Scheme::Basic => keyings.basic,
            Scheme::Token => keyings.token,
            Scheme::Bearer => keyings.bearer,
        };
        keying.key(presented.rest)
    }

    /// Once for each snapshot; by content, so that a reload that changes something else keeps what is remembered.
    fn make_keyings(&self, settings: &Settings) -> Arc<Keyings> {
        let mut context = Context::new(&SHA256);
        settings.jwt.digest(&mut context);
        settings.issuers.iter().for_each(|issuer| issuer.digest(&mut context));
        let keyings = Arc::new(Keyings {
            realm: settings.realm.clone(),
            jwt: Arc::clone(&settings.jwt),
            issuers: Arc::clone(&settings.issuers),
            basic: self.cache.keys(Scheme::Basic, settings.realm.as_bytes()),
            token: self.cache.keys(Scheme::Token, settings.realm.as_bytes()),
            bearer: self.cache.keys(Scheme::Bearer, context.finish().as_ref()),
        });
        self.keyings.store(Some(Arc::clone(&keyings)));
        keyings
    }

    /// The account of `subject`, where `password` is its password or secret and it may be used; not remembered. Takes as
    /// long for an unknown subject. The account's hash is not in the answer.
    ///
    /// # Errors
    /// [`Failure::Refused`] with [`Fault::Credentials`], or why it could not be said.
    pub async fn verify_password(&self, subject: Subject, password: Secret<String>) -> Result<Account, Failure> {
        basic::verify(&*self.parts.store, &self.parts.passwords, subject, password).await
    }

    /// The claims of a JWT of ours that is good as far as it can tell itself.
    ///
    /// # Errors
    /// Why it is not.
    pub fn read_jwt(&self, settings: &JwtSettings, token: &str, kind: JwtKind) -> Result<Claims, TokenFault> {
        bearer::read(token, settings, &self.parts.keys.ring(settings), kind, self.parts.clock.unix())
    }

    /// Whose a JWT of ours is that [`Self::read_jwt`] refuses though its signature holds, as far as its claims bear the name;
    /// for the audit log.
    pub fn owner_of_jwt(&self, settings: &JwtSettings, token: &str) -> Option<Subject> {
        bearer::owner(token, settings, &self.parts.keys.ring(settings))
    }

    /// The claims of an access JWT of ours that is good but for its time: for whoever asks that it end, never for a path.
    ///
    /// # Errors
    /// Why it is not.
    pub fn read_jwt_whenever(&self, settings: &JwtSettings, token: &str) -> Result<Claims, TokenFault> {
        bearer::read_whenever(token, settings, &self.parts.keys.ring(settings), JwtKind::Access)
    }

    /// The claims of a JWT of another issuer that is good as far as it can tell itself, with their subject as logs name it,
    /// and what it is revoked by; `None` for a token of nobody whom we believe.
    ///
    /// # Errors
    /// [`Failure::Refused`] where it is no good, or [`Failure::NoKeys`].
    pub async fn read_foreign(
        &self,
        settings: &Settings,
        token: &str,
    ) -> Result<Option<(Claims, Option<Arc<str>>)>, Failure> {
        let Ok(compact) = bearer::Compact::parse(token) else { return Ok(None) };
        let Some(issuer) = issuers::named(&settings.issuers, &compact) else { return Ok(None) };
        let claims = issuers::read(&self.parts, issuer, &compact).await?;
        let id = claims.id.as_ref().map(|jti| issuer.revocation_id(jti));
        Ok(Some((claims, id)))
    }

    /// The subject of such claims by its name, also where they bear the id of its row.
    ///
    /// # Errors
    /// [`Failure::Refused`] where there is no such row, or why it could not be said.
    pub async fn named(&self, settings: &JwtSettings, subject: Subject) -> Result<Subject, Failure> {
        bearer::named(&self.parts, settings, subject).await
    }

    /// The principal of such claims by what the store knows now of its subject and ids; not remembered.
    ///
    /// # Errors
    /// [`Failure::Refused`] with [`Fault::Token`] where they are revoked or the subject is gone, or why it could not be
    /// said.
    pub async fn standing(&self, settings: &JwtSettings, claims: &Claims) -> Result<Principal, Failure> {
        bearer::standing(&self.parts, settings, claims).await
    }
}

async fn verdict(
    parts: &LookUp,
    jwt: &JwtSettings,
    issuers: &[Issuer],
    credential: Credential,
) -> Result<Verdict, Failure> {
    match credential {
        Credential::Basic { user, password } => basic::look_up(parts, user, password).await,
        Credential::Token(token) => token::look_up(parts, token.expose()).await,
        Credential::Bearer(token) => bearer::look_up(parts, jwt, issuers, token.expose()).await,
    }
}

/// What a credential that was not seen before draws on until it is known to be good. Basic also draws on what its account
/// has: or passwords could be guessed on any route, past the limits of the log-in.
struct Toll<'a> {
    limits: &'a Limits,
    address: IpAddr,
    account: Option<Subject>,
    reserved: Option<Reserved>,
    is_taken: bool,
}

impl<'a> Toll<'a> {
    fn of(credential: Option<&Credential>, address: IpAddr, limits: &'a Limits) -> Self {
        let account = match credential {
            Some(Credential::Basic { user, .. }) => Some(Subject::user(user.as_str())),
            Some(Credential::Token(_) | Credential::Bearer(_)) | None => None,
        };
        Self { limits, address, account, reserved: None, is_taken: false }
    }

    /// Finds out whether there is enough, before anything else is done.
    fn reserve(&mut self) -> Result<(), Exhausted> {
        self.reserved = Some(self.limits.guess(self.account.as_ref(), self.address)?);
        Ok(())
    }

    /// For the look-up that it pays for.
    fn take(&mut self) -> Result<Reserved, Exhausted> {
        self.is_taken = true;
        // there is none yet where the look-up of another has just ended, which was to be waited for
        self.reserved.take().map_or_else(|| self.limits.guess(self.account.as_ref(), self.address), Ok)
    }

    /// Whether a look-up was paid with it; what was not needed is given back.
    fn end(self) -> bool {
        if let Some(reserved) = self.reserved {
            reserved.cancel();
        }
        self.is_taken
    }
}

/// What is counted; a credential that was not looked at is not.
fn outcome(proved: &Result<Arc<Identity>, Failure>) -> Option<AuthOutcome> {
    match proved {
        Ok(_) => Some(AuthOutcome::Accepted),
        Err(Failure::Refused(_)) => Some(AuthOutcome::Refused),
        Err(Failure::Unavailable | Failure::NoKeys | Failure::Busy | Failure::Internal) => {
            Some(AuthOutcome::Unavailable)
        }
        Err(Failure::Exhausted(_)) => None,
    }
}

/// What is wrong with a credential; for the log, never for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A name and a password.
    Credentials(CredentialsFault),
    /// A token of this scheme.
    Token(Scheme, TokenFault),
}

/// That a credential is no good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub fault: Fault,
    /// Whose token it was, where it says that itself in a way that can be believed, or the store knows it; for the audit log.
    pub whose: Option<Arc<Subject>>,
}

impl Refused {
    /// A token for its claims or for what the store knows.
    fn token(scheme: Scheme, fault: TokenFault, whose: Option<Subject>) -> Self {
        Self { fault: Fault::Token(scheme, fault), whose: whose.map(Arc::new) }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { fault, whose: None }
    }
}

fn refused(error: CredentialError) -> Failure {
    Failure::Refused(Fault::from(error).into())
}

/// Why a credential proved nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is no good.
    Refused(Refused),
    /// The store does not answer.
    Unavailable,
    /// The keys of the token's issuer could not be fetched yet.
    NoKeys,
    /// Too many passwords or look-ups wait already.
    Busy,
    /// A bug of ours.
    Internal,
    /// It was not looked at: a limit of failed ones is reached.
    Exhausted(Exhausted),
}

/// What a look-up came to. A refusal is an answer, which may be remembered; any other failure is none.
///
/// # Errors
/// Why there is no answer.
pub fn answered<T>(found: Result<T, Failure>) -> Result<Result<T, Refused>, Failure> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(Failure::Refused(refused)) => Ok(Err(refused)),
        Err(
            failure @ (Failure::Unavailable
            | Failure::NoKeys
            | Failure::Busy
            | Failure::Internal
            | Failure::Exhausted(_)),
        ) => Err(failure),
    }
}

impl From<Exhausted> for Failure {
    fn from(exhausted: Exhausted) -> Self {
        Self::Exhausted(exhausted)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => tracing::debug!(error = %error, "store does not answer"),
            StoreError::Broken(_) | StoreError::Cannot(_) => tracing::error!(error = %error, "store is not usable"),
        }
        Self::Unavailable
    }
}

impl From<QueueFull> for Failure {
    fn from(_: QueueFull) -> Self {
        Self::Busy
    }
}

impl From<CredentialError> for Fault {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Malformed(scheme @ (Scheme::Token | Scheme::Bearer)) => {
                Self::Token(scheme, TokenFault::MalformedHeader)
            }
            CredentialError::Malformed(Scheme::Basic)
            | CredentialError::Repeated
            | CredentialError::UnsupportedScheme => Self::Credentials(CredentialsFault::Malformed),
        }
    }
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Credentials(fault) => Self::InvalidCredentials(fault),
            Fault::Token(scheme, fault) => Self::InvalidToken(scheme, fault),
        }
    }
}

impl From<Failure> for Rejection {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refused) => refused.fault.into(),
            Failure::Unavailable => Self::StoreUnavailable,
            Failure::NoKeys => Self::KeysUnavailable,
            Failure::Busy => Self::PasswordQueueFull,
            Failure::Internal => Self::Internal,
            Failure::Exhausted(exhausted) => Self::RateLimited(exhausted),
        }
    }
}

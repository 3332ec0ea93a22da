//! Keys that sign and verify JWTs: those of the configuration, and our own in the store.
//!
//! An algorithm belongs to a key, never to a token: a token's `alg` and `kid` only choose among the keys we have, so a
//! public key cannot become an HMAC secret (RFC 8725 3.1).

mod key;
mod ring;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::JwtSettings;
use crate::clock::{Clock, UnixSeconds};
use crate::secret::Secret;
use crate::store::{Store, StoreError, StoredKey};

pub use self::key::{Algorithm, Key, KeyError};
pub use self::ring::KeyRing;

/// Why the keys of the store could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeysError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored key is not usable.
    #[error("a signing key in the store: {0}")]
    Key(#[from] KeyError),
    /// A stored key has an algorithm of a newer version.
    #[error("a signing key in the store has an unknown algorithm")]
    UnknownAlgorithm,
}

/// Our own keys, as the store has them; the ring turns by itself when a key's time comes or ends.
pub struct Keys {
    store: Arc<dyn Store>,
    clock: Clock,
    stored: ArcSwap<Stored>,
}

struct Stored {
    keys: Vec<TimedKey>,
    ring: Arc<KeyRing>,
    /// When the ring must be made anew, in unix seconds.
    until: UnixSeconds,
}

#[derive(Clone)]
struct TimedKey {
    key: Arc<Key>,
    signs_from: UnixSeconds,
    verifies_until: Option<UnixSeconds>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.stored.load().ring).finish()
    }
}

impl Keys {
    /// The keys of the store; the first one is made where it has none.
    ///
    /// # Errors
    /// The store fails, or holds a key that cannot be used.
    pub async fn load(store: Arc<dyn Store>, clock: Clock) -> Result<Self, KeysError> {
        let stored = ArcSwap::from_pointee(read(&*store, &clock).await?);
        Ok(Self { store, clock, stored })
    }

    /// Reads them again. Whoever hears of `Change::Keys` calls this first and notes the change afterwards: in the other
    /// order a token of a removed key could be verified by the old ring and be remembered as looked up after the change.
    ///
    /// # Errors
    /// As [`Keys::load`]; the keys of before stay.
    pub async fn reload(&self) -> Result<(), KeysError> {
        self.stored.store(Arc::new(read(&*self.store, &self.clock).await?));
        Ok(())
    }

    /// The keys to sign and verify with under `settings`: those of the file, else those of the store.
    pub fn ring(&self, settings: &JwtSettings) -> Arc<KeyRing> {
        if let Some(ring) = &settings.keys {
            return Arc::clone(ring);
        }
        let stored = self.stored.load();
        let now = self.clock.unix();
        if now < stored.until {
            return Arc::clone(&stored.ring);
        }
        // where every key has ended none is left, and nothing verifies: `reload` brings the next
        let turned = Stored::at(stored.keys.clone(), now).unwrap_or_else(|_| Stored::none());
        let ring = Arc::clone(&turned.ring);
        // only over what was read above: a reload in between has newer keys
        self.stored.compare_and_swap(&stored, Arc::new(turned));
        ring
    }
}

/// A new `EdDSA` key for the store.
///
/// # Errors
/// No randomness.
pub fn generate(signs_from: UnixSeconds) -> Result<StoredKey, KeyError> {
    let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::SigningFailed)?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::SigningFailed)?;
    let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, pair.public_key().as_ref()).as_ref().split_at(9).0);
    Ok(StoredKey {
        id: id.into(),
        algorithm: Algorithm::EdDSA.name().into(),
        private_key: Secret::new(pkcs8.as_ref().to_vec()),
        signs_from,
        verifies_until: None,
    })
}

async fn read(store: &dyn Store, clock: &Clock) -> Result<Stored, KeysError> {
    let mut keys = store.keys(clock.unix()).await?;
    if keys.is_empty() {
        // where another process is first, its key is the one that the store has then
        let _another_was_first = store.add_first_key(generate(clock.unix())?).await?;
        keys = store.keys(clock.unix()).await?;
    }
    let keys = keys.iter().map(parse).collect::<Result<_, _>>()?;
    Ok(Stored::at(keys, clock.unix())?)
}

fn parse(stored: &StoredKey) -> Result<TimedKey, KeysError> {
    let algorithm = Algorithm::from_name(&stored.algorithm).ok_or(KeysError::UnknownAlgorithm)?;
    let key = Key::from_pkcs8_der(&*stored.id, algorithm, stored.private_key.expose())?;
    Ok(TimedKey { key: Arc::new(key), signs_from: stored.signs_from, verifies_until: stored.verifies_until })
}

impl Stored {
    /// No key at all, until the next reload.
    fn none() -> Self {
        Self { keys: Vec::new(), ring: Arc::new(KeyRing(Vec::new())), until: UnixSeconds::MAX }
    }

    /// The ring at `now`: of the keys that sign already, the newest; those that have ended are left out.
    fn at(mut keys: Vec<TimedKey>, now: UnixSeconds) -> Result<Self, KeyError> {
        keys.retain(|key| key.verifies_until.is_none_or(|until| now < until));
        let rank = |key: &TimedKey| (key.verifies_until.is_none(), key.signs_from);
        let signer = keys
            .iter()
            .filter(|key| key.signs_from <= now)
            .max_by_key(|key| rank(key))
            // none has begun (our clock is behind the one that made it): the one that begins first
            .or_else(|| keys.iter().min_by_key(|key| key.signs_from))
            .ok_or(KeyError::NoKey)?;
        let signer = Arc::clone(&signer.key);
        let rest = keys.iter().map(|key| &key.key).filter(|key| !Arc::ptr_eq(key, &signer)).cloned();
        let ring = Arc::new(KeyRing::of(std::iter::once(Arc::clone(&signer)).chain(rest).collect())?);
        let turns = keys.iter().flat_map(|key| [Some(key.signs_from), key.verifies_until]).flatten();
        let until = turns.filter(|&turn| turn > now).min().unwrap_or(UnixSeconds::MAX);
        Ok(Self { keys, ring, until })
    }
}

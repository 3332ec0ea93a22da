//! `auth.jwt.keys`: read, parsed and put in a ring.

use std::collections::HashSet;

use super::super::decode::Placed;
use super::super::model::auth;
use super::super::report::Report;
use super::{Files, refuse};
use crate::authenticate::keys::{Key, KeyRing};
use crate::secret::Secret;

pub(super) fn compile(keys: Placed<Vec<auth::Key>>, files: &mut Files, report: &mut Report) -> Option<KeyRing> {
    let mut seen = HashSet::new();
    let mut compiled = Vec::new();
    let mut complete = true;
    for (index, key) in keys.value.into_iter().enumerate() {
        if !seen.insert(key.id.value.clone()) {
            report.add(key.id.place, "a key of this id is given above already");
            complete = false;
        }
        if index == 0 && matches!(key.material, Some(auth::KeyMaterial::PublicFile(_))) {
            report.add(key.place, "the first key signs; a `public_key` cannot");
            complete = false;
        }
        match compile_key(key, files, report) {
            Some(key) => compiled.push(key),
            None => complete = false,
        }
    }
    if !complete || compiled.is_empty() {
        return None; // what was wrong is in the report
    }
    KeyRing::new(compiled).map_err(|error| report.add(keys.place, error.to_string())).ok()
}

fn compile_key(key: auth::Key, files: &mut Files, report: &mut Report) -> Option<Key> {
    let (id, algorithm) = (&*key.id.value, key.algorithm?);
    let (path, parsed) = match key.material? {
        auth::KeyMaterial::Secret(place, source) => {
            let secret = files.secret(source, report)?;
            let parsed = Key::hmac(id, algorithm, Secret::new(secret.expose().as_bytes().to_vec()));
            return parsed.map_err(|error| report.add(place, error.to_string())).ok();
        }
        auth::KeyMaterial::PrivateFile(path) => {
            let pem = zeroize::Zeroizing::new(files.read(&path, report)?);
            let parsed = Key::private_pem(id, algorithm, &pem);
            (path, parsed)
        }
        auth::KeyMaterial::PublicFile(path) => {
            let pem = files.read(&path, report)?;
            let parsed = Key::public_pem(id, algorithm, &pem);
            (path, parsed)
        }
    };
    parsed.map_err(|error| refuse(&path, &format!("cannot be used: {error}"), report)).ok()
}

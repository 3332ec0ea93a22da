//! The certificate of a first run: made by ourselves, kept beside the store, made anew once it ends or the names differ.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::certificates::facts;
use super::tls::{CertificateFiles, TlsError};
use crate::clock::{Clock, UnixSeconds};

const CERTIFICATE: &str = "portcullis-selfsigned.pem";
const KEY: &str = "portcullis-selfsigned.key";

/// About as long as browsers take a certificate for.
const VALID: Duration = Duration::from_hours(365 * 24);

/// A clock of a caller may be behind.
const BEFORE: Duration = Duration::from_hours(24);

/// One that ends within this time is made anew.
const RENEWED_BEFORE: UnixSeconds = 86400;

/// Whether a certificate could be provided.
pub(super) fn check(names: &[Box<str>], directory: &Path) -> Result<(), TlsError> {
    let path = directory.join(CERTIFICATE);
    if names.is_empty() {
        return Err(TlsError::new(&path, "no names to sign for"));
    }
    CertificateParams::new(wanted(names)).map_err(|error| TlsError::new(&path, error.to_string())).map(drop)
}

/// The files of a certificate for these names: those that are there if they fit, else new ones.
pub(super) fn provide(names: &[Box<str>], directory: &Path) -> Result<CertificateFiles, TlsError> {
    check(names, directory)?;
    let files = CertificateFiles { cert: directory.join(CERTIFICATE), key: directory.join(KEY) };
    let clock = Clock::system();
    if !fits(&files, names, clock.unix()) {
        make(&files, names, &clock)?;
    }
    Ok(files)
}

/// What is signed for: whoever asks for `localhost` means its addresses too.
fn wanted(names: &[Box<str>]) -> Vec<String> {
    let mut wanted: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    if wanted.iter().any(|name| name == "localhost") {
        wanted.extend(["127.0.0.1", "::1"].map(str::to_owned));
    }
    let mut seen = BTreeSet::new();
    wanted.retain(|name| seen.insert(name.clone()));
    wanted
}

fn fits(files: &CertificateFiles, names: &[Box<str>], now: UnixSeconds) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_file(&files.cert) else { return false };
    let Some(facts) = facts(&certificate) else { return false };
    let there: BTreeSet<&str> = facts.names.iter().map(AsRef::as_ref).collect();
    let wanted = wanted(names);
    let same_names = wanted.iter().map(String::as_str).collect::<BTreeSet<_>>() == there;
    same_names && facts.not_after > now.saturating_add(RENEWED_BEFORE) && files.key.exists()
}

fn make(files: &CertificateFiles, names: &[Box<str>], clock: &Clock) -> Result<(), TlsError> {
    let unmakable = |error: rcgen::Error| TlsError::new(&files.cert, error.to_string());
    let wanted = wanted(names);
    let mut params = CertificateParams::new(wanted.clone()).map_err(unmakable)?;
    let common = wanted.iter().find(|name| name.parse::<IpAddr>().is_err()).or_else(|| wanted.first());
    params.distinguished_name.push(DnType::CommonName, common.map_or("portcullis", String::as_str));
    params.not_before = (clock.wall() - BEFORE).into();
    params.not_after = (clock.wall() + VALID).into();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unmakable)?;
    let certificate = params.self_signed(&key).map_err(unmakable)?;
    // the key first: a certificate without its key would be taken for one that fits
    write(&files.key, key.serialize_pem().as_bytes())?;
    write(&files.cert, certificate.pem().as_bytes())
}

/// Writes a file that only we can read, whole or not at all.
fn write(path: &Path, text: &[u8]) -> Result<(), TlsError> {
    let failed = |error: std::io::Error| TlsError::new(path, error.to_string());
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = Path::new(&unfinished);
    // what a crash left there may have other permissions
    if let Err(error) = std::fs::remove_file(unfinished)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(failed(error));
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished).map_err(failed)?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(unfinished, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_kept_until_it_does_not_fit() {
        let directory = tempfile::tempdir().unwrap();
        let names = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect::<Vec<Box<str>>>();
        let local = names(&["localhost"]);
        let files = provide(&local, directory.path()).unwrap();
        let (first, key) = (std::fs::read(&files.cert).unwrap(), std::fs::metadata(&files.key).unwrap());
        assert_eq!(key.permissions().mode() & 0o777, 0o600);

        provide(&local, directory.path()).unwrap();
        assert_eq!(std::fs::read(&files.cert).unwrap(), first, "the same names keep it");
        let now = Clock::system().unix();
        for (name, later, expected) in [("today", 0, true), ("in a year", 366 * 86400, false)] {
            assert_eq!(fits(&files, &local, now + later), expected, "{name}");
        }
        let more = names(&["localhost", "gateway.internal"]);
        provide(&more, directory.path()).unwrap();
        assert_ne!(std::fs::read(&files.cert).unwrap(), first, "other names do not");
        std::fs::remove_file(&files.key).unwrap();
        assert!(!fits(&files, &more, now), "nor does it without its key");
    }

    #[test]
    fn localhost_is_its_addresses_too() {
        assert_eq!(wanted(&["localhost".into(), "127.0.0.1".into()]), ["localhost", "127.0.0.1", "::1"]);
        assert_eq!(wanted(&["a.example".into()]), ["a.example"]);
    }

    #[test]
    fn it_needs_a_name_and_a_directory() {
        assert!(provide(&[], Path::new("/")).is_err());
        let error = provide(&["localhost".into()], Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/at/all/portcullis-selfsigned.key"), "{error}");
    }
}

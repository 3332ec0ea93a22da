//! What servers that we ask must show, and what we show them.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::super::decode::Placed;
use super::super::model::PairOfFiles;
use super::super::model::upstreams::Tls;
use super::super::report::{Place, Report};
use super::{Files, refuse};
use crate::forward::{FileDigest, TlsFiles};

/// The system's roots, or those built in where an image has none; read where they are first needed.
#[derive(Default)]
pub(super) struct SystemRoots(Option<Roots>);

/// Whom we trust, and the digest of it.
#[derive(Clone)]
struct Roots {
    store: Arc<RootCertStore>,
    sha256: [u8; 32],
}

impl Roots {
    fn of(store: RootCertStore) -> Self {
        // a system gives its roots in any order
        let mut anchors: Vec<String> = store.roots.iter().map(|anchor| format!("{anchor:?}")).collect();
        anchors.sort_unstable();
        let sha256 = sha256(anchors.iter().map(String::as_bytes));
        Self { store: Arc::new(store), sha256 }
    }
}

impl SystemRoots {
    fn all(&mut self) -> Roots {
        let read = || {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            Roots::of(roots)
        };
        self.0.get_or_insert_with(read).clone()
    }
}

/// The settings for connections to servers.
pub(super) struct Client {
    /// As the section `tls` has them.
    pub(super) config: Arc<ClientConfig>,
    /// The files that are named there.
    pub(super) files: TlsFiles,
    /// SHA-256 of whom `config` trusts and what it shows.
    pub(super) content: [u8; 32],
}

/// The settings for connections to servers, as the section `tls` has them.
pub(super) fn client(
    tls: Option<Tls>,
    place: Place,
    system: &mut SystemRoots,
    files: &mut Files,
    report: &mut Report,
) -> Option<Client> {
    let mut named = TlsFiles::default();
    let (ca, certificate) = tls.map_or((None, None), |tls| (tls.ca, tls.certificate));
    let roots = match ca {
        Some(path) => {
            let certificates = certificates(&path, files, report)?;
            named.ca = Some(digest(&path, &certificates));
            Roots::of(roots_of(&path, certificates, report)?)
        }
        None => system.all(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| report.add(place, format!("TLS cannot be set up: {error}")))
        .ok()?
        .with_root_certificates(roots.store);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(PairOfFiles { cert, key }) => {
            let chain = certificates(&cert, files, report);
            let private = private_key(&key, files, report);
            let chain = chain?;
            named.cert = Some(digest(&cert, &chain));
            builder
                .with_client_auth_cert(chain, private?)
                .map_err(|error| report.add(key.place, format!("this key cannot be used: {error}")))
                .ok()?
        }
    };
    // the key of a certificate is the one that fits it
    let shown = named.cert.as_ref().map(|file| file.sha256);
    let content = sha256([&roots.sha256[..]].into_iter().chain(shown.as_ref().map(|shown| &shown[..])));
    Some(Client { config: Arc::new(config), files: named, content })
}

fn digest(path: &Placed<Box<str>>, certificates: &[CertificateDer<'static>]) -> FileDigest {
    FileDigest { path: path.value.clone(), sha256: sha256(certificates.iter().map(|certificate| &**certificate)) }
}

/// The digest of a list: where one part ends and the next begins counts.
pub(super) fn sha256<'p>(parts: impl Iterator<Item = &'p [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    sha256
}

fn roots_of(
    path: &Placed<Box<str>>,
    certificates: Vec<CertificateDer<'static>>,
    report: &mut Report,
) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        if let Err(error) = roots.add(certificate) {
            refuse(path, &format!("has a certificate that cannot be used: {error}"), report);
            return None;
        }
    }
    Some(roots)
}

fn certificates(
    path: &Placed<Box<str>>,
    files: &mut Files,
    report: &mut Report,
) -> Option<Vec<CertificateDer<'static>>> {
    let pem = files.read(path, report)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.ok().filter(|certificates| !certificates.is_empty());
    if certificates.is_none() {
        refuse(path, "is not a certificate in PEM", report);
    }
    certificates
}

fn private_key(path: &Placed<Box<str>>, files: &mut Files, report: &mut Report) -> Option<PrivateKeyDer<'static>> {
    let pem = zeroize::Zeroizing::new(files.read(path, report)?);
    let key = PrivateKeyDer::from_pem_slice(&pem).ok();
    if key.is_none() {
        refuse(path, "is not a private key in PEM", report);
    }
    key
}

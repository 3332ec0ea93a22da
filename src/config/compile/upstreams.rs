//! Upstreams: their names, and what they trust over TLS.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::super::decode::Placed;
use super::super::model::PairOfFiles;
use super::super::model::upstreams::{Kind, Servers, Tls, Upstream};
use super::super::report::{Place, Report};
use super::Files;
use crate::forward::{FileDigest, Protocol, ServerGroup, TlsFiles, UpstreamKind, UpstreamSettings, UpstreamTls};
use crate::route::UpstreamId;

/// Upstreams by name; one whose own section is wrong is known too, so that its routes are not reported with it.
pub(super) struct Names(HashMap<Box<str>, UpstreamId>);

impl Names {
    pub(super) fn of(upstreams: &[Upstream]) -> Self {
        let names = upstreams.iter().enumerate();
        Self(names.map(|(index, upstream)| (upstream.name.value.clone(), UpstreamId(index))).collect())
    }

    /// The upstream of a route; `hidden`: its name came from the environment and is not shown.
    pub(super) fn resolve(&self, name: &Placed<Box<str>>, hidden: bool, report: &mut Report) -> Option<UpstreamId> {
        let id = self.0.get(&name.value).copied();
        if id.is_none() && hidden {
            report.add(name.place, "the value of this variable is not the name of an upstream");
        } else if id.is_none() {
            report.unknown(name.place, "upstream", &name.value, self.0.keys().map(|name| &**name));
        }
        id
    }
}

pub(super) fn compile(
    upstreams: Vec<Upstream>,
    files: &mut Files,
    report: &mut Report,
) -> Option<Vec<UpstreamSettings>> {
    let mut system_roots = None;
    let mut compiled = Vec::with_capacity(upstreams.len());
    let mut complete = true;
    for upstream in upstreams {
        let kind = match upstream.kind {
            None => None,
            Some(Kind::Echo) => Some(UpstreamKind::Echo),
            Some(Kind::Servers(servers)) => group(*servers, upstream.name.place, &mut system_roots, files, report),
        };
        match kind {
            Some(kind) => compiled.push(UpstreamSettings { name: (*upstream.name.value).into(), kind }),
            None => complete = false,
        }
    }
    complete.then_some(compiled)
}

fn group(
    servers: Servers,
    place: Place,
    system_roots: &mut Option<Arc<RootCertStore>>,
    files: &mut Files,
    report: &mut Report,
) -> Option<UpstreamKind> {
    let Servers { servers, balance, health, keep_alive, tls } = servers;
    let tls = if servers.iter().any(|server| server.protocol == Protocol::Https) {
        Some(client_tls(tls, place, system_roots, files, report)?)
    } else {
        None
    };
    Some(UpstreamKind::Servers(Arc::new(ServerGroup { servers, balance, health, keep_alive, tls })))
}

fn client_tls(
    tls: Option<Tls>,
    place: Place,
    system_roots: &mut Option<Arc<RootCertStore>>,
    files: &mut Files,
    report: &mut Report,
) -> Option<UpstreamTls> {
    let (ca, server_name, certificate) =
        tls.map_or((None, None, None), |tls| (tls.ca, tls.server_name, tls.certificate));
    let mut named = TlsFiles::default();
    let roots = match ca {
        Some(path) => {
            let certificates = certificates(&path, files, report)?;
            named.ca = Some(digest(&path, &certificates));
            Arc::new(roots_of(&path, certificates, report)?)
        }
        None => Arc::clone(system_roots.get_or_insert_with(|| Arc::new(system()))),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| report.add(place, format!("TLS cannot be set up: {error}")))
        .ok()?
        .with_root_certificates(roots);
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
    Some(UpstreamTls { config: Arc::new(config), server_name, files: named })
}

/// The system's roots; those built in where an image has none.
fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn digest(path: &Placed<Box<str>>, certificates: &[CertificateDer<'static>]) -> FileDigest {
    let mut context = Context::new(&SHA256);
    for certificate in certificates {
        context.update(certificate);
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    FileDigest { path: path.value.clone(), sha256 }
}

fn roots_of(
    path: &Placed<Box<str>>,
    certificates: Vec<CertificateDer<'static>>,
    report: &mut Report,
) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        if let Err(error) = roots.add(certificate) {
            report.add(path.place, format!("this file has a certificate that cannot be used: {error}"));
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
        report.add(path.place, "this file is not a certificate in PEM");
    }
    certificates
}

fn private_key(path: &Placed<Box<str>>, files: &mut Files, report: &mut Report) -> Option<PrivateKeyDer<'static>> {
    let pem = zeroize::Zeroizing::new(files.read(path, report)?);
    let key = PrivateKeyDer::from_pem_slice(&pem).ok();
    if key.is_none() {
        report.add(path.place, "this file is not a private key in PEM");
    }
    key
}

//! Listeners: addresses that do not meet, and certificates that are there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::super::decode::Placed;
use super::super::model::{Certificates, Listener, ListenerMode};
use super::super::report::{Place, Report};
use super::tls::sha256;
use super::{Files, refuse};
use crate::listen::tls::{self, CertificateFiles, CertificateSource};
use crate::listen::{Mode, Settings, meet};

pub(super) fn compile(
    listeners: &[Listener],
    store: &Path,
    admin: &Placed<SocketAddr>,
    files: &mut Files,
    report: &mut Report,
) -> Vec<Settings> {
    let mut compiled: Vec<Settings> = Vec::new();
    let any_tls = listeners.iter().any(|listener| matches!(listener.mode, ListenerMode::Tls { .. }));
    for listener in listeners {
        if compiled.iter().any(|other| meet(other.address, listener.address.value)) {
            report.add(listener.address.place, "another listener has this address already");
        }
        if meet(listener.address.value, admin.value) {
            // the place of the one that was written, where the other is a default
            let place = if admin.place == Place::START { listener.address.place } else { admin.place };
            report.add(place, "the address of `admin` and of a listener are the same: metrics are not for the public");
        }
        if let Some(mode) = mode(&listener.mode, any_tls, store, files, report) {
            compiled.push(Settings { address: listener.address.value, mode });
        }
    }
    compiled
}

fn mode(mode: &ListenerMode, any_tls: bool, store: &Path, files: &mut Files, report: &mut Report) -> Option<Mode> {
    match mode {
        ListenerMode::Plain => Some(Mode::Plain),
        ListenerMode::Redirect(place) => {
            if !any_tls {
                report.add(*place, "there is no listener with `tls` to redirect to");
            }
            Some(Mode::Redirect)
        }
        ListenerMode::Tls { place, certificates, min_version } => {
            let (source, shown) = source(certificates, store, files, report)?;
            let settings = tls::Settings { source, min_version: *min_version, shown };
            if let Err(error) = tls::check(&settings) {
                let what = format!("cannot be used: {}", error.problem);
                match file(certificates, &error.path, files) {
                    Some(path) => refuse(path, &what, report),
                    None => report.add(*place, format!("what is made for `self_signed` {what}")),
                }
            }
            Some(Mode::Tls(Arc::new(settings)))
        }
    }
}

fn source(
    certificates: &Certificates,
    store: &Path,
    files: &mut Files,
    report: &mut Report,
) -> Option<(CertificateSource, Option<[u8; 32]>)> {
    match certificates {
        Certificates::SelfSigned(names) => {
            let directory = store.parent().unwrap_or_else(|| Path::new("")).to_owned();
            Some((CertificateSource::SelfSigned { names: names.clone(), directory }, None))
        }
        Certificates::Files(pairs) => {
            // every file that cannot be read is told
            let read: Vec<_> = pairs
                .iter()
                .map(|pair| files.read(&pair.cert, report).zip(files.read(&pair.key, report).map(Zeroizing::new)))
                .collect();
            let certificates = read.into_iter().map(|pair| Some(pair?.0)).collect::<Option<Vec<_>>>()?;
            let pairs = pairs
                .iter()
                .map(|pair| CertificateFiles { cert: files.path(&pair.cert.value), key: files.path(&pair.key.value) });
            let shown = sha256(certificates.iter().map(Vec::as_slice));
            Some((CertificateSource::Files(pairs.collect()), Some(shown)))
        }
    }
}

fn file<'c>(certificates: &'c Certificates, path: &Path, files: &Files) -> Option<&'c Placed<Box<str>>> {
    match certificates {
        Certificates::SelfSigned(_) => None,
        Certificates::Files(pairs) => {
            pairs.iter().flat_map(|pair| [&pair.cert, &pair.key]).find(|file| files.path(&file.value) == path)
        }
    }
}

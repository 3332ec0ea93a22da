//! Listeners: addresses that do not meet, and certificates that are there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::super::decode::Placed;
use super::super::model::{Certificates, Listener, ListenerMode};
use super::super::report::{Place, Report};
use super::Files;
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
            let source = source(certificates, store, files, report)?;
            let settings = tls::Settings { source, min_version: *min_version };
            if let Err(error) = tls::check(&settings) {
                let place = file_place(certificates, &error.path, files).unwrap_or(*place);
                report.add(place, format!("this file cannot be used: {}", error.problem));
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
) -> Option<CertificateSource> {
    match certificates {
        Certificates::SelfSigned(names) => {
            let directory = store.parent().unwrap_or_else(|| Path::new("")).to_owned();
            Some(CertificateSource::SelfSigned { names: names.clone(), directory })
        }
        Certificates::Files(pairs) => {
            let mut readable = true;
            for path in pairs.iter().flat_map(|pair| [&pair.cert, &pair.key]) {
                readable &= files.read(path, report).is_some();
            }
            let pairs = pairs
                .iter()
                .map(|pair| CertificateFiles { cert: files.path(&pair.cert.value), key: files.path(&pair.key.value) });
            readable.then(|| CertificateSource::Files(pairs.collect()))
        }
    }
}

fn file_place(certificates: &Certificates, path: &Path, files: &Files) -> Option<Place> {
    match certificates {
        Certificates::SelfSigned(_) => None,
        Certificates::Files(pairs) => pairs
            .iter()
            .flat_map(|pair| [&pair.cert, &pair.key])
            .find(|file| files.path(&file.value) == path)
            .map(|file| file.place),
    }
}

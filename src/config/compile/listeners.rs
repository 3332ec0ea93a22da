//! Listeners: addresses that do not meet, and certificates that are there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::super::decode::Placed;
use super::super::model::{Certificates, Listener, ListenerMode};
use super::super::report::{Place, Report};
use super::Files;
use crate::listen::tls::{self, CertificateFiles, CertificateSource};
use crate::listen::{Mode, Settings};

pub(super) fn compile(
    listeners: &[Listener],
    store: &Path,
    admin: &Placed<SocketAddr>,
    files: &mut Files,
    report: &mut Report,
) -> Vec<Settings> {
    let mut compiled: Vec<Settings> = Vec::new();
    let first_tls = listeners.iter().find(|listener| matches!(listener.mode, ListenerMode::Tls { .. }));
    let https_port = first_tls.map(|listener| listener.address.value.port());
    for listener in listeners {
        if compiled.iter().any(|other| meet(other.address, listener.address.value)) {
            report.add(listener.address.place, "another listener has this address already");
        }
        if meet(listener.address.value, admin.value) {
            // the place of the one that was written, where the other is a default
            let place = if admin.place == Place::START { listener.address.place } else { admin.place };
            report.add(place, "the address of `admin` and of a listener are the same: metrics are not for the public");
        }
        if let Some(mode) = mode(&listener.mode, https_port, store, files, report) {
            compiled.push(Settings { address: listener.address.value, mode });
        }
    }
    compiled
}

/// Whether both cannot be bound at once: the same port, and the same address or one that stands for all.
fn meet(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn mode(
    mode: &ListenerMode,
    https_port: Option<u16>,
    store: &Path,
    files: &mut Files,
    report: &mut Report,
) -> Option<Mode> {
    match mode {
        ListenerMode::Plain => Some(Mode::Plain),
        ListenerMode::Redirect(place) => {
            if https_port.is_none() {
                report.add(*place, "there is no listener with `tls` to redirect to");
            }
            Some(Mode::Redirect { https_port: https_port? })
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

#[cfg(test)]
mod tests {
    use super::meet;

    #[test]
    fn addresses_meet_where_one_covers_the_other() {
        for (a, b, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "[::]:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(meet(a.parse().unwrap(), b.parse().unwrap()), expected, "{a} {b}");
        }
    }
}

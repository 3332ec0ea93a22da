//! `limits.shared`: where the counts of all gateways are.

use std::sync::Arc;

use super::super::model::settings;
use super::super::model::upstreams::Tls;
use super::super::report::Report;
use super::Files;
use super::tls::{self, SystemRoots};
use crate::limit::shared::{Address, Settings};

pub(super) fn shared(
    model: settings::Shared,
    roots: &mut SystemRoots,
    files: &mut Files,
    report: &mut Report,
) -> Option<Settings> {
    let settings::Shared { url, tls } = model;
    let place = url.place;
    let url = files.secret(url.value, report)?;
    let server_name = tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    // the URL is never in a message: it may hold a password
    let address = Address::parse(url.expose(), server_name).map_err(|wrong| report.add(place, wrong)).ok()?;
    let tls = if address.is_tls() {
        Some(tls::client(tls, place, roots, files, report)?)
    } else {
        if let Some(Tls { place, .. }) = tls {
            report.add(place, "`tls` is for `rediss://`");
        }
        None
    };
    let (config, content) = tls.map(|tls::Client { config, content, files: _ }| (config, content)).unzip();
    Some(Settings { address: Arc::new(address), tls: config, content })
}

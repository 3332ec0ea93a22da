//! `auth.issuers`: whose tokens are taken beside ours, with the keys of those whose keys are in a file.

use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::super::decode::Placed;
use super::super::model::issuers::{self, JwksSource, JwksUrl};
use super::super::report::Report;
use super::tls::{self, SystemRoots};
use super::{Files, refuse};
use crate::authenticate::issuers::fetch::{Location, Tls};
use crate::authenticate::issuers::jwks::KeySet;
use crate::authenticate::issuers::{Issuer, Jwks};
use crate::authenticate::keys::Algorithm;
use crate::authenticate::{JwtSettings, RoleSource};
use crate::principal::{IssuerId, SubjectKind};

pub(super) fn compile(
    issuers: Vec<issuers::Issuer>,
    jwt: &JwtSettings,
    roots: &mut SystemRoots,
    files: &mut Files,
    report: &mut Report,
) -> Vec<Issuer> {
    let mut compiled: Vec<Issuer> = Vec::with_capacity(issuers.len());
    for issuer in issuers {
        let name = &issuer.issuer;
        if name.value == jwt.issuer {
            report.add(name.place, "this is what our own tokens name as their issuer (`auth.jwt.issuer`)");
        } else if compiled.iter().any(|known| known.claims.issuer == name.value) {
            report.add(name.place, "this issuer is given above already");
        }
        compiled.extend(one(issuer, jwt, roots, files, report));
    }
    compiled
}

fn one(
    issuer: issuers::Issuer,
    jwt: &JwtSettings,
    roots: &mut SystemRoots,
    files: &mut Files,
    report: &mut Report,
) -> Option<Issuer> {
    let id = IssuerId::of(&issuer.issuer.value);
    let jwks = match issuer.jwks {
        JwksSource::File(path) => Jwks::File(keys(&path, &issuer.algorithms, files, report)?),
        JwksSource::Url(url) => Jwks::Remote(Arc::new(location(url, issuer.tls, roots, files, report)?)),
    };
    Some(Issuer {
        id,
        claims: JwtSettings {
            audience: issuer.audience,
            leeway: jwt.leeway,
            roles: RoleSource::Claim(issuer.roles),
            subject: issuer.user,
            subject_kind: SubjectKind::Foreign(id),
            ..JwtSettings::of(issuer.issuer.value)
        },
        algorithms: issuer.algorithms,
        user_prefix: issuer.user_prefix,
        jwks,
    })
}

fn keys(path: &Placed<Box<str>>, algorithms: &[Algorithm], files: &mut Files, report: &mut Report) -> Option<KeySet> {
    let json = files.read(path, report)?;
    match KeySet::parse(&json, algorithms) {
        Ok(keys) if keys.is_empty() => {
            refuse(path, "is a JWK Set without a key", report);
            None
        }
        Ok(keys) => Some(keys),
        Err(error) => {
            refuse(path, &format!("cannot be used: {error}"), report);
            None
        }
    }
}

fn location(
    url: JwksUrl,
    tls: Option<super::super::model::upstreams::Tls>,
    roots: &mut SystemRoots,
    files: &mut Files,
    report: &mut Report,
) -> Option<Location> {
    let JwksUrl { place, url, https, host, port, authority, target } = url;
    let tls = if https {
        let name = tls.as_ref().and_then(|tls| tls.server_name.as_deref()).unwrap_or(&host).to_owned();
        let Ok(name) = ServerName::try_from(name) else {
            report.add(place, "no certificate can be for the host of this URL");
            return None;
        };
        let tls::Client { config, content, files: _ } = tls::client(tls, place, roots, files, report)?;
        Some(Tls { config, name, content })
    } else {
        if let Some(tls) = tls {
            report.add(tls.place, "`tls` is for `https://`");
        }
        None
    };
    Some(Location { url, host, port, authority, target, tls })
}

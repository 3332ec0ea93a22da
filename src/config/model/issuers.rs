//! The list `auth.issuers`: others whose tokens are taken.

use std::net::IpAddr;

use http::Uri;

use super::super::decode::{self, Placed, Section};
use super::super::report::{Place, Report};
use super::super::tree::Node;
use super::auth::claim_path;
use super::upstreams::{self, Tls};
use crate::authenticate::ClaimPath;
use crate::authenticate::keys::Algorithm;

/// More are a mistake.
const ISSUERS_MAX: usize = 100;

/// One of `auth.issuers`.
#[derive(Debug)]
pub struct Issuer {
    /// `issuer`.
    pub issuer: Placed<Box<str>>,
    /// `jwks`.
    pub jwks: JwksSource,
    /// `tls`.
    pub tls: Option<Tls>,
    /// `audience`.
    pub audience: Vec<Box<str>>,
    /// `algorithms`.
    pub algorithms: Vec<Algorithm>,
    /// `roles`.
    pub roles: ClaimPath,
    /// `user`.
    pub user: ClaimPath,
    /// `user_prefix`.
    pub user_prefix: Box<str>,
}

/// Where a JWK Set is.
#[derive(Debug)]
pub enum JwksSource {
    /// The path of a file.
    File(Placed<Box<str>>),
    /// A URL.
    Url(JwksUrl),
}

/// A URL taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct JwksUrl {
    /// Where it stands.
    pub place: Place,
    /// As it is given.
    pub url: Box<str>,
    /// Whether it is `https://`.
    pub https: bool,
    /// Without brackets.
    pub host: Box<str>,
    /// The port, given or usual.
    pub port: u16,
    /// `Host`.
    pub authority: Box<str>,
    /// Path and query.
    pub target: Box<str>,
}

/// Reads the list.
pub fn read(node: &Node, report: &mut Report) -> Option<Vec<Issuer>> {
    let issuers = decode::list(node, report, issuer)?;
    if issuers.len() > ISSUERS_MAX {
        report.add(node.place, format!("there are at most {ISSUERS_MAX} issuers"));
    }
    Some(issuers)
}

fn issuer(node: &Node, report: &mut Report) -> Option<Issuer> {
    let keys = &["issuer", "jwks", "tls", "audience", "algorithms", "roles", "user", "user_prefix"];
    let section = Section::open(node, "an issuer", keys, &[], report)?;
    let issuer = section.required("issuer", "the `iss` of its tokens", report, decode::placed_text);
    let jwks = section.required("jwks", "the URL or the file of its keys", report, jwks);
    let tls = section.read("tls", report, upstreams::tls);
    let audience = section.read("audience", report, |node, report| {
        decode::some(node, report, |item, report| decode::full_text(item, report).map(Into::into))
    });
    let algorithms = section.read("algorithms", report, |node, report| decode::some(node, report, algorithm));
    let roles = section.read("roles", report, claim_path);
    let user = section.read("user", report, claim_path);
    let user_prefix = section.read("user_prefix", report, user_prefix);
    if let (Some(tls), Some(JwksSource::File(_))) = (&tls, &jwks) {
        report.add(tls.place, "`tls` is for a URL; these keys are in a file");
    }
    Some(Issuer {
        issuer: issuer?,
        jwks: jwks?,
        tls,
        audience: audience.unwrap_or_default(),
        algorithms: algorithms.unwrap_or_else(public_algorithms),
        roles: roles.unwrap_or_else(|| ClaimPath(vec!["roles".into()])),
        user: user.unwrap_or_else(|| ClaimPath(vec!["sub".into()])),
        user_prefix: user_prefix.unwrap_or_default().into(),
    })
}

/// All that verify with a public key.
pub fn public_algorithms() -> Vec<Algorithm> {
    Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_hmac()).collect()
}

fn algorithm(node: &Node, report: &mut Report) -> Option<Algorithm> {
    let algorithm = decode::one_of(&Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm)))(node, report)?;
    if algorithm.is_hmac() {
        report.add(
            node.place,
            "what an issuer publishes verifies and is no secret; a shared secret belongs to `auth.jwt.keys`",
        );
        return None;
    }
    Some(algorithm)
}

fn user_prefix<'n>(node: &'n Node, report: &mut Report) -> Option<&'n str> {
    let prefix = decode::full_text(node, report)?;
    if prefix.chars().any(char::is_control) {
        report.add(node.place, "a prefix has no control characters");
        return None;
    }
    Some(prefix)
}

fn jwks(node: &Node, report: &mut Report) -> Option<JwksSource> {
    let text = decode::placed_text(node, report)?;
    if !text.value.contains("://") {
        return Some(JwksSource::File(text));
    }
    jwks_url(&text).map(JwksSource::Url).map_err(|error| report.add(node.place, error)).ok()
}

fn jwks_url(text: &Placed<Box<str>>) -> Result<JwksUrl, &'static str> {
    const EXPECTED: &str = "expected a URL such as https://idp.example.com/jwks.json, or the path of a file";
    let uri: Uri = text.value.parse().map_err(|_| EXPECTED)?;
    let https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        Some(_) | None => return Err(EXPECTED),
    };
    let authority = uri.authority().ok_or(EXPECTED)?;
    if authority.as_str().contains('@') {
        return Err("a URL of keys has no user");
    }
    if text.value.contains('#') {
        return Err("a URL of keys has no fragment");
    }
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host).unwrap_or_default();
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|&port| port > 0).ok_or(EXPECTED)?,
        None if https => 443,
        None => 80,
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(EXPECTED);
    }
    // whoever is between us and the issuer could put keys of theirs in the answer
    if !https && !is_loopback(host) {
        return Err("keys are fetched over `https://`; `http://` is for this machine only (localhost, 127.0.0.1)");
    }
    Ok(JwksUrl {
        place: text.place,
        url: text.value.clone(),
        https,
        host: host.into(),
        port,
        authority: authority.as_str().into(),
        target: uri.path_and_query().map_or("/", |target| target.as_str()).into(),
    })
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for (url, expected) in [
            ("https://idp.example.com/realms/main/certs?x=1", Ok(("idp.example.com", 443, "/realms/main/certs?x=1"))),
            ("https://idp.example.com:8443", Ok(("idp.example.com", 8443, "/"))),
            ("https://[2001:db8::1]/k", Ok(("2001:db8::1", 443, "/k"))),
            ("http://127.0.0.1:9/k", Ok(("127.0.0.1", 9, "/k"))),
            ("http://[::1]:9/k", Ok(("::1", 9, "/k"))),
            ("http://LOCALHOST/k", Ok(("LOCALHOST", 80, "/k"))),
            ("http://idp.example.com/k", Err("keys are fetched over")),
            ("http://127.0.0.1.example.com/k", Err("keys are fetched over")),
            ("http://localhost.example.com/k", Err("keys are fetched over")),
            ("http://10.0.0.1/k", Err("keys are fetched over")),
            ("https://user:password@idp.example.com/k", Err("a URL of keys has no user")),
            ("http://127.0.0.1@idp.example.com/k", Err("a URL of keys has no user")),
            ("https://idp.example.com/k#a", Err("a URL of keys has no fragment")),
            ("ftp://idp.example.com/k", Err("expected a URL")),
            ("https:///k", Err("expected a URL")),
            ("https://idp.example.com:/k", Err("expected a URL")),
            ("https://idp.example.com:99999/k", Err("expected a URL")),
        ] {
            let found = jwks_url(&Placed { value: url.into(), place: Place::START });
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!((&*found.host, found.port, &*found.target), expected, "{url}");
                }
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{url}: {found}"),
                (found, _) => panic!("{url}: {found:?}"),
            }
        }
    }
}

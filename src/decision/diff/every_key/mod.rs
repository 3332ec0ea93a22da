//! Every key of the schema is told where it changes, with whether somebody has more by it, or is known to change nothing that
//! anybody gets.

mod told;

use std::collections::BTreeSet;
use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use self::told::{NOT_TOLD, TLS, TOLD, Widens};
use super::{Printed, Row, diff};
use crate::config::snapshot::Snapshot;
use crate::config::{Environment, load_text, schema};

/// A file that says something of everything.
const BASE: &str = include_str!("base.yaml");

/// A change of one key.
struct Changed {
    key: String,
    old: String,
    new: String,
    expected: &'static str,
    widens: Widens,
}

/// All of them.
fn changed() -> Vec<Changed> {
    let told = TOLD.iter().map(|&(key, old, new, expected, widens)| Changed {
        key: key.to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
        expected,
        widens,
    });
    let tls = TLS.iter().flat_map(|&(section, name, expected, widens)| {
        let text = format!("ca: a.pem, server_name: {name}, cert: a.pem, key: a.key");
        let other = [
            ("ca", text.replace("ca: a.pem", "ca: b.pem")),
            ("server_name", text.replace(name, "other")),
            ("cert", text.replace("cert: a.pem, key: a.key", "cert: b.pem, key: b.key")),
        ];
        other.into_iter().zip(expected).map(move |((member, new), expected)| Changed {
            key: format!("{section}.tls.{member}"),
            old: text.clone(),
            new,
            expected,
            widens,
        })
    });
    told.chain(tls).collect()
}

/// All keys of a schema; the codes of errors are one.
fn keys(node: &Value, at: &str, found: &mut BTreeSet<String>) {
    for alternative in node["anyOf"].as_array().into_iter().flatten() {
        keys(alternative, at, found);
    }
    for (member, sign) in [("items", "[]"), ("additionalProperties", ".*")] {
        if node[member].is_object() {
            keys(&node[member], &format!("{at}{sign}"), found);
        }
    }
    for (key, value) in node["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        if !at.ends_with(".errors.messages") {
            keys(value, &at, found);
        }
        found.insert(at.trim_start_matches('.').to_owned());
    }
}

/// The files that [`BASE`] names, and others that may stand in their place.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    for name in ["a", "b"] {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        write(&format!("{name}.pem"), &made.cert.pem());
        write(&format!("{name}.key"), &made.signing_key.serialize_pem());
        write(&format!("{name}.pub"), &made.signing_key.public_key_pem());
    }
    write("redis", "redis://:canary@other");
    write("redis-tls", "rediss://:canary@other");
    for name in ["1", "2"] {
        write(&format!("own{name}.key"), &rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem());
        write(&format!("secret{name}"), &format!("canary-canary-canary-canary-canary-{name}"));
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k" }] });
        write(&format!("set{name}.json"), &set.to_string());
    }
    folder
}

fn load(text: &str, folder: &Path) -> Snapshot {
    load_text(text, folder, "a.yaml", &Environment::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_key_is_told_or_known_to_change_nothing() {
    let mut known = BTreeSet::new();
    keys(&schema::schema(), "", &mut known);
    let changed = changed();
    let named: BTreeSet<&str> =
        changed.iter().map(|changed| &*changed.key).chain(NOT_TOLD.iter().map(|not| not.0)).collect();
    assert_eq!(named.len(), changed.len() + NOT_TOLD.len(), "a key stands twice");
    for key in &known {
        let has_others_below =
            known.iter().any(|other| other.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with(['.', '['])));
        assert!(
            has_others_below || named.contains(key.as_str()),
            "{key}: make it a fact of `diff`, or say in NOT_TOLD why nobody gets anything else by it"
        );
    }
    for key in named {
        assert!(known.contains(key), "{key} is no key");
    }
}

#[test]
fn a_change_of_each_key_is_told_and_whether_it_widens() {
    let folder = folder();
    let base = load(BASE, folder.path());
    assert!(diff(&base, &load(BASE, folder.path())).unwrap().is_empty());
    let mut wrong = Vec::new();
    for Changed { key, old, new, expected, widens } in changed() {
        assert_eq!(BASE.matches(&old).count(), 1, "{key}: {old} is not at one place");
        let changed = load(&BASE.replace(&old, &new), folder.path());
        let [there, back] = [(&base, &changed), (&changed, &base)].map(|(from, to)| diff(from, to).unwrap());
        for rows in [&there, &back] {
            let told = Printed(rows).to_string();
            assert!(!told.is_empty(), "{key}");
            assert!(!told.contains("canary"), "{key}: {told}");
            // what tools are told and what people read is the same
            assert_eq!(rows.iter().any(Row::widens), told.contains("\n    + "), "{key}: {told}");
        }
        if !Printed(&there).to_string().contains(expected) {
            wrong.push(format!("{key}: {}", Printed(&there)));
        }
        let found = Widens(there.iter().any(Row::widens), back.iter().any(Row::widens));
        if found != widens {
            wrong.push(format!("{key}: {found:?}\n{}{}", Printed(&there), Printed(&back)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is read from a file counts, not what the file is called.
#[test]
fn the_same_in_another_file_is_no_change() {
    let folder = folder();
    let mut text = BASE.to_owned();
    for name in ["a.pem", "a.key", "set1.json", "own1.key", "secret1", "a.pub"] {
        std::fs::copy(folder.path().join(name), folder.path().join(format!("copy-{name}"))).unwrap();
        text = text.replace(name, &format!("copy-{name}"));
    }
    // as a pull request compares its own folder with that of what is in force
    let other = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), other.path().join(file.file_name())).unwrap();
    }
    for (text, folder) in [(&*text, folder.path()), (BASE, other.path())] {
        let told = Printed(&diff(&load(BASE, other.path()), &load(text, folder)).unwrap()).to_string();
        assert_eq!(told, "", "{}", folder.display());
    }
}

/// As a certificate is renewed: by the same name, and by nobody who edits the rules.
#[test]
fn another_certificate_in_the_same_file_is_told() {
    let folder = folder();
    let before = load(BASE, folder.path());
    for end in ["pem", "key"] {
        std::fs::rename(folder.path().join(format!("b.{end}")), folder.path().join(format!("a.{end}"))).unwrap();
    }
    let told = Printed(&diff(&before, &load(BASE, folder.path())).unwrap()).to_string();
    for expected in [
        "    ~ listeners.10.0.0.1:8443.certificates: another value (not shown)\n",
        "    ~ upstreams.api.tls.ca: another value (not shown)\n    ~ upstreams.api.tls.cert: another value (not shown)\n",
        "    + auth.issuers.https://idp.example.tls: another value (not shown)\n",
        "    ~ limits.shared: another value (not shown)\n",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

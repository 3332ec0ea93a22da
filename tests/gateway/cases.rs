//! The nine systems that `examples/` stands in for: each example is started as anybody would, and answers every case of
//! `tests/data/cases.json` as a gateway should.

use std::collections::BTreeMap;

use crate::support::databases::database;
use crate::support::example::{Started, cases};
use crate::support::outside::run_python;
use crate::support::replay::{self, Replay};
use serde_json::Value;

/// Plays all cases of a system on fresh fixtures.
#[track_caller]
fn play(name: &str, expected: usize) {
    let (path, cases) = cases();
    replayed(name, &cases, expected, |upstream| Started::new(name, upstream, &path));
}

#[track_caller]
fn replayed(name: &str, cases: &Value, expected: usize, start: impl FnOnce(&str) -> Started) {
    let system = &cases["systems"][name];
    let upstream = replay::upstream(system);
    let started = start(&upstream.url());
    let replay = Replay::new(system, started.address);
    let of_system: Vec<_> = cases["cases"].as_array().unwrap().iter().filter(|case| case["system"] == name).collect();
    assert_eq!(of_system.len(), expected);
    let deviating: BTreeMap<_, _> = of_system
        .into_iter()
        .map(|case| (case["name"].as_str().unwrap(), replay.play(case)))
        .filter(|(_, deviations)| !deviations.is_empty())
        .collect();
    let told: String = deviating.iter().map(|(case, all)| format!("\n{case}:\n  {}", all.join("\n  "))).collect();
    assert!(deviating.is_empty(), "{} of {expected} cases deviate:{told}", deviating.len());
}

#[test]
fn a_gateway_for_client_ids_and_secrets_answers_every_case() {
    play("S0", 73);
}

#[test]
fn a_gateway_for_flask_jwt_extended_answers_every_case() {
    play("S1a", 63);
}

#[test]
fn a_gateway_for_simplejwt_answers_every_case() {
    play("S1b", 79);
}

#[test]
fn a_gateway_for_registration_and_login_answers_every_case() {
    play("S2", 49);
}

#[test]
fn a_gateway_for_basic_to_jwt_answers_every_case() {
    play("S3", 46);
}

#[test]
fn a_gateway_for_basic_with_roles_answers_every_case() {
    play("S4a", 54);
}

#[test]
fn a_gateway_for_stored_tokens_answers_every_case() {
    play("S4b", 60);
}

#[test]
fn a_gateway_for_jwts_with_roles_answers_every_case() {
    play("S4c", 74);
}

#[test]
fn a_gateway_for_all_three_schemes_answers_every_case() {
    play("S4d", 146);
}

/// Nothing of the examples is made for the names and passwords of our fixtures.
#[test]
fn other_people_with_other_passwords_and_secrets_are_answered_alike() {
    let (ours, _) = cases();
    let file = tempfile::NamedTempFile::new().unwrap();
    let [from, to] = [&*ours, file.path()].map(|path| path.display().to_string());
    run_python(include_str!("libraries/other_cases.py"), &[&from, &to]);
    let others: Value = serde_json::from_reader(&file).unwrap();
    assert!(!others["systems"].to_string().contains("client-one"));
    for (system, count) in [("S0", 73), ("S1a", 63), ("S1b", 79), ("S3", 46), ("S4d", 146)] {
        replayed(system, &others, count, |upstream| Started::new(system, upstream, file.path()));
    }
}

/// The tables of Flask and Django on a server, as the replaced systems have them there.
fn on_server(variable: &str) {
    let (path, cases) = cases();
    for (system, count) in [("S1b", 79), ("S2", 49), ("S4d", 146)] {
        let Some(database) = database(variable, &format!("cases_{}", system.to_lowercase())) else { return };
        let place = tempfile::tempdir().unwrap();
        replayed(system, &cases, count, |upstream| {
            Started::on_server(system, upstream, &path, (&database, place.path()))
        });
    }
}

#[test]
fn users_and_tokens_on_postgresql_are_answered_alike() {
    on_server("PORTCULLIS_TEST_POSTGRES");
}

#[test]
fn users_and_tokens_on_mysql_are_answered_alike() {
    on_server("PORTCULLIS_TEST_MYSQL");
}

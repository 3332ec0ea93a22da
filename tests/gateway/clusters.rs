//! `limits.shared` on a cluster: several servers, each of which has some of the keys.

use serde_json::json;

use crate::shared_limits::{OFF, PROBE, exhaust, from, granted, is_up, limited, rules, undisturbed, until_up};
use crate::support::redis::{Cluster, Make};
use crate::support::{Gateway, Setup, Upstream, eventually, post};

/// A gateway for each server, which knows that one alone.
fn gateways(cluster: &Cluster, rules: impl Fn(&str) -> String) -> Vec<Gateway> {
    cluster.servers.iter().map(|server| Setup::new(&rules(&server.url())).start()).collect()
}

#[test]
fn any_server_of_a_cluster_leads_to_the_one_that_has_the_counts() {
    leads_to_the_counts(Make::Redis);
}

#[test]
fn any_server_of_a_cluster_of_valkey_leads_to_the_one_that_has_the_counts() {
    leads_to_the_counts(Make::Valkey);
}

fn leads_to_the_counts(make: Make) {
    let (upstream, cluster) = (Upstream::hello(), Cluster::of(make, 3));
    let gateways = gateways(&cluster, |url| rules(&upstream, url, OFF, "rate: 1/h, burst: 300, by: address"));
    let sum = undisturbed(&gateways, |caller| granted(&gateways, 200, &limited(caller)));
    assert_eq!(sum, 300);
    // the slot goes to another, as when a server is added or one fails
    let owner = cluster.owner(PROBE);
    let next = cluster.servers.iter().find(|server| !std::ptr::eq(*server, owner)).unwrap();
    cluster.move_slot(PROBE, next);
    eventually("the counts are with the next", || match next.ask(&["DBSIZE"]).number() {
        0 => Err(gateways.iter().map(Gateway::stderr).collect::<String>()),
        _ => Ok(()),
    });
    let sum = undisturbed(&gateways, |caller| granted(&gateways, 200, &limited(&format!("{caller}0"))));
    assert_eq!(sum, 300);
    assert_eq!(owner.ask(&["DBSIZE"]).number(), 0);
}

#[test]
fn all_budgets_of_a_request_are_in_one_slot() {
    let (upstream, cluster) = (Upstream::hello(), Cluster::of(Make::Redis, 3));
    let limits = "  token_endpoints:
    per_address: { rate: 1/h, burst: 50 }
    per_account: { rate: 1/h, burst: 50 }
    per_account_anywhere: { rate: 1/h, burst: 6 }
  unauthenticated: off";
    let gateways = gateways(&cluster, |url| rules(&upstream, url, limits, "rate: 1/h"));
    undisturbed(&gateways, |caller| {
        let statuses = (0..9).map(|at| {
            let guess = json!({ "username": format!("user-{caller}"), "password": at.to_string() });
            gateways[at % 3].send(&from(post("/auth/login").json(&guess), caller)).status
        });
        assert_eq!(statuses.collect::<Vec<_>>(), [401, 401, 401, 401, 401, 401, 429, 429, 429]);
    });
}

#[test]
fn a_database_that_a_cluster_does_not_have_is_named() {
    let (upstream, cluster) = (Upstream::hello(), Cluster::of(Make::Redis, 1));
    let url = format!("{}/1", cluster.servers[0].url());
    let gateway = Setup::new(&rules(&upstream, &url, OFF, "rate: 1/h, burst: 3, by: address")).start();
    assert_eq!(exhaust(&gateway, &limited("192.0.2.1")), 3);
    assert!(!is_up(&gateway));
    eventually("it is said", || {
        let log = gateway.stderr();
        if log.contains("it has no such database (a cluster has 0 alone)") { Ok(()) } else { Err(log) }
    });
    let gateway = [Setup::new(&rules(&upstream, &cluster.servers[0].url(), OFF, "rate: 1/h")).start()];
    until_up(&gateway);
}

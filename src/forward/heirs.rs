//! What is known of a server goes on with it, also where another configuration calls its upstream by another name.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Protocol, ServerAddress, ServerGroup, UpstreamKind, UpstreamSettings, UpstreamTls};

/// Upstream and server, by the names that the configuration gives them.
pub(super) type ServerKey = (Arc<str>, Arc<str>);

/// What may be known of a server.
pub(super) trait OfServer {
    /// Whether it is of this server, with the settings of its group.
    fn is_of(&self, address: &ServerAddress, group: &ServerGroup) -> bool;

    /// Whether it may go on where its upstream is called otherwise: nothing else has changed.
    fn may_be_renamed(&self, address: &ServerAddress, group: &ServerGroup) -> bool {
        self.is_of(address, group)
    }

    /// Whether it is left to others, where there is more than one of the same.
    fn is_last_choice(&self) -> bool {
        false
    }
}

/// What a server of a new configuration takes over.
pub(super) enum Heir<T> {
    /// What stood under its own name.
    Same(T),
    /// What stood under the name of another upstream, which has the server no longer.
    Renamed(T),
}

/// The groups of servers of a configuration, with the names of their upstreams.
pub(super) fn groups(upstreams: &[UpstreamSettings]) -> impl Iterator<Item = (&Arc<str>, &Arc<ServerGroup>)> {
    upstreams.iter().filter_map(|upstream| match &upstream.kind {
        UpstreamKind::Echo => None,
        UpstreamKind::Servers(group) => Some((&upstream.name, group)),
    })
}

/// Whether a server is reached by `tls` as the group says.
pub(super) fn is_reached_alike(address: &ServerAddress, tls: Option<&UpstreamTls>, group: &ServerGroup) -> bool {
    let same = match (tls, &group.tls) {
        (None, None) => true,
        (Some(own), Some(tls)) => own.is_as(tls),
        (Some(_), None) | (None, Some(_)) => false,
    };
    same || address.protocol != Protocol::Https
}

/// Divides what was known among the servers of a new configuration. A name decides first; what no server of the same name
/// takes is for one of another name.
pub(super) fn heirs<T: OfServer>(
    mut known: HashMap<ServerKey, T>,
    upstreams: &[UpstreamSettings],
) -> HashMap<ServerKey, Heir<T>> {
    let mut heirs = HashMap::new();
    let mut without = Vec::new();
    for (upstream, group) in groups(upstreams) {
        for address in &group.servers {
            let key = (Arc::clone(upstream), Arc::clone(&address.label));
            match known.remove_entry(&key) {
                Some((key, own)) if own.is_of(address, group) => {
                    heirs.insert(key, Heir::Same(own));
                }
                other => {
                    known.extend(other);
                    without.push((key, address, group));
                }
            }
        }
    }
    if without.is_empty() || known.is_empty() {
        return heirs;
    }
    let mut left: Vec<_> = known.into_iter().collect();
    // whatever the order of the map
    left.sort_unstable_by(|((one, _), own), ((other, _), others)| {
        (own.is_last_choice(), one).cmp(&(others.is_last_choice(), other))
    });
    let mut left_of = HashMap::<Arc<str>, Vec<T>>::new();
    for ((_, server), own) in left {
        left_of.entry(server).or_default().push(own);
    }
    for (key, address, group) in without {
        let Some(left) = left_of.get_mut(&address.label) else { continue };
        if let Some(first) = left.iter().position(|own| own.may_be_renamed(address, group)) {
            heirs.insert(key, Heir::Renamed(left.remove(first)));
        }
    }
    heirs
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Balance, HealthCheck};
    use super::*;

    /// Known of the one server there is, checked by a path.
    struct Known {
        path: &'static str,
        down: bool,
    }

    impl OfServer for Known {
        fn is_of(&self, _: &ServerAddress, _: &ServerGroup) -> bool {
            true
        }

        fn may_be_renamed(&self, _: &ServerAddress, group: &ServerGroup) -> bool {
            group.health.as_ref().is_some_and(|check| &*check.path == self.path)
        }

        fn is_last_choice(&self) -> bool {
            self.down
        }
    }

    fn upstream(name: &str, path: &str) -> UpstreamSettings {
        let second = Duration::from_secs(1);
        let health =
            HealthCheck { path: path.into(), interval: second, timeout: second, unhealthy_after: 1, healthy_after: 1 };
        let address = ServerAddress { label: "http://s".into(), host: "s".into(), port: 80, protocol: Protocol::Http1 };
        let group = ServerGroup {
            servers: vec![address],
            balance: Balance::RoundRobin,
            health: Some(health),
            keep_alive: 1,
            tls: None,
        };
        UpstreamSettings { name: name.into(), kind: UpstreamKind::Servers(Arc::new(group)) }
    }

    #[test]
    fn what_is_known_goes_to_the_server_that_it_is_known_of() {
        for (what, known, new, expected) in [
            ("nothing has changed", vec![("a", "/", true)], vec![("a", "/")], vec!["same down"]),
            ("another check is the same server's", vec![("a", "/", true)], vec![("a", "/other")], vec!["same down"]),
            ("renamed", vec![("a", "/", true)], vec![("b", "/")], vec!["renamed down"]),
            ("renamed, and checked otherwise", vec![("a", "/", true)], vec![("b", "/other")], vec!["-"]),
            ("another beside it", vec![("a", "/", true)], vec![("a", "/"), ("b", "/")], vec!["same down", "-"]),
            (
                "two are renamed, and keep their checks",
                vec![("a", "/a", true), ("z", "/z", false)],
                vec![("orders", "/z"), ("bills", "/a")],
                vec!["renamed up", "renamed down"],
            ),
            (
                "of two of the same, one that is up",
                vec![("a", "/", true), ("b", "/", false)],
                vec![("c", "/")],
                vec!["renamed up"],
            ),
            (
                "one of the same name and one that is renamed",
                vec![("a", "/", true), ("b", "/", false)],
                vec![("a", "/"), ("c", "/")],
                vec!["same down", "renamed up"],
            ),
        ] {
            let known = known
                .into_iter()
                .map(|(name, path, down)| ((Arc::from(name), Arc::from("http://s")), Known { path, down }));
            let upstreams: Vec<_> = new.iter().map(|(name, path)| upstream(name, path)).collect();
            let heirs = heirs(known.collect(), &upstreams);
            let word = |own: &Known| if own.down { "down" } else { "up" };
            let told = new.iter().map(|(name, _)| match heirs.get(&(Arc::from(*name), Arc::from("http://s"))) {
                Some(Heir::Same(own)) => format!("same {}", word(own)),
                Some(Heir::Renamed(own)) => format!("renamed {}", word(own)),
                None => "-".to_owned(),
            });
            assert_eq!(told.collect::<Vec<_>>(), expected, "{what}");
        }
    }
}

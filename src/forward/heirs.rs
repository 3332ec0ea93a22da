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

/// Divides what was known among the servers of a new configuration: first to those of the same name and settings, then to
/// those that are called otherwise, then to those of the same name whose settings have changed.
pub(super) fn heirs<T: OfServer>(
    mut known: HashMap<ServerKey, T>,
    upstreams: &[UpstreamSettings],
) -> HashMap<ServerKey, Heir<T>> {
    let mut heirs = HashMap::new();
    let all = groups(upstreams).flat_map(|(upstream, group)| {
        let key = move |address: &ServerAddress| (Arc::clone(upstream), Arc::clone(&address.label));
        group.servers.iter().map(move |address| (key(address), address, group))
    });
    let mut without: Vec<_> = all.collect();
    without.retain(|(key, address, group)| {
        let same = known.remove_entry(key).map(|(key, own)| {
            if own.may_be_renamed(address, group) { Ok((key, Heir::Same(own))) } else { Err((key, own)) }
        });
        match same {
            Some(Ok((key, own))) => heirs.insert(key, own).is_some(),
            Some(Err((key, own))) => known.insert(key, own).is_none(),
            None => true,
        }
    });
    if without.is_empty() || known.is_empty() {
        return heirs;
    }
    let mut names: Vec<ServerKey> = known.keys().cloned().collect();
    // whatever the order of the map
    let rank = |key: &ServerKey| (known.get(key).is_some_and(OfServer::is_last_choice), key.clone());
    names.sort_by_cached_key(rank);
    let mut names_of = HashMap::<Arc<str>, Vec<ServerKey>>::new();
    for key in names {
        names_of.entry(Arc::clone(&key.1)).or_default().push(key);
    }
    without.retain(|(key, address, group)| {
        let Some(names) = names_of.get_mut(&address.label) else { return true };
        let fits = |name: &ServerKey| known.get(name).is_some_and(|own| own.may_be_renamed(address, group));
        let Some(first) = names.iter().position(fits) else { return true };
        let own = known.remove(&names.remove(first));
        own.is_none_or(|own| heirs.insert(key.clone(), Heir::Renamed(own)).is_some())
    });
    for (key, address, group) in without {
        if let Some(own) = known.remove(&key).filter(|own| own.is_of(address, group)) {
            heirs.insert(key, Heir::Same(own));
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
                "two swap their names",
                vec![("a", "/a", true), ("b", "/b", false)],
                vec![("a", "/b"), ("b", "/a")],
                vec!["renamed up", "renamed down"],
            ),
            (
                "names are shifted",
                vec![("a", "/a", true), ("b", "/b", false)],
                vec![("b", "/a"), ("c", "/b")],
                vec!["renamed down", "renamed up"],
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

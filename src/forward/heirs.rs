//! What is known of a server goes on with it, also where another configuration calls its upstream by another name.

use std::collections::HashMap;
use std::sync::Arc;

use super::{ServerAddress, ServerGroup, UpstreamKind, UpstreamSettings};

/// Upstream and server, by the names that the configuration gives them.
pub(super) type ServerKey = (Arc<str>, Arc<str>);

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

/// Divides what was known among the servers of a new configuration; `is` says whether it is of that server, with the
/// group's settings. A name decides first; what no server of the same name takes is for one of another name.
pub(super) fn heirs<T>(
    mut known: HashMap<ServerKey, T>,
    upstreams: &[UpstreamSettings],
    is: impl Fn(&T, &ServerAddress, &ServerGroup) -> bool,
) -> HashMap<ServerKey, Heir<T>> {
    let mut heirs = HashMap::new();
    let mut without = Vec::new();
    for (upstream, group) in groups(upstreams) {
        for address in &group.servers {
            let key = (Arc::clone(upstream), Arc::clone(&address.label));
            match known.remove_entry(&key) {
                Some((key, own)) if is(&own, address, group) => {
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
    // the last of a server is taken first: that is the first name, whatever the order of the map
    left.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
    let mut left_of = HashMap::<Arc<str>, Vec<T>>::new();
    for ((_, server), own) in left {
        left_of.entry(server).or_default().push(own);
    }
    for (key, address, group) in without {
        let of_server = left_of.get_mut(&address.label);
        if let Some(own) = of_server.and_then(|left| left.pop_if(|own| is(own, address, group))) {
            heirs.insert(key, Heir::Renamed(own));
        }
    }
    heirs
}

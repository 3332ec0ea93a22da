//! Roles that are probably others than were meant: each is only a name, and a misspelt one is a role that nobody has.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::decode;
use super::super::report::{Place, Report, distance, nearest};
use super::super::snapshot::Snapshot;
use super::super::tree::Node;
use super::{child, items, letters, word};
use crate::authenticate::RoleSource;
use crate::endpoint::introspect;

/// Where the roles of a file stand.
struct Named<'n> {
    routes: Vec<&'n Node>,
    /// Of users and clients.
    accounts: Vec<&'n Node>,
    clients: Vec<&'n Node>,
    default: Option<&'n Node>,
    expected: Vec<&'n Node>,
}

impl<'n> Named<'n> {
    fn of(root: &'n Node) -> Self {
        let root = Some(root);
        let of = |kind: &str| {
            items(child(child(root, "bootstrap"), kind)).flat_map(|account| items(child(Some(account), "roles")))
        };
        Self {
            routes: items(child(root, "routes")).flat_map(|route| items(child(Some(route), "allow"))).collect(),
            accounts: of("users").chain(of("clients")).collect(),
            clients: of("clients").collect(),
            default: child(child(root, "tokens"), "default_role"),
            expected: items(child(root, "expect"))
                .flat_map(|one| items(child(child(Some(one), "as"), "roles")))
                .collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &'n Node> {
        self.routes.iter().chain(&self.accounts).chain(&self.default).chain(&self.expected).copied()
    }
}

/// Warns of each, once.
pub(super) fn told(root: &Node, snapshot: &Snapshot, report: &mut Report) {
    let named = Named::of(root);
    several_as_one(&named, report);
    letters::told(named.all(), report);
    let settled = differing_in_case(&named, report);
    let is_settled = |role: &str| settled.contains(&role.to_lowercase());
    let told = nearly_introspecting(&named, &is_settled, report);
    let default = default_of_no_route(&named, snapshot, &is_settled, report);
    expected_of_nobody(&named, snapshot, &default, &is_settled, report);
    // whose roles are in their tokens may have any
    let of_one_side = if matches!(snapshot.auth.jwt.roles, RoleSource::Store) && snapshot.auth.issuers.is_empty() {
        of_one_side_only(&named, &default, &told, &is_settled, report)
    } else {
        HashSet::new()
    };
    of_one_route_only(&named, &default, &|role| is_settled(role) || of_one_side.contains(role), report);
}

/// The role of whoever registers, as the other warnings take it.
enum DefaultRole<'n> {
    /// Is had. It is suggested unless it came from the environment, of which nothing is in a message.
    Sound { role: &'n str, suggested: bool },
    /// Is told of, and probably misspelt: this one may be meant, and is then had in its place.
    Doubtful { meant: Option<&'n str> },
}

impl<'n> DefaultRole<'n> {
    fn had(&self) -> Option<&'n str> {
        match *self {
            Self::Sound { role, .. } => Some(role),
            Self::Doubtful { meant } => meant,
        }
    }

    fn suggested(&self) -> Option<&'n str> {
        match *self {
            Self::Sound { role, suggested: true } => Some(role),
            Self::Sound { suggested: false, .. } | Self::Doubtful { .. } => None,
        }
    }
}

/// Tells of a default that the file writes and no route asks for, where routes ask for others: whoever registers gets nothing
/// of what they give.
fn default_of_no_route<'n>(
    named: &Named<'n>,
    snapshot: &'n Snapshot,
    is_settled: &impl Fn(&str) -> bool,
    report: &mut Report,
) -> DefaultRole<'n> {
    let role = snapshot.tokens.default_role.as_str();
    let Some(node) = named.default else { return DefaultRole::Sound { role, suggested: true } };
    let asks = |nodes: &[&Node]| nodes.iter().any(|node| word(node) == Some(role));
    if named.routes.is_empty() || asks(&named.routes) || asks(&named.expected) || is_settled(role) {
        return DefaultRole::Sound { role, suggested: !decode::is_expanded(node) };
    }
    let asked = named.routes.iter().filter(|node| !decode::is_expanded(node));
    let meant = Suggested::among(asked.filter_map(|node| word(node))).nearest(role);
    report.warn(node.place, format!("no route asks for the role {}", decode::shown_node(node)), is_meant(meant));
    DefaultRole::Doubtful { meant }
}

/// The hint of a role that is misspelt, or named on purpose.
fn is_meant(alike: Option<&str>) -> String {
    let question = alike.map_or_else(|| "is it spelt right?".to_owned(), |alike| format!("did you mean `{alike}`?"));
    format!("{question} an expectation that names it says that it is meant")
}

/// `"admin, user"` is one role, which nobody can tell from two.
fn several_as_one(named: &Named<'_>, report: &mut Report) {
    for node in &named.routes {
        if word(node).is_some_and(|role| role.contains(|c: char| c == ',' || c.is_ascii_whitespace())) {
            let message = format!("{} is one role", decode::shown_node(node));
            report.warn(node.place, message, "several are written `[one, two]`, without quotes around them all");
        }
    }
}

/// `admin` and `Admin`; gives all such, in lower case.
fn differing_in_case(named: &Named<'_>, report: &mut Report) -> HashSet<String> {
    let mut nodes: Vec<(&Node, &str)> =
        named.all().filter(|node| !decode::is_expanded(node)).filter_map(|node| Some((node, word(node)?))).collect();
    nodes.sort_by_key(|(node, _)| node.place);
    let mut seen = HashSet::new();
    let mut spellings: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
    for (node, role) in nodes {
        if seen.insert(role) {
            spellings.entry(role.to_lowercase()).or_default().push(node);
        }
    }
    spellings.retain(|_, known| known.len() > 1);
    for known in spellings.values() {
        let Some((first, others)) = known.split_first() else { continue };
        for node in others {
            let (shown, other) = (decode::shown_node(node), decode::shown_node(first));
            let message =
                format!("{shown} and {other} on line {} differ in case only, and are two roles", first.place.line);
            report.warn(node.place, message, "write both alike if they are one");
        }
    }
    spellings.into_keys().collect()
}

/// Roles of clients that no route asks for and that look like the one that means something by itself; gives where they stand.
fn nearly_introspecting(named: &Named<'_>, is_settled: &impl Fn(&str) -> bool, report: &mut Report) -> HashSet<Place> {
    let asked: HashSet<&str> = named.routes.iter().filter_map(|node| word(node)).collect();
    let mut told = HashSet::new();
    for node in &named.clients {
        let is_near = |role: &str| role != introspect::ROLE && nearest(role, &[introspect::ROLE]).is_some();
        if word(node).is_some_and(|role| !asked.contains(role) && !is_settled(role) && is_near(role)) {
            let hint = format!("did you mean `{}`? it is what token introspection asks of a client", introspect::ROLE);
            report.warn(node.place, format!("no route asks for the role {}", decode::shown_node(node)), hint);
            told.insert(node.place);
        }
    }
    told
}

/// Roles that nothing but an expectation names: what is expected of them is so of any principal without a role.
fn expected_of_nobody(
    named: &Named<'_>,
    snapshot: &Snapshot,
    default: &DefaultRole<'_>,
    is_settled: &impl Fn(&str) -> bool,
    report: &mut Report,
) {
    // a doubtful default is among them, but no expectation names it
    let defined = snapshot.roles();
    let mut suggested = Suggested::of(named, default, |_| true);
    let mut told = HashSet::new();
    for node in &named.expected {
        let Some(role) = word(node).filter(|role| !defined.contains(*role) && !is_settled(role)) else { continue };
        if !told.insert(role) {
            continue;
        }
        let message = format!("no route, user or client of this file names the role {}", decode::shown_node(node));
        let hint = suggested.nearest(role).map_or_else(
            || "is it spelt right? for somebody with none of the roles write `{ roles: [] }`".to_owned(),
            |alike| format!("did you mean `{alike}`?"),
        );
        report.warn(node.place, message, hint);
    }
}

/// Names that a role is compared with, so that what is suggested costs no more where a file has many; a fraction of a second.
const COMPARED_MAX: usize = 200_000;

/// Roles that may have been meant. Behind [`COMPARED_MAX`] comparisons none is.
struct Suggested<'n> {
    names: Vec<&'n str>,
    left: usize,
}

impl<'n> Suggested<'n> {
    /// Those that a user, a client or the default has, and that routes ask for, if they are `meant`. One that nothing but an
    /// expectation names may be misspelt itself. What came from the environment is in no message.
    fn of(named: &Named<'n>, default: &DefaultRole<'n>, meant: impl Fn(&str) -> bool) -> Self {
        let asked = named.routes.iter().filter(|node| word(node).is_some_and(&meant));
        let written = named.accounts.iter().chain(asked).filter(|node| !decode::is_expanded(node));
        Self::among(written.filter_map(|node| word(node)).chain(default.suggested()))
    }

    fn among(names: impl Iterator<Item = &'n str>) -> Self {
        let all: BTreeSet<&str> = names.collect();
        Self { names: all.into_iter().collect(), left: COMPARED_MAX }
    }

    fn nearest(&mut self, role: &str) -> Option<&'n str> {
        self.left = self.left.checked_sub(self.names.len())?;
        nearest(role, &self.names)
    }
}

/// Roles that are named by routes alone, or by accounts alone. Where no account is made here, others may have any: then it is
/// told of those alone that look like one that an expectation names too.
///
/// Gives those of routes.
fn of_one_side_only<'n>(
    named: &Named<'n>,
    default: &DefaultRole<'_>,
    told_of_clients: &HashSet<Place>,
    is_settled: &impl Fn(&str) -> bool,
    report: &mut Report,
) -> HashSet<&'n str> {
    let expected: BTreeSet<&str> = named.expected.iter().filter_map(|node| word(node)).collect();
    if named.accounts.is_empty() && expected.is_empty() {
        return HashSet::new();
    }
    let mut known: BTreeSet<&str> = named.accounts.iter().filter_map(|node| word(node)).collect();
    known.extend(default.had());
    let mut suggested = Suggested::of(named, default, |role| expected.contains(role));
    known.extend(expected);
    let mut told = HashSet::new();
    for node in &named.routes {
        let Some(role) = word(node).filter(|role| !known.contains(role) && !is_settled(role)) else { continue };
        let alike = suggested.nearest(role);
        if named.accounts.is_empty() && alike.is_none() || !told.insert(role) {
            continue;
        }
        let shown = decode::shown_node(node);
        let message = if named.accounts.is_empty() {
            format!("no expectation names the role {shown}")
        } else {
            format!("no user or client of this file ever has the role {shown}")
        };
        report.warn(node.place, message, is_meant(alike));
    }
    let asked: BTreeSet<&str> = named.routes.iter().filter_map(|node| word(node)).collect();
    for node in named.accounts.iter().filter(|node| !told_of_clients.contains(&node.place)) {
        if word(node).is_some_and(|role| {
            !asked.is_empty() && !asked.contains(role) && !is_settled(role) && role != introspect::ROLE
        }) {
            report.warn(node.place, format!("no route asks for the role {}", decode::shown_node(node)), "");
        }
    }
    told
}

/// Letters that a role has at least for one more, less or other to be a slip: shorter words are alike by chance.
const SLIP_CHARS_MIN: usize = 5;

/// Roles that one route names, and a slip away from one that several name: all that can be told where nothing else says who
/// has what.
fn of_one_route_only(
    named: &Named<'_>,
    default: &DefaultRole<'_>,
    is_told: &impl Fn(&str) -> bool,
    report: &mut Report,
) {
    let mut routes: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for node in named.routes.iter().filter(|node| !decode::is_expanded(node)) {
        routes.entry(word(node).unwrap_or_default()).or_default().push(node);
    }
    let known: BTreeSet<&str> =
        named.accounts.iter().chain(&named.expected).filter_map(|node| word(node)).chain(default.had()).collect();
    let mut suggested = Suggested::among(routes.iter().filter(|(_, nodes)| nodes.len() > 1).map(|(role, _)| *role));
    for (role, nodes) in &routes {
        let [node] = nodes.as_slice() else { continue };
        if known.contains(role) || is_told(role) {
            continue;
        }
        let is_slip = |alike: &&str| alike.chars().count() >= SLIP_CHARS_MIN && distance(role, alike) == 1;
        if let Some(alike) = suggested.nearest(role).filter(is_slip) {
            let message = format!("no other route names the role {}", decode::shown_node(node));
            report.warn(node.place, message, is_meant(Some(alike)));
        }
    }
}

//! Methods in rules and expectations that no client sends.

use super::super::decode;
use super::super::methods::Doubt;
use super::super::report::Report;
use super::super::snapshot::Snapshot;
use super::super::tree::Node;
use super::{child, items, word};

/// Warns of each. In a rule, words for every method and those in lower case are mistakes by themselves.
pub(super) fn told(root: &Node, snapshot: &Snapshot, report: &mut Report) {
    for node in items(child(Some(root), "routes")).flat_map(|route| items(child(Some(route), "methods"))) {
        if let Some(doubt) = word(node).and_then(Doubt::of) {
            warn(&doubt, node, &decode::shown_node(node), report);
        }
    }
    // one of a method that nobody sends is met by a 405, whatever the rules are
    for (expectation, node) in snapshot.expect.iter().zip(items(child(Some(root), "expect"))) {
        let Some(request) = child(Some(node), "request") else { continue };
        match Doubt::of(expectation.method.as_str()) {
            // which gets a 400, and that may be what is expected
            None | Some(Doubt::LowerCase(_)) => {}
            Some(doubt @ (Doubt::Every | Doubt::Misspelt(_))) => {
                let name = super::super::report::quoted(expectation.method.as_str());
                let shown = if decode::is_expanded(request) { decode::shown_node(request) } else { name };
                warn(&doubt, request, &shown, report);
            }
        }
    }
}

fn warn(doubt: &Doubt, node: &Node, shown: &str, report: &mut Report) {
    let hint = doubt.question().unwrap_or_else(|| "name one, such as `GET`".to_owned());
    report.warn(node.place, doubt.message(shown), hint);
}

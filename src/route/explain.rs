//! Why one route decides and not another that fits as well, in the words of contract 3.

use std::cmp::Ordering;

use http::Method;

use super::Route;
use super::pattern::Segment;

/// Why `winner` decides a request of `method` rather than `rival`, whose path and host fit too.
pub fn why(winner: &Route, rival: &Route, method: &Method) -> String {
    if !rival.allows_method(method) {
        let listed: Vec<&str> = rival.listed_methods().map(Method::as_str).collect();
        return format!("it is for {} only", listed.join(", "));
    }
    match winner.pattern.compare(&rival.pattern) {
        Ordering::Less => more_specific(winner, rival),
        Ordering::Equal if !winner.hosts.is_empty() && rival.hosts.is_empty() => "it names no host".to_owned(),
        Ordering::Equal | Ordering::Greater => "it names no methods".to_owned(),
    }
}

/// The first segment in which the two differ in kind.
fn more_specific(winner: &Route, rival: &Route) -> String {
    let last = winner.pattern.segments().len().max(rival.pattern.segments().len());
    let differs = |&index: &usize| kind(winner, index) != kind(rival, index);
    let index = (0..=last).find(differs).unwrap_or(last);
    format!(
        "its path is less specific: {} where the other has {} (segment {})",
        shown(rival, index),
        shown(winner, index),
        index + 1
    )
}

fn kind(route: &Route, index: usize) -> u8 {
    match route.pattern.segments().get(index) {
        Some(Segment::Literal(_)) => 0,
        Some(Segment::Any(_)) => 1,
        None if route.pattern.is_prefix() => 2,
        None => 3,
    }
}

fn shown(route: &Route, index: usize) -> String {
    match route.pattern.segments().get(index) {
        Some(Segment::Literal(text)) => format!("`{text}`"),
        Some(Segment::Any(name)) => format!("`{{{name}}}`"),
        None if route.pattern.is_prefix() => "`**`".to_owned(),
        None => "its end".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::test_route;

    #[test]
    fn the_reason_is_the_first_rule_that_tells_them_apart() {
        let route = |path: &str, hosts: &[&str], methods: &[&str]| {
            let mut route = test_route(path);
            route.hosts = hosts.iter().map(|host| (*host).into()).collect();
            route.methods = methods.iter().map(|method| method.parse().unwrap()).collect();
            route
        };
        for (winner, rival, expected) in [
            (
                route("/a/b", &[], &[]),
                route("/a/{x}", &[], &[]),
                "its path is less specific: `{x}` where the other has `b` (segment 2)",
            ),
            (
                route("/a", &[], &[]),
                route("/a/**", &[], &[]),
                "its path is less specific: `**` where the other has its end (segment 2)",
            ),
            (route("/a", &["h"], &[]), route("/a", &[], &["GET"]), "it names no host"),
            (route("/a", &[], &["GET"]), route("/a", &[], &[]), "it names no methods"),
            (route("/**", &[], &[]), route("/a", &[], &["POST"]), "it is for POST only"),
        ] {
            assert_eq!(why(&winner, &rival, &Method::GET), expected);
        }
    }
}

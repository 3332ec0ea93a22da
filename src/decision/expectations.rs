//! The rules' own tests: each of `expect` against what the rules mean (contract 2).

use std::collections::BTreeSet;

use http::StatusCode;

use super::explain::{Asker, Explanation, Question, explain};
use super::{Place, Request, decide};
use crate::config::report::{Problem, Problems};
use crate::config::snapshot::{Expectation, ExpectedCaller, Snapshot};
use crate::principal::{Principal, Role, Subject};
use crate::rejection::Rejection;
use crate::route::Route;
use crate::wire::target;

/// An expectation that the rules do not meet.
#[derive(Debug)]
pub struct Failure<'s> {
    /// Which.
    pub expectation: &'s Expectation,
    /// What happens instead, and why.
    pub explanation: Explanation<'s>,
}

/// All that are not met.
pub fn failures(snapshot: &Snapshot) -> Vec<Failure<'_>> {
    let explained = snapshot.expect.iter().map(|expectation| {
        let request = Request::parse(&expectation.method, &expectation.url);
        let question = Question::of(&expectation.method, &expectation.url, request);
        Failure { expectation, explanation: explain(snapshot, question, asker(&expectation.caller)) }
    });
    explained.filter(|one| one.explanation.status() != one.expectation.status).collect()
}

/// The same as problems of the file; none where all are met.
pub fn problems(snapshot: &Snapshot, file: &str) -> Problems {
    let problem = |failure: &Failure<'_>| {
        let Failure { expectation, explanation } = failure;
        Problem::found(file, expectation.place, &failure.summary(), &explanation.to_string())
    };
    failures(snapshot).iter().map(problem).collect::<Vec<_>>().into()
}

/// The routes that no expectation touches, in the order of the file. One touches the route that decides its request; where
/// none has its method, all those that would decide others for its path and host.
pub fn untouched(snapshot: &Snapshot) -> Vec<&Route> {
    let touched: BTreeSet<usize> = snapshot
        .expect
        .iter()
        .flat_map(|expectation| touched(snapshot, expectation))
        .filter_map(|route| snapshot.routes.index(route))
        .collect();
    let routes = snapshot.routes.routes().iter().enumerate();
    routes.filter(|(index, _)| !touched.contains(index)).map(|(_, route)| route).collect()
}

fn touched<'s>(snapshot: &'s Snapshot, expectation: &Expectation) -> Vec<&'s Route> {
    let Ok(request) = Request::parse(&expectation.method, &expectation.url) else { return Vec::new() };
    let decision = decide(snapshot, request.head(), |_, _| Ok(crate::authenticate::Caller::Anyone));
    match (decision.place, decision.outcome, decision.target) {
        (Some(Place::Route(route) | Place::Preflight(route, _)), ..) => vec![route],
        (None, Err(Rejection::MethodNotAllowed(_)), Some(target)) => {
            let host = target::host(&request.uri, &request.headers, request.head().version);
            host.map(|host| snapshot.routes.candidates(&host, target.path())).unwrap_or_default()
        }
        (Some(Place::Endpoint(_)) | None, ..) => Vec::new(),
    }
}

fn asker(caller: &ExpectedCaller) -> Asker<'static> {
    match caller {
        ExpectedCaller::Anyone => Asker::Anyone,
        ExpectedCaller::Principal { roles, scopes, scheme } => {
            let subject = Subject::user("somebody");
            let principal =
                Principal { subject, user_id: None, roles: roles.as_slice().into(), scopes: scopes.as_slice().into() };
            Asker::Claimed(principal, *scheme)
        }
    }
}

impl Failure<'_> {
    /// What was expected and what comes instead, in one line.
    pub fn summary(&self) -> String {
        let Expectation { method, url, caller, status, .. } = self.expectation;
        let instead = match self.explanation.status() {
            StatusCode::OK => "it passes".to_owned(),
            other => format!("it gets {}", other.as_u16()),
        };
        let shown = |text: &str| crate::config::report::quoted(text);
        format!("{} as {}: expected {}, but {instead}", shown(&format!("{method} {url}")), who(caller), status.as_u16())
    }
}

fn who(caller: &ExpectedCaller) -> String {
    match caller {
        ExpectedCaller::Anyone => "anyone".to_owned(),
        ExpectedCaller::Principal { roles, .. } if roles.is_empty() => "a principal without roles".to_owned(),
        ExpectedCaller::Principal { roles, .. } => roles.iter().map(Role::as_str).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_text};
    use std::fmt::Write as _;
    use std::path::Path;

    fn snapshot(expect: &str) -> Snapshot {
        let expect = if expect.is_empty() { "  []" } else { expect };
        let text = format!(
            "paths: {{ semicolon: keep }}\nupstreams: {{ a: {{ builtin: echo }} }}\nroutes:\n  \
             - {{ path: /a, methods: [GET], allow: [user, admin], to: a }}\n  \
             - {{ path: '/w/{{id}}', allow: authenticated, scopes: [w], schemes: [bearer], to: a }}\n  \
             - {{ path: /h, hosts: [api.example.com], allow: anyone, to: a }}\nexpect:\n{expect}"
        );
        load_text(&text, Path::new("."), "a.yaml", &Environment::default()).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn an_expectation_is_met_or_not() {
        for (request, caller, status) in [
            ("GET /a", "{ roles: [user] }", 200),
            ("HEAD /a", "{ roles: [x, admin] }", 200),
            ("GET /a", "{ roles: [guest] }", 403),
            ("GET /a", "{}", 403),
            ("GET /a", "anyone", 401),
            ("POST /a", "anyone", 405),
            ("GET /b", "anyone", 404),
            ("GET //a", "anyone", 400),
            ("GET /a#b", "anyone", 400),
            ("GET /w/1;x", "{ scopes: [w] }", 200),
            ("GET /w/1", "{ roles: [w] }", 403),
            ("GET /w/1", "{ scopes: [w], scheme: basic }", 401),
            ("GET /h", "anyone", 404),
            ("GET https://api.example.com/h", "anyone", 200),
            ("POST /auth/login", "anyone", 200),
            ("PUT /auth/login", "anyone", 405),
        ] {
            for expected in [200, 400, 401, 403, 404, 405] {
                let list = format!("  - {{ request: '{request}', as: {caller}, is: {expected} }}\n");
                let snapshot = snapshot(&list);
                let failures = failures(&snapshot);
                assert_eq!(failures.is_empty(), expected == status, "{list} {failures:?}");
            }
        }
    }

    #[test]
    fn routes_that_no_expectation_touches_are_known() {
        for (requests, expected) in [
            (&[][..], &["/a", "/w/{id}", "/h"][..]),
            (&["GET /a"], &["/w/{id}", "/h"]),
            (&["PUT /a"], &["/w/{id}", "/h"]),
            (
                &["PUT /b", "PUT /h", "POST /auth/login", "PUT /auth/login", "GET //a", "PUT /a#b"],
                &["/a", "/w/{id}", "/h"],
            ),
            (&["PUT https://api.example.com/h", "PUT /w/1", "GET /a"], &[]),
        ] {
            let mut list = String::new();
            for request in requests {
                writeln!(list, "  - {{ request: '{request}', as: anyone, is: 200 }}").unwrap();
            }
            let snapshot = snapshot(&list);
            let names: Vec<_> = untouched(&snapshot).iter().map(|route| route.name.to_string()).collect();
            assert_eq!(names, expected, "{requests:?}");
        }
    }
}

//! Which pages of other origins a browser may let read a route's responses (the CORS protocol of the Fetch standard).
//!
//! Pure: what a preflight is told, and what every response of the route bears, refusals included. An origin is matched
//! byte for byte, never by a part of it. What an upstream says of CORS is replaced, so that only the rules decide.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::Route;

/// Not among the constants of `http`: a page of a public address asks for one of a private network.
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// What only a gateway that answers preflights may say. `Access-Control-Expose-Headers` is not among them: it opens nothing
/// to an origin that is not let in, and only the application knows which of its fields are for scripts.
pub const OURS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    ALLOW_PRIVATE_NETWORK,
];

/// A route's `cors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages.
    pub origins: Origins,
    /// Which request fields, ready to send; `None`: those that need no permission.
    pub headers: Option<HeaderValue>,
    /// How long a browser may remember the answer to a preflight, in seconds, ready to send.
    pub max_age: Option<HeaderValue>,
    /// Whether cookies and the browser's own credentials go along.
    pub credentials: bool,
}

/// Whose pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Any; never together with credentials.
    Any,
    /// These, as browsers write them: `https://app.example.com`, without a default port.
    Listed(Vec<HeaderValue>),
}

/// What the responses to one request bear, whatever becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    said: Vec<(HeaderName, HeaderValue)>,
    /// Whether another origin would have been told something else, which caches have to know.
    varies: bool,
}

/// The method that a preflight asks for; `None` for what is none. A preflight is an `OPTIONS` with an origin and the
/// method of the request to come, one of each.
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS {
        return None;
    }
    only(headers, &ORIGIN)?;
    Method::from_bytes(only(headers, &ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

/// The field of this name where there is exactly one.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

impl Cors {
    /// What the responses to a request with these fields bear. An origin that is not let in is told nothing.
    pub fn grant(&self, headers: &HeaderMap) -> Grant {
        let (origin, varies) = match &self.origins {
            Origins::Any => (Some(HeaderValue::from_static("*")), false),
            Origins::Listed(listed) => {
                let asked = only(headers, &ORIGIN);
                (listed.iter().find(|known| Some(*known) == asked).cloned(), true)
            }
        };
        let credentials = self.credentials && origin.is_some();
        let credentials = credentials.then(|| (ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        let origin = origin.map(|origin| (ACCESS_CONTROL_ALLOW_ORIGIN, origin));
        Grant { said: origin.into_iter().chain(credentials).collect(), varies }
    }

    /// What the answer to a preflight bears, which asks for a request of the method `asked` on `route`.
    pub fn preflight(&self, route: &Route, asked: &Method, headers: &HeaderMap) -> Grant {
        let mut grant = self.grant(headers);
        if grant.said.is_empty() {
            return grant;
        }
        let listed: Vec<&str> = route.listed_methods().map(Method::as_str).collect();
        // a route for all methods has no list; what was asked for is one of them
        let methods = if listed.is_empty() { asked.as_str().to_owned() } else { listed.join(", ") };
        let methods = HeaderValue::try_from(methods).ok();
        let said = [
            (ACCESS_CONTROL_ALLOW_METHODS, methods),
            (ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone()),
            (ACCESS_CONTROL_MAX_AGE, self.max_age.clone()),
        ];
        grant.said.extend(said.into_iter().filter_map(|(name, value)| Some((name, value?))));
        grant
    }
}

impl Grant {
    /// Writes itself into a response, in place of what an upstream said.
    pub fn write(&self, headers: &mut HeaderMap) {
        for name in &OURS {
            headers.remove(name);
        }
        for (name, value) in &self.said {
            headers.insert(name, value.clone());
        }
        if self.varies && !varies_by_origin(headers) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let mut members = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    members.any(|member| matches!(member.trim_ascii(), "*") || member.trim_ascii().eq_ignore_ascii_case("origin"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::test_route;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    fn listed(origins: &[&'static str]) -> Cors {
        Cors {
            origins: Origins::Listed(origins.iter().map(|origin| HeaderValue::from_static(origin)).collect()),
            headers: Some(HeaderValue::from_static("authorization, x-a")),
            max_age: Some(HeaderValue::from(600)),
            credentials: true,
        }
    }

    fn any() -> Cors {
        Cors { origins: Origins::Any, headers: None, max_age: None, credentials: false }
    }

    #[test]
    fn a_preflight_says_whose_and_what() {
        for (name, method, headers, expected) in [
            ("a preflight", "OPTIONS", &[("origin", "https://a"), ("access-control-request-method", "PUT")][..], true),
            ("no origin", "OPTIONS", &[("access-control-request-method", "PUT")], false),
            ("no method", "OPTIONS", &[("origin", "https://a")], false),
            ("no OPTIONS", "GET", &[("origin", "https://a"), ("access-control-request-method", "PUT")], false),
            ("no method's name", "OPTIONS", &[("origin", "a"), ("access-control-request-method", "P U")], false),
            (
                "two methods",
                "OPTIONS",
                &[("origin", "a"), ("access-control-request-method", "GET"), ("access-control-request-method", "PUT")],
                false,
            ),
            (
                "two origins",
                "OPTIONS",
                &[("origin", "a"), ("origin", "b"), ("access-control-request-method", "PUT")],
                false,
            ),
        ] {
            let asked = preflight(&method.parse().unwrap(), &fields(headers));
            assert_eq!(asked, expected.then_some(Method::PUT), "{name}");
        }
    }

    #[test]
    fn an_origin_is_let_in_if_it_is_one_of_the_list_to_the_byte() {
        let cors = listed(&["https://app.example.com", "http://localhost:3000"]);
        for (origin, let_in) in [
            ("https://app.example.com", true),
            ("http://localhost:3000", true),
            ("http://app.example.com", false),
            ("https://app.example.com:443", false),
            ("https://APP.example.com", false),
            ("https://app.example.com/", false),
            ("https://app.example.com.evil.org", false),
            ("https://evil-app.example.com", false),
            ("https://example.com", false),
            ("http://localhost", false),
            ("null", false),
            ("*", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            cors.grant(&fields(&[("origin", origin)])).write(&mut headers);
            assert_eq!(headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|told| told == origin), let_in, "{origin}");
            assert_eq!(headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS), let_in, "{origin}");
            assert_eq!(headers[VARY], "Origin", "{origin}");
            let preflight = cors.preflight(&test_route("/a"), &Method::PUT, &fields(&[("origin", origin)]));
            assert_eq!(!preflight.said.is_empty(), let_in, "{origin}");
        }
    }

    #[test]
    fn what_the_upstream_says_of_it_is_replaced() {
        let upstreams = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-origin", "https://evil.org"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "DELETE"),
            ("access-control-allow-private-network", "true"),
            ("access-control-expose-headers", "x-total"),
            ("vary", "accept-encoding"),
        ];
        let mut headers = fields(&upstreams);
        listed(&["https://a.org"]).grant(&fields(&[("origin", "https://evil.org")])).write(&mut headers);
        let expected =
            fields(&[("access-control-expose-headers", "x-total"), ("vary", "accept-encoding"), ("vary", "Origin")]);
        assert_eq!(headers, expected);
        let mut headers = fields(&upstreams);
        any().grant(&fields(&[("origin", "https://b.org")])).write(&mut headers);
        assert_eq!(headers.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter().collect::<Vec<_>>(), ["*"]);
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
        assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), ["accept-encoding"]);
    }

    #[test]
    fn what_varies_by_origin_says_so_once() {
        for (vary, expected) in [("origin", 1), ("Accept, ORIGIN", 1), ("*", 1), ("x-origin", 2)] {
            let mut headers = fields(&[("vary", vary)]);
            listed(&["https://a.org"]).grant(&HeaderMap::new()).write(&mut headers);
            assert_eq!(headers.get_all(VARY).iter().count(), expected, "{vary}");
        }
    }

    #[test]
    fn a_preflight_is_told_what_the_route_is_for() {
        let mut route = test_route("/a");
        let asked = fields(&[("origin", "https://a.org")]);
        let told = |cors: Cors, route: &Route| {
            let mut headers = HeaderMap::new();
            cors.preflight(route, &Method::DELETE, &asked).write(&mut headers);
            headers
        };
        let cors = listed(&["https://a.org"]);
        assert_eq!(told(cors.clone(), &route)[ACCESS_CONTROL_ALLOW_METHODS], "DELETE");
        route.methods = [Method::GET, Method::PUT].into();
        let headers = told(cors, &route);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT, HEAD");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "authorization, x-a");
        assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "600");
        assert_eq!(told(any(), &route).len(), 2);
    }
}

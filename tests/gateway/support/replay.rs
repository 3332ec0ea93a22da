//! Replays the cases of `tests/data/cases.json`: requests with placeholders in them, and what should come back.
//!
//! The file's own `format` entry says what the words mean. Whatever deviates is told as text, so that a test can show all of
//! it at once.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::client::{Connection, Response};
use super::matching::{self, Matching, UPSTREAM_MARK, at_time};
use super::upstream::{Received, Reply, Upstream};
use super::wait::unix_now;

/// The name of the header that tells the upstream who calls.
const USER_FIELD: &str = "X-Auth-User";
const ROLES_FIELD: &str = "X-Auth-Roles";

/// The API behind the gateway, as `routes` of a system describe it: it believes what it is told.
pub fn upstream(system: &Value) -> Upstream {
    let routes = system["routes"].as_array().unwrap().clone();
    Upstream::start(move |received| answer(&routes, received))
}

fn answer(routes: &[Value], received: &Received) -> Reply {
    let path = received.target.split('?').next().unwrap();
    let known = |route: &&Value| route["path"] == path && route.get("upstream_body").is_some();
    let reply = |status, allow: Option<&str>, body: &str| {
        let allow = allow.map(|methods| ("Allow", methods));
        let fields: Vec<_> = [("Content-Type", "application/json"), UPSTREAM_MARK].into_iter().chain(allow).collect();
        Reply::new(status, &fields, body)
    };
    let Some(route) = routes.iter().find(known) else { return reply(404, None, "{}") };
    let methods: Vec<_> = route["methods"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    if !methods.contains(&received.method.as_str()) && received.method != "HEAD" {
        return reply(405, Some(&methods.join(", ")), "{}");
    }
    let told = received.header(USER_FIELD).unwrap_or("nobody");
    let user = percent_decode_str(told).decode_utf8_lossy();
    let body = with_texts(&route["upstream_body"], &|text| text.replace("<user>", &user)).to_string();
    reply(200, None, if received.method == "HEAD" { "" } else { &body })
}

/// A copy in which every text went through `change`.
fn with_texts(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => change(text).into(),
        Value::Array(items) => items.iter().map(|item| with_texts(item, change)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), with_texts(member, change))).collect()
        }
        other => other.clone(),
    }
}

/// One system and the gateway in its place.
pub struct Replay<'a> {
    system: &'a Value,
    gateway: SocketAddr,
    count: Cell<u32>,
}

/// One case under way.
struct Turn<'a> {
    replay: &'a Replay<'a>,
    case: &'a Value,
    unique: String,
    saved: HashMap<String, String>,
    deviations: Vec<String>,
}

impl<'a> Replay<'a> {
    pub fn new(system: &'a Value, gateway: SocketAddr) -> Self {
        Self { system, gateway, count: Cell::new(0) }
    }

    /// Plays a case; what came back otherwise than it should.
    pub fn play(&self, case: &Value) -> Vec<String> {
        self.count.set(self.count.get() + 1);
        let unique = format!("u{:09}", self.count.get());
        let mut turn = Turn { replay: self, case, unique, saved: HashMap::new(), deviations: Vec::new() };
        for step in case["setup"].as_array().into_iter().flatten() {
            turn.step(step, "setup: ");
        }
        turn.step(case, "");
        turn.deviations
    }

    fn fixture(&self, name: &str) -> &str {
        self.system["fixtures"][name].as_str().unwrap_or_else(|| panic!("no fixture {name}"))
    }

    fn password(&self, user: &str) -> &str {
        let fixtures = &self.system["fixtures"];
        let known = ["users", "clients"].iter().filter_map(|kind| fixtures[*kind].as_array()).flatten();
        let found = known.into_iter().find(|known| known["name"] == user).unwrap_or_else(|| panic!("no user {user}"));
        found["password"].as_str().unwrap()
    }

    fn basic(&self, user: &str) -> String {
        STANDARD.encode(format!("{user}:{}", self.password(user)))
    }

    /// A credential of `kind` for `user`, by the system's own log-in.
    fn log_in(&self, kind: &str, user: &str) -> String {
        let login = &self.system["login"][kind];
        assert!(login.is_object(), "the system has no log-in for {kind}");
        let fill = |text: &str| {
            text.replace("{user}", user)
                .replace("{password}", self.password(user))
                .replace("{basic:*}", &self.basic(user))
        };
        let request = Parts::of(login, &fill);
        let response = self.send(&request);
        let body = serde_json::from_slice::<Value>(&response.body).unwrap_or_default();
        let taken = body.pointer(login["take"].as_str().unwrap()).and_then(Value::as_str);
        let taken = taken.unwrap_or_else(|| panic!("log-in of {user}: {} {}", response.status, response.text()));
        stripped(login, taken)
    }

    fn send(&self, parts: &Parts) -> Response {
        let mut connection = Connection::plain(self.gateway);
        // it may refuse and close before all is written
        drop(connection.write(&parts.bytes()));
        connection.response(&parts.method).unwrap_or_else(|error| panic!("{} {}: {error}", parts.method, parts.path))
    }
}

/// `value` without what the regular expression of `strip` matches.
fn stripped(step: &Value, value: &str) -> String {
    match step["strip"].as_str() {
        Some(pattern) => Regex::new(pattern).unwrap().replace(value, "").into_owned(),
        None => value.to_owned(),
    }
}

/// A request with nothing left to fill in.
struct Parts {
    method: String,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Parts {
    fn of(step: &Value, fill: &dyn Fn(&str) -> String) -> Self {
        let mut headers = Vec::new();
        for header in step["headers"].as_array().into_iter().flatten() {
            let value = match &header[1] {
                Value::String(text) => fill(text).into_bytes(),
                raw => hex(raw["hex"].as_str().unwrap()),
            };
            headers.push((header[0].as_str().unwrap().to_owned(), value));
        }
        let (body, brings) = if let Some(json) = step.get("json") {
            (with_texts(json, fill).to_string().into_bytes(), Some("application/json"))
        } else if let Some(form) = step["form"].as_array() {
            let pairs = form.iter().map(|pair| {
                let [name, value] = [0, 1].map(|at| form_encoded(&fill(pair[at].as_str().unwrap())));
                format!("{name}={value}")
            });
            (pairs.collect::<Vec<_>>().join("&").into_bytes(), Some("application/x-www-form-urlencoded"))
        } else if let Some(hexadecimal) = step["body_hex"].as_str() {
            (hex(hexadecimal), None)
        } else {
            (fill(step["body"].as_str().unwrap_or_default()).into_bytes(), None)
        };
        let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if let Some(brings) = brings.filter(|_| !has_type) {
            headers.push(("Content-Type".into(), brings.into()));
        }
        let method = step["method"].as_str().unwrap().to_owned();
        Self { method, path: fill(step["path"].as_str().unwrap()), headers, body }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: localhost\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(name.as_bytes());
            bytes.extend(b": ");
            bytes.extend(value);
            bytes.extend(b"\r\n");
        }
        if !self.body.is_empty() || self.method == "POST" {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).bytes());
        }
        bytes.extend(b"Connection: close\r\n\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

fn form_encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

impl Turn<'_> {
    /// Sends one request, keeps what is to be kept, and looks at what came.
    fn step(&mut self, step: &Value, which: &str) {
        let parts = Parts::of(step, &|text| self.filled(text));
        let response = self.replay.send(&parts);
        let body = serde_json::from_slice::<Value>(&response.body).ok();
        for (name, pointer) in step["save"].as_object().into_iter().flatten() {
            let found = body.as_ref().and_then(|body| body.pointer(pointer.as_str().unwrap())).and_then(Value::as_str);
            match found {
                Some(found) => drop(self.saved.insert(name.clone(), stripped(step, found))),
                None => self.deviations.push(format!("{which}nothing at {pointer} to be saved")),
            }
        }
        let Some(expect) = step.get("expect") else { return };
        let expect = with_texts(expect, &|text| text.replace("{uniq}", &self.unique));
        let secret = self.replay.system["fixtures"]["jwt_secret"].as_str().unwrap_or_default();
        let matching = Matching { saved: &self.saved, secret, now: unix_now() };
        let mut wrong = matching::deviations(&matching, &expect, &response);
        if !wrong.is_empty() {
            wrong.push(format!("it was {} {:?} {}", response.status, response.headers, response.text()));
        }
        self.deviations.extend(wrong.into_iter().map(|text| format!("{which}{text}")));
    }

    /// `text` with every placeholder filled in.
    fn filled(&self, text: &str) -> String {
        let placeholder = Regex::new(
            r"\{(uniq|basic|b64|b64hex|b64u|rep|access_token|refresh_token|token|craft|saved|ident)(?::([^{}]*))?\}",
        );
        let filled = placeholder.unwrap().replace_all(text, |found: &regex::Captures<'_>| {
            self.value(found.get(1).unwrap().as_str(), found.get(2).map(|argument| argument.as_str()))
        });
        filled.into_owned()
    }

    fn value(&self, name: &str, argument: Option<&str>) -> String {
        let replay = self.replay;
        let default = replay.system["default_user"].as_str().unwrap();
        match (name, argument) {
            ("uniq", None) => self.unique.clone(),
            ("basic", Some(user)) => replay.basic(user),
            ("b64", Some(text)) => STANDARD.encode(text),
            ("b64hex", Some(text)) => STANDARD.encode(hex(text)),
            ("b64u", Some(text)) => STANDARD.encode(text.replace('|', &self.unique)),
            ("rep", Some(text)) => {
                let (part, times) = text.rsplit_once('*').unwrap();
                part.repeat(times.parse().unwrap())
            }
            ("access_token" | "refresh_token" | "token", user) => replay.log_in(name, user.unwrap_or(default)),
            ("craft", Some(which)) => self.crafted(&self.case["craft"][which]),
            ("saved", Some(which)) => self.saved.get(which).unwrap_or_else(|| panic!("{which} was not saved")).clone(),
            ("ident", Some("user")) => USER_FIELD.to_owned(),
            ("ident", Some("roles")) => ROLES_FIELD.to_owned(),
            other => panic!("a placeholder that nobody knows: {other:?}"),
        }
    }

    /// A JWT put together by hand.
    fn crafted(&self, craft: &Value) -> String {
        let header = craft.get("header").cloned().unwrap_or_else(|| json!({ "alg": "HS256", "typ": "JWT" }));
        let key = match craft["key"].as_str() {
            None | Some("secret") => self.replay.fixture("jwt_secret"),
            Some(text) => text.strip_prefix("text:").unwrap_or_else(|| panic!("a key that nobody knows: {text}")),
        };
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = |name: &str| encoded(&Value::Object(timed(craft[name].as_object().unwrap())));
        let (head, mut payload) = (encoded(&header), claims("claims"));
        let algorithm = craft["sign"].as_str().or(header["alg"].as_str()).unwrap();
        let mut signature = signed(algorithm, key, &format!("{head}.{payload}"));
        let mut dots = true;
        for mutation in craft["mutate"].as_array().into_iter().flatten() {
            match mutation.as_str().unwrap() {
                "two_segments" => dots = false,
                "drop_signature" => signature.clear(),
                "flip_signature" => *signature.last_mut().unwrap() ^= 1,
                "swap_claims" => payload = claims("swap"),
                other => panic!("a mutation that nobody knows: {other}"),
            }
        }
        let unsigned = format!("{head}.{payload}");
        if dots { format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature)) } else { unsigned }
    }
}

fn timed(claims: &Map<String, Value>) -> Map<String, Value> {
    let at = |claim: &Value| at_time(claim, unix_now()).map_or_else(|| claim.clone(), Value::from);
    claims.iter().map(|(name, claim)| (name.clone(), at(claim))).collect()
}

fn signed(algorithm: &str, key: &str, input: &str) -> Vec<u8> {
    let family = match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        // none, in whatever spelling
        _ => return Vec::new(),
    };
    hmac::sign(&hmac::Key::new(family, key.as_bytes()), input.as_bytes()).as_ref().to_vec()
}

//! What should come back, as the cases say it: plain values and matchers such as `{"$regex": …}`, against a response.

use std::collections::HashMap;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regex::Regex;
use serde_json::{Map, Value};

use super::client::Response;

/// How far a lifetime may be off, in seconds: a second may pass while a token is made.
const TOLERANCE: i64 = 5;

/// The field by which the upstream of a replay marks what it says.
pub const UPSTREAM_MARK: (&str, &str) = ("X-Said-By", "upstream");

/// What matchers refer to.
pub struct Matching<'a> {
    pub saved: &'a HashMap<String, String>,
    /// With which the system's tokens are signed.
    pub secret: &'a str,
    /// In unix seconds.
    pub now: i64,
}

/// `now`, `now+60` or `now-60` as unix seconds.
pub fn at_time(value: &Value, now: i64) -> Option<i64> {
    let rest = value.as_str()?.strip_prefix("now")?;
    if rest.is_empty() { Some(now) } else { rest.parse::<i64>().ok().map(|offset| now + offset) }
}

/// All that is otherwise than `expect` has it.
pub fn deviations(matching: &Matching<'_>, expect: &Value, response: &Response) -> Vec<String> {
    let mut wrong = Vec::new();
    for (word, expected) in expect.as_object().unwrap() {
        match word.as_str() {
            "status" => {
                let status = Value::from(response.status);
                if *expected != status && !expected.as_array().is_some_and(|any| any.contains(&status)) {
                    wrong.push(format!("status {status} for {expected}"));
                }
            }
            "json" => match serde_json::from_slice::<Value>(&response.body) {
                Ok(body) => wrong.extend(matching.fits("", Some(&body), expected).err()),
                Err(error) => wrong.push(format!("the body is no JSON: {error}")),
            },
            "headers" => {
                for (name, expected) in expected.as_object().unwrap() {
                    wrong.extend(matching.header(name, &response.all(name), expected).err());
                }
            }
            "body_not_contains" => {
                let text = response.text();
                for part in expected.as_array().unwrap().iter().filter_map(Value::as_str) {
                    if text.contains(part) {
                        wrong.push(format!("the body has {part:?}"));
                    }
                }
            }
            // a gateway may know of more that has no rule, or no credential
            "from_upstream" if matches!(response.status, 401 | 403) => {}
            "from_upstream" => {
                if response.all(UPSTREAM_MARK.0) != [UPSTREAM_MARK.1] {
                    wrong.push("it is not the upstream's".to_owned());
                }
            }
            other => panic!("an expectation that nobody knows: {other}"),
        }
    }
    wrong
}

impl Matching<'_> {
    fn fits(&self, place: &str, value: Option<&Value>, expected: &Value) -> Result<(), String> {
        if let Value::Object(members) = expected {
            if members.keys().any(|name| name.starts_with('$')) {
                return members.iter().try_for_each(|(name, argument)| self.matches(place, value, name, argument));
            }
            let Some(Value::Object(found)) = value else {
                return Err(format!("{place}: {value:?} is no object"));
            };
            return members
                .iter()
                .try_for_each(|(name, member)| self.fits(&format!("{place}/{name}"), found.get(name), member));
        }
        if let (Value::Array(expected), Some(Value::Array(found))) = (expected, value)
            && expected.len() == found.len()
        {
            let mut pairs = expected.iter().zip(found).enumerate();
            return pairs
                .try_for_each(|(at, (expected, item))| self.fits(&format!("{place}/{at}"), Some(item), expected));
        }
        if value == Some(expected) { Ok(()) } else { Err(format!("{place}: {value:?} for {expected}")) }
    }

    fn matches(&self, place: &str, value: Option<&Value>, name: &str, argument: &Value) -> Result<(), String> {
        let text = value.and_then(Value::as_str);
        let fits = match name {
            "$any" => argument.as_array().unwrap().iter().any(|one| self.fits(place, value, one).is_ok()),
            "$all" => return argument.as_array().unwrap().iter().try_for_each(|one| self.fits(place, value, one)),
            "$not" => self.fits(place, value, argument).is_err(),
            "$ne" => value != Some(argument),
            "$regex" => text.is_some_and(|text| Regex::new(argument.as_str().unwrap()).unwrap().is_match(text)),
            "$prefix" => text.is_some_and(|text| text.starts_with(argument.as_str().unwrap())),
            "$present" => value.is_some_and(|value| !value.is_null()),
            "$absent" => value.is_none(),
            "$type" => match argument.as_str().unwrap() {
                "string" => text.is_some(),
                "number" => value.is_some_and(Value::is_number),
                other => panic!("a type that nobody knows: {other}"),
            },
            "$range" => {
                let [least, most] = [0, 1].map(|end| at_time(&argument[end], self.now).or(argument[end].as_i64()));
                value.and_then(Value::as_i64).is_some_and(|number| (least.unwrap()..=most.unwrap()).contains(&number))
            }
            "$json" => {
                let inner = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
                return self.fits(place, inner.as_ref(), argument);
            }
            "$jwt" => return self.jwt(place, text, argument),
            "$eq_saved" => text == self.saved.get(argument.as_str().unwrap()).map(String::as_str),
            "$ne_saved" => text != self.saved.get(argument.as_str().unwrap()).map(String::as_str),
            other => panic!("a matcher that nobody knows: {other}"),
        };
        if fits { Ok(()) } else { Err(format!("{place}: {value:?} for {name} {argument}")) }
    }

    /// A JWT with these claims; every one is verified, since all of them are signed with the system's secret.
    fn jwt(&self, place: &str, text: Option<&str>, argument: &Value) -> Result<(), String> {
        let text = text.ok_or_else(|| format!("{place}: no text"))?;
        let text = match argument["strip"].as_str() {
            Some(pattern) => Regex::new(pattern).unwrap().replace(text, "").into_owned(),
            None => text.to_owned(),
        };
        let claims = verified(&text, self.secret).ok_or_else(|| format!("{place}: {text} is no JWT of this secret"))?;
        let claims = Value::Object(claims);
        if let Some(expected) = argument.get("claims") {
            self.fits(place, Some(&claims), expected)?;
        }
        if let Some(lifetime) = argument["ttl"].as_i64() {
            let lives = claims["exp"].as_i64().unwrap_or_default() - self.now;
            if (lives - lifetime).abs() > TOLERANCE {
                return Err(format!("{place}: it lives {lives} s for {lifetime} s"));
            }
        }
        Ok(())
    }

    fn header(&self, name: &str, values: &[&str], expected: &Value) -> Result<(), String> {
        let wrong = || Err(format!("{name}: {values:?} for {expected}"));
        if let Some(tokens) = expected.get("$tokens") {
            let found: Vec<_> = values.iter().flat_map(|value| value.split(',')).map(str::trim).collect();
            let all = tokens.as_array().unwrap().iter().filter_map(Value::as_str).all(|token| found.contains(&token));
            return if all { Ok(()) } else { wrong() };
        }
        if let Some(expected) = expected.get("$challenge") {
            return if values.iter().any(|value| challenges(value, expected)) { Ok(()) } else { wrong() };
        }
        let joined = (!values.is_empty()).then(|| Value::from(values.join(", ")));
        self.fits(name, joined.as_ref(), expected)
    }
}

/// Whether a challenge is of this scheme, with these parameters (null: any value) and without those.
fn challenges(value: &str, expected: &Value) -> bool {
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    let parameter = Regex::new(r#"([a-zA-Z_-]+)="((?:[^"\\]|\\.)*)""#).unwrap();
    let found: HashMap<_, _> =
        parameter.captures_iter(rest).map(|all| (all[1].to_owned(), all[2].to_owned())).collect();
    let has = |(name, expected): (&String, &Value)| match expected {
        Value::Null => found.contains_key(name),
        expected => found.get(name).map(String::as_str) == expected.as_str(),
    };
    let lacks = |name: &Value| !found.contains_key(name.as_str().unwrap());
    scheme.eq_ignore_ascii_case(expected["scheme"].as_str().unwrap())
        && expected["params"].as_object().into_iter().flatten().all(has)
        && expected["without"].as_array().into_iter().flatten().all(lacks)
}

fn verified(token: &str, secret: &str) -> Option<Map<String, Value>> {
    let (input, signature) = token.rsplit_once('.')?;
    let (header, payload) = input.split_once('.')?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    if header["alg"] != "HS256" {
        return None;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, input.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

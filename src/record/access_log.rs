//! One JSON line a request (contract 8), written by hand: a serializer would cost more than the request's own rules.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// What a line says. No field holds a credential, a query or a body.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) time: SystemTime,
    pub(super) request_id: &'a str,
    pub(super) address: IpAddr,
    pub(super) method: &'static str,
    pub(super) path: Option<&'a str>,
    pub(super) route: &'a str,
    pub(super) status: u16,
    pub(super) duration: Duration,
    pub(super) bytes: u64,
    pub(super) scheme: Option<&'static str>,
    pub(super) user: Option<&'a str>,
    pub(super) upstream: Option<(&'a str, Option<Duration>)>,
    pub(super) reason: Option<&'a str>,
}

impl Entry<'_> {
    /// The line, without its end.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = String::with_capacity(384);
        line.push_str("{\"time\":\"");
        append(&mut line, format_args!("{}", humantime::format_rfc3339_millis(self.time)));
        line.push('"');
        text(&mut line, "request_id", Some(self.request_id));
        append(&mut line, format_args!(",\"address\":\"{}\"", self.address));
        text(&mut line, "method", Some(self.method));
        text(&mut line, "path", self.path);
        text(&mut line, "route", Some(self.route));
        append(
            &mut line,
            format_args!(
                ",\"status\":{},\"duration\":{:.6},\"bytes\":{}",
                self.status,
                self.duration.as_secs_f64(),
                self.bytes
            ),
        );
        text(&mut line, "scheme", self.scheme);
        text(&mut line, "user", self.user);
        text(&mut line, "upstream", self.upstream.map(|(name, _)| name));
        if let Some((_, Some(took))) = self.upstream {
            append(&mut line, format_args!(",\"upstream_duration\":{:.6}", took.as_secs_f64()));
        }
        if let Some(reason) = self.reason {
            text(&mut line, "reason", Some(reason));
        }
        line.push('}');
        line.into_bytes()
    }
}

fn append(line: &mut String, what: std::fmt::Arguments<'_>) {
    line.write_fmt(what).expect("writing to a String does not fail");
}

/// Appends a member. Control characters and quotes are escaped (RFC 8259 7), so that nobody can forge a line.
fn text(line: &mut String, member: &str, value: Option<&str>) {
    line.push_str(",\"");
    line.push_str(member);
    line.push_str("\":");
    let Some(value) = value else { return line.push_str("null") };
    line.push('"');
    for character in value.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            control if control.is_control() => append(line, format_args!("\\u{:04x}", u32::from(control))),
            plain => line.push(plain),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_the_values() {
        let entry = Entry {
            time: SystemTime::UNIX_EPOCH,
            request_id: "r1",
            address: "::1".parse().unwrap(),
            method: "GET",
            path: Some("/a\"b\\c"),
            route: "-",
            status: 404,
            duration: Duration::from_micros(1500),
            bytes: 7,
            scheme: None,
            user: Some("a\n{\"b\":1}\u{85}"),
            upstream: Some(("orders", Some(Duration::from_millis(1)))),
            reason: Some("no_route"),
        };
        let line: serde_json::Value = serde_json::from_slice(&entry.line()).unwrap();
        assert_eq!(line["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(line["path"], "/a\"b\\c");
        assert_eq!(line["user"], "a\n{\"b\":1}\u{85}");
        assert_eq!(line["duration"], 0.0015);
        assert_eq!(line["upstream_duration"], 0.001);
        assert_eq!(line["scheme"], serde_json::Value::Null);
    }
}

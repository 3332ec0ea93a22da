//! Methods that clients send, and what one was meant to be that none does.

use super::report::{alternatives, nearest, quoted};

/// Those of the IANA registry (RFC 9110 16.1), and one of SSDP that looks like another of them.
const KNOWN: [&str; 41] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// What other programs write for every method. Here it would be one of that name.
pub const EVERY: [&str; 3] = ["*", "ALL", "ANY"];

/// Why a method is probably not what was meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It stands for every method elsewhere.
    Every,
    /// It has letters in lower case, and methods are compared exactly (RFC 9110 9.1); what was meant.
    LowerCase(String),
    /// It is nearly this one.
    Misspelt(&'static str),
}

impl Doubt {
    /// Of a method; `None` where it is a known one, or like none of them.
    pub fn of(name: &str) -> Option<Self> {
        if EVERY.iter().any(|every| every.eq_ignore_ascii_case(name)) {
            return Some(Self::Every);
        }
        if KNOWN.contains(&name) {
            return None;
        }
        let like = nearest(name, &KNOWN);
        if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Some(Self::LowerCase(like.map_or_else(|| name.to_ascii_uppercase(), str::to_owned)));
        }
        like.map(Self::Misspelt)
    }

    /// What is wrong with the method, which is `shown` so.
    pub fn message(&self, shown: &str) -> String {
        match self {
            Self::Every => format!("{shown} is not a method that anybody sends"),
            Self::LowerCase(_) => "methods are written in upper case".to_owned(),
            Self::Misspelt(_) => format!("{shown} is not a registered method"),
        }
    }

    /// What was meant.
    pub fn question(&self) -> Option<String> {
        let meant: &str = match self {
            Self::Every => return None,
            Self::LowerCase(meant) => meant,
            Self::Misspelt(meant) => meant,
        };
        Some(format!("did you mean {}?", alternatives(&[meant])))
    }

    /// Both, in one line.
    pub fn sentence(&self, name: &str) -> String {
        let question = self.question().map(|question| format!("; {question}"));
        format!("{}{}", self.message(&quoted(name)), question.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_known_or_like_one_that_is() {
        for (name, expected) in [
            ("GET", None),
            ("VERSION-CONTROL", None),
            ("M-SEARCH", None),
            ("PURGE", None),
            ("SUBSCRIBE", None),
            ("LIST", None),
            ("PSOT", Some(Doubt::Misspelt("POST"))),
            ("PROPFND", Some(Doubt::Misspelt("PROPFIND"))),
            ("*", Some(Doubt::Every)),
            ("any", Some(Doubt::Every)),
            ("Get", Some(Doubt::LowerCase("GET".to_owned()))),
            ("gte", Some(Doubt::LowerCase("GET".to_owned()))),
            ("frobnicate", Some(Doubt::LowerCase("FROBNICATE".to_owned()))),
        ] {
            assert_eq!(Doubt::of(name), expected, "{name}");
        }
    }
}

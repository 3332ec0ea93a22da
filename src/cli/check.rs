//! `portcullis check FILE`: everything that is wrong with a configuration, and what is probably a mistake, in one run.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::BROKEN;
use super::output::{complain, print};
use crate::config::report::{Problem, Problems, Severity};
use crate::config::{self, Environment, Snapshot};
use crate::decision::expectations;

/// How problems are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// A list of problems
    Json,
    /// Annotations of a GitHub workflow
    Github,
    /// SARIF 2.1.0
    Sarif,
}

/// Prints all problems and answers 1, or that there are none and 0; 2 where the file cannot be read at all. Warnings do
/// not change the answer. In text, what is wrong goes to standard error; the other formats are one document on standard
/// output.
pub fn check(path: &Path, format: Format) -> ExitCode {
    let verdict = judge(path);
    let text = match format {
        Format::Text => {
            complain(&format!("{}{}", verdict.errors, verdict.warnings));
            verdict.summary.as_ref().map(|summary| format!("{summary}\n")).unwrap_or_default()
        }
        Format::Json => format!("{:#}\n", verdict.problems().map(as_json).collect::<Value>()),
        Format::Github => verdict.problems().map(as_annotation).collect::<String>(),
        Format::Sarif => format!("{:#}\n", sarif(verdict.problems())),
    };
    if let Err(error) = print(&text) {
        complain(&format!("portcullis: {error}\n"));
        return ExitCode::from(BROKEN);
    }
    match verdict {
        Verdict { errors, .. } if errors.is_unreadable() => ExitCode::from(BROKEN),
        Verdict { summary: Some(_), .. } => ExitCode::SUCCESS,
        Verdict { summary: None, .. } => ExitCode::FAILURE,
    }
}

/// What there is to say of a file.
struct Verdict {
    errors: Problems,
    warnings: Problems,
    /// That it is good, where it is.
    summary: Option<String>,
}

impl Verdict {
    fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.errors.iter().chain(self.warnings.iter())
    }
}

fn judge(path: &Path) -> Verdict {
    match config::check(path, &Environment::of_process()) {
        Ok((snapshot, warnings)) => {
            let errors = expectations::problems(&snapshot, &path.display().to_string());
            let summary = (errors.count() == 0).then(|| summary(path, &snapshot, &warnings));
            Verdict { errors, warnings, summary }
        }
        Err(errors) => Verdict { errors, warnings: Vec::new().into(), summary: None },
    }
}

fn summary(path: &Path, snapshot: &Snapshot, warnings: &Problems) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let mut parts = vec![count(snapshot.routes.routes().len(), "route"), count(snapshot.upstreams.len(), "upstream")];
    if !snapshot.expect.is_empty() {
        parts.push(format!("{} met", count(snapshot.expect.len(), "expectation")));
    }
    if warnings.count() > 0 {
        parts.push(count(warnings.count(), "warning"));
    }
    format!("{}: ok ({})", path.display(), parts.join(", "))
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn as_json(problem: &Problem) -> Value {
    json!({
        "file": problem.file,
        "line": problem.place.map(|place| place.line),
        "column": problem.place.map(|place| place.column),
        "severity": level(problem.severity),
        "message": problem.message,
        "hint": problem.hint,
    })
}

/// What is wrong; with the file where no line of it is pointed to, and nothing else might show which it is.
fn message(problem: &Problem) -> String {
    if problem.place.is_some() { problem.message.clone() } else { format!("{}: {}", problem.file, problem.message) }
}

/// A workflow command. What would end a property or the line is escaped, so that no name in the file can give commands.
fn as_annotation(problem: &Problem) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut line = format!("::{} file={}", level(problem.severity), property(&problem.file));
    if let Some(place) = problem.place {
        // writing to a text cannot fail
        write!(line, ",line={},col={}", place.line, place.column).ok();
    }
    let hint = problem.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
    format!("{line}::{}\n", data(&format!("{}{hint}", message(problem))))
}

/// A path as a URI reference (RFC 3986 4.1): what would end it or begin something else is escaped.
fn uri(path: &str) -> String {
    let escaped = percent_encoding::utf8_percent_encode(path, NOT_OF_A_PATH).to_string();
    if path.starts_with('/') { format!("file://{escaped}") } else { escaped }
}

/// All but the unreserved characters and `/`.
const NOT_OF_A_PATH: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

fn sarif<'p>(problems: impl Iterator<Item = &'p Problem>) -> Value {
    let results: Vec<Value> = problems
        .map(|problem| {
            let hint = problem.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
            let mut location = json!({ "artifactLocation": { "uri": uri(&problem.file) } });
            if let (Some(place), Some(location)) = (problem.place, location.as_object_mut()) {
                location.insert("region".into(), json!({ "startLine": place.line, "startColumn": place.column }));
            }
            json!({
                "ruleId": level(problem.severity),
                "level": level(problem.severity),
                "message": { "text": format!("{}{hint}", message(problem)) },
                "locations": [{ "physicalLocation": location }],
            })
        })
        .collect();
    let rule = |id: &str, text: &str| json!({ "id": id, "shortDescription": { "text": text } });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "portcullis",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": [
                    rule("error", "The configuration cannot be used"),
                    rule("warning", "The configuration may not mean what was meant"),
                ],
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Verdict {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        std::fs::write(&path, text).unwrap();
        judge(&path)
    }

    const GOOD: &str = "upstreams: { a: { builtin: echo } }\nroutes:\n  - { path: /a, allow: anyone, to: a }\n  \
                        - { path: /b, allow: anyone, to: a }\n";

    #[test]
    fn what_is_good_is_counted() {
        let expect = "expect: [{ request: GET /a, as: anyone, is: 200 }]\n";
        for (text, expected) in [
            (GOOD.to_owned(), "a.yaml: ok (2 routes, 1 upstream)"),
            (format!("{GOOD}{expect}"), "a.yaml: ok (2 routes, 1 upstream, 1 expectation met)"),
            (
                format!("{GOOD}listeners: [{{ address: '0.0.0.0:80' }}]\n"),
                "a.yaml: ok (2 routes, 1 upstream, 1 warning)",
            ),
        ] {
            let summary = verdict(&text).summary.unwrap();
            assert!(summary.ends_with(expected), "{summary}");
        }
    }

    #[test]
    fn an_expectation_that_is_not_met_is_an_error_at_its_place() {
        let text = format!("{GOOD}expect:\n  - {{ request: GET /a, as: anyone, is: 401 }}\n");
        let verdict = verdict(&text);
        assert!(verdict.summary.is_none());
        let printed = verdict.errors.to_string();
        assert!(printed.contains("a.yaml:6:5: `GET /a` as anyone: expected 401, but it passes\n"), "{printed}");
        assert!(printed.contains("/a (line 3)"), "{printed}");
    }

    #[test]
    fn every_format_says_where_and_what() {
        let broken = verdict("upstreams: { a: { builtin: echo } }\nroutes: [{ path: '/%2c', alow: anyone, to: a }]\n");
        let list: Vec<Value> = broken.problems().map(as_json).collect();
        assert_eq!(list[0]["line"], 2);
        assert_eq!((&list[1]["column"], &list[1]["severity"]), (&json!(26), &json!("error")));
        assert_eq!(list[1]["hint"], "did you mean `allow`?");
        let annotation: String = broken.problems().map(as_annotation).collect();
        assert!(
            annotation.contains("a.yaml,line=2,col=26::unknown key `alow` in a route%0Adid you mean"),
            "{annotation}"
        );
        assert_eq!(annotation.lines().count(), 2, "{annotation}");
        let document = sarif(broken.problems());
        let result = &document["runs"][0]["results"][1];
        assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startColumn"], 26);
        assert_eq!((&document["version"], &result["level"]), (&json!("2.1.0"), &json!("error")));
    }

    #[test]
    fn a_path_in_sarif_is_a_uri_reference() {
        for (path, expected) in [
            ("conf/gateway.yaml", "conf/gateway.yaml"),
            ("a b%.yaml", "a%20b%25.yaml"),
            ("c:d#e?f.yaml", "c%3Ad%23e%3Ff.yaml"),
            ("ü.yaml", "%C3%BC.yaml"),
            ("/etc/x y.yaml", "file:///etc/x%20y.yaml"),
        ] {
            assert_eq!(uri(path), expected);
        }
    }

    #[test]
    fn a_name_in_the_file_cannot_give_commands_to_a_workflow() {
        let odd = "\"a\\n::error::b%0A\"";
        let annotation: String = verdict(&format!("{GOOD}{odd}: 1\n")).problems().map(as_annotation).collect();
        assert_eq!(annotation.lines().count(), 1, "{annotation}");
        assert!(!annotation.contains("b%0A`"), "{annotation}");
    }
}

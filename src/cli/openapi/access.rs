//! `security`: a list of alternatives, each of which asks for all that it names. A rule has one set of schemes (any), of
//! roles (any) and of scopes (all), so that not every list can be said; then less is let through, never more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::super::operator::CliError;
use super::document::{Document, Followed, escaped};
use super::{comment, quoted};
use crate::principal::NAME_BYTES_MAX;

/// Who may use an operation, as a rule says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Access {
    open: bool,
    roles: BTreeSet<String>,
    scopes: BTreeSet<String>,
    schemes: BTreeSet<&'static str>,
    /// What the rule does not say as the document does.
    notes: BTreeSet<String>,
}

/// One alternative.
#[derive(Debug, Default)]
struct Alternative {
    schemes: BTreeSet<&'static str>,
    roles: BTreeSet<String>,
    scopes: BTreeSet<String>,
    foreign: Vec<String>,
    /// Whether it asks for more than one thing.
    is_joint: bool,
    /// Why it does not say in one way what it asks for.
    odd: Option<&'static str>,
    /// As the document has it.
    shown: String,
}

/// Who may use an operation, which stands at `place`; or why no rule can say it.
///
/// # Errors
/// A scheme is a reference that leads nowhere.
pub(super) fn of(document: &Document, operation: &Value, place: &str) -> Result<Result<Access, String>, CliError> {
    let Some(list) = operation.get("security").or_else(|| document.at("/security")) else {
        let unsaid = "the document says nothing of who may".to_owned();
        return Ok(Ok(Access { notes: BTreeSet::from([unsaid]), ..Access::default() }));
    };
    // whoever wrote something else did not mean that there is nothing to ask for
    let requirements: Option<Vec<&Map<String, Value>>> =
        list.as_array().and_then(|list| list.iter().map(Value::as_object).collect());
    let Some(requirements) = requirements else {
        return Ok(Err("its `security` is not a list of mappings".to_owned()));
    };
    if requirements.is_empty() {
        return Ok(Ok(Access { open: true, ..Access::default() }));
    }
    if requirements.iter().any(|requirement| requirement.is_empty()) {
        let optional = "a credential is optional here, and `anyone` looks at none".to_owned();
        let notes = requirements.iter().any(|requirement| !requirement.is_empty()).then_some(optional);
        return Ok(Ok(Access { open: true, notes: notes.into_iter().collect(), ..Access::default() }));
    }
    let alternatives: Result<Vec<_>, CliError> =
        requirements.into_iter().map(|requirement| Alternative::of(document, requirement, place)).collect();
    Ok(combined(&alternatives?))
}

impl Alternative {
    fn of(document: &Document, requirement: &Map<String, Value>, place: &str) -> Result<Self, CliError> {
        let mut alternative = Self::default();
        let mut parts = Vec::new();
        for (name, names) in requirement {
            let texts: Option<BTreeSet<String>> =
                names.as_array().and_then(|names| names.iter().map(|name| name.as_str().map(str::to_owned)).collect());
            if texts.is_none() {
                alternative.odd = Some("does not name its scopes in a list of texts");
            }
            let names = texts.unwrap_or_default();
            let listed: Vec<&str> = names.iter().map(String::as_str).collect();
            parts.push(if names.is_empty() { name.clone() } else { format!("{name} [{}]", listed.join(", ")) });
            let pointer = format!("/components/securitySchemes/{}", escaped(name));
            let scheme = match document.at(&pointer) {
                Some(scheme) => Some(document.follow(scheme, &format!("#{pointer}"))?),
                None => None,
            };
            if scheme.as_ref().is_some_and(Followed::is_ambiguous) {
                alternative.odd = Some("is a scheme with more beside its `$ref`");
            }
            let scheme = scheme.map(|scheme| scheme.value);
            let member =
                |member: &str| scheme.and_then(|scheme| scheme.get(member)).and_then(Value::as_str).unwrap_or_default();
            let in_authorization = member("in") == "header" && member("name").eq_ignore_ascii_case("authorization");
            let ours = match (member("type"), member("scheme").to_ascii_lowercase().as_str()) {
                ("http", "basic") => Some("basic"),
                ("http", "bearer") | ("oauth2" | "openIdConnect", _) => Some("bearer"),
                ("apiKey", _) if in_authorization => Some("token"),
                _ => None,
            };
            match ours {
                Some(ours) => drop(alternative.schemes.insert(ours)),
                None if scheme.is_none() => alternative.foreign.push(format!(
                    "the document does not say what the scheme {} of {} is",
                    comment(name),
                    comment(place)
                )),
                None => {
                    let foreign = format!("the scheme {} is not one of basic, token and bearer", comment(name));
                    alternative.foreign.push(foreign);
                }
            }
            if matches!(member("type"), "oauth2" | "openIdConnect") {
                alternative.scopes.extend(names);
            } else {
                alternative.roles.extend(names);
            }
        }
        alternative.is_joint = parts.len() > 1;
        alternative.shown = parts.join(" and ");
        Ok(alternative)
    }

    /// Why a rule cannot ask for this.
    fn fault(&self) -> Option<&'static str> {
        if self.odd.is_some() {
            self.odd
        } else if self.schemes.len() > 1 || self.is_joint && !self.foreign.is_empty() {
            Some("asks for several credentials at once, and a request has one")
        } else if self.roles.len() > 1 {
            Some("asks for several roles at once, and a rule asks for any one of its roles")
        } else if !self.roles.iter().all(|name| is_role(name)) || !self.scopes.iter().all(|name| is_scope(name)) {
            Some("names what no principal can have")
        } else {
            None
        }
    }
}

fn is_role(name: &str) -> bool {
    let reserved = ["anyone", "authenticated"].contains(&name);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control) && !reserved
}

/// RFC 6749 3.3.
fn is_scope(name: &str) -> bool {
    is_role(name) && name.bytes().all(|byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~'))
}

/// What lets nobody pass whom the document does not.
fn combined(alternatives: &[Alternative]) -> Result<Access, String> {
    let mut access = Access::default();
    let (mut sayable, others): (Vec<_>, Vec<_>) =
        alternatives.iter().partition(|alternative| alternative.fault().is_none());
    for alternative in others {
        access.note(format!("{} {}", comment(&alternative.shown), alternative.fault().unwrap_or_default()));
    }
    if sayable.is_empty() {
        return Err(access.notes.into_iter().collect::<Vec<_>>().join("; "));
    }
    access.notes.extend(sayable.iter().flat_map(|alternative| alternative.foreign.iter().cloned()));
    // what we cannot check stands for itself only where there is nothing that we can
    if sayable.iter().any(|alternative| alternative.foreign.is_empty()) {
        sayable.retain(|alternative| alternative.foreign.is_empty());
    }
    for alternative in &sayable {
        access.scopes.extend(alternative.scopes.iter().cloned());
    }
    let by_scheme = roles_by_scheme(&sayable);
    let is_narrower = |taken: &Roles| by_scheme.values().any(|roles| roles != taken);
    let (roles, schemes) = match by_scheme.values().cloned().reduce(Roles::and) {
        Some(Roles::These(none)) if none.is_empty() => {
            // nobody may by every scheme: whoever may by the first
            let first = by_scheme.first_key_value();
            first.map(|(scheme, roles)| (roles.clone(), vec![*scheme])).unwrap_or_default()
        }
        all => (all.unwrap_or_default(), by_scheme.keys().copied().collect()),
    };
    let scopes_differ = sayable.iter().any(|alternative| alternative.scopes != access.scopes);
    if scopes_differ || is_narrower(&roles) || schemes.len() < by_scheme.len() {
        let shown: Vec<String> = sayable.iter().map(|alternative| comment(&alternative.shown)).collect();
        access.note(format!(
            "the document asks for {}; a rule has one set of schemes, of roles and of scopes, and this lets fewer pass",
            shown.join(" or ")
        ));
    }
    access.schemes.extend(schemes.into_iter().flatten());
    if let Roles::These(roles) = roles {
        access.roles = roles;
    }
    Ok(access)
}

/// The roles of which one is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Roles {
    /// None.
    #[default]
    Any,
    /// These.
    These(BTreeSet<String>),
}

impl Roles {
    /// Who has one of either.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, roles) | (roles, Self::Any) => roles,
            (Self::These(one), Self::These(other)) => Self::These(&one & &other),
        }
    }
}

/// Who may by which scheme; nobody is asked for one that is not ours.
fn roles_by_scheme(alternatives: &[&Alternative]) -> BTreeMap<Option<&'static str>, Roles> {
    let mut found: BTreeMap<Option<&'static str>, Roles> = BTreeMap::new();
    for alternative in alternatives {
        let roles = found.entry(alternative.schemes.first().copied()).or_insert_with(|| Roles::These(BTreeSet::new()));
        match roles {
            Roles::These(roles) if !alternative.roles.is_empty() => roles.extend(alternative.roles.iter().cloned()),
            Roles::These(_) | Roles::Any => *roles = Roles::Any,
        }
    }
    found
}

impl Access {
    /// Whether it is for everybody.
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the same may use it.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let of = |access: &Self| Self { notes: BTreeSet::new(), ..access.clone() };
        of(self) == of(other)
    }

    /// Says beside it what it does not say as the document does.
    pub(super) fn note(&mut self, note: String) {
        self.notes.insert(note);
    }

    /// All that was noted.
    pub(super) fn notes(&self) -> impl Iterator<Item = &String> {
        self.notes.iter()
    }

    /// Writes it as keys of a route.
    pub(super) fn write(&self, printed: &mut String) {
        let list = |names: &BTreeSet<String>| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        // writing to a text cannot fail
        match (self.open, self.roles.is_empty()) {
            (true, _) => writeln!(printed, "    allow: anyone").ok(),
            (false, true) => writeln!(printed, "    allow: authenticated").ok(),
            (false, false) => writeln!(printed, "    allow: [{}]", list(&self.roles)).ok(),
        };
        if !self.scopes.is_empty() {
            writeln!(printed, "    scopes: [{}]", list(&self.scopes)).ok();
        }
        if !self.schemes.is_empty() {
            writeln!(printed, "    schemes: [{}]", self.schemes.iter().copied().collect::<Vec<_>>().join(", ")).ok();
        }
    }
}

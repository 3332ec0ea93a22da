//! Endpoints: by path, with compiled replies and the texts of their refusals.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::decode::Placed;
use super::super::model::endpoints::{Endpoint as Model, OPAQUE_LOGIN, STANDARD, opaque_reply};
use super::super::model::settings;
use super::super::report::{Place, Report};
use crate::endpoint::openapi::{self, Terms};
use crate::endpoint::template::Reply;
use crate::endpoint::{self, Action, Endpoint, Endpoints, Ends, Incomplete, Source, docs};
use crate::rejection::Texts;

pub(super) fn compile(
    models: Option<Vec<Model>>,
    texts: &Texts,
    tokens: Option<&endpoint::Settings>,
    report: &mut Report,
) -> Endpoints {
    let mut found = match models {
        Some(models) => given(models, texts, report),
        None => standard(texts),
    };
    // without them something was wrong, and there is no snapshot
    if let Some(tokens) = tokens {
        documented(&mut found, &Terms { tokens, texts }, report);
    }
    found.into_iter().map(|(path, Found { endpoint, .. })| (path, Arc::new(endpoint))).collect()
}

/// An endpoint, and where it stands in the file.
struct Found {
    endpoint: Endpoint,
    place: Option<Place>,
}

/// By path, in the order of paths.
type ByPath = BTreeMap<Box<str>, Found>;

fn given(models: Vec<Model>, texts: &Texts, report: &mut Report) -> ByPath {
    let (mut found, mut taken) = (ByPath::new(), HashSet::new());
    for model in models {
        let Placed { place, value: path } = model.path.clone();
        if !taken.insert(path.clone()) {
            report.add(place, "another endpoint has this path already");
        }
        if let Some(endpoint) = compile_endpoint(model, texts, report) {
            found.insert(path, Found { endpoint, place: Some(place) });
        }
    }
    found
}

fn standard(texts: &Texts) -> ByPath {
    let texts = Arc::new(Texts { oauth: true, ..texts.clone() });
    let endpoints = STANDARD.into_iter().map(|(path, action)| {
        let reply = (path == OPAQUE_LOGIN).then(opaque_reply).and_then(|members| Reply::compile(members).ok());
        let endpoint = Endpoint {
            path: path.into(),
            action,
            fields: std::collections::HashMap::new(),
            reply,
            status: None,
            texts: Arc::clone(&texts),
            password_grant: false,
            file: None,
            from: Source::Either,
            incomplete: Incomplete::Standard,
            ends: Ends::Family,
        };
        (path.into(), Found { endpoint, place: None })
    });
    endpoints.collect()
}

/// Gives `openapi` and `docs` what they answer with, and the page of `docs` its parts.
fn documented(found: &mut ByPath, terms: &Terms<'_>, report: &mut Report) {
    let endpoints = found.values().map(|found| &found.endpoint);
    let served: Vec<_> = endpoints.clone().filter(|endpoint| endpoint.action.is_file()).cloned().collect();
    if served.is_empty() {
        return;
    }
    let document = openapi::document(endpoints, terms);
    for endpoint in served {
        let files = if endpoint.action == Action::Docs {
            docs::files(&endpoint.path, &document)
        } else {
            vec![((*endpoint.path).into(), openapi::file(&document))]
        };
        for (path, file) in files {
            let part = Endpoint { file: Some(Arc::new(file)), ..endpoint.clone() };
            match found.get(&path) {
                // another one of the same document is as good
                Some(other) if *path != *endpoint.path && other.endpoint.action == Action::Openapi => {}
                Some(Found { place: Some(place), .. }) if *path != *endpoint.path => {
                    report.add(*place, format!("a part of the page at `{}` has this path", endpoint.path));
                }
                Some(Found { place, .. }) => {
                    let place = *place;
                    found.insert(path, Found { endpoint: part, place });
                }
                None => drop(found.insert(path, Found { endpoint: part, place: None })),
            }
        }
    }
}

fn compile_endpoint(model: Model, texts: &Texts, report: &mut Report) -> Option<Endpoint> {
    let action = model.action?;
    // its problems were reported when the endpoint was read
    let mut texts = settings::texts(model.errors.as_ref(), texts, &mut Report::default());
    // these three speak RFC 6749 5.2 wherever they stand
    texts.oauth = matches!(action, Action::OauthToken | Action::Revoke | Action::Introspect);
    Some(Endpoint {
        path: (*model.path.value).into(),
        action,
        fields: model.fields.into_iter().collect(),
        reply: model.reply.and_then(|members| reply(members, &model.reply_places, report)),
        status: model.status,
        texts: Arc::new(texts),
        password_grant: model.password_grant,
        file: None,
        from: model.from,
        incomplete: model.incomplete,
        ends: model.ends,
    })
}

fn reply(members: Map<String, Value>, places: &[Placed<Box<str>>], report: &mut Report) -> Option<Reply> {
    super::each_template(&members, places, report, |member| Reply::compile(member).map(drop));
    Reply::compile(members).ok()
}

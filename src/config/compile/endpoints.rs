//! Endpoints: by path, with compiled replies and the texts of their refusals.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::decode::Placed;
use super::super::model::endpoints::{Endpoint as Model, OPAQUE_LOGIN, STANDARD, opaque_reply};
use super::super::model::settings;
use super::super::report::Report;
use crate::endpoint::template::Reply;
use crate::endpoint::{Action, Endpoint, Endpoints};
use crate::rejection::Texts;

pub(super) fn compile(models: Option<Vec<Model>>, texts: &Texts, report: &mut Report) -> Endpoints {
    let Some(models) = models else { return standard(texts) };
    let mut endpoints = Endpoints::new();
    for model in models {
        let place = model.path.place;
        let endpoint = compile_endpoint(model, texts, report);
        let path: Box<str> = (*endpoint.path).into();
        if endpoints.insert(path, Arc::new(endpoint)).is_some() {
            report.add(place, "another endpoint has this path already");
        }
    }
    endpoints
}

fn standard(texts: &Texts) -> Endpoints {
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
        };
        (path.into(), Arc::new(endpoint))
    });
    endpoints.collect()
}

fn compile_endpoint(model: Model, texts: &Texts, report: &mut Report) -> Endpoint {
    // its problems were reported when the endpoint was read
    let mut texts = settings::texts(model.errors.as_ref(), texts, &mut Report::default());
    // these three speak RFC 6749 5.2 wherever they stand
    texts.oauth = matches!(model.action, Action::OauthToken | Action::Revoke | Action::Introspect);
    Endpoint {
        path: (*model.path.value).into(),
        action: model.action,
        fields: model.fields.into_iter().collect(),
        reply: model.reply.and_then(|members| reply(members, &model.reply_places, report)),
        status: model.status,
        texts: Arc::new(texts),
        password_grant: model.password_grant,
    }
}

fn reply(members: Map<String, Value>, places: &[Placed<Box<str>>], report: &mut Report) -> Option<Reply> {
    super::each_template(&members, places, report, |member| Reply::compile(member).map(drop));
    Reply::compile(members).ok()
}

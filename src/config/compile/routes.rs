//! Routes: names resolved, the table built, conflicts named.

use std::sync::Arc;

use super::super::model::routes::Route as Model;
use super::super::report::{Place, Report};
use super::upstreams::Names;
use crate::principal::SchemeSet;
use crate::route::{FieldEdits, Route, Table, UpstreamId};
use crate::wire::fields::IdentityNames;

/// `None` where routes tie. Those that are wrong by themselves are left out, and the others still compared.
pub(super) fn compile(
    models: Vec<Model>,
    upstreams: &Names,
    schemes: SchemeSet,
    identity: &IdentityNames,
    report: &mut Report,
) -> Option<Table> {
    let mut routes = Vec::with_capacity(models.len());
    let mut places = Vec::with_capacity(models.len());
    let unedited = Arc::default();
    for model in models {
        refuse_identity_edits(&model, identity, report);
        let (place, shown) = (model.path.as_ref().map(|path| path.place), model.shown_path.clone());
        if let (Some(place), Some(route)) = (place, compile_route(model, upstreams, schemes, &unedited, report)) {
            routes.push(route);
            places.push((place, shown));
        }
    }
    Table::new(routes)
        .map_err(|conflicts| {
            for conflict in conflicts {
                report_conflict(places.get(conflict.first), places.get(conflict.second), report);
            }
        })
        .ok()
}

fn report_conflict(first: Option<&(Place, String)>, second: Option<&(Place, String)>, report: &mut Report) {
    let (Some((first_place, first)), Some((place, second))) = (first, second) else { return };
    let message = format!(
        "{second} and {first} on line {} could match the same request, with nothing to choose between them",
        first_place.line
    );
    report.add_with_hint(*place, message, "give them different `hosts` or `methods`, or remove one");
}

/// Identity headers are the gateway's word to the upstream; no rule may forge or silence it.
fn refuse_identity_edits(model: &Model, identity: &IdentityNames, report: &mut Report) {
    let names = [&identity.user, &identity.roles, &identity.scheme];
    for field in &model.request_field_places {
        if names.iter().any(|name| name.as_ref() == Some(&field.value)) {
            report.add(field.place, format!("`{}` is an identity header and cannot be edited", field.value));
        }
    }
}

fn compile_route(
    model: Model,
    upstreams: &Names,
    schemes: SchemeSet,
    unedited: &Arc<FieldEdits>,
    report: &mut Report,
) -> Option<Route> {
    let upstream = model.to.and_then(|to| upstreams.resolve(&to, model.to_expanded, report));
    let shared = |edits| if edits == **unedited { Arc::clone(unedited) } else { Arc::new(edits) };
    Some(Route {
        allow: model.allow,
        methods: model.methods.into(),
        // one without an upstream is reported, and still compared with the others
        upstream: upstream.unwrap_or(UpstreamId::new(usize::MAX)),
        schemes: model.schemes.unwrap_or(schemes),
        ends_streams: model.ends_streams.unwrap_or_default(),
        forward_credentials: model.forward_credentials,
        cors: model.cors.map(Arc::new),
        request_fields: shared(model.request_fields),
        response_fields: shared(model.response_fields),
        rate: model.rate.map(Box::new),
        timeout: model.timeout,
        body_bytes_max: model.body_bytes,
        strip_prefix: model.strip_prefix,
        scopes: model.scopes,
        name: (*model.path?.value).into(),
        line: model.place.line,
        pattern: model.pattern?,
        hosts: model.hosts,
    })
}

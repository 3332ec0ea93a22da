//! JSON to the schema that it fits (JSON Schema 2020-12): from samples, so that what is said of an answer is read off the
//! answer itself and cannot be another.

use serde_json::{Map, Value, json};

/// What is the same in all samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Same {
    /// Is always so.
    Constant,
    /// Is so by chance.
    Chance,
}

/// The schema that all `samples` fit; there is at least one.
pub(super) fn of(samples: &[&Value], same: Same) -> Value {
    let Some((first, rest)) = samples.split_first() else { return json!({}) };
    let objects: Vec<_> = samples.iter().filter_map(|sample| sample.as_object()).collect();
    if objects.len() == samples.len() {
        return object(&objects, same);
    }
    if same == Same::Constant && rest.iter().all(|other| other == first) {
        return json!({ "const": first });
    }
    let mut types: Vec<&str> = samples.iter().map(|sample| type_name(sample)).collect();
    types.sort_unstable();
    types.dedup();
    let mut schema = Map::new();
    schema.insert("type".into(), if let [only] = types.as_slice() { json!(only) } else { json!(types) });
    let items: Vec<_> = samples.iter().filter_map(|sample| sample.as_array()).flatten().collect();
    if !items.is_empty() {
        schema.insert("items".into(), of(&items, Same::Chance));
    }
    schema.into()
}

fn object(samples: &[&Map<String, Value>], same: Same) -> Value {
    let mut names: Vec<&String> = Vec::new();
    for name in samples.iter().flat_map(|sample| sample.keys()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut properties = Map::new();
    for name in &names {
        let members: Vec<&Value> = samples.iter().filter_map(|sample| sample.get(*name)).collect();
        properties.insert((*name).clone(), of(&members, same));
    }
    let required: Vec<_> =
        names.into_iter().filter(|name| samples.iter().all(|sample| sample.contains_key(*name))).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_a_type_and_what_does_not_a_constant() {
        let (one, two) = (
            json!({ "token": "a", "type": "Bearer", "role": "user", "roles": ["user"], "n": 1, "in": { "x": true } }),
            json!({ "token": "b", "type": "Bearer", "role": null, "roles": [], "n": 2, "in": { "x": false }, "more": 1 }),
        );
        assert_eq!(
            of(&[&one, &two], Same::Constant),
            json!({
                "type": "object",
                "required": ["token", "type", "role", "roles", "n", "in"],
                "properties": {
                    "token": { "type": "string" },
                    "type": { "const": "Bearer" },
                    "role": { "type": ["null", "string"] },
                    "roles": { "type": "array", "items": { "type": "string" } },
                    "n": { "type": "integer" },
                    "in": { "type": "object", "required": ["x"], "properties": { "x": { "type": "boolean" } } },
                    "more": { "const": 1 },
                },
            })
        );
        assert_eq!(of(&[&json!({ "a": "b" })], Same::Chance)["properties"]["a"], json!({ "type": "string" }));
    }
}

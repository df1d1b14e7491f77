//! The schema of the arguments of a call.

use crate::mcp::admission::Governor;
use crate::mcp::tool::arguments::{
    Arguments, CODE_MAX, FILES_MAX, ITEMS_MAX, MEMORY_MIB, PACKAGES_MAX, TIMEOUT_S,
};
use crate::mcp::tool::languages::Offer;
use rmcp::model::JsonObject;
use serde_json::{Value, json};

/// Returns the schema of the arguments (JSON Schema 2020-12), with this server's limits, defaults and
/// languages.
pub fn schema(governor: &Governor, offer: &Offer) -> JsonObject {
    let mut schema = schemars::schema_for!(Arguments).to_value();
    let (timeout, timeout_max) = governor.seconds(TIMEOUT_S.1);
    let (memory, memory_max) = governor.mebibytes(MEMORY_MIB.1);
    for (property, bounds) in [
        ("code", json!({"maxLength": CODE_MAX})),
        ("language", json!({"enum": offer.names()})),
        (
            "timeout_s",
            json!({"minimum": TIMEOUT_S.0, "maximum": timeout_max, "default": timeout}),
        ),
        (
            "memory_mib",
            json!({"minimum": MEMORY_MIB.0, "maximum": memory_max, "default": memory}),
        ),
        ("args", json!({"maxItems": ITEMS_MAX})),
        ("env", json!({"maxProperties": ITEMS_MAX})),
        ("files", json!({"maxItems": FILES_MAX})),
        ("packages", json!({"maxItems": PACKAGES_MAX})),
    ] {
        let bounds = bounds.as_object().into_iter().flatten();
        for (name, value) in bounds {
            schema["properties"][property][name] = value.clone();
        }
    }
    let absent = [
        ("packages", !governor.has_packages()),
        ("session", !governor.sessions().is_on()),
    ];
    if let Some(properties) = schema["properties"].as_object_mut() {
        for (property, _) in absent.iter().filter(|(_, is_absent)| *is_absent) {
            properties.remove(*property);
        }
    }
    match schema {
        Value::Object(schema) => schema,
        _ => unreachable!("the schema of a struct is an object"),
    }
}

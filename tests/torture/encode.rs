//! Writes one value in each of the encodings a connector can be told to use, from one schema.
//!
//! A schema is written as Kafka's JSON converter writes it: `{"type":"struct","name":…,"fields":[{"field":…}]}`.

use std::collections::HashSet;

use afterwrite::decode::schema::SchemaDocument;
use serde_json::{Value as Json, json};

/// A struct with these fields.
pub(crate) fn structure(name: &str, fields: &[Json]) -> Json {
    json!({"type": "struct", "name": name, "optional": false, "fields": fields})
}

/// A field of a primitive type that must not be null.
pub(crate) fn field(name: &str, kind: &str) -> Json {
    json!({"field": name, "type": kind, "optional": false})
}

/// A field of a primitive type that may be null.
pub(crate) fn optional(name: &str, kind: &str) -> Json {
    json!({"field": name, "type": kind, "optional": true})
}

/// A field of any type.
pub(crate) fn member(name: &str, mut ty: Json, is_optional: bool) -> Json {
    ty["field"] = json!(name);
    ty["optional"] = json!(is_optional);
    ty
}

/// A value with its schema around it.
pub(crate) fn json_with_schema(schema: &Json, value: &Json) -> Vec<u8> {
    json!({"schema": schema, "payload": value}).to_string().into_bytes()
}

/// The schema as the Avro converters register it.
pub(crate) fn avro_schema(schema: &Json) -> SchemaDocument {
    SchemaDocument {
        text: avro_type(schema, &mut HashSet::new()).to_string(),
        references: Vec::new(),
    }
}

/// A value in Confluent's wire format.
pub(crate) fn avro(id: u32, schema: &Json, value: &Json) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&id.to_be_bytes());
    write(schema, value, &mut bytes);
    bytes
}

fn avro_type(schema: &Json, seen: &mut HashSet<String>) -> Json {
    let kind = schema["type"].as_str().unwrap();
    let mut ty = match kind {
        "struct" => {
            let name = schema["name"].as_str().unwrap().to_owned();
            if seen.insert(name.clone()) {
                let fields: Vec<Json> = schema["fields"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|field| json!({"name": field["field"], "type": avro_type(field, seen)}))
                    .collect();
                let (space, short) = name.rsplit_once('.').unwrap_or(("", &name));
                json!({"type": "record", "name": short, "namespace": space, "fields": fields})
            } else {
                json!(name)
            }
        }
        "array" => json!({"type": "array", "items": avro_type(&schema["items"], seen)}),
        "int8" | "int16" | "int32" => json!({"type": "int"}),
        "int64" => json!({"type": "long"}),
        other => json!({"type": other}),
    };
    if let (Some(name), true) = (schema["name"].as_str(), ty.is_object()) {
        ty["connect.name"] = json!(name);
        ty["connect.parameters"] = schema["parameters"].clone();
    }
    match schema["optional"].as_bool() {
        Some(true) => json!(["null", ty]),
        _ => ty,
    }
}

fn write(schema: &Json, value: &Json, out: &mut Vec<u8>) {
    if schema["optional"] == true {
        out.push(if value.is_null() { 0 } else { 2 });
        if value.is_null() {
            return;
        }
    }
    match schema["type"].as_str().unwrap() {
        "struct" => {
            for field in schema["fields"].as_array().unwrap() {
                write(field, &value[field["field"].as_str().unwrap()], out);
            }
        }
        "array" => {
            let items = value.as_array().unwrap();
            if !items.is_empty() {
                zigzag(i64::try_from(items.len()).unwrap(), out);
                items.iter().for_each(|item| write(&schema["items"], item, out));
            }
            out.push(0);
        }
        "boolean" => out.push(u8::from(value.as_bool().unwrap())),
        "int8" | "int16" | "int32" | "int64" => zigzag(value.as_i64().unwrap(), out),
        "double" => out.extend_from_slice(&value.as_f64().unwrap().to_le_bytes()),
        "string" => {
            let text = value.as_str().unwrap();
            zigzag(i64::try_from(text.len()).unwrap(), out);
            out.extend_from_slice(text.as_bytes());
        }
        other => panic!("{other} is not written here"),
    }
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f | 0x80).to_le_bytes()[0]);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

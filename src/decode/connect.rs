//! The schema that JSON with schema carries in front of every payload, as a tree.
//!
//! Parsed once per distinct schema text; rows are then read by walking it. It says nothing about Debezium.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::decode::placeholder::Toast;
use crate::decode::scan::are_printed_alike;
use crate::decode::types::{self, Meaning};

/// A type, with what its name means.
#[derive(Debug)]
pub(crate) struct Type {
    pub(crate) kind: Kind,
    pub(crate) meaning: Meaning,
}

/// The shapes of Kafka Connect that are read differently. All integer widths are one.
#[derive(Debug)]
pub(crate) enum Kind {
    Bool,
    Int,
    Single,
    Double,
    Text,
    Bytes,
    List(Box<Type>),
    Map { key: Box<Type>, value: Box<Type> },
    Struct(Struct),
}

/// A struct: an envelope, a row, a key, or a value inside a row.
#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) name: Option<Box<str>>,
    pub(crate) fields: Vec<Field>,
    /// The names of the fields, shared by all rows that are read with them; none where one stands otherwise in JSON than it
    /// reads.
    pub(crate) names: Arc<[Arc<str>]>,
}

/// A member of a struct.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: Arc<str>,
    pub(crate) ty: Type,
    pub(crate) toast: Toast,
}

impl Struct {
    /// The member of this name; `hint` is where it is expected to stand.
    pub(crate) fn field(&self, name: &str, hint: usize) -> Option<&Field> {
        match self.fields.get(hint) {
            Some(field) if &*field.name == name => Some(field),
            _ => self.fields.iter().find(|field| &*field.name == name),
        }
    }

    /// The struct behind a member of this name.
    pub(crate) fn member(&self, name: &str) -> Option<&Struct> {
        match &self.field(name, 0)?.ty.kind {
            Kind::Struct(inner) => Some(inner),
            _ => None,
        }
    }
}

/// A schema as the converter of Kafka writes it.
#[derive(Deserialize)]
struct Declared {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    field: Option<String>,
    parameters: Option<BTreeMap<String, String>>,
    fields: Option<Vec<Declared>>,
    items: Option<Box<Declared>>,
    keys: Option<Box<Declared>>,
    values: Option<Box<Declared>>,
}

/// Parses a schema; the text of the error holds names only.
pub(crate) fn parse(text: &str) -> Result<Type, String> {
    let declared: Declared = serde_json::from_str(text).map_err(|error| format!("the schema is not one: {error}"))?;
    compile(declared)
}

fn compile(declared: Declared) -> Result<Type, String> {
    let scale = declared
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.get("scale"))
        .and_then(|scale| scale.parse().ok());
    let meaning = declared
        .name
        .as_deref()
        .map_or(Meaning::Plain, |name| Meaning::of_name(name, scale));
    if scale.is_none() && declared.name.as_deref() == Some(types::DECIMAL) {
        return Err("the schema has a decimal without a scale".to_owned());
    }
    let part = |part: Option<Box<Declared>>| match part {
        Some(inner) => compile(*inner).map(Box::new),
        None => Err("the schema has an array or map without a type of its members".to_owned()),
    };
    let kind = match declared.kind.as_str() {
        "boolean" => Kind::Bool,
        "int8" | "int16" | "int32" | "int64" => Kind::Int,
        "float" | "float32" => Kind::Single,
        "double" | "float64" => Kind::Double,
        "string" => Kind::Text,
        "bytes" => Kind::Bytes,
        "array" => Kind::List(part(declared.items)?),
        "map" => Kind::Map {
            key: part(declared.keys)?,
            value: part(declared.values)?,
        },
        "struct" => {
            let declared_fields = declared.fields.unwrap_or_default();
            let fields: Vec<Field> = declared_fields
                .into_iter()
                .map(compile_field)
                .collect::<Result<_, _>>()?;
            let names: Arc<[Arc<str>]> = fields.iter().map(|field| Arc::clone(&field.name)).collect();
            Kind::Struct(Struct {
                name: declared.name.map(String::into_boxed_str),
                names: Some(names).filter(|names| are_printed_alike(names)).unwrap_or_default(),
                fields,
            })
        }
        other => return Err(format!("the schema has the unknown type {other}")),
    };
    Ok(Type { kind, meaning })
}

fn compile_field(mut declared: Declared) -> Result<Field, String> {
    let name = declared.field.take().ok_or("the schema has a field without a name")?;
    let ty = compile(declared)?;
    let toast = toast(&ty);
    Ok(Field {
        name: name.into(),
        ty,
        toast,
    })
}

fn toast(ty: &Type) -> Toast {
    match &ty.kind {
        Kind::Text => Toast::of_text(ty.meaning),
        Kind::Bytes => Toast::of_bytes(ty.meaning),
        Kind::List(items) => match items.kind {
            Kind::Text => Toast::of_texts(items.meaning),
            Kind::Bytes => Toast::ByteStrings,
            Kind::Int => Toast::Ints,
            _ => Toast::Never,
        },
        Kind::Map { .. } => Toast::Map,
        Kind::Bool | Kind::Int | Kind::Single | Kind::Double | Kind::Struct(_) => Toast::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_becomes_a_tree_with_meanings() {
        let text = r#"{"type":"struct","name":"a.Value","fields":[
            {"type":"int32","name":"io.debezium.time.Date","field":"day"},
            {"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"},"field":"sum"},
            {"type":"map","keys":{"type":"string"},"values":{"type":"string"},"field":"map"}]}"#;
        let parsed = parse(text).unwrap();
        let Kind::Struct(row) = parsed.kind else {
            panic!("not a struct")
        };
        assert_eq!(row.name.as_deref(), Some("a.Value"));
        assert_eq!(row.field("day", 0).unwrap().ty.meaning, Meaning::Date);
        assert_eq!(row.field("sum", 0).unwrap().ty.meaning, Meaning::Decimal { scale: 2 });
        assert_eq!(row.field("map", 2).unwrap().toast, Toast::Map);
    }

    #[test]
    fn broken_schemas_are_errors() {
        for text in [
            "{}",
            r#"{"type":"array"}"#,
            r#"{"type":"int128"}"#,
            r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal"}"#,
            r#"{"type":"struct","fields":[{"type":"int32"}]}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

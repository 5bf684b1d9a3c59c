//! Avro writer schemas: what was registered, made ready for reading.
//!
//! `apache-avro` parses and checks the text. The tree that rows are read with is built from the same text, because
//! `apache-avro` drops the attributes of primitive types, and those carry all the Connect names. Schemas are parsed
//! once per id and never change.

use std::collections::HashMap;
use std::sync::{Arc, Once};

use apache_avro::validator::{
    SchemaNameValidator, SchemaNamespaceValidator, set_schema_name_validator, set_schema_namespace_validator,
};
use serde_json::{Map, Value as Json};
use thiserror::Error;

use crate::decode::placeholder::Toast;
use crate::decode::types::{self, Meaning};

/// A schema as the registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SchemaDocument {
    /// The schema's own text.
    pub text: String,
    /// The texts of everything it refers to, each before those that refer to it.
    pub references: Vec<String>,
}

/// Why a registered schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// The registry's text is not an Avro schema.
    #[error("the schema is not valid Avro: {0}")]
    Invalid(String),
    /// The schema is something that no Connect converter writes.
    #[error("the schema cannot be used: {0}")]
    Unsupported(String),
}

/// A writer schema, ready for reading.
#[derive(Debug)]
pub(crate) struct WriterSchema {
    pub(crate) records: Vec<Record>,
    pub(crate) root: Typed,
}

/// A node with what its Connect name means.
#[derive(Debug, Clone)]
pub(crate) struct Typed {
    pub(crate) node: Node,
    pub(crate) meaning: Meaning,
}

/// The shapes that are written differently.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Null,
    Bool,
    /// Both widths: they are written alike.
    Int,
    Single,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(Arc<[Box<str>]>),
    List(Box<Typed>),
    Map(Box<Typed>),
    Union(Vec<Typed>),
    /// Place in [`WriterSchema::records`].
    Record(usize),
}

/// A record.
#[derive(Debug)]
pub(crate) struct Record {
    /// The Connect name, or the full Avro name where there is none.
    pub(crate) name: Box<str>,
    pub(crate) fields: Vec<Field>,
    /// The names of the fields, shared by all rows that are read with them.
    pub(crate) names: Arc<[Arc<str>]>,
    /// Whether it stands for one entry of a map whose keys are not text.
    pub(crate) is_entry: bool,
}

/// A field of a record.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: Arc<str>,
    pub(crate) ty: Typed,
    pub(crate) toast: Toast,
}

impl WriterSchema {
    /// Parses a schema and everything it refers to.
    ///
    /// # Errors
    /// When it is not Avro, or refers to something that is not there.
    pub(crate) fn parse(document: &SchemaDocument) -> Result<Self, SchemaError> {
        accept_all_namespaces();
        let mut references: Vec<&str> = Vec::with_capacity(document.references.len());
        for reference in &document.references {
            if !references.contains(&reference.as_str()) {
                references.push(reference);
            }
        }
        apache_avro::Schema::parse_str_with_list(&document.text, &references)
            .map_err(|error| SchemaError::Invalid(error.to_string()))?;
        let mut compiler = Compiler::default();
        for text in references {
            compiler.compile(&parse_json(text)?, "")?;
        }
        let root = compiler.compile(&parse_json(&document.text)?, "")?;
        let records: Option<Vec<Record>> = compiler.records.into_iter().collect();
        let records = records.ok_or_else(|| SchemaError::Unsupported("a record has no end".to_owned()))?;
        let mut schema = Self { records, root };
        schema.mark_toast();
        Ok(schema)
    }

    fn mark_toast(&mut self) {
        let entries: Vec<bool> = self.records.iter().map(|record| record.is_entry).collect();
        for field in self.records.iter_mut().flat_map(|record| &mut record.fields) {
            field.toast = toast(&field.ty, &entries);
        }
    }
}

/// Namespaces and names are labels here: a `topic.prefix` with a hyphen gives one that the Avro specification forbids
/// and Java writes nevertheless.
fn accept_all_namespaces() {
    struct AnyName;
    impl SchemaNameValidator for AnyName {
        fn validate(&self, name: &str) -> apache_avro::AvroResult<usize> {
            Ok(name.rfind('.').map_or(0, |dot| dot + 1))
        }
    }
    impl SchemaNamespaceValidator for AnyName {
        fn validate(&self, _namespace: &str) -> apache_avro::AvroResult<()> {
            Ok(())
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Both can be set once per process. Whoever was first decides; only odd names depend on it.
        let names = set_schema_name_validator(Box::new(AnyName)).is_ok();
        let namespaces = set_schema_namespace_validator(Box::new(AnyName)).is_ok();
        if !(names && namespaces) {
            tracing::warn!(
                "avro names were restricted elsewhere: schemas with a hyphen in their namespace are refused"
            );
        }
    });
}

fn parse_json(text: &str) -> Result<Json, SchemaError> {
    serde_json::from_str(text).map_err(|error| SchemaError::Invalid(error.to_string()))
}

#[derive(Default)]
struct Compiler {
    /// `None` while a record is being compiled: it may refer to itself.
    records: Vec<Option<Record>>,
    named: HashMap<String, Typed>,
}

impl Compiler {
    fn compile(&mut self, json: &Json, namespace: &str) -> Result<Typed, SchemaError> {
        match json {
            Json::String(name) => self.by_name(name, namespace),
            Json::Array(variants) => {
                let compiled: Result<Vec<Typed>, SchemaError> = variants
                    .iter()
                    .map(|variant| self.compile(variant, namespace))
                    .collect();
                Ok(plain(Node::Union(compiled?)))
            }
            Json::Object(object) => self.compile_object(object, namespace),
            _ => Err(SchemaError::Unsupported(
                "a type is neither a name nor an object".to_owned(),
            )),
        }
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Typed, SchemaError> {
        let node = match name {
            "null" => Node::Null,
            "boolean" => Node::Bool,
            "int" | "long" => Node::Int,
            "float" => Node::Single,
            "double" => Node::Double,
            "bytes" => Node::Bytes,
            "string" => Node::Text,
            _ => {
                let found = self
                    .named
                    .get(&full_name(name, namespace))
                    .or_else(|| self.named.get(name));
                return found
                    .cloned()
                    .ok_or_else(|| SchemaError::Unsupported(format!("it refers to {name}, which is not there")));
            }
        };
        Ok(plain(node))
    }

    fn compile_object(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<Typed, SchemaError> {
        let inner = object.get("type").unwrap_or(&Json::Null);
        let mut typed = match inner.as_str() {
            Some("record" | "error") => return self.compile_record(object, namespace),
            Some("enum") => {
                let symbols = object.get("symbols").and_then(Json::as_array).into_iter().flatten();
                let texts = symbols
                    .map(|symbol| symbol.as_str().unwrap_or_default().into())
                    .collect();
                self.name(object, namespace, plain(Node::Enum(texts)))?
            }
            Some("fixed") => {
                let size = object.get("size").and_then(Json::as_u64);
                let size = size.and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| SchemaError::Unsupported("a fixed type has no size".to_owned()))?;
                self.name(object, namespace, plain(Node::Fixed(size)))?
            }
            Some("array") => plain(Node::List(self.member(object, "items", namespace)?)),
            Some("map") => plain(Node::Map(self.member(object, "values", namespace)?)),
            _ => self.compile(inner, namespace)?,
        };
        if let Some(meaning) = meaning(object)? {
            typed.meaning = meaning;
        }
        Ok(typed)
    }

    fn member(&mut self, object: &Map<String, Json>, key: &str, namespace: &str) -> Result<Box<Typed>, SchemaError> {
        let inner = object.get(key).unwrap_or(&Json::Null);
        self.compile(inner, namespace).map(Box::new)
    }

    fn name(&mut self, object: &Map<String, Json>, namespace: &str, mut typed: Typed) -> Result<Typed, SchemaError> {
        if let Some(meaning) = meaning(object)? {
            typed.meaning = meaning;
        }
        let (full, _) = names(object, namespace)?;
        self.named.insert(full, typed.clone());
        Ok(typed)
    }

    fn compile_record(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<Typed, SchemaError> {
        let (full, inner_namespace) = names(object, namespace)?;
        let place = self.records.len();
        self.records.push(None);
        let typed = Typed {
            node: Node::Record(place),
            meaning: meaning(object)?.unwrap_or(Meaning::Plain),
        };
        self.named.insert(full.clone(), typed.clone());
        let mut fields = Vec::new();
        for field in object.get("fields").and_then(Json::as_array).into_iter().flatten() {
            let name = field.get("name").and_then(Json::as_str).unwrap_or_default();
            fields.push(Field {
                name: name.into(),
                ty: self.compile(field.get("type").unwrap_or(&Json::Null), &inner_namespace)?,
                toast: Toast::Never,
            });
        }
        let is_pair = fields.iter().map(|field| &*field.name).eq(["key", "value"]);
        self.records[place] = Some(Record {
            is_entry: is_pair && full.ends_with("MapEntry"),
            name: text(object, "connect.name").unwrap_or(&full).into(),
            names: fields.iter().map(|field| Arc::clone(&field.name)).collect(),
            fields,
        });
        Ok(typed)
    }
}

fn plain(node: Node) -> Typed {
    Typed {
        node,
        meaning: Meaning::Plain,
    }
}

fn text<'a>(object: &'a Map<String, Json>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Json::as_str)
}

/// The full name of a named type, and the namespace inside it.
fn names(object: &Map<String, Json>, namespace: &str) -> Result<(String, String), SchemaError> {
    let name = text(object, "name").ok_or_else(|| SchemaError::Unsupported("a named type has no name".to_owned()))?;
    let full = full_name(name, text(object, "namespace").unwrap_or(namespace));
    let inner = full
        .rsplit_once('.')
        .map_or(String::new(), |(space, _)| space.to_owned());
    Ok((full, inner))
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

/// What the attributes of a type say; the Connect name wins over Avro's logical type.
fn meaning(object: &Map<String, Json>) -> Result<Option<Meaning>, SchemaError> {
    let parameter = object
        .get("connect.parameters")
        .and_then(|parameters| parameters.get("scale"));
    let scale = match parameter.or_else(|| object.get("scale")) {
        Some(Json::String(text)) => text.parse().ok(),
        Some(number) => number.as_i64().and_then(|number| i32::try_from(number).ok()),
        None => None,
    };
    match (text(object, "connect.name"), text(object, "logicalType")) {
        (Some(types::DECIMAL), _) if scale.is_none() => {
            Err(SchemaError::Unsupported("it has a decimal without a scale".to_owned()))
        }
        (Some(name), _) => Ok(Some(Meaning::of_name(name, scale))),
        // Avro itself takes 0 for a scale that is not there.
        (None, Some(logical)) => Ok(Some(Meaning::of_logical(logical, scale))),
        (None, None) => Ok(None),
    }
}

fn toast(ty: &Typed, entries: &[bool]) -> Toast {
    match &ty.node {
        Node::Union(variants) => match variants.iter().find(|variant| !matches!(variant.node, Node::Null)) {
            Some(variant) => toast(variant, entries),
            None => Toast::Never,
        },
        Node::Text => Toast::of_text(ty.meaning),
        Node::Bytes => Toast::of_bytes(ty.meaning),
        Node::Map(_) => Toast::Map,
        Node::List(items) => match toast_of_items(items) {
            (Node::Text, meaning) => Toast::of_texts(meaning),
            (Node::Bytes, _) => Toast::ByteStrings,
            (Node::Int, _) => Toast::Ints,
            (Node::Record(place), _) if entries.get(place).copied().unwrap_or(false) => Toast::Map,
            _ => Toast::Never,
        },
        _ => Toast::Never,
    }
}

/// The element type behind a union with null.
fn toast_of_items(items: &Typed) -> (Node, Meaning) {
    match &items.node {
        Node::Union(variants) => match variants.iter().find(|variant| !matches!(variant.node, Node::Null)) {
            Some(variant) => (variant.node.clone(), variant.meaning),
            None => (Node::Null, Meaning::Plain),
        },
        node => (node.clone(), items.meaning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, references: &[&str]) -> SchemaDocument {
        SchemaDocument {
            text: text.to_owned(),
            references: references.iter().map(|reference| (*reference).to_owned()).collect(),
        }
    }

    #[test]
    fn names_on_primitives_are_kept_and_references_are_resolved() {
        let value = r#"{"type":"record","name":"Value","namespace":"a.b","fields":[
            {"name":"day","type":["null",{"type":"int","connect.name":"io.debezium.time.Date"}]}]}"#;
        let envelope = r#"{"type":"record","name":"Envelope","namespace":"a.b","connect.name":"a.b.Envelope","fields":[
            {"name":"before","type":["null","Value"]},{"name":"after","type":["null","a.b.Value"]}]}"#;
        let schema = WriterSchema::parse(&document(envelope, &[value, value])).unwrap();
        assert_eq!(schema.records.len(), 2);
        assert_eq!(&*schema.records[1].name, "a.b.Envelope");
        let Node::Union(variants) = &schema.records[0].fields[0].ty.node else {
            panic!("not a union")
        };
        assert_eq!(variants[1].meaning, Meaning::Date);
    }

    #[test]
    fn a_namespace_with_a_hyphen_is_accepted() {
        let text =
            r#"{"type":"record","name":"Key","namespace":"my-prefix.public.t","fields":[{"name":"id","type":"long"}]}"#;
        let schema = WriterSchema::parse(&document(text, &[])).unwrap();
        assert_eq!(&*schema.records[0].name, "my-prefix.public.t.Key");
    }

    #[test]
    fn a_missing_reference_and_broken_texts_are_errors() {
        for text in [
            r#"{"type":"record","name":"E","fields":[{"name":"a","type":"Missing"}]}"#,
            "{",
            r#""nothing""#,
            r#"{"type":"record","fields":[]}"#,
            r#"{"type":"bytes","connect.name":"org.apache.kafka.connect.data.Decimal"}"#,
        ] {
            assert!(WriterSchema::parse(&document(text, &[])).is_err(), "{text}");
        }
    }
}

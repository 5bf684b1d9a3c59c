//! With which schema the value of a record was written, and whose that schema is: for whoever looks at a record without decoding
//! it.

use crate::decode::debezium::Kind;
use crate::decode::framing::{self, Framing, Part};
use crate::decode::options::Format;
use crate::decode::schema::{Node, SchemaDocument, SchemaError, WriterSchema};
use crate::event::delivery::RawRecord;

/// The id of the schema that the value was written with; none where there is no value, or one in JSON.
///
/// # Errors
/// The reason, when the id is not where the decoder looks for it.
pub(crate) fn schema_id(record: &RawRecord, format: Format) -> Result<Option<u32>, &'static str> {
    let Some(value) = record.value.as_deref() else {
        return Ok(None);
    };
    match framing::of(value, format, Part::Value, &record.headers)? {
        Framing::Avro { id, .. } => Ok(Some(id)),
        Framing::Json => Ok(None),
    }
}

/// Whose a schema is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The changes of this topic, or the bare rows: Debezium calls the schema after it.
    Topic(String),
    /// Records that are no changes, such as heartbeats, which may stand among them.
    Markers,
    /// Something that is no value of Debezium's: the schema has this name, or none.
    Other(String),
}

/// Whose schema this is, by its name.
///
/// # Errors
/// When it is none.
pub(crate) fn owner(document: &SchemaDocument) -> Result<Owner, SchemaError> {
    let schema = WriterSchema::parse(document)?;
    let Node::Record(number) = schema.root.node else {
        return Ok(Owner::Other("no record".to_owned()));
    };
    let name = &*schema.records[number].name;
    let space = name.rsplit_once('.').map_or("", |(space, _)| space);
    Ok(match Kind::of_name(name) {
        Some(Kind::Change | Kind::Flattened) if !name.ends_with(".MessageValue") => Owner::Topic(space.to_owned()),
        Some(_) => Owner::Markers,
        None => Owner::Other(name.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Owner {
        let text = format!(r#"{{"type":"record","name":{name:?},"fields":[]}}"#);
        owner(&SchemaDocument {
            text,
            references: Vec::new(),
        })
        .unwrap()
    }

    #[test]
    fn a_schema_is_called_after_its_topic() {
        let topic = Owner::Topic("waitlist.public.users".to_owned());
        assert_eq!(named("waitlist.public.users.Envelope"), topic);
        assert_eq!(named("waitlist.public.users.Value"), topic);
        assert_eq!(named("io.debezium.connector.common.Heartbeat"), Owner::Markers);
        assert_eq!(named("io.debezium.connector.postgresql.MessageValue"), Owner::Markers);
        assert_eq!(
            named("waitlist.public.users.Key"),
            Owner::Other("waitlist.public.users.Key".to_owned())
        );
        let text = SchemaDocument {
            text: r#""string""#.to_owned(),
            references: Vec::new(),
        };
        assert_eq!(owner(&text), Ok(Owner::Other("no record".to_owned())));
    }

    #[test]
    fn the_id_of_a_value_is_read_where_the_decoder_reads_it() {
        let record = |value: Option<&[u8]>, headers: &[&str]| RawRecord {
            value: value.map(|value| value.to_vec().into()),
            headers: headers.iter().map(|name| ((*name).to_owned(), None)).collect(),
            ..RawRecord::default()
        };
        let avro: &[u8] = &[0, 0, 0, 1, 2, 9];
        assert_eq!(schema_id(&record(Some(avro), &[]), Format::Auto), Ok(Some(258)));
        assert_eq!(schema_id(&record(Some(b"{}"), &[]), Format::Auto), Ok(None));
        assert_eq!(schema_id(&record(None, &[]), Format::Avro), Ok(None));
        assert!(schema_id(&record(Some(avro), &["__value_schema_id"]), Format::Auto).is_err());
        assert!(schema_id(&record(Some(b"{}"), &[]), Format::Avro).is_err());
    }
}

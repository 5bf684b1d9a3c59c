//! What is measured: each encoding by our decoder, whole and for a table that nobody wants, and by the library.

use std::hint::black_box;

use afterwrite::decode::tables::Tables;
use afterwrite::decode::{Decoded, Decoder};
use afterwrite::event::delivery::{Content, RawRecord, SkipReason};
use apache_avro::reader::datum::GenericDatumReader;
use serde_json::Value;

use crate::changes::{CHANGES, Changes, TOPIC};

/// The arm that others are held against.
pub(crate) const PARSED: &str = "parsed by the library";

/// One way to decode all changes.
pub(crate) struct Arm<'a> {
    pub(crate) encoding: &'static str,
    pub(crate) name: &'static str,
    /// Decodes the change at this place.
    pub(crate) decode: Box<dyn Fn(usize) + 'a>,
}

impl<'a> Arm<'a> {
    /// An arm that has decoded every change once.
    fn new(encoding: &'static str, name: &'static str, decode: impl Fn(usize) + 'a) -> Self {
        (0..CHANGES).for_each(&decode);
        Self {
            encoding,
            name,
            decode: Box::new(decode),
        }
    }
}

/// All arms.
pub(crate) fn arms(changes: &Changes) -> Vec<Arm<'_>> {
    let mut arms = Vec::new();
    let encodings = [
        ("json", &changes.json),
        ("json with schema", &changes.wrapped),
        ("avro", &changes.avro),
    ];
    for (encoding, records) in encodings {
        let decoder = &changes.decoder;
        arms.push(Arm::new(encoding, "decoded", |place| decoded(decoder, &records[place])));
        arms.push(Arm::new(encoding, "of a table nobody wants", |place| {
            skipped(decoder, &records[place])
        }));
    }
    for (encoding, records) in &encodings[..2] {
        arms.push(Arm::new(encoding, PARSED, |place| {
            let value = records[place].value.as_deref().unwrap();
            black_box(serde_json::from_slice::<Value>(value).unwrap());
        }));
    }
    let datum = GenericDatumReader::builder(&changes.schema).build().unwrap();
    arms.push(Arm::new("avro", PARSED, move |place| {
        let body = &changes.avro[place].value.as_deref().unwrap()[5..];
        black_box(datum.read_value(&mut &*body).unwrap());
    }));
    arms
}

fn decoded(decoder: &Decoder, record: &RawRecord) {
    let Decoded::Content(Content::Change(event)) = decoder.decode(TOPIC, record) else {
        panic!("not a change")
    };
    black_box(event);
}

fn skipped(decoder: &Decoder, record: &RawRecord) {
    let nothing = Tables::default();
    let Decoded::Content(Content::Skip(SkipReason::Unrouted)) = decoder.decode_despite(TOPIC, record, &nothing, &[])
    else {
        panic!("not skipped")
    };
}

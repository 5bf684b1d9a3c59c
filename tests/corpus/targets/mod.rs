//! What is asked of every parser, whatever bytes come in: one function a target.
//!
//! Nothing but the input decides, so what an input found once, it finds again. The package in `fuzz` compiles this code too
//! and calls these functions with what libFuzzer thinks of; here they get every input of `fuzz/corpus`.

pub mod captured;
pub mod frame;

mod typed;

mod wal;

use std::sync::LazyLock;

use afterwrite::decode::canonical::Canonical;
use afterwrite::decode::options::{BinaryMode, DecimalMode, Format, IntervalMode, Options, TimePrecision};
use afterwrite::decode::schema::SchemaDocument;
use afterwrite::decode::tables::Tables;
use afterwrite::decode::unknown::Unknown;
use afterwrite::decode::{Decoded, Decoder};
use afterwrite::event::change::ChangeEvent;
use afterwrite::event::delivery::{Content, RawRecord};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use self::captured::schemas;
pub use self::wal::pgoutput;

/// The topic of targets whose input has none.
pub const TOPIC: &str = "waitlist.public.users";

/// Checks what parsers make of an input.
pub type Check = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Check); 7] = [
    ("record", record),
    ("json", json),
    ("json_schema", json_schema),
    ("avro", avro),
    ("avro_schema", avro_schema),
    ("typed_row", typed_row),
    ("pgoutput", pgoutput),
];

/// How many bytes a record may ask for at once: a multiple of its own, and what the decimals of any record may be printed
/// with.
const BYTES_TIMES: usize = 16;
const BYTES_FREE: usize = 1024 * 1024;

const FORMATS: [Format; 4] = [Format::Auto, Format::Json, Format::JsonSchema, Format::Avro];

/// Some records in a row ([`frame`]): the last is asked about. What came before it does not change the answer, nor does
/// asking twice.
pub fn record(input: &[u8]) {
    let Some((first, records)) = frame::records(input) else {
        return;
    };
    let options = Options {
        format: FORMATS[usize::from(first % 4)],
        ..options(first / 4)
    };
    let Some(((topic, last), earlier)) = records.split_last() else {
        return;
    };
    let decoder = Decoder::new(options.clone());
    for (topic, record) in earlier {
        drop(content(&decoder, topic, record));
    }
    let answer = answered(&decoder, topic, last);
    // Learning schemas anew takes most of the time.
    if !earlier.is_empty() || input.len().is_multiple_of(8) {
        agrees(&answer, options, topic, last);
    }
}

/// A byte of settings, then the value of a record in JSON without schema.
pub fn json(input: &[u8]) {
    let Some((first, value)) = input.split_first() else {
        return;
    };
    let options = Options {
        format: Format::Json,
        ..options(*first)
    };
    let record = valued(value);
    let answer = answered(&Decoder::new(options.clone()), TOPIC, &record);
    agrees(&answer, options.clone(), TOPIC, &record);
    if serde_json::from_slice::<IgnoredAny>(value).is_err() {
        let is_none = matches!(answer, Content::Undecodable(_) | Content::Skip(_));
        assert!(is_none, "a value that is no JSON was decoded");
    }
    if let Content::Change(event) = answer {
        survives_printing(&event, options);
    }
}

/// A byte of settings, then the value of a record in JSON with schema.
pub fn json_schema(input: &[u8]) {
    let Some((first, value)) = input.split_first() else {
        return;
    };
    let options = Options {
        format: Format::JsonSchema,
        ..options(*first)
    };
    let record = valued(value);
    let answer = answered(&Decoder::new(options.clone()), TOPIC, &record);
    agrees(&answer, options, TOPIC, &record);
    if let Content::Change(event) = answer {
        survives_printing(&event, self::options(0));
    }
}

/// Two bytes that choose one of the captured writer schemas, then a body.
pub fn avro(input: &[u8]) {
    // What a decoder remembers of Avro is schemas alone, so that one decoder for all inputs answers as a new one does.
    static DECODER: LazyLock<Decoder> = LazyLock::new(|| Decoder::new(of_avro()));
    let Some((&[high, low], body)) = input.split_first_chunk() else {
        return;
    };
    let place = usize::from(u16::from_be_bytes([high, low])) % schemas().len();
    let Some(id) = schemas().keys().nth(place) else { return };
    let record = valued(&[&[0][..], &id.to_be_bytes(), body].concat());
    let answer = answered(&DECODER, TOPIC, &record);
    if body.len().is_multiple_of(16) {
        agrees(&answer, of_avro(), TOPIC, &record);
    }
    if let Content::Change(event) = answer {
        survives_printing(&event, options(0));
    }
}

/// The text of a schema, a body, and texts that the schema refers to ([`frame::parts`]).
pub fn avro_schema(input: &[u8]) {
    let mut parts = frame::parts(input);
    let (Some(text), Some(body)) = (parts.next(), parts.next()) else {
        return;
    };
    let texts = [text]
        .into_iter()
        .chain(parts.take(8))
        .map(|part| std::str::from_utf8(part).map(str::to_owned));
    let Ok(mut texts) = texts.collect::<Result<Vec<String>, _>>() else {
        return;
    };
    let document = SchemaDocument {
        text: texts.remove(0),
        references: texts,
    };
    let record = valued(&[&[0, 0, 0, 0, 1][..], body].concat());
    let told = [Decoder::new(of_avro()), Decoder::new(of_avro())].map(|decoder| {
        let learnt = decoder.learn(1, &document);
        let told = tell(&content(&decoder, TOPIC, &record));
        assert!(
            learnt.is_ok() || told == UNDECODABLE,
            "a schema that cannot be used was used"
        );
        assert_eq!(
            told,
            tell(&content(&decoder, TOPIC, &record)),
            "asked twice, answered differently"
        );
        told
    });
    assert_eq!(told[0], told[1]);
}

/// A byte of settings, then a row as a JSON object: its column `v` as every type that a handler may ask for.
pub fn typed_row(input: &[u8]) {
    let Some((first, row)) = input.split_first() else {
        return;
    };
    let source = r#""source":{"schema":"public","table":"users","lsn":1}"#;
    let value = [br#"{"op":"c","after":"#, row, b",", source.as_bytes(), b"}"].concat();
    let decoder = Decoder::new(Options {
        format: Format::Json,
        ..options(*first)
    });
    if let Content::Change(event) = content(&decoder, TOPIC, &valued(&value))
        && let Some(row) = event.after()
    {
        typed::check(row);
    }
}

fn of_avro() -> Options {
    Options {
        format: Format::Avro,
        ..options(0)
    }
}

/// The modes of a connector, by a number.
fn options(number: u8) -> Options {
    const DECIMAL: [DecimalMode; 3] = [DecimalMode::String, DecimalMode::Precise, DecimalMode::Double];
    const TIME: [TimePrecision; 6] = [
        TimePrecision::IsoString,
        TimePrecision::Adaptive,
        TimePrecision::AdaptiveTimeMicroseconds,
        TimePrecision::Connect,
        TimePrecision::Microseconds,
        TimePrecision::Nanoseconds,
    ];
    const INTERVAL: [IntervalMode; 2] = [IntervalMode::String, IntervalMode::Numeric];
    const BINARY: [BinaryMode; 4] = [
        BinaryMode::Base64,
        BinaryMode::Bytes,
        BinaryMode::Base64UrlSafe,
        BinaryMode::Hex,
    ];
    let number = usize::from(number);
    Options {
        time_precision: TIME[number % 6],
        binary: BINARY[number / 6 % 4],
        decimal: DECIMAL[number / 24 % 3],
        interval: INTERVAL[number / 72 % 2],
        reads: true,
        ..Options::default()
    }
}

fn valued(value: &[u8]) -> RawRecord {
    RawRecord {
        value: Some(value.to_vec().into()),
        ..RawRecord::default()
    }
}

/// What a decoder makes of a record; it says the same again, and asks for no more memory than a small multiple of the
/// record.
fn answered(decoder: &Decoder, topic: &str, record: &RawRecord) -> Content {
    // Schemas that are missing are learnt now: their memory is not the record's.
    let answer = content(decoder, topic, record);
    let mut again = None;
    let counted = allocation_counter::measure(|| again = Some(content(decoder, topic, record)));
    let bytes_max = (record.weight() * BYTES_TIMES + BYTES_FREE) as u64;
    assert!(
        counted.bytes_max <= bytes_max,
        "a record of {} bytes asked for {}",
        record.weight(),
        counted.bytes_max
    );
    let told = again.as_ref().map(tell);
    assert_eq!(told, Some(tell(&answer)), "asked twice, answered differently");
    answer
}

/// A decoder that has seen nothing agrees.
fn agrees(answer: &Content, options: Options, topic: &str, record: &RawRecord) {
    let cold = tell(&content(&Decoder::new(options), topic, record));
    assert_eq!(tell(answer), cold, "what was decoded before changes the answer");
}

fn content(decoder: &Decoder, topic: &str, record: &RawRecord) -> Content {
    let mut unknown = Vec::new();
    loop {
        match decoder.decode_despite(topic, record, &Tables::all(), &unknown) {
            Decoded::Content(content) => return content,
            Decoded::MissingSchema(id) => match schemas().get(&id) {
                Some(document) => decoder.learn(id, document).expect("a captured schema can be used"),
                None => {
                    assert!(unknown.len() < 2, "a record has one key and one value");
                    unknown.push(Unknown::schema(id));
                }
            },
        }
    }
}

const UNDECODABLE: &str = "undecodable";

/// A content as text; of what cannot be decoded only that, because where a damage is met depends on what was known before.
fn tell(content: &Content) -> String {
    match content {
        Content::Change(event) => serde_json::to_string(&Canonical(event)).expect("every event prints"),
        Content::Skip(reason) => reason.as_str().to_owned(),
        Content::Undecodable(_) => UNDECODABLE.to_owned(),
    }
}

/// The rows of an event as they print. Texts, because a parser of documents may round a number.
#[derive(Deserialize)]
struct Printed {
    before: Option<Box<RawValue>>,
    after: Option<Box<RawValue>>,
}

/// Rows that are printed and read again as JSON without schema print the same. They are read as an insert and a delete,
/// where no text stands for a column that is unavailable.
fn survives_printing(event: &ChangeEvent, options: Options) {
    let decoder = Decoder::new(Options {
        format: Format::Json,
        ..options
    });
    let again = |op: &str, side: &str, row: &RawValue| {
        let source = r#"{"schema":"public","table":"users","lsn":1}"#;
        let text = format!(r#"{{"op":"{op}","{side}":{},"source":{source}}}"#, row.get());
        match content(&decoder, TOPIC, &valued(text.as_bytes())) {
            Content::Change(read) => printed(&read),
            other => panic!("a printed row was not read again: {other:?} of {text}"),
        }
    };
    let rows = printed(event);
    let same = "a row changed by being printed and read again";
    if let Some(row) = rows.before {
        assert_eq!(
            again("d", "before", &row).before.expect("it was there").get(),
            row.get(),
            "{same}"
        );
    }
    if let Some(row) = rows.after {
        assert_eq!(
            again("c", "after", &row).after.expect("it was there").get(),
            row.get(),
            "{same}"
        );
    }
}

fn printed(event: &ChangeEvent) -> Printed {
    let text = serde_json::to_string(&Canonical(event)).expect("every event prints");
    serde_json::from_str(&text).expect("an event prints as JSON")
}

//! Records that nobody would send, made from captured ones by a seed, for as long as there is time.
//!
//! Whatever comes in: the decoder does not panic, answers the same when asked again, a decoder that has seen much and one
//! that has seen nothing agree, and no record asks for more memory than a small multiple of its own bytes. `FUZZ_SEED=7`
//! repeats a run, `FUZZ_SECONDS=600` makes it longer; a failure prints the seed of its record.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(test)]
#[path = "../captures/mod.rs"]
mod captures;
mod corpus;
mod damage;
mod random;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use afterwrite::decode::canonical::Canonical;
use afterwrite::decode::options::{Format, Options};
use afterwrite::decode::tables::Tables;
use afterwrite::decode::unknown::Unknown;
use afterwrite::decode::{Decoded, Decoder};
use afterwrite::event::delivery::{Content, RawRecord};
use tokio::time::Instant;

use crate::corpus::Corpus;
use crate::random::Random;

/// Without `FUZZ_SECONDS`.
const SECONDS: u64 = 45;

/// How many bytes a record may ask for at once: a multiple of its own, and what the decimals of any record may be printed
/// with.
const BYTES_TIMES: usize = 16;
const BYTES_FREE: usize = 1024 * 1024;

const FORMATS: [Format; 4] = [Format::Auto, Format::Json, Format::JsonSchema, Format::Avro];

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn no_record_harms_the_decoder() {
    let corpus = Corpus::captured();
    let first = from_environment("FUZZ_SEED").unwrap_or_else(new_seed);
    let time = Duration::from_secs(from_environment("FUZZ_SECONDS").unwrap_or(SECONDS));
    let warm = FORMATS.map(decoder);
    let started = Instant::now();
    let (mut records, mut changes, mut largest) = (0_u64, 0_u64, 0.0_f64);
    while started.elapsed() < time {
        let seed = first.wrapping_add(records);
        let mut random = Random::new(seed);
        let (topic, record) = corpus.record(&mut random);
        let which = if random.chance(60) {
            0
        } else {
            random.below(FORMATS.len())
        };
        let checked = catch_unwind(AssertUnwindSafe(|| {
            check(&corpus, &warm[which], FORMATS[which], &topic, &record)
        }));
        let outcome = checked.unwrap_or_else(|_| panic!("FUZZ_SEED={seed} FUZZ_SECONDS=1 repeats it"));
        changes += u64::from(outcome.is_change);
        largest = largest.max(outcome.multiple);
        records += 1;
    }
    println!(
        "{records} records from seed {first} on, {changes} of them changes; at most {largest:.1} bytes of memory for one \
         of a record (of 1 KiB or more)"
    );
    assert!(changes * 50 > records, "the generator makes nothing that decodes");
    assert!(changes * 10 < records * 9, "the generator damages nothing");
}

/// Another seed each time: a run that finds something prints it.
fn new_seed() -> u64 {
    let id = uuid::Uuid::new_v4().as_u128();
    u64::try_from(id >> 80).expect("48 bits were left")
}

struct Outcome {
    is_change: bool,
    /// Bytes asked for at once, for each byte of the record.
    multiple: f64,
}

fn check(corpus: &Corpus, warm: &Decoder, format: Format, topic: &str, record: &RawRecord) -> Outcome {
    // Schemas that are missing are learnt first: they are not the record's.
    let content = decoded(warm, corpus, topic, record);
    let counted = allocation_counter::measure(|| drop(decoded(warm, corpus, topic, record)));
    let asked = usize::try_from(counted.bytes_max).unwrap();
    let weight = record.weight();
    assert!(
        asked <= weight * BYTES_TIMES + BYTES_FREE,
        "a record of {weight} bytes asked for {asked} at once"
    );
    let told = tell(&content);
    assert_eq!(
        told,
        tell(&decoded(warm, corpus, topic, record)),
        "asked twice, answered differently"
    );
    let cold = decoder(format);
    assert_eq!(
        told,
        tell(&decoded(&cold, corpus, topic, record)),
        "what was decoded before changes the answer"
    );
    Outcome {
        is_change: matches!(content, Content::Change(_)),
        multiple: if weight < 1024 {
            0.0
        } else {
            asked as f64 / weight as f64
        },
    }
}

fn decoder(format: Format) -> Decoder {
    Decoder::new(Options {
        format,
        reads: true,
        ..Options::default()
    })
}

fn decoded(decoder: &Decoder, corpus: &Corpus, topic: &str, record: &RawRecord) -> Content {
    let mut unknown = Vec::new();
    loop {
        match decoder.decode_despite(topic, record, &Tables::all(), &unknown) {
            Decoded::Content(content) => return content,
            Decoded::MissingSchema(id) => match corpus.schema(id) {
                Some(document) => decoder.learn(id, document).unwrap(),
                None => {
                    assert!(unknown.len() < 2, "a record has one key and one value");
                    unknown.push(Unknown::schema(id));
                }
            },
        }
    }
}

/// A content as text; of what cannot be decoded only that, because where a damage is met depends on what was known before.
fn tell(content: &Content) -> String {
    match content {
        Content::Change(event) => serde_json::to_string(&Canonical(event)).unwrap(),
        Content::Skip(reason) => reason.as_str().to_owned(),
        Content::Undecodable(_) => "undecodable".to_owned(),
    }
}

//! The captured records of a real Debezium, as the seeds of damaged ones.

use std::collections::HashMap;

use afterwrite::decode::schema::SchemaDocument;
use afterwrite::event::delivery::RawRecord;

use crate::captures::{Capture, ENCODINGS, MODES, Schemas};
use crate::damage;
use crate::random::Random;

fn captured() -> impl Iterator<Item = Capture> {
    ENCODINGS.into_iter().chain(MODES).map(Capture::read)
}

fn documents(schemas: &Schemas) -> Vec<(u32, SchemaDocument)> {
    schemas.ids().map(|id| (id, schemas.document(id))).collect()
}

pub(crate) struct Corpus {
    records: Vec<(String, RawRecord)>,
    schemas: HashMap<u32, SchemaDocument>,
}

impl Corpus {
    pub(crate) fn captured() -> Self {
        Self {
            records: captured()
                .flat_map(|capture| capture.records)
                .map(|record| (record.topic, record.raw))
                .collect(),
            schemas: captured().flat_map(|capture| documents(&capture.schemas)).collect(),
        }
    }

    pub(crate) fn schema(&self, id: u32) -> Option<&SchemaDocument> {
        self.schemas.get(&id)
    }

    /// A captured record, whole or damaged, or with a key or headers of another.
    pub(crate) fn record(&self, random: &mut Random) -> (String, RawRecord) {
        let (topic, mut record) = random.of(&self.records).clone();
        let (_, other) = random.of(&self.records);
        if random.chance(10) {
            record.key = other.key.clone();
        }
        if random.chance(10) {
            record.headers = other.headers.clone();
        }
        for part in [&mut record.key, &mut record.value] {
            if let Some(bytes) = part
                && random.chance(40)
            {
                *bytes = damage::damaged(bytes, other.value.as_deref().unwrap_or_default(), random).into();
            }
        }
        (topic, record)
    }
}

//! What the registry answers about the schemas that records were written with.

use std::collections::BTreeSet;

use crate::captures::{Answer, Captured, Entry, Schemas, schema_id};
use crate::stack::address;

/// The schemas of all ids in the records, with everything they refer to.
pub(crate) async fn schemas(records: &[Captured]) -> Schemas {
    let parts = records.iter().flat_map(|record| [&record.raw.key, &record.raw.value]);
    let ids: BTreeSet<u32> = parts.filter_map(|part| schema_id(part.as_deref()?)).collect();
    let mut schemas = Schemas::default();
    let mut waiting = Vec::new();
    for id in ids {
        let raw = answer(&format!("schemas/ids/{id}")).await;
        waiting.extend(raw.references.clone());
        schemas.ids.insert(id, Entry { raw });
    }
    while let Some(reference) = waiting.pop() {
        let place = reference.place();
        if schemas.referenced_subject_versions.contains_key(&place) {
            continue;
        }
        let found = answer(&format!(
            "subjects/{}/versions/{}",
            reference.subject, reference.version
        ))
        .await;
        waiting.extend(found.references.clone());
        schemas.referenced_subject_versions.insert(place, found);
    }
    schemas
}

async fn answer(path: &str) -> Answer {
    let url = format!("{}/{path}", address("SCHEMA_REGISTRY_URL"));
    let response = reqwest::get(&url).await.unwrap();
    assert!(response.status().is_success(), "{url}: {}", response.status());
    response.json().await.unwrap()
}

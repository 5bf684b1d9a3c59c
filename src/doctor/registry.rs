//! The schema registry, where records need one.

use super::codes;
use super::doors;
use super::expected::Expected;
use super::finding::{Finding, Remedy};
use crate::decode::registry::client::{Look, look};
use crate::hindrance::{Hindered, REGISTRY};

pub(super) async fn collect(expected: &Expected) -> Look {
    look(&expected.registry).await
}

/// Levels under which columns can be added, as columns usually are, and taken away.
const HARMLESS: [&str; 2] = ["NONE", "BACKWARD"];

pub(super) fn findings(facts: &Look) -> Vec<Finding> {
    match facts {
        Look::Answered { url, compatibility } => {
            let level = compatibility.as_deref().unwrap_or("NONE");
            let blocks = !HARMLESS.contains(&level);
            let finding = codes::REGISTRY_COMPATIBILITY.found(
                format!("the registry's compatibility level is {level}"),
                Remedy::words(format!(
                    "others may rely on the level, so change it for each subject of this source only (TOPIC-key, TOPIC-value): curl \
                     --fail-with-body -sS -X PUT -H 'content-type: application/vnd.schemaregistry.v1+json' --data \
                     '{{\"compatibility\":\"BACKWARD\"}}' '{url}/config/SUBJECT'"
                )),
            );
            blocks.then_some(finding).into_iter().collect()
        }
        Look::Refused {
            url,
            status: status @ (401 | 403),
        } => {
            let said = format!("status {status}");
            let hindered = Hindered::read(&said, url, &REGISTRY);
            hindered
                .iter()
                .map(|hindered| doors::REGISTRY.hindered(hindered))
                .collect()
        }
        Look::Refused { url, status } => vec![codes::REGISTRY_REFUSED.found(
            format!("the registry at {url} answered with status {status}"),
            Remedy::words(match status {
                404 => "add the path of Confluent's API to registry.url, such as /apis/ccompat/v7",
                _ => "see the log of the registry",
            }),
        )],
        Look::Silent { url, cause } if let Some(hindered) = Hindered::read(cause, url, &REGISTRY) => {
            vec![doors::REGISTRY.hindered(&hindered)]
        }
        Look::Silent { url, cause } => vec![codes::REGISTRY_UNREACHABLE.found(
            format!("the registry at {url} did not answer: {cause}"),
            Remedy::words("start the registry, or correct registry.url (SCHEMA_REGISTRY_URL) and its certificates"),
        )],
        Look::Misset { cause } => {
            vec![codes::REGISTRY_REFUSED.found(cause.clone(), Remedy::words("correct the settings of [registry]"))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_is_away_is_told_from_one_that_refuses() {
        let url = "http://registry".to_owned();
        let answered = |level: Option<&str>| Look::Answered {
            url: url.clone(),
            compatibility: level.map(str::to_owned),
        };
        for (look, codes) in [
            (answered(None), &[][..]),
            (answered(Some("NONE")), &[]),
            (answered(Some("BACKWARD")), &[]),
            (answered(Some("BACKWARD_TRANSITIVE")), &["registry-compatibility"]),
            (answered(Some("FULL")), &["registry-compatibility"]),
            (
                Look::Refused {
                    url: url.clone(),
                    status: 404,
                },
                &["registry-refused"],
            ),
            (
                Look::Silent {
                    url: url.clone(),
                    cause: "no".to_owned(),
                },
                &["registry-unreachable"],
            ),
        ] {
            assert_eq!(
                findings(&look)
                    .iter()
                    .map(|finding| finding.code.name)
                    .collect::<Vec<_>>(),
                codes
            );
        }
    }
}

//! The schema registry, where records need one.

use super::codes;
use super::doors;
use super::expected::Expected;
use super::finding::{Finding, Remedy};
use super::quoting::shell_word;
use crate::decode::registry::client::{Look, look};
use crate::hindrance::{Hindered, REGISTRY};

pub(super) async fn collect(expected: &Expected) -> Look {
    look(&expected.registry, &format!("{}.", expected.source)).await
}

/// Levels under which columns can be added, as columns usually are, and taken away.
const HARMLESS: [&str; 2] = ["NONE", "BACKWARD"];

pub(super) fn findings(facts: &Look) -> Vec<Finding> {
    match facts {
        Look::Answered {
            url,
            compatibility,
            subjects,
        } => of_levels(url, compatibility.as_deref(), subjects).into_iter().collect(),
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

/// Levels count for each subject, and the registry's own for those that have none; also for those to come, while there are none.
fn of_levels(url: &str, global: Option<&str>, subjects: &[(String, Option<String>)]) -> Option<Finding> {
    let global = global.unwrap_or("NONE");
    let blocks = |level: &str| !HARMLESS.contains(&level);
    let set = |subject: &str| {
        format!(
            "curl --fail-with-body -sS -X PUT -H 'content-type: application/vnd.schemaregistry.v1+json' --data \
             '{{\"compatibility\":\"BACKWARD\"}}' {}",
            shell_word(&format!("{url}/config/{subject}"))
        )
    };
    if subjects.is_empty() {
        return blocks(global).then(|| {
            codes::REGISTRY_COMPATIBILITY.found(
                format!("the registry's compatibility level is {global}, and no subject of this source has another"),
                Remedy::words(format!(
                    "others may rely on the level, so change it for each subject of this source only, as soon as it is there \
                     (TOPIC-key, TOPIC-value): {}",
                    set("SUBJECT")
                )),
            )
        });
    }
    let strict: Vec<(&str, &str)> = subjects
        .iter()
        .map(|(subject, own)| (subject.as_str(), own.as_deref().unwrap_or(global)))
        .filter(|(_, level)| blocks(level))
        .collect();
    let told = strict.iter().map(|(subject, level)| format!("{subject} is {level}"));
    let remedy = strict.iter().map(|(subject, _)| set(subject));
    (!strict.is_empty()).then(|| {
        codes::REGISTRY_COMPATIBILITY.found(
            format!("the compatibility level of {}", told.collect::<Vec<_>>().join(", of ")),
            Remedy::shell(remedy.collect::<Vec<_>>().join("\n")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_counts_for_the_subjects_that_have_no_other() {
        let subject = |name: &str, level: Option<&str>| (name.to_owned(), level.map(str::to_owned));
        for (global, subjects, told) in [
            (None, vec![], None),
            (Some("NONE"), vec![], None),
            (Some("BACKWARD"), vec![], None),
            (Some("BACKWARD_TRANSITIVE"), vec![], Some("SUBJECT")),
            (Some("FULL"), vec![subject("a-value", None)], Some("a-value is FULL")),
            (Some("FULL"), vec![subject("a-value", Some("BACKWARD"))], None),
            (
                None,
                vec![subject("a-value", Some("FULL")), subject("b-value", None)],
                Some("a-value is FULL"),
            ),
        ] {
            let found = of_levels("http://registry", global, &subjects);
            let found = found.map(|finding| format!("{} {}", finding.what, finding.remedy.parts().1));
            assert_eq!(found.is_some(), told.is_some(), "{global:?} {subjects:?}");
            let holds = found
                .iter()
                .zip(told)
                .all(|(found, told)| found.contains(told) && !found.contains("b-value"));
            assert!(holds, "{found:?}");
        }
    }

    #[test]
    fn a_registry_that_is_away_is_told_from_one_that_refuses() {
        let url = "http://registry".to_owned();
        for (look, codes) in [
            (
                Look::Answered {
                    url: url.clone(),
                    compatibility: None,
                    subjects: Vec::new(),
                },
                &[][..],
            ),
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

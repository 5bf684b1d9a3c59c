//! Whether Kafka Connect gives the exactly-once that the connector asks for.
//!
//! A cluster does not tell its own settings. It says whether it has this one when it checks a configuration that requires it, and
//! changes nothing by checking.

use super::codes;
use super::connector::{CLASS, Deployed};
use super::finding::{Finding, Remedy};
use crate::clients::connect::{ConnectClient, ConnectError, Objection};

const SETTING: &str = "exactly.once.support";

/// What Connect objects to; nothing is asked for a connector that does not require it.
pub(super) async fn collect(client: &ConnectClient, deployed: &Deployed<'_>) -> Result<Vec<Objection>, ConnectError> {
    let is_required = deployed
        .get(SETTING)
        .is_some_and(|asked| asked.eq_ignore_ascii_case("required"));
    match is_required {
        true => client.validate(CLASS, &deployed.connector.config).await,
        false => Ok(Vec::new()),
    }
}

pub(super) fn findings(objections: &[Objection], deployed: &Deployed<'_>) -> Vec<Finding> {
    let about = objections.iter().filter(|objection| objection.key == SETTING);
    let found = about.map(|objection| {
        codes::EXACTLY_ONCE_OFF.found(
            format!(
                "connector {} requires exactly-once, and kafka connect says: {}",
                deployed.name,
                objection.errors.join("; ")
            ),
            Remedy::words(
                "on each worker of Kafka Connect exactly.once.source.support = preparing, and restart them one by one; then the same with \
                 enabled; or take exactly.once.support out of the connector: afterwrite needs it for nothing",
            ),
        )
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::connect::{Connector, ConnectorConfig};

    #[test]
    fn only_what_is_said_of_exactly_once_is_told() {
        let connector = Connector {
            config: ConnectorConfig::new(),
            status: None,
        };
        let deployed = Deployed {
            name: "c",
            connector: &connector,
            endpoint: "http://connect:8083",
        };
        let objection = |key: &str| Objection {
            key: key.to_owned(),
            errors: vec!["no".to_owned()],
        };
        assert_eq!(findings(&[objection("database.hostname")], &deployed), []);
        let found = findings(&[objection(SETTING)], &deployed);
        assert_eq!(found[0].code.name, "exactly-once-off");
        assert!(found[0].what.ends_with("says: no"), "{}", found[0].what);
    }
}

//! How a member takes part in its group: each protocol with what it leaves to its members, and nothing else.
//!
//! Whatever the protocol, rebalances are handled alike: the client assigns and unassigns what it is told, all at once
//! (`eager`) or by difference (the others), after it was claimed, or let go.

use std::time::Duration;

/// The brokers' `group.consumer.session.timeout.ms` unless somebody changed it.
const BROKERS_SESSION: Duration = Duration::from_secs(45);

/// How a process takes part in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// How the members agree on who has which partition.
    pub protocol: Protocol,
    /// Name of the process that outlives it: its partitions wait for it while it restarts, for as long as its session.
    pub instance: Option<String>,
}

/// How the members of a group agree on who has which partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// Partitions that stay are worked on while others move.
    CooperativeSticky(Session),
    /// Everybody lets everything go, then everything is shared out anew.
    Eager(Session, EagerAssignor),
    /// KIP-848: the brokers share out, and sessions are theirs.
    Consumer(RemoteAssignor),
}

/// After how long a member that is silent is taken for dead, and how often it says that it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Longest silence.
    pub timeout: Duration,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
}

/// How the leader of an `eager` group shares out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EagerAssignor {
    /// Neighbouring partitions of each topic to each member.
    Range,
    /// Partitions in turn.
    RoundRobin,
}

/// How the brokers share out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteAssignor {
    /// As the first of their `group.consumer.assignors` does.
    BrokersChoice,
    /// Evenly, moving as few as possible.
    Uniform,
    /// Neighbouring partitions of each topic to each member.
    Range,
}

impl Membership {
    /// The client properties that say so.
    pub(super) fn properties(&self, group: &str) -> Vec<(&'static str, String)> {
        let mut properties = self.protocol.properties();
        if let Some(instance) = &self.instance {
            properties.push(("group.instance.id", instance_id(group, instance)));
        }
        properties
    }
}

impl Protocol {
    /// How long the group waits for a member that is silent.
    pub(super) fn session(&self) -> Duration {
        match self {
            Self::CooperativeSticky(session) | Self::Eager(session, _) => session.timeout,
            Self::Consumer(_) => BROKERS_SESSION,
        }
    }

    fn properties(&self) -> Vec<(&'static str, String)> {
        let classic = |session: &Session, assignor: &str| {
            vec![
                ("group.protocol", "classic".to_owned()),
                ("partition.assignment.strategy", assignor.to_owned()),
                ("session.timeout.ms", session.timeout.as_millis().to_string()),
                ("heartbeat.interval.ms", session.heartbeat.as_millis().to_string()),
            ]
        };
        match self {
            Self::CooperativeSticky(session) => classic(session, "cooperative-sticky"),
            Self::Eager(session, EagerAssignor::Range) => classic(session, "range"),
            Self::Eager(session, EagerAssignor::RoundRobin) => classic(session, "roundrobin"),
            Self::Consumer(assignor) => {
                let mut properties = vec![("group.protocol", "consumer".to_owned())];
                match assignor {
                    RemoteAssignor::BrokersChoice => {}
                    RemoteAssignor::Uniform => properties.push(("group.remote.assignor", "uniform".to_owned())),
                    RemoteAssignor::Range => properties.push(("group.remote.assignor", "range".to_owned())),
                }
                properties
            }
        }
    }
}

impl Default for Membership {
    /// For clients that join no group: what a member would say is never asked.
    fn default() -> Self {
        let session = Session {
            timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(3),
        };
        Self {
            protocol: Protocol::CooperativeSticky(session),
            instance: None,
        }
    }
}

/// One process is a member of several groups, and each member has a name of its own in the tools that list them.
fn instance_id(group: &str, instance: &str) -> String {
    format!("{group}.{instance}")
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::error::KafkaResult;

    use super::*;

    const SESSION: Session = Session {
        timeout: Duration::from_millis(6_000),
        heartbeat: Duration::from_millis(2_000),
    };

    fn every_protocol() -> Vec<Protocol> {
        vec![
            Protocol::CooperativeSticky(SESSION),
            Protocol::Eager(SESSION, EagerAssignor::Range),
            Protocol::Eager(SESSION, EagerAssignor::RoundRobin),
            Protocol::Consumer(RemoteAssignor::BrokersChoice),
            Protocol::Consumer(RemoteAssignor::Uniform),
            Protocol::Consumer(RemoteAssignor::Range),
        ]
    }

    #[test]
    fn the_client_library_takes_every_protocol_as_it_is_told() {
        for protocol in every_protocol() {
            let membership = Membership {
                protocol,
                instance: Some("worker-1".to_owned()),
            };
            let mut config = ClientConfig::new();
            config.set("group.id", "afterwrite.email");
            for (name, value) in membership.properties("afterwrite.email") {
                config.set(name, value);
            }
            assert_eq!(config.get("group.instance.id"), Some("afterwrite.email.worker-1"));
            let made: KafkaResult<BaseConsumer> = config.create();
            assert!(made.is_ok(), "{membership:?}: {:?}", made.err());
        }
    }

    #[test]
    fn a_session_is_told_where_it_is_the_members_affair_and_nowhere_else() {
        for protocol in every_protocol() {
            let names: Vec<&str> = protocol.properties().iter().map(|(name, _)| *name).collect();
            let is_brokers = matches!(protocol, Protocol::Consumer(_));
            for name in [
                "session.timeout.ms",
                "heartbeat.interval.ms",
                "partition.assignment.strategy",
            ] {
                assert_eq!(names.contains(&name), !is_brokers, "{protocol:?}: {name}");
            }
            assert_eq!(protocol.session() == BROKERS_SESSION, is_brokers);
        }
    }
}

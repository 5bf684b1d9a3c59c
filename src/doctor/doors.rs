//! The kinds of finding about doors: whoever is at the other end is there, and is not who it should be, or lets us not in. A name
//! that was released never changes.

use super::codes;
use super::finding::Leg::{Connect, Handlers, Postgres, Registry, Topics};
use super::finding::{Code, Finding, Remedy};
use crate::hindrance::{Hindered, Hindrance};

/// The kinds of finding about one door.
#[derive(Debug)]
pub(super) struct Door {
    away: &'static Code,
    certificate: &'static Code,
    host_name: &'static Code,
    tls: &'static Code,
    login: &'static Code,
}

/// Why a part of the way did not answer.
#[derive(Debug, Clone)]
pub enum Silence {
    /// It is away, or slow; in words.
    Away(String),
    /// It is there.
    Hindered(Hindered),
}

/// Whether nothing can be said of most of the way because of this finding.
pub(super) fn hides_much(code: &Code) -> bool {
    [POSTGRES, CONNECT, KAFKA].iter().any(|door| door.all().contains(&code))
}

impl Door {
    fn all(&self) -> [&'static Code; 5] {
        [self.away, self.certificate, self.host_name, self.tls, self.login]
    }

    /// What is to be said of a door that is shut; `remedy` mends one behind which nobody is.
    pub(super) fn shut(&self, silence: &Silence, remedy: &str) -> Finding {
        match silence {
            Silence::Away(why) => self.away.found(why.clone(), Remedy::words(remedy)),
            Silence::Hindered(hindered) => self.hindered(hindered),
        }
    }

    /// The same of one behind which somebody is.
    pub(super) fn hindered(&self, hindered: &Hindered) -> Finding {
        let code = match hindered.hindrance {
            Hindrance::Untrusted | Hindrance::Expired | Hindrance::OwnCertificate => self.certificate,
            Hindrance::HostName => self.host_name,
            Hindrance::NoTls | Hindrance::TlsOnly => self.tls,
            Hindrance::Login
            | Hindrance::LoginMissing
            | Hindrance::Mechanism
            | Hindrance::Token
            | Hindrance::TokenRefused => self.login,
        };
        code.found(hindered.what(), Remedy::words(hindered.remedy()))
    }
}

const POSTGRES_CERTIFICATE: &Code = &Code::error(
    Postgres,
    "postgres-certificate",
    "The worker connects to no database whose certificate it cannot make sure of: nothing is handled.",
);
const POSTGRES_HOST_NAME: &Code = &Code::error(
    Postgres,
    "postgres-host-name",
    "The certificate is another host's, which is how somebody in between looks: nothing is handled.",
);
const POSTGRES_TLS: &Code = &Code::error(
    Postgres,
    "postgres-tls",
    "One side speaks TLS and the other does not: nothing is handled.",
);
const POSTGRES_LOGIN: &Code = &Code::error(
    Postgres,
    "postgres-login",
    "Whoever is not let in cannot handle anything.",
);

pub(super) const POSTGRES: Door = Door {
    away: codes::POSTGRES_UNREACHABLE,
    certificate: POSTGRES_CERTIFICATE,
    host_name: POSTGRES_HOST_NAME,
    tls: POSTGRES_TLS,
    login: POSTGRES_LOGIN,
};

const CONNECT_CERTIFICATE: &Code = &Code::error(
    Connect,
    "connect-certificate",
    "Kafka Connect is not asked by whoever cannot make sure of it: its connector is neither seen nor managed.",
);
const CONNECT_HOST_NAME: &Code = &Code::error(
    Connect,
    "connect-host-name",
    "The certificate is another host's, which is how somebody in between looks: the connector is neither seen nor managed.",
);
const CONNECT_TLS: &Code = &Code::error(
    Connect,
    "connect-tls",
    "One side speaks TLS and the other does not: the connector is neither seen nor managed.",
);
const CONNECT_LOGIN: &Code = &Code::error(
    Connect,
    "connect-login",
    "Whoever is not let in neither sees nor manages the connector.",
);

pub(super) const CONNECT: Door = Door {
    away: codes::CONNECT_UNREACHABLE,
    certificate: CONNECT_CERTIFICATE,
    host_name: CONNECT_HOST_NAME,
    tls: CONNECT_TLS,
    login: CONNECT_LOGIN,
};

const KAFKA_CERTIFICATE: &Code = &Code::error(
    Topics,
    "kafka-certificate",
    "No client connects to brokers whose certificate it cannot make sure of, nor brokers to it: nothing is delivered to any group.",
);
const KAFKA_HOST_NAME: &Code = &Code::error(
    Topics,
    "kafka-host-name",
    "The certificate is another host's, which is how somebody in between looks: nothing is delivered to any group.",
);
const KAFKA_TLS: &Code = &Code::error(
    Topics,
    "kafka-tls",
    "One side speaks TLS and the other does not: nothing is delivered to any group.",
);
const KAFKA_LOGIN: &Code = &Code::error(
    Topics,
    "kafka-login",
    "Whoever is not let in gets no records: nothing is delivered to any group.",
);

pub(super) const KAFKA: Door = Door {
    away: codes::KAFKA_UNREACHABLE,
    certificate: KAFKA_CERTIFICATE,
    host_name: KAFKA_HOST_NAME,
    tls: KAFKA_TLS,
    login: KAFKA_LOGIN,
};

const REGISTRY_CERTIFICATE: &Code = &Code::error(
    Registry,
    "registry-certificate",
    "Schemas are not fetched from whom nobody can make sure of: partitions with schemas that are not known yet wait.",
);
const REGISTRY_HOST_NAME: &Code = &Code::error(
    Registry,
    "registry-host-name",
    "The certificate is another host's, which is how somebody in between looks: partitions with schemas that are not known yet wait.",
);
const REGISTRY_TLS: &Code = &Code::error(
    Registry,
    "registry-tls",
    "One side speaks TLS and the other does not: partitions with schemas that are not known yet wait.",
);
const REGISTRY_LOGIN: &Code = &Code::error(
    Registry,
    "registry-login",
    "Whoever is not let in gets no schemas: partitions with schemas that are not known yet wait.",
);

pub(super) const REGISTRY: Door = Door {
    away: codes::REGISTRY_UNREACHABLE,
    certificate: REGISTRY_CERTIFICATE,
    host_name: REGISTRY_HOST_NAME,
    tls: REGISTRY_TLS,
    login: REGISTRY_LOGIN,
};

const MAIL_CERTIFICATE: &Code = &Code::warning(
    Handlers,
    "mail-server-certificate",
    "Mails are not handed to whom nobody can make sure of: they wait.",
);
const MAIL_HOST_NAME: &Code = &Code::warning(
    Handlers,
    "mail-server-host-name",
    "The certificate is another host's, which is how somebody in between looks: mails wait.",
);
const MAIL_TLS: &Code = &Code::warning(
    Handlers,
    "mail-server-tls",
    "One side speaks TLS and the other does not: mails wait.",
);
const MAIL_LOGIN: &Code = &Code::warning(
    Handlers,
    "mail-server-login",
    "Whoever is not let in hands no mails over: they wait.",
);

pub(super) const MAIL: Door = Door {
    away: codes::MAIL_UNREACHABLE,
    certificate: MAIL_CERTIFICATE,
    host_name: MAIL_HOST_NAME,
    tls: MAIL_TLS,
    login: MAIL_LOGIN,
};

/// All of them, beside [`codes::ALL`].
#[cfg(test)]
pub(super) const ALL: [&Code; 20] = [
    POSTGRES_CERTIFICATE,
    POSTGRES_HOST_NAME,
    POSTGRES_TLS,
    POSTGRES_LOGIN,
    CONNECT_CERTIFICATE,
    CONNECT_HOST_NAME,
    CONNECT_TLS,
    CONNECT_LOGIN,
    KAFKA_CERTIFICATE,
    KAFKA_HOST_NAME,
    KAFKA_TLS,
    KAFKA_LOGIN,
    REGISTRY_CERTIFICATE,
    REGISTRY_HOST_NAME,
    REGISTRY_TLS,
    REGISTRY_LOGIN,
    MAIL_CERTIFICATE,
    MAIL_HOST_NAME,
    MAIL_TLS,
    MAIL_LOGIN,
];

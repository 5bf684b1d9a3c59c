//! `docker-compose.yml` and `infra/native` promise the same stack. These tests read both and fail when they drift apart.
//! They start nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::reading::{CONNECTORS, between, json, names, read, text, texts};

const COMPOSE: &str = "docker-compose.yml";

/// The compose file as Compose sees it: YAML carries no more than JSON here.
fn compose() -> Value {
    serde_norway::from_str(&read(COMPOSE)).unwrap_or_else(|error| panic!("{COMPOSE}: {error}"))
}

fn service(name: &str) -> Value {
    let services = compose();
    services["services"]
        .get(name)
        .unwrap_or_else(|| panic!("{COMPOSE} has no service {name}"))
        .clone()
}

/// `name=value` lines of a Java properties file; comments and empty lines left out.
fn properties(source: &str) -> BTreeMap<String, String> {
    source
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("no property: {line}")))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// The names of the properties which a script appends to a shared file: `printf 'name=…`.
fn printed_properties(script: &str) -> BTreeSet<String> {
    script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("printf '"))
        .filter_map(|format| format.split_once('='))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// `NAME=value` lines of a shell here-document.
fn environment_lines(script: &str, function: &str) -> BTreeMap<String, String> {
    let body = between(script, &format!("{function}() {{"), "\n}");
    properties(between(body, "<<LINES\n", "LINES"))
}

fn pom_version(property: &str) -> String {
    between(&read("infra/native/pom.xml"), &format!("<{property}>"), "<").to_owned()
}

fn shell_value(script: &str, name: &str) -> String {
    let value = between(script, &format!("\n{name}="), "\n").to_owned();
    assert!(!value.is_empty(), "{name} is empty");
    value
}

fn is_mounted(name: &str, source: &str, target: &str) -> bool {
    texts(&service(name)["volumes"]).contains(&format!("./{source}:{target}:ro"))
}

fn schema_errors(instance: &Value) -> Vec<String> {
    let schema = json("tests/fixtures/compose-spec.json");
    let validator = jsonschema::validator_for(&schema).expect("the vendored schema compiles");
    validator
        .iter_errors(instance)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn the_compose_file_is_valid_by_the_compose_specification() {
    assert_eq!(schema_errors(&compose()), Vec::<String>::new());
}

#[test]
fn the_vendored_specification_refuses_a_misspelt_key_and_a_wrong_type() {
    let mut misspelt = compose();
    misspelt["services"]["postgres"]["imagee"] = Value::from("postgres:15");
    assert!(!schema_errors(&misspelt).is_empty());

    let mut wrong_type = compose();
    wrong_type["services"]["postgres"]["ports"] = Value::from(true);
    assert!(!schema_errors(&wrong_type).is_empty());
}

#[test]
fn both_stacks_have_the_same_services() {
    let stack = read("infra/native/stack");
    let native: BTreeSet<String> = between(&stack, "\nSERVICES=(", ")")
        .split(' ')
        .map(str::to_owned)
        .collect();
    let docker: BTreeSet<String> = compose()["services"]
        .as_object()
        .expect("services")
        .iter()
        // What looks at them from outside is started by its profile only.
        .filter(|(_, service)| service.get("profiles").is_none())
        .map(|(name, _)| name.clone())
        .collect();
    assert_eq!(docker, native);
}

#[test]
fn both_stacks_have_the_same_versions() {
    assert_eq!(
        text(&service("kafka")["image"]),
        format!("apache/kafka:{}", pom_version("kafka.version"))
    );
    assert_eq!(
        text(&service("registry")["image"]),
        format!("apicurio/apicurio-registry-mem:{}", pom_version("apicurio.version"))
    );
    let postgres = read("infra/native/lib/binaries.sh");
    assert_eq!(
        text(&service("postgres")["image"]),
        format!("postgres:{}", shell_value(&postgres, "PG_MAJOR_MIN"))
    );
}

#[test]
fn the_connect_image_is_made_of_the_same_parts() {
    assert_eq!(
        text(&service("connect")["build"]["dockerfile"]),
        "infra/docker/connect.Dockerfile"
    );
    let dockerfile = read("infra/docker/connect.Dockerfile");
    assert!(dockerfile.contains("COPY infra/native/pom.xml ."));
    assert!(dockerfile.contains("COPY infra/native/conf/connect.properties "));
    for profile in ["kafka", "converter", "debezium"] {
        assert!(
            dockerfile.contains(&format!("--activate-profiles {profile} ")),
            "{profile} is not fetched"
        );
    }
    assert!(
        !dockerfile.contains(&pom_version("debezium.version")),
        "versions belong in pom.xml"
    );
}

#[test]
fn both_stacks_read_the_same_settings() {
    assert!(is_mounted(
        "postgres",
        "infra/native/conf/postgresql.conf",
        "/etc/afterwrite/postgresql.conf"
    ));
    assert!(texts(&service("postgres")["command"]).contains(&"config_file=/etc/afterwrite/postgresql.conf".to_owned()));
    assert!(is_mounted(
        "kafka",
        "infra/native/conf/server.properties",
        "/mnt/shared/config/server.properties"
    ));
    assert!(read("infra/docker/connect-entrypoint").contains("cat /opt/connect/conf/connect.properties"));

    for (name, file) in [
        ("postgres", "postgresql.conf"),
        ("kafka", "server.properties"),
        ("connect", "connect.properties"),
    ] {
        let script = read(&format!("infra/native/lib/{name}.sh"));
        assert!(
            script.contains(&format!("\"$NATIVE_DIR/conf/{file}\"")),
            "{name}.sh does not read conf/{file}"
        );
    }
    for name in ["kafka", "connect", "registry"] {
        assert_eq!(
            text(&service(name)["env_file"]),
            format!("infra/native/conf/{name}.env")
        );
        let script = read(&format!("infra/native/lib/{name}.sh"));
        for variable in properties(&read(&format!("infra/native/conf/{name}.env"))).keys() {
            assert!(
                script.contains(&format!("conf_words {name}.env {variable}")),
                "{name}.sh ignores {variable}"
            );
        }
    }
}

#[test]
fn kafka_differs_by_place_only() {
    let shared = properties(&read("infra/native/conf/server.properties"));
    // The listeners with a lock are there for tests, and natively only.
    let script = read("infra/native/lib/kafka.sh");
    let appended = printed_properties(between(&script, "\nkafka_launch() {", "\n}"));
    let overridden: BTreeSet<String> = service("kafka")["environment"]
        .as_object()
        .expect("environment")
        .keys()
        .filter_map(|name| name.strip_prefix("KAFKA_"))
        .map(|name| name.to_lowercase().replace('_', "."))
        .collect();
    let place = names(&[
        "listeners",
        "advertised.listeners",
        "inter.broker.listener.name",
        "controller.quorum.voters",
        "log.dirs",
    ]);
    assert_eq!(appended, place);
    assert_eq!(overridden, place);
    assert!(place.iter().all(|name| !shared.contains_key(name)));
}

#[test]
fn connect_differs_by_place_only() {
    let shared = properties(&read("infra/native/conf/connect.properties"));
    let place = names(&[
        "bootstrap.servers",
        "listeners",
        "rest.advertised.host.name",
        "plugin.path",
        "config.providers.file.param.allowed.paths",
    ]);
    assert_eq!(printed_properties(&read("infra/native/lib/connect.sh")), place);
    assert_eq!(printed_properties(&read("infra/docker/connect-entrypoint")), place);
    assert!(place.iter().all(|name| !shared.contains_key(name)));
}

#[test]
fn postgres_differs_by_place_only() {
    let place = [
        "config_file",
        "listen_addresses",
        "port",
        "unix_socket_directories",
        "dynamic_shared_memory_type",
    ];
    let shared = read("infra/native/conf/postgresql.conf");
    for name in place {
        assert!(
            !shared.lines().any(|line| line.starts_with(name)),
            "{name} is a matter of place"
        );
    }

    let script = read("infra/native/lib/postgres.sh");
    let native: BTreeSet<String> = between(&script, "\n    spawn postgres ", "\n}")
        .split(" -c ")
        .skip(1)
        .map(|setting| {
            setting
                .trim_start_matches('"')
                .split('=')
                .next()
                .expect("a name")
                .to_owned()
        })
        .collect();
    assert_eq!(native, names(&place));

    let command = texts(&service("postgres")["command"]);
    let docker: BTreeSet<String> = command
        .iter()
        .filter_map(|word| word.split_once('='))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert!(docker.is_subset(&names(&place)), "{docker:?}");
}

#[test]
fn both_stacks_have_the_same_database_owner_and_roles() {
    let script = read("infra/native/lib/postgres.sh");
    let environment = &service("postgres")["environment"];
    assert_eq!(text(&environment["POSTGRES_USER"]), shell_value(&script, "PG_USER"));
    assert_eq!(text(&environment["POSTGRES_PASSWORD"]), shell_value(&script, "PG_USER"));
    assert_eq!(text(&environment["POSTGRES_DB"]), shell_value(&script, "PG_DATABASE"));
    assert_eq!(text(&environment["POSTGRES_HOST_AUTH_METHOD"]), "trust");
    assert!(script.contains("--auth=trust"));
    assert_eq!(
        text(&environment["POSTGRES_INITDB_ARGS"]),
        "--encoding=UTF8 --locale=C.UTF-8"
    );
    assert!(script.contains("--encoding=UTF8 --locale=C.UTF-8"));
    assert!(is_mounted(
        "postgres",
        "infra/postgres/roles.sql",
        "/docker-entrypoint-initdb.d/10-roles.sql"
    ));
    assert!(script.contains("/infra/postgres/roles.sql"));
}

#[test]
fn both_registries_keep_their_schemas_in_a_file() {
    let url = service("registry")["environment"]["REGISTRY_DATASOURCE_URL"].clone();
    let settings = |url: &str| {
        (
            url.starts_with("jdbc:h2:file:"),
            url.split_once(';').map(|(_, rest)| rest.to_owned()),
        )
    };
    let script = read("infra/native/lib/registry.sh");
    let native = between(&script, "REGISTRY_DATASOURCE_URL=", "\"");
    assert_eq!(settings(text(&url)), settings(native));
    assert_eq!(settings(native), (true, Some("WRITE_DELAY=0".to_owned())));

    // The records in Kafka's volume name the ids, so the registry must keep them as long.
    let volumes = texts(&service("registry")["volumes"]);
    let (volume, folder) = volumes[0].split_once(':').expect("a named volume");
    assert!(text(&url).starts_with(&format!("jdbc:h2:file:{folder}/")), "{url}");
    for kept in [volume, "kafka"] {
        assert!(compose()["volumes"].get(kept).is_some(), "{kept} is no volume");
    }
    assert_eq!(
        text(&service("registry")["user"]),
        "0:0",
        "a new volume belongs to root"
    );
}

#[test]
fn connect_is_given_the_same_names_in_both_stacks_and_every_name_the_connectors_ask_for() {
    let native = environment_lines(&read("infra/native/lib/connect.sh"), "connect_environment");
    let docker: BTreeMap<String, String> = service("connect")["environment"]
        .as_object()
        .expect("environment")
        .iter()
        .filter(|(name, _)| name.starts_with("DEBEZIUM_"))
        .map(|(name, value)| (name.clone(), text(value).to_owned()))
        .collect();
    assert_eq!(docker.keys().collect::<Vec<_>>(), native.keys().collect::<Vec<_>>());

    let place = [
        "DEBEZIUM_DATABASE_HOST",
        "DEBEZIUM_DATABASE_PORT",
        "DEBEZIUM_DATABASE_NAME",
        "DEBEZIUM_REGISTRY_URL",
    ];
    for (name, value) in docker.iter().filter(|(name, _)| !place.contains(&name.as_str())) {
        assert_eq!(value, &native[name], "{name}");
    }

    let asked: BTreeSet<String> = CONNECTORS
        .iter()
        .flat_map(|path| {
            let source = read(path);
            source
                .split("${env:")
                .skip(1)
                .map(|rest| rest.split('}').next().expect("a name").to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(
        asked,
        docker.into_keys().collect(),
        "what is supplied is what is asked for"
    );
}

#[test]
fn both_stacks_publish_the_same_ports_on_the_loopback_address_only() {
    let script = read("infra/native/lib/place.sh");
    let ports = [
        ("postgres", "PG_PORT"),
        ("kafka", "KAFKA_PORT"),
        ("connect", "CONNECT_PORT"),
        ("registry", "REGISTRY_PORT"),
        ("smtp", "SMTP_PORT"),
    ];
    for (name, variable) in ports {
        let native = between(&script, &format!("\"${{{variable}:="), "}");
        let published = texts(&service(name)["ports"]);
        assert_eq!(published.len(), 1, "{name}");
        assert!(
            published[0].starts_with(&format!("127.0.0.1:${{{variable}:-{native}}}:")),
            "{name}: {published:?}"
        );
    }
}

#[test]
fn every_service_has_a_health_check() {
    for (name, definition) in compose()["services"].as_object().expect("services") {
        // Nothing waits for what only looks on.
        let looks_on = definition.get("profiles").is_some();
        assert!(looks_on || definition["healthcheck"]["test"].is_array(), "{name}");
    }
}

#[test]
fn the_mail_catcher_is_started_the_same_way() {
    let docker = texts(&service("smtp")["command"]);
    let flags: Vec<&String> = docker
        .iter()
        .filter(|word| !word.contains(':') && !word.contains('/'))
        .collect();
    assert_eq!(flags, ["mail-catcher", "--listen", "--dir"]);
    assert!(read("infra/native/lib/smtp.sh").contains("mail-catcher --listen \"127.0.0.1:$SMTP_PORT\" --dir "));
}

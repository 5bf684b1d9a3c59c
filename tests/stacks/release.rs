//! What makes a release: the fragments of its changes are collected, and a program that needs too much of a machine is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

#[test]
fn a_program_that_needs_more_than_older_machines_have_is_refused() {
    let copied = Copied::of("check", "check");
    // As it is built for development, with the system's OpenSSL.
    let program = env!("CARGO_BIN_EXE_afterwrite");
    let said = complaint(&copied.run("check", &[program]));
    assert!(
        said.contains("needs libcrypto.so") && said.contains("which is not on every machine"),
        "{said}"
    );

    let script = copied.read("infra/release/check");
    let lenient = script.replacen("[[ \" $LIBRARIES_MAX \" == *\" $library \"* ]]", "true", 1);
    copied.write("infra/release/check", &lenient);
    let unstripped = complaint(&copied.run("check", &[program]));
    assert!(unstripped.contains("is not stripped"), "{unstripped}");
    copied.write(
        "infra/release/check",
        &lenient.replacen("GLIBC_MAX=2.34", "GLIBC_MAX=2.5", 1),
    );
    let newer = complaint(&copied.run("check", &[program]));
    assert!(newer.contains("and 2.5 is what older systems have"), "{newer}");
}

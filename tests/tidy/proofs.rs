//! Each rule fails on a small text that breaks it, and on nothing else.

use std::fs;
use std::path::Path;

use crate::codes::unequal_codes;
use crate::documents::{absent_commands, absent_files, absent_tests, broken_links, commands, unexplained_errors};
use crate::reading::{File, code, code_of_tests, code_without_tests, declared, links, root};
use crate::rules::{
    LINES_MAX, NAMED_TYPES, Rule, banned_words_are_absent, dead_files, files_are_short, files_say_what_they_are_for,
    imports_go_one_way, names_say_something, nothing_is_left_behind, only_commands_print, rules_about_nothing,
    tests_never_sleep,
};

/// Checks how many offences a rule finds.
fn check(rule: Rule, path: &str, text: &str, offences: usize) {
    let file = File {
        path: path.to_owned(),
        text: text.to_owned(),
        is_test: path.starts_with("tests/") || path.ends_with("/tests.rs"),
    };
    let found = rule(&file);
    assert_eq!(found.len(), offences, "{path}: {text:?}: {found:?}");
}

#[test]
fn an_import_against_the_direction_is_found() {
    for (path, text, offences) in [
        ("src/event/row.rs", "use crate::engine::core;", 1),
        ("src/event/row.rs", "use crate::event::id;", 0),
        (
            "src/event/row.rs",
            "// crate::engine is not known here\nlet x = \"crate::engine\";",
            0,
        ),
        (
            "src/engine/mod.rs",
            "use crate::{router, config::Config, source::{kafka, wal}};",
            2,
        ),
        ("src/handlers/email/mod.rs", "fn x() { crate::decode::json(); }", 1),
        ("src/handlers/email/mod.rs", "use crate::clients::mailer::Mailer;", 0),
        ("src/novelty.rs", "", 1),
        ("src/main.rs", "use afterwrite::cli;", 0),
        (
            "src/config/mod.rs",
            "fn x() {}\n#[cfg(test)]\nmod tests {\n use crate::app;\n}",
            0,
        ),
    ] {
        check(imports_go_one_way, path, text, offences);
    }
}

#[test]
fn a_banned_word_is_found() {
    for (path, text, offences) in [
        ("src/engine/core/mod.rs", "let now = Instant::now();", 1),
        ("src/engine/lanes.rs", "use tokio::sync::mpsc;", 1),
        ("src/engine/driver.rs", "use tokio::sync::mpsc;", 0),
        ("src/engine/driver.rs", "use sqlx::PgPool;", 1),
        ("src/handlers/email/mod.rs", "use rdkafka::Message;", 1),
        ("src/cli/mod.rs", "use anyhow::Result;", 1),
        ("src/app.rs", "use anyhow::Result;", 0),
        ("src/engine/core/mod.rs", "let operand = x; mod grand::x;", 0),
    ] {
        check(banned_words_are_absent, path, text, offences);
    }
}

#[test]
fn a_long_file_and_a_file_without_a_purpose_are_found() {
    check(files_are_short, "src/a.rs", &"x\n".repeat(LINES_MAX), 0);
    check(files_are_short, "src/a.rs", &"x\n".repeat(LINES_MAX + 1), 1);
    check(files_say_what_they_are_for, "src/a.rs", "//! It is for x.\n", 0);
    check(files_say_what_they_are_for, "src/a.rs", "use std::fs;\n", 1);
}

#[test]
fn leftovers_are_found() {
    for (text, offences) in [
        ("// TODO: later", 1),
        ("// the METHODOLOGY", 0),
        ("fn x() { dbg!(1); }", 1),
        ("#[ignore]\nfn x() {}", 1),
        ("unsafe { x() }", 1),
        ("#![forbid(unsafe_code)]", 0),
        ("fn x() { y().unwrap(); }", 1),
        ("#[cfg(test)]\nmod tests {\n fn x() { y().unwrap(); }\n}", 0),
        ("/// `y.unwrap()` is not called.\nfn x() {}", 0),
    ] {
        check(nothing_is_left_behind, "src/a.rs", text, offences);
    }
}

#[test]
fn printing_and_sleeping_are_found() {
    check(only_commands_print, "src/engine/mod.rs", "println!();", 1);
    check(only_commands_print, "src/cli/dlq.rs", "println!();", 0);
    check(tests_never_sleep, "tests/it/main.rs", "tokio::time::sleep(x).await;", 1);
    check(
        tests_never_sleep,
        "tests/it/main.rs",
        "use std::thread::sleep; fn x() { sleep(y); }",
        1,
    );
    for pause in [
        "std::thread::sleep(x);",
        "tokio::time::sleep_until(x).await;",
        "std::thread::park_timeout(x);",
        "use tokio::time::sleep as rest;",
    ] {
        check(tests_never_sleep, "src/a/tests.rs", pause, 1);
    }
    check(tests_never_sleep, "src/a/tests.rs", "let sleeper = asleep(x);", 0);
    check(
        tests_never_sleep,
        "src/a.rs",
        "#[cfg(test)]\nmod tests {\n sleep(x);\n}",
        1,
    );
    check(tests_never_sleep, "src/a.rs", "sleep(x).await;", 0);
}

#[test]
fn code_below_inline_tests_keeps_to_the_rules_too() {
    let text = "fn a() {}\n#[cfg(test)]\nmod proofs {\n fn b() { let c = \"}\"; { c() } }\n}\nfn d() { e().unwrap(); }";
    assert_eq!(code_without_tests(text), "fn a() {}\n\nfn d() { e().unwrap(); }");
    let tests = code_of_tests(text);
    assert!(tests.ends_with("{ c() } }\n}"), "{tests}");
    check(nothing_is_left_behind, "src/a.rs", text, 1);
    check(
        tests_never_sleep,
        "src/a.rs",
        &format!("{text}\nfn f() {{ sleep(x); }}"),
        0,
    );
    let unclosed = "#[cfg(test)]\nmod tests {\n fn a() {";
    assert_eq!(code_without_tests(unclosed), "");
}

#[test]
fn rules_about_nothing_are_found() {
    let file = File {
        path: "src/event/mod.rs".to_owned(),
        text: String::new(),
        is_test: false,
    };
    let found = rules_about_nothing(&[file]);
    let speaks_of = |place: &str| {
        found
            .iter()
            .any(|offence| offence.contains(&format!("speaks of {place},")))
    };
    assert!(speaks_of("src/engine") && speaks_of("src/engine/core") && speaks_of(NAMED_TYPES));
    assert!(!speaks_of("src/event") && !speaks_of("src/event/"));
}

#[test]
fn what_documents_name_in_vain_is_found() {
    let exists = |path: &Path| path == Path::new("src/a.rs") || path == Path::new("docs/b.md");
    let text = "`src/a.rs` and `infra/native/stack env`, [b](b.md), [c](c.md), `tests/*`\n```sh\nsrc/d.rs\n```\n";
    assert_eq!(
        absent_files("docs/x.md", text, exists),
        ["docs/x.md: there is no infra/native/stack"]
    );
    assert_eq!(
        broken_links("docs/x.md", text, exists),
        ["docs/x.md: the link to c.md leads nowhere"]
    );

    let known = commands("pub enum Command {\n    /// Is (x).\n    MailCatcher(A),\n    Run(run::Args),\n}\nOther(x)");
    assert_eq!(known, ["mail-catcher", "run"]);
    let text =
        "`afterwrite run --only x`, `afterwrite reconcile`, `afterwrite.letters`\n```sh\nafterwrite walk | x\n```\n";
    let found = absent_commands("x.md", text, &known);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("reconcile") && found[1].contains("walk"), "{found:?}");
}

#[test]
fn an_error_that_nobody_explains_is_found() {
    let file = File {
        path: "src/a.rs".to_owned(),
        text: "tracing::error!(%partition, \"it was lost (expired): stop\");\nx => error!(\"the {thing} broke\"),\n\
               error!(error = %\"e\", \"it is away; it waits\")"
            .to_owned(),
        is_test: false,
    };
    assert_eq!(
        unexplained_errors(&file, "| `it was lost (expired)` | `the core broke` | it is away"),
        [""; 0]
    );
    let found = unexplained_errors(&file, "the core broke");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("it was lost (expired)") && found[1].contains("it is away"),
        "{found:?}"
    );
}

#[test]
fn empty_names_are_found() {
    check(names_say_something, "src/utils.rs", "", 1);
    check(names_say_something, "src/engine/common/mod.rs", "", 1);
    check(names_say_something, NAMED_TYPES, "", 0);
    check(names_say_something, "src/engine/lanes.rs", "", 0);
}

#[test]
fn a_file_without_a_mod_line_is_found() {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
        is_test: false,
    };
    let files = [
        file(
            "src/lib.rs",
            "pub mod a;\n#[cfg(test)]\npub(crate) mod b;\n// mod dead;",
        ),
        file("src/a/mod.rs", "mod c;"),
        file("src/a/c.rs", ""),
        file("src/b.rs", "mod d;"),
        file("src/b/d.rs", ""),
        file("src/dead.rs", ""),
        file("tests/it/main.rs", "mod e;"),
        file("tests/it/e.rs", ""),
    ];
    assert_eq!(dead_files(&files), ["src/dead.rs: no mod line leads to this file"]);
}

#[test]
fn code_is_told_from_comments_and_texts() {
    let text = "let a = \"// x\"; // y\nlet b = 'c'; let d: &'static str = r#\"z \" z\"#; let e = '\\'';";
    assert_eq!(
        code(text),
        "let a = \"\"; \nlet b = ''; let d: &'static str = \"\"; let e = '';"
    );
}

#[test]
fn links_are_found() {
    let text = "[a](b.md) [c](https://d) [e](#f) [g](h/i.md#j) ![k](l.png \"m\")";
    assert_eq!(links(text), ["b.md", "h/i.md", "l.png"]);
}

#[test]
fn modules_for_tests_are_told_from_others() {
    let text = "mod a;\n// mod x;\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n#[cfg(test)]\nmod tests {}";
    let found = declared("src/x/b.rs", text);
    let seen: Vec<(&str, bool)> = found
        .iter()
        .map(|found| (found.candidates[0].as_str(), found.for_tests))
        .collect();
    assert_eq!(seen, [("src/x/b/a.rs", false), ("src/x/b_tests.rs", true)]);
    check(nothing_is_left_behind, "src/x/b.rs", text, 0);
    check(nothing_is_left_behind, "src/x/b.rs", "#[path = \"c.rs\"]\nmod d;", 1);
}

#[test]
fn a_test_that_is_named_and_not_there_is_found() {
    let text = "| 1 | lost | `a_b` in [x](../x.rs); `c` (twice) in [x](../x.rs) |\n| 2 | no test |\n";
    let read = |_: &str| "async fn a_b() {}\nfn cd() {}".to_owned();
    assert_eq!(absent_tests(text, read), (1, vec!["c in ../x.rs".to_owned()]));
}

#[test]
fn a_code_that_is_not_explained_and_one_that_nobody_says_are_found() {
    for (document, line, other) in [
        ("docs/ERRORS.md", "| `past_end` |", "| `past_start` |"),
        ("docs/ERRORS.md", "| `4` |", "| `5` |"),
        ("docs/OPERATIONS.md", "| `crashed` |", "| `crash` |"),
        ("docs/MAILS.md", "`no_token` |", "`token_less` |"),
    ] {
        let unequal = unequal_codes(|path| {
            let text = fs::read_to_string(root().join(path)).unwrap();
            match path == document {
                true => text.replacen(line, other, 1),
                false => text,
            }
        });
        assert_eq!(unequal.len(), 2, "{line}: {unequal:?}");
    }
}

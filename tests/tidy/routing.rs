//! Every handler of the waitlist worker stands in the routing table: one that does not is compiled, tested, and woken by nothing.

use std::collections::BTreeSet;

use crate::reading::{File, code_without_tests, has_word, is_word_character};

/// Where the handlers are, and the file with the routing table.
pub(crate) const HANDLERS: &str = "src/handlers/";
pub(crate) const TABLE: &str = "src/handlers/mod.rs";

/// Folders with a handler that is missing somewhere: as a column of the table, in one of its lines, or in `build`. And columns
/// of the table without a folder.
pub(crate) fn unrouted_handlers(files: &[File]) -> Vec<String> {
    let Some(table) = files.iter().find(|file| file.path == TABLE) else {
        return vec![format!("{TABLE}: the routing table is not there")];
    };
    let code = code_without_tests(&table.text);
    let columns = columns(&code);
    let folders: BTreeSet<&str> = files.iter().filter_map(folder_of_handler).collect();
    let mut offences = Vec::new();
    for folder in &folders {
        if !columns.contains(*folder) {
            offences.push(format!(
                "{HANDLERS}{folder}: its handler is no column of the routing table"
            ));
            continue;
        }
        if !lines(&code).any(|line| line.contains(&format!("{folder}: Some("))) {
            offences.push(format!("{HANDLERS}{folder}: no table wakes its handler"));
        }
        if !code.contains(&format!("routes(|line| &line.{folder})")) {
            offences.push(format!("{HANDLERS}{folder}: its handler is not built with its routes"));
        }
    }
    let without = columns.iter().filter(|column| !folders.contains(column.as_str()));
    offences.extend(without.map(|column| format!("{TABLE}: the column {column} is of no handler")));
    offences
}

/// `email` for a file below `src/handlers/email/` that implements a handler.
fn folder_of_handler(file: &File) -> Option<&str> {
    let (folder, _) = file.path.strip_prefix(HANDLERS)?.split_once('/')?;
    let implements = !file.is_test && has_word(&code_without_tests(&file.text), "impl Handler for");
    implements.then_some(folder)
}

/// The columns of the table: the fields of a line that are lanes.
fn columns(code: &str) -> BTreeSet<String> {
    let fields = code.split_once("struct Wakes {").map_or("", |(_, rest)| rest);
    let fields = fields.split('}').next().unwrap_or_default();
    let lanes = fields
        .lines()
        .filter_map(|line| line.trim().strip_suffix(": Option<Lane>,"));
    lanes
        .map(|name| {
            name.trim_start_matches(|character| !is_word_character(character))
                .to_owned()
        })
        .collect()
}

fn lines(code: &str) -> impl Iterator<Item = &str> {
    code.lines().map(str::trim).filter(|line| line.starts_with("Wakes {"))
}

#[test]
fn a_handler_that_nothing_wakes_is_found() {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
        is_test: false,
    };
    let table = |column: &str, lane: &str, build: &str| {
        let text = format!(
            "struct Wakes {{\n    table: &'static str,\n    {column}: Option<Lane>,\n}}\nconst ROUTING: &[Wakes] = &[\n    \
             Wakes {{ table: \"users\", {column}: {lane} }},\n];\nfn build() {{ routes(|line| &line.{build}) }}"
        );
        file(TABLE, &text)
    };
    let handler = || file("src/handlers/email/mod.rs", "impl Handler for Email {}");
    let rules = || file("src/handlers/email/rules.rs", "fn rule() {}");
    let found = |files: &[File]| unrouted_handlers(files);
    assert_eq!(
        found(&[table("email", "Some(Row)", "email"), handler(), rules()]),
        [""; 0]
    );
    for (table, of) in [
        (table("mail", "Some(Row)", "mail"), "is no column"),
        (table("email", "None", "email"), "no table wakes"),
        (table("email", "Some(Row)", "other"), "is not built"),
    ] {
        let offences = found(&[table, handler()]);
        assert!(offences[0].contains(of), "{offences:?}");
    }
    assert!(found(&[table("email", "Some(Row)", "email"), rules()])[0].contains("is of no handler"));
    assert_eq!(found(&[handler()]).len(), 1);
}

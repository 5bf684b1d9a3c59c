//! What handlers are told by keys of their own.

use super::loaded;

fn told(file: &str, environment: &[(&str, &str)], set: &[&str]) -> toml::Table {
    let config = loaded(file, environment, set).unwrap();
    config.handlers["mine"].settings.table().clone()
}

#[test]
fn the_keys_of_a_handler_are_whatever_it_reads() {
    let file = "[handlers.mine.settings]\nregions = [\"eu\", \"us\"]\nlimit = 3\n[handlers.mine.settings.api]\nurl = \"http://a\"";
    let expected: toml::Table = "regions = ['eu', 'us']\nlimit = 3\napi = { url = 'http://a' }"
        .parse()
        .unwrap();
    assert_eq!(told(file, &[], &[]), expected);
}

#[test]
fn bare_texts_are_values_of_toml_where_they_look_like_one() {
    let environment = [
        ("AFTERWRITE__HANDLERS__MINE__SETTINGS__LIMIT", "7"),
        ("AFTERWRITE__HANDLERS__MINE__SETTINGS__CODE", "\"7\""),
        ("AFTERWRITE__HANDLERS__MINE__SETTINGS__NAME", "a b"),
    ];
    let set = [
        "handlers.mine.settings.deep.regions=[\"eu\"]",
        "handlers.mine.settings.limit=8",
    ];
    let expected: toml::Table = "limit = 8\ncode = '7'\nname = 'a b'\ndeep = { regions = ['eu'] }"
        .parse()
        .unwrap();
    assert_eq!(told("", &environment, &set), expected);
}

#[test]
fn they_may_be_references_and_never_print() {
    let file = "[handlers.mine.settings]\nkey = \"${env:KEY}\"";
    let config = loaded(file, &[("KEY", "hidden-key")], &[]).unwrap();
    assert_eq!(
        config.handlers["mine"].settings.table()["key"].as_str(),
        Some("hidden-key")
    );
    assert!(!format!("{config:?}").contains("hidden"));
    let refusal = loaded(file, &[], &[]).map(|_| ()).unwrap_err();
    assert!(refusal.contains("handlers.mine.settings.key"), "{refusal}");
}

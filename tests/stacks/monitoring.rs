//! What watches over the worker must find what it looks for: files that are mounted, and a section for each alert.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::reading::{json, read};

fn alerts() -> Vec<Value> {
    let rules: Value = serde_norway::from_str(&read("infra/monitoring/alerts.yml")).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

#[test]
fn every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() {
    let operations = read("docs/OPERATIONS.md");
    let sections: BTreeSet<String> = operations
        .lines()
        .filter_map(|line| line.strip_prefix("### Alert "))
        .map(|name| format!("docs/OPERATIONS.md#alert-{}", name.to_lowercase()))
        .collect();
    let runbooks: BTreeSet<String> = alerts()
        .iter()
        .map(|alert| alert["annotations"]["runbook"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(runbooks, sections);
}

#[test]
fn every_alert_says_how_urgent_it_is_and_is_played() {
    let played = read("infra/monitoring/alerts.test.yml");
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let severity = alert["labels"]["severity"].as_str().unwrap();
        // By the label of what is concerned: what is not critical wakes nobody.
        let by_label = r#"{{ if eq $labels.critical "false" }}ticket{{ else }}page{{ end }}"#;
        assert!(["page", "ticket", by_label].contains(&severity), "{name}: {severity}");
        let has_label = alert["expr"].as_str().unwrap().contains("critical");
        assert!(
            severity != by_label || has_label,
            "{name} decides by a label that it does not have"
        );
        assert_eq!(
            played.matches(&format!("alertname: {name}")).count(),
            2,
            "{name} is played once where it fires and once where it does not"
        );
    }
}

#[test]
fn compose_mounts_files_that_are_there() {
    let compose: Value = serde_norway::from_str(&read("docker-compose.yml")).unwrap();
    for service in ["prometheus", "grafana"] {
        for volume in compose["services"][service]["volumes"].as_array().unwrap() {
            let path = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(!read(path.trim_start_matches("./")).is_empty(), "{path}");
        }
    }
}

#[test]
fn the_dashboards_panels_have_ids_of_their_own_and_do_not_overlap() {
    let dashboard = json("infra/monitoring/grafana/dashboard.json");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} lies on another panel", panel["title"]);
            }
        }
    }
}

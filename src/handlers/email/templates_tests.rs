//! Templates: what renders, what is refused, what is escaped.

use super::*;

fn source(html: &str) -> Source {
    Source {
        subject: "Hi {{ first_name }}".into(),
        html: html.into(),
        text: None,
    }
}

fn ann() -> Variables {
    let mut variables = Variables::default();
    variables.set("first_name", "Ann <b>\r\nBcc: x@y.z");
    variables
}

#[test]
fn values_are_escaped_in_html_and_one_line_in_the_subject() {
    let rendered = render(Kind::Welcome, &source("<p>{{ first_name }}</p>"), &ann()).unwrap();
    assert!(rendered.html.contains("Ann &lt;b&gt;"), "{}", rendered.html);
    assert_eq!(rendered.subject, "Hi Ann <b> Bcc: x@y.z");
    assert_eq!(rendered.text, "Ann <b> Bcc: x@y.z\n");
}

#[test]
fn a_known_name_without_a_value_is_empty_and_an_unknown_one_is_named() {
    let known = render(Kind::Welcome, &source("[{{ milestone }}]"), &ann()).unwrap();
    assert_eq!(known.html, "[]");
    let error = used(Kind::Welcome, &source("{{ frist_name }} {{ position }}")).unwrap_err();
    assert!(error.to_string().contains("unknown variable frist_name"), "{error}");
    let local = used(
        Kind::Welcome,
        &source("{% set x = 1 %}{{ x }}{% for i in range(2) %}{{ i }}{% endfor %}{{ email }}"),
    );
    assert!(local.unwrap().contains("email"));
}

#[test]
fn a_template_cannot_run_for_ever_nor_fill_the_memory() {
    for html in [
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}",
        "{{ 'x' * 9000000 }}",
        "{% for",
        "{{ first_name.nothing.more }}",
        "{% include 'other' %}",
    ] {
        assert!(render(Kind::Welcome, &source(html), &ann()).is_err(), "{html}");
    }
}

#[test]
fn errors_quote_no_values() {
    let error = render(Kind::Welcome, &source("\n{{ first_name | nothing }}"), &ann()).unwrap_err();
    assert!(!error.to_string().contains("Ann"), "{error}");
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn every_built_in_template_renders_with_nothing_and_with_everything() {
    let mut all = Variables::default();
    for name in VARIABLES {
        all.set(name, *name);
    }
    for kind in [Kind::Verification, Kind::Welcome, Kind::RewardEarned] {
        let source = built_in(kind);
        used(kind, &source).unwrap();
        for variables in [Variables::default(), all.clone()] {
            let rendered = render(kind, &source, &variables).unwrap();
            assert!(!rendered.subject.is_empty() && rendered.text.len() > 20, "{rendered:?}");
        }
    }
}

//! Templates: what renders, what is refused, what is escaped.

use super::*;
use crate::handlers::email::built_in::built_in;

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
    // The part is called as its column is.
    let said = "the html_body of the welcome template uses the unknown variable frist_name; correct email_templates";
    assert_eq!(error.to_string(), said);
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

fn everything() -> Variables {
    let mut all = Variables::default();
    for name in VARIABLES {
        all.set(name, format!("<{name}>"));
    }
    all
}

const BUILT_IN: [Kind; 5] = [
    Kind::Verification,
    Kind::Welcome,
    Kind::PositionUpdate,
    Kind::RewardEarned,
    Kind::Milestone,
];

#[test]
fn every_built_in_template_renders_with_nothing_and_with_everything() {
    for kind in BUILT_IN {
        let source = built_in(kind).unwrap();
        used(kind, &source).unwrap();
        for variables in [Variables::default(), everything()] {
            let rendered = render(kind, &source, &variables).unwrap();
            assert!(!rendered.subject.is_empty() && rendered.text.len() > 20, "{rendered:?}");
            for part in [&rendered.html, &rendered.text, &rendered.subject] {
                assert!(
                    !part.contains("[[") && !part.contains("{{") && !part.contains("css="),
                    "{part}"
                );
            }
        }
    }
    assert_eq!(built_in(Kind::Custom), None);
}

#[test]
fn built_in_templates_look_right_in_mail_programs() {
    for kind in BUILT_IN {
        let rendered = render(kind, &built_in(kind).unwrap(), &everything()).unwrap();
        let html = &rendered.html;
        for needed in [
            "<html lang=\"en\" dir=\"ltr\">",
            "<meta name=\"color-scheme\" content=\"light dark\">",
            "@media (prefers-color-scheme: dark)",
            "display:none;max-height:0",
            "max-width:600px",
            "<!--[if mso]><table role=\"presentation\" width=\"600\"",
            "aria-roledescription=\"email\"",
            // A long word, a code or an address makes no line wider than the screen.
            "max-width:600px;table-layout:fixed",
            "border-radius:8px;word-break:break-word;overflow-wrap:anywhere",
        ] {
            assert!(html.contains(needed), "{}: {needed}", kind.word());
        }
        // A rule for a class that nothing has is none.
        let style = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let selectors = style
            .lines()
            .filter_map(|line| line.split_once(" {"))
            .map(|(selector, _)| selector);
        for class in selectors
            .flat_map(|selector| selector.split(", "))
            .filter_map(|one| one.strip_prefix('.'))
        {
            let has_it = |kind: &Kind| built_in(*kind).unwrap().html.contains(&format!("class=\"{class}\""));
            assert!(BUILT_IN.iter().any(has_it), "{class}");
        }
        // A table that is read out as one, an element whose style is elsewhere, something that is fetched: none.
        assert_eq!(
            html.matches("<table").count(),
            html.matches("<table role=\"presentation\"").count()
        );
        for element in ["<p", "<h1", "<a", "<td"] {
            let elements = html.split(element).skip(1).filter(|rest| rest.starts_with([' ', '>']));
            let tags = elements.map(|rest| rest.split('>').next().unwrap());
            let bare: Vec<&str> = tags.filter(|tag| !tag.contains("style=")).collect();
            // The cell that only Outlook sees needs none.
            assert!(
                bare.iter().all(|tag| element == "<td" && tag.is_empty()),
                "{}: {bare:?}",
                kind.word()
            );
        }
        for fetched in ["<img", "<link", "src=", "url(", "<script"] {
            assert!(!html.contains(fetched), "{}: {fetched}", kind.word());
        }
        for open in ["table", "tr", "td", "div", "p", "h1", "a", "strong"] {
            let opened = html.matches(&format!("<{open}>")).count() + html.matches(&format!("<{open} ")).count();
            assert_eq!(
                opened,
                html.matches(&format!("</{open}>")).count(),
                "{}: {open}",
                kind.word()
            );
        }
        assert!(!rendered.text.contains("\n\n\n"), "{:?}", rendered.text);
        assert!(html.len() < 20_000, "mail programs cut what is longer than 100 KB");
        assert_eq!(
            html.contains("unsubscribe_link"),
            kind.is_marketing(),
            "{}",
            kind.word()
        );
        assert_eq!(rendered.text.contains("unsubscribe_link"), kind.is_marketing());
    }
}

#[test]
fn marketing_of_a_customer_who_forgot_it_has_a_link_to_unsubscribe_by() {
    let url = "https://x.example/u/a";
    let way_out = |html: &str| {
        let mut content = Rendered {
            subject: "s".into(),
            html: html.into(),
            text: "t\n".into(),
        };
        ensure_way_out(&mut content, url);
        assert_eq!(content.text, format!("t\n\nUnsubscribe: {url}\n"));
        content.html
    };
    let appended = way_out("<BODY><p>\u{130}</p></Body>");
    assert!(appended.starts_with("<BODY><p>\u{130}</p><p style"), "{appended}");
    assert!(appended.ends_with("Unsubscribe</a></p></Body>"), "{appended}");
    assert!(way_out("no body").ends_with("</p>"));
    for own in [
        "<a href='https://x.example/u/a'>",
        "https:&#x2f;&#x2f;x.example&#x2f;u&#x2f;a",
    ] {
        assert_eq!(way_out(own), own);
    }
}

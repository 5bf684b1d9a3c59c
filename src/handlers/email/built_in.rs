//! The templates of campaigns that have none of their own.
//!
//! One page for all, made for mail programs: tables, every style in its element, colours for light and dark, at most 600
//! pixels wide, nothing that is fetched. Each has a text beside it. What stands in double square brackets is put in here;
//! what stands in braces is the template's own, as in those of customers.

use crate::handlers::email::rules::Kind;
use crate::handlers::email::templates::Source;

const LAYOUT: &str = include_str!("templates/layout.html");

const FONT: &str = "font-family:-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,Helvetica,Arial,sans-serif";

/// What stands for `css="NAME"`, beside the class of that name, which the dark colours go by.
const STYLES: [(&str, &str); 6] = [
    (
        "heading",
        "margin:0 0 20px;[[font]];font-size:24px;line-height:32px;font-weight:700;color:#111827",
    ),
    (
        "text",
        "margin:0 0 16px;[[font]];font-size:16px;line-height:24px;color:#111827",
    ),
    (
        "small",
        "margin:0 0 12px;[[font]];font-size:14px;line-height:20px;color:#4b5563",
    ),
    (
        "figure",
        "margin:0;[[font]];font-size:28px;line-height:36px;font-weight:700;color:#111827;word-break:break-word",
    ),
    ("link", "color:#1d4ed8;text-decoration:underline;word-break:break-all"),
    (
        "box",
        "padding:16px 24px;background-color:#f3f4f6;border:1px solid #d1d5db;border-radius:6px",
    ),
];

/// A value that is looked for first.
const BOX: &str = include_str!("templates/box.html");

/// A link that is pressed: the whole cell is coloured, where padding of links is not known too.
const BUTTON: &str = include_str!("templates/button.html");

/// Why somebody gets a mail that is part of having joined.
const BECAUSE_JOINED: &str = "You get this mail because this address is on the waitlist of {{ campaign_name }}.";

/// Why somebody gets a mail that is not, and how to get none any more.
const BECAUSE_AGREED: &str = r#"You get this mail because you agreed to news about {{ campaign_name }}.{% if unsubscribe_link %}<br><a href="{{ unsubscribe_link }}" class="link" style="color:#1d4ed8;text-decoration:underline">Unsubscribe</a>{% endif %}"#;

const AGREED_IN_TEXT: &str = "-- \nYou get this mail because you agreed to news about {{ campaign_name }}.{% if unsubscribe_link %}\n\
                              Unsubscribe: {{ unsubscribe_link }}{% endif %}\n";

/// The parts of one template.
struct Parts {
    subject: &'static str,
    /// What a list of mails shows beside the subject.
    preheader: &'static str,
    content: &'static str,
    text: &'static str,
}

fn parts(kind: Kind) -> Option<Parts> {
    Some(match kind {
        Kind::Verification => Parts {
            subject: "Please confirm your e-mail address for {{ campaign_name }}",
            preheader: "One click, and your place on the waitlist is confirmed.",
            content: include_str!("templates/verification.html"),
            text: include_str!("templates/verification.txt"),
        },
        Kind::Welcome => Parts {
            subject: "Welcome to {{ campaign_name }}",
            preheader: "{% if position %}You are number {{ position }} on the waitlist.{% endif %}",
            content: include_str!("templates/welcome.html"),
            text: include_str!("templates/welcome.txt"),
        },
        Kind::PositionUpdate => Parts {
            subject: "You are number {{ position }} on the waitlist of {{ campaign_name }} now",
            preheader: "{% if old_position %}You were number {{ old_position }}.{% endif %}",
            content: include_str!("templates/position_update.html"),
            text: include_str!("templates/position_update.txt"),
        },
        Kind::RewardEarned => Parts {
            subject: "You have earned {{ reward_name }}",
            preheader: "{{ reward_description }}",
            content: include_str!("templates/reward_earned.html"),
            text: include_str!("templates/reward_earned.txt"),
        },
        Kind::Milestone => Parts {
            subject: "{{ campaign_name }} has passed {{ milestone }} people",
            preheader: "You are one of them.",
            content: include_str!("templates/milestone.html"),
            text: include_str!("templates/milestone.txt"),
        },
        Kind::Custom => return None,
    })
}

/// The template of a campaign that has none; `None` for the mails of somebody else's handlers.
pub fn built_in(kind: Kind) -> Option<Source> {
    let parts = parts(kind)?;
    let (footer, end_of_text) = match kind.is_marketing() {
        true => (BECAUSE_AGREED, AGREED_IN_TEXT),
        false => (BECAUSE_JOINED, ""),
    };
    let html = LAYOUT
        .replace("[[content]]", &with_parts(parts.content))
        .replace("[[footer]]", footer)
        .replace("[[preheader]]", parts.preheader)
        .replace("[[subject]]", parts.subject);
    Some(Source {
        subject: parts.subject.to_owned(),
        html: with_styles(html),
        text: Some(parts.text.to_owned() + end_of_text),
    })
}

/// Puts buttons and boxes where they stand: `[[button VARIABLE: LABEL]]`, `[[box LABEL|VARIABLE]]`.
fn with_parts(content: &str) -> String {
    let mut out = String::new();
    let mut rest = content;
    while let Some((before, tail)) = rest.split_once("[[") {
        let (part, after) = tail.split_once("]]").expect("what is opened is closed");
        let (form, variable, label) = match part.strip_prefix("button ") {
            Some(button) => {
                let (variable, label) = button.split_once(": ").expect("a button has a label");
                (BUTTON, variable, label)
            }
            None => {
                let shown = part.strip_prefix("box ").expect("there are buttons and boxes");
                let (label, variable) = shown.split_once('|').expect("a box shows a variable");
                (BOX, variable, label)
            }
        };
        out.push_str(before);
        out.push_str(&form.replace("[[variable]]", variable).replace("[[label]]", label));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn with_styles(html: String) -> String {
    let styled = STYLES.iter().fold(html, |html, (name, style)| {
        html.replace(
            &format!("css=\"{name}\""),
            &format!("class=\"{name}\" style=\"{style}\""),
        )
    });
    styled.replace("[[font]]", FONT)
}

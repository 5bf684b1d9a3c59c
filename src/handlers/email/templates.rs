//! Templates: what customers write into `email_templates`, and those that are built in.
//!
//! A customer's template is foreign code: it runs with a limit of steps and of size, it knows the documented variables
//! and nothing else, and what it gets wrong is a permanent error that says where.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{AutoEscape, Environment, ErrorKind, HtmlEscape, UndefinedBehavior, Value};

use crate::handlers::email::plain;
use crate::handlers::email::rules::Kind;

/// Every name a template may use.
pub const VARIABLES: &[&str] = &[
    "first_name",
    "last_name",
    "email",
    "position",
    "old_position",
    "referral_code",
    "referral_link",
    "referral_count",
    "campaign_name",
    "campaign_slug",
    "verification_link",
    "reward_name",
    "reward_description",
    "reward_code",
    "reward_instructions",
    "milestone",
    "total_signups",
    "unsubscribe_link",
];

/// Steps of the template machine for one part of a mail.
const STEPS_MAX: u64 = 50_000;

/// Bytes of one rendered part.
const PART_BYTES_MAX: usize = 512 * 1024;

/// A template as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// One line.
    pub subject: String,
    /// HTML; values are escaped.
    pub html: String,
    /// Text, or `None` to derive it from the HTML.
    pub text: Option<String>,
}

/// A mail's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line.
    pub subject: String,
    /// HTML part.
    pub html: String,
    /// Text part.
    pub text: String,
}

/// What is wrong with a template. Quotes no value: the errors of the template machine do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name that is none of [`VARIABLES`].
    #[error("the {part} of the {kind} template uses the unknown variable {names}; correct email_templates")]
    UnknownVariable {
        /// Type of mail.
        kind: &'static str,
        /// Which part.
        part: &'static str,
        /// The names.
        names: String,
    },
    /// It does not parse, or does not run.
    #[error("the {part} of the {kind} template is wrong in line {line}: {what}; correct email_templates")]
    Wrong {
        /// Type of mail.
        kind: &'static str,
        /// Which part.
        part: &'static str,
        /// Line in that part.
        line: usize,
        /// The class of the error.
        what: String,
    },
    /// More than a mail may hold.
    #[error("the {part} of the {kind} template renders more than {PART_BYTES_MAX} bytes; shorten email_templates")]
    TooLarge {
        /// Type of mail.
        kind: &'static str,
        /// Which part.
        part: &'static str,
    },
}

/// The values of a mail. A documented name without a value is empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<&'static str, String>);

impl Variables {
    /// Sets a value.
    ///
    /// # Panics
    /// When the name is not documented: a mistake in this program.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        assert!(VARIABLES.contains(&name), "{name} is no documented variable");
        self.0.insert(name, value.into());
    }

    /// The values that were set, for `email_log.variables`.
    pub fn to_json(&self) -> serde_json::Value {
        self.0
            .iter()
            .map(|(name, value)| ((*name).to_owned(), serde_json::Value::from(value.clone())))
            .collect()
    }

    fn context(&self) -> Value {
        let values: BTreeMap<&str, String> = VARIABLES
            .iter()
            .map(|name| (*name, self.0.get(name).cloned().unwrap_or_default()))
            .collect();
        Value::from(values)
    }
}

/// The parts of a template, named as their columns are, because errors name them.
const SUBJECT: &str = "subject";
const HTML: &str = "html_body";
const TEXT: &str = "text_body";

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(STEPS_MAX));
    environment.set_auto_escape_callback(|name| {
        if name == HTML {
            AutoEscape::Html
        } else {
            AutoEscape::None
        }
    });
    environment
}

/// The documented names that a template uses.
///
/// # Errors
/// When it does not parse or uses another name.
pub fn used(kind: Kind, source: &Source) -> Result<BTreeSet<String>, TemplateError> {
    let environment = environment();
    let mut names = BTreeSet::new();
    for (part, text) in parts(source) {
        let template = environment
            .template_from_named_str(part, text)
            .map_err(|error| wrong(kind, part, &error))?;
        let of_part = template.undeclared_variables(false);
        // Functions are names too, and the template machine knows its own.
        let unknown: BTreeSet<&str> = of_part
            .iter()
            .map(String::as_str)
            .filter(|name| !VARIABLES.contains(name) && environment.globals().all(|(global, _)| global != *name))
            .collect();
        if !unknown.is_empty() {
            let names: Vec<&str> = unknown.into_iter().collect();
            return Err(TemplateError::UnknownVariable {
                kind: kind.word(),
                part,
                names: names.join(", "),
            });
        }
        names.extend(of_part);
    }
    Ok(names)
}

/// Renders all parts.
///
/// # Errors
/// When the template is wrong.
pub fn render(kind: Kind, source: &Source, variables: &Variables) -> Result<Rendered, TemplateError> {
    let html = render_part(kind, HTML, &source.html, variables)?;
    let text = match &source.text {
        Some(text) => render_part(kind, TEXT, text, variables)?,
        None => plain::from_html(&html),
    };
    let subject = render_part(kind, SUBJECT, &source.subject, variables)?;
    Ok(Rendered {
        subject: subject.split_whitespace().collect::<Vec<&str>>().join(" "),
        html,
        text,
    })
}

fn parts(source: &Source) -> Vec<(&'static str, &str)> {
    let mut parts = vec![(SUBJECT, source.subject.as_str()), (HTML, source.html.as_str())];
    parts.extend(source.text.as_deref().map(|text| (TEXT, text)));
    parts
}

fn render_part(kind: Kind, part: &'static str, text: &str, variables: &Variables) -> Result<String, TemplateError> {
    let environment = environment();
    let template = environment
        .template_from_named_str(part, text)
        .map_err(|error| wrong(kind, part, &error))?;
    let mut out = Bounded(Vec::new());
    match template.render_captured_to(variables.context(), &mut out) {
        Ok(_) => Ok(String::from_utf8_lossy(&out.0).into_owned()),
        Err(error) if error.kind() == ErrorKind::WriteFailure => Err(TemplateError::TooLarge {
            kind: kind.word(),
            part,
        }),
        Err(error) => Err(wrong(kind, part, &error)),
    }
}

fn wrong(kind: Kind, part: &'static str, error: &minijinja::Error) -> TemplateError {
    TemplateError::Wrong {
        kind: kind.word(),
        part,
        line: error.line().unwrap_or(1),
        what: error.kind().to_string(),
    }
}

/// Takes no more than a part may hold.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > PART_BYTES_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Adds the link to unsubscribe by to each part that shows it nowhere: a customer's template may have forgotten it.
pub fn ensure_way_out(content: &mut Rendered, url: &str) {
    let escaped = HtmlEscape(url).to_string();
    if !content.html.contains(&escaped) && !content.html.contains(url) {
        let link = format!(
            "<p style=\"margin:24px 0;font-family:sans-serif;font-size:13px;line-height:20px;text-align:center\">\
             <a href=\"{escaped}\">Unsubscribe</a></p>"
        );
        // ASCII lower case keeps every byte's place.
        let end = content.html.to_ascii_lowercase().rfind("</body");
        content.html.insert_str(end.unwrap_or(content.html.len()), &link);
    }
    if !content.text.contains(url) {
        content.text.push_str(&format!("\nUnsubscribe: {url}\n"));
    }
}

#[cfg(test)]
#[path = "templates_tests.rs"]
mod tests;

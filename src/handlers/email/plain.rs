//! The text part of a mail that was written in HTML only: what a reader without HTML needs, links included.

/// Elements that end a line.
const BREAKS: &[&str] = &[
    "br", "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol",
];

/// Elements whose content is not for readers.
const HIDDEN: &[&str] = &["style", "script", "head", "title"];

/// Text of an HTML document. Not a parser: mail templates are simple, and anything else still yields readable text.
pub(super) fn from_html(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut hidden: Option<String> = None;
    let mut link: Option<(String, usize)> = None;
    let mut rest = html;
    while let Some(open) = rest.find('<') {
        let (before, tail) = rest.split_at(open);
        if hidden.is_none() {
            push_words(&mut text, before);
        }
        let (tag, after) = split_tag(tail);
        rest = after;
        let closing = tag.starts_with('/');
        let name = tag_name(tag);
        match &hidden {
            Some(inside) if closing && *inside == name => hidden = None,
            Some(_) => {}
            None if !closing && HIDDEN.contains(&name.as_str()) => hidden = Some(name),
            None if name == "a" && !closing => link = attribute(tag, "href").map(|href| (href, text.len())),
            None if name == "a" => {
                if let Some((href, start)) = link.take() {
                    close_link(&mut text, &href, start);
                }
            }
            None if BREAKS.contains(&name.as_str()) => text.push('\n'),
            None => {}
        }
    }
    if hidden.is_none() {
        push_words(&mut text, rest);
    }
    tidy(&text)
}

/// The inside of a tag that starts the text, and what follows it. Comments are one tag.
fn split_tag(text: &str) -> (&str, &str) {
    let end = if text.starts_with("<!--") {
        text.find("-->").map(|at| (at, 3))
    } else {
        text.find('>').map(|at| (at, 1))
    };
    match end {
        Some((at, length)) => (&text[1..at], &text[at + length..]),
        None => (&text[1..], ""),
    }
}

fn tag_name(tag: &str) -> String {
    let inside = tag.trim_start_matches('/');
    let end = inside
        .find(|letter: char| !letter.is_ascii_alphanumeric())
        .unwrap_or(inside.len());
    inside[..end].to_ascii_lowercase()
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    // ASCII lower case keeps every byte's place.
    let start = tag.to_ascii_lowercase().find(&format!("{name}="))? + name.len() + 1;
    let value = &tag[start..];
    let quote = value.chars().next().filter(|letter| matches!(letter, '"' | '\''));
    let raw = match quote {
        Some(quote) => value[1..].split(quote).next(),
        None => value.split_whitespace().next(),
    };
    raw.map(decode)
}

/// Words with single blanks, as a browser would show them.
fn push_words(text: &mut String, html: &str) {
    let decoded = decode(html);
    let blank_before = decoded.starts_with(char::is_whitespace);
    if blank_before && !text.ends_with(char::is_whitespace) {
        text.push(' ');
    }
    let words: Vec<&str> = decoded.split_whitespace().collect();
    text.push_str(&words.join(" "));
    if !words.is_empty() && decoded.ends_with(char::is_whitespace) {
        text.push(' ');
    }
}

fn close_link(text: &mut String, href: &str, start: usize) {
    let label = text[start.min(text.len())..].trim();
    if label.is_empty() {
        text.push_str(href);
    } else if label != href && !href.is_empty() {
        text.push_str(&format!(" ({href})"));
    }
}

fn tidy(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        if !line.is_empty() || lines.last().is_some_and(|last| !last.is_empty()) {
            lines.push(line);
        }
    }
    let mut joined = lines.join("\n").trim().to_owned();
    joined.push('\n');
    joined
}

/// Character references: the five of XML, the blank, and numbers.
fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        // Not searched to the end of the text: a part full of ampersands would take the square of its length.
        let reference = tail
            .bytes()
            .take(11)
            .position(|byte| byte == b';')
            .and_then(|end| Some((one(&tail[1..end])?, end)));
        match reference {
            Some((letter, end)) => {
                out.push(letter);
                rest = &tail[end + 1..];
            }
            None => {
                out.push('&');
                rest = &tail[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn one(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code).filter(|letter| *letter != '\0')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::from_html;

    #[test]
    fn html_becomes_lines_with_its_links() {
        for (html, text) in [
            ("<p>Hi <b>Ann</b>,</p><p>welcome.</p>", "Hi Ann,\n\nwelcome.\n"),
            (
                "<a href=\"https:&#x2f;&#x2f;x.example/?a=1&amp;b=2\">Verify</a>",
                "Verify (https://x.example/?a=1&b=2)\n",
            ),
            (
                "<a href='https://x.example'>https://x.example</a>",
                "https://x.example\n",
            ),
            ("<a href=\"https://x.example\"><img src=x></a>", "https://x.example\n"),
            ("<style>p { color: red }</style><h1>A</h1>b<br>c", "A\nb\nc\n"),
            ("a &lt; b &amp; c&nbsp;d &unknown; &", "a < b & c d &unknown; &\n"),
            ("x <!-- <p>no</p> --> y < z", "x y\n"),
            ("", "\n"),
            ("\u{e4}<p", "\u{e4}\n"),
        ] {
            assert_eq!(from_html(html), text, "{html}");
        }
    }
}

//! `${env:NAME}` and `${file:PATH}` in texts of the configuration, so that secrets stay out of it.

use super::load::Inputs;

/// Reason and remedy.
type Refused = (String, String);

/// Replaces every reference. `$${` stands for a literal `${`. A file's last line end is not part of its value.
pub(super) fn resolve(text: &str, inputs: &Inputs) -> Result<String, Refused> {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if let Some(before) = rest[..start].strip_suffix('$') {
            resolved.push_str(before);
            resolved.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        resolved.push_str(&rest[..start]);
        let inner = &rest[start + 2..];
        let end = inner.find('}').ok_or_else(|| {
            let reason = "a reference that begins with ${ does not end with }";
            (reason.to_owned(), "close it, or write $${ for a plain ${".to_owned())
        })?;
        resolved.push_str(&value_of(&inner[..end], inputs)?);
        rest = &inner[end + 1..];
    }
    resolved.push_str(rest);
    Ok(resolved)
}

fn value_of(reference: &str, inputs: &Inputs) -> Result<String, Refused> {
    match reference.split_once(':') {
        Some(("env", name)) => {
            inputs
                .environment
                .get(name)
                .cloned()
                .ok_or_else(|| match inputs.not_text.contains(name) {
                    true => (
                        format!("the environment variable {name} is not UTF-8"),
                        "set it to a text".to_owned(),
                    ),
                    false => (
                        format!("the environment variable {name} is not set"),
                        "set it for this process, or leave this setting out".to_owned(),
                    ),
                })
        }
        Some(("file", path)) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => Err((
                format!("the file {path} could not be read ({error})"),
                "make it, and readable to this user, or name another".to_owned(),
            )),
        },
        _ => Err((
            "a reference is written ${env:NAME} or ${file:PATH}, and this is neither".to_owned(),
            "write one of them, or $${ for a plain ${".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_or_refused() {
        let inputs = Inputs {
            environment: [("A".to_owned(), "x".to_owned())].into(),
            ..Inputs::default()
        };
        let cases = [
            ("plain $ text", Ok("plain $ text")),
            ("<${env:A}${env:A}>", Ok("<xx>")),
            ("$${env:A}", Ok("${env:A}")),
            ("${env:B}", Err("the environment variable B is not set")),
            ("${env:A", Err("a reference that begins with ${ does not end with }")),
        ];
        for (text, expected) in cases {
            let resolved = resolve(text, &inputs);
            assert_eq!(
                resolved.as_deref().map_err(|(reason, _)| reason.as_str()),
                expected,
                "{text}"
            );
        }
        assert!(resolve("${A}", &inputs).is_err());
        assert!(resolve("${file:/does/not/exist}", &inputs).is_err());
    }
}

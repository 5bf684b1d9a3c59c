//! `${env:NAME}` and `${file:PATH}` in texts of the configuration, so that secrets stay out of it.

use std::collections::BTreeMap;

/// Replaces every reference. `$${` stands for a literal `${`. A file's last line end is not part of its value.
pub(super) fn resolve(text: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
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
        let end = inner
            .find('}')
            .ok_or_else(|| "a reference that begins with ${ does not end with }".to_owned())?;
        resolved.push_str(&value_of(&inner[..end], environment)?);
        rest = &inner[end + 1..];
    }
    resolved.push_str(rest);
    Ok(resolved)
}

fn value_of(reference: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    match reference.split_once(':') {
        Some(("env", name)) => environment
            .get(name)
            .cloned()
            .ok_or_else(|| format!("the environment variable {name} is not set")),
        Some(("file", path)) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => Err(format!("the file {path} could not be read: {error}")),
        },
        _ => Err("a reference is written ${env:NAME} or ${file:PATH}; write $${ for a plain ${".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_or_refused() {
        let environment = BTreeMap::from([("A".to_owned(), "x".to_owned())]);
        let cases = [
            ("plain $ text", Ok("plain $ text")),
            ("<${env:A}${env:A}>", Ok("<xx>")),
            ("$${env:A}", Ok("${env:A}")),
            ("${env:B}", Err("the environment variable B is not set")),
            ("${env:A", Err("a reference that begins with ${ does not end with }")),
        ];
        for (text, expected) in cases {
            let resolved = resolve(text, &environment);
            assert_eq!(resolved.as_deref().map_err(String::as_str), expected, "{text}");
        }
        assert!(resolve("${A}", &environment).is_err());
        assert!(resolve("${file:/does/not/exist}", &environment).is_err());
    }
}

//! What Debezium makes of names that Avro does not take (`field.name.adjustment.mode`).

/// A mode that changes names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adjusting {
    /// `_` stands for what is not taken.
    Underscore,
    /// Its code, behind an underscore; which is written so itself, too.
    Escape,
}

impl Adjusting {
    /// `None` of a mode that changes nothing.
    pub(super) fn of(mode: &str) -> Option<Self> {
        match mode {
            "avro" => Some(Self::Underscore),
            "avro_unicode" => Some(Self::Escape),
            _ => None,
        }
    }

    /// The name as events have it. Java counts in units of UTF-16.
    pub(super) fn adjusted(self, name: &str) -> String {
        let mut adjusted = String::new();
        for (index, unit) in name.encode_utf16().enumerate() {
            let letter = char::from_u32(u32::from(unit)).filter(char::is_ascii);
            let is_word = letter.is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            let begins = index > 0 || !letter.is_some_and(|letter| letter.is_ascii_digit());
            match (self, letter) {
                (Self::Underscore, Some(letter)) if is_word => {
                    if !begins {
                        adjusted.push('_');
                    }
                    adjusted.push(letter);
                }
                (Self::Underscore, _) => adjusted.push('_'),
                (Self::Escape, Some(letter)) if is_word && begins && letter != '_' => adjusted.push(letter),
                (Self::Escape, _) => adjusted.push_str(&format!("_u{unit:04x}")),
            }
        }
        adjusted
    }
}

/// Whether Avro takes the name as it is.
pub(super) fn is_plain(name: &str) -> bool {
    Adjusting::Underscore.adjusted(name) == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_debezium_was_seen_to_write() {
        for (name, underscore, escape) in [
            ("my-col", "my_col", "my_u002dcol"),
            ("2fa", "_2fa", "_u0032fa"),
            ("ärger", "_rger", "_u00e4rger"),
            ("Big", "Big", "Big"),
            ("plain_name", "plain_name", "plain_u005fname"),
        ] {
            assert_eq!(Adjusting::Underscore.adjusted(name), underscore);
            assert_eq!(Adjusting::Escape.adjusted(name), escape);
            assert_eq!(is_plain(name), name == underscore);
        }
        assert_eq!(Adjusting::of("none"), None);
    }
}

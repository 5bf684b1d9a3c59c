//! Names and texts as the statements and commands of remedies want them.

use crate::handlers::names::views::quoted;

/// Words that are no names without quotes (`pg_get_keywords()` of Postgres 15: reserved, or reserved but for functions and
/// types).
const RESERVED: &str = "\
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate \
    collation column concurrently constraint create cross current_catalog current_date current_role \
    current_schema current_time current_timestamp current_user default deferrable desc distinct do else end \
    except false fetch for foreign freeze from full grant group having ilike in initially inner intersect \
    into is isnull join lateral leading left like limit localtime localtimestamp natural not notnull null \
    offset on only or order outer overlaps placing primary references returning right select session_user \
    similar some symmetric table tablesample then to trailing true union unique user using variadic verbose \
    when where window with";

/// A table as SQL wants it; plain names stay plain, as people write them.
pub(super) fn table_sql(schema: &str, table: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(table))
}

/// A name, in quotes where it needs them.
pub(super) fn identifier(name: &str) -> String {
    let is_plain = name.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_'))
        && name.chars().next().is_some_and(|first| !first.is_ascii_digit())
        && !RESERVED.split(' ').any(|word| word == name);
    if is_plain { name.to_owned() } else { quoted(name) }
}

/// A text as SQL wants it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A word as a shell wants it.
pub(super) fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_read_otherwise_is_quoted() {
        for (name, written) in [
            ("waitlist_users", "waitlist_users"),
            ("Users", "\"Users\""),
            ("2fa", "\"2fa\""),
            ("user", "\"user\""),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(identifier(name), written);
        }
        assert_eq!(table_sql("public", "orders"), "public.orders");
        assert_eq!(table_sql("App", "2nd\"x"), "\"App\".\"2nd\"\"x\"");
        assert_eq!(literal("o'hara"), "'o''hara'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }
}

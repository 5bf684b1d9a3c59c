//! What kind of value a column holds, by its type in the catalogue.
//!
//! The kinds are those that Debezium's connector knows with its recommended settings. A column of any other type is left out
//! of a row, as the connector leaves it out: an event is the same whichever source it comes from.

use std::collections::HashMap;

/// How the text of a value is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `t` or `f`.
    Bool,
    /// A whole number.
    Integer,
    /// A floating point number.
    Float,
    /// A decimal, with so many digits after the point at least.
    Decimal(usize),
    /// An amount in the locale `C`.
    Money,
    /// Text that stays as it is.
    Text,
    /// `\x` and hexadecimal digits.
    Bytes,
    /// One bit.
    Bit,
    /// Several bits.
    Bits,
    /// A day.
    Date,
    /// A time of day.
    Time,
    /// A time of day in a time zone.
    TimeWithZone,
    /// A moment without time zone.
    Timestamp,
    /// A moment, with so many digits of a second.
    TimestampWithZone(usize),
    /// A duration.
    Interval,
    /// Texts by their names.
    Hstore,
    /// Something geometric.
    Shape(Shape),
    /// A type of which the connector sends null whatever the value is.
    AlwaysNull,
    /// Elements of one dimension.
    List(Box<Kind>),
}

/// What is drawn on a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One point.
    Point,
    /// Two corners.
    Box,
    /// Centre and radius.
    Circle,
    /// Three coefficients.
    Line,
    /// Two ends.
    Segment,
    /// Points with lines between them.
    Path,
    /// Points around an area.
    Polygon,
}

/// A type as the catalogue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueType {
    /// Its name.
    pub name: String,
    /// Whether it is one of Postgres' own.
    pub is_builtin: bool,
    /// `typtype`: `b` base, `e` enum, `d` domain, and others.
    pub class: char,
    /// Oid of the type that a domain restricts.
    pub base: u32,
    /// The modifier that a domain gives to that, -1 for none.
    pub base_modifier: i32,
    /// Oid of the type of an array's elements; 0 for what is no array.
    pub element: u32,
}

/// Types by their oids.
pub type Catalogue = HashMap<u32, CatalogueType>;

/// Domains over domains that are looked through.
const DOMAINS_MAX: usize = 32;

/// Digits of a second that Postgres keeps at most, and where a column does not say.
const SECOND_DIGITS: usize = 6;

/// The kind of a column; `None` is left out of a row.
pub fn of(catalogue: &Catalogue, oid: u32, modifier: i32) -> Option<Kind> {
    let (mut oid, mut modifier) = (oid, modifier);
    for _ in 0..DOMAINS_MAX {
        let found = catalogue.get(&oid)?;
        if found.class == 'd' {
            (oid, modifier) = (found.base, found.base_modifier);
        } else if found.element != 0 {
            return element(catalogue.get(&found.element)?, modifier).map(|kind| Kind::List(Box::new(kind)));
        } else {
            return scalar(found, modifier);
        }
    }
    None
}

fn scalar(found: &CatalogueType, modifier: i32) -> Option<Kind> {
    if found.class == 'e' {
        return Some(Kind::Text);
    }
    let name = found.name.as_str();
    if !found.is_builtin {
        return match name {
            "citext" | "ltree" => Some(Kind::Text),
            "hstore" => Some(Kind::Hstore),
            _ => None,
        };
    }
    Some(match name {
        "bool" => Kind::Bool,
        "int2" | "int4" | "int8" | "oid" => Kind::Integer,
        "float4" | "float8" => Kind::Float,
        // The modifier is precision and scale; a scale has eleven bits, and the connector takes a negative one for a large one.
        "numeric" => Kind::Decimal(usize::try_from(modifier - 4).map_or(0, |modifier| modifier & 0x7ff)),
        "money" => Kind::Money,
        "char" | "bpchar" | "varchar" | "text" | "uuid" | "json" | "jsonb" | "xml" | "inet" | "cidr" | "macaddr"
        | "macaddr8" | "tsvector" | "int4range" | "int8range" | "numrange" | "tsrange" | "tstzrange" | "daterange" => {
            Kind::Text
        }
        "bytea" => Kind::Bytes,
        "bit" | "varbit" if modifier == 1 => Kind::Bit,
        "bit" | "varbit" => Kind::Bits,
        "date" => Kind::Date,
        "time" => Kind::Time,
        "timetz" => Kind::TimeWithZone,
        "timestamp" => Kind::Timestamp,
        "timestamptz" => {
            Kind::TimestampWithZone(usize::try_from(modifier).map_or(SECOND_DIGITS, |digits| digits.min(SECOND_DIGITS)))
        }
        "interval" => Kind::Interval,
        "name" => Kind::AlwaysNull,
        "point" => Kind::Shape(Shape::Point),
        "box" => Kind::Shape(Shape::Box),
        "circle" => Kind::Shape(Shape::Circle),
        "line" => Kind::Shape(Shape::Line),
        "lseg" => Kind::Shape(Shape::Segment),
        "path" => Kind::Shape(Shape::Path),
        "polygon" => Kind::Shape(Shape::Polygon),
        _ => return None,
    })
}

/// The kind of an array's elements. Of domains and of some types the connector reads no arrays.
fn element(found: &CatalogueType, modifier: i32) -> Option<Kind> {
    if found.class == 'd' {
        return None;
    }
    match scalar(found, modifier)? {
        Kind::Money | Kind::Interval | Kind::Bit | Kind::Bits | Kind::Shape(_) | Kind::AlwaysNull => None,
        Kind::Text if matches!(found.name.as_str(), "xml" | "tsvector" | "char") && found.is_builtin => None,
        kind => Some(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::of as kind_of;

    fn builtin(name: &str) -> CatalogueType {
        CatalogueType {
            name: name.to_owned(),
            is_builtin: true,
            class: 'b',
            base: 0,
            base_modifier: -1,
            element: 0,
        }
    }

    fn catalogue() -> Catalogue {
        let own = |name, class| CatalogueType {
            is_builtin: false,
            class,
            ..builtin(name)
        };
        let list_of = |element| CatalogueType {
            element,
            ..builtin("_")
        };
        [
            (1700, builtin("numeric")),
            (1, own("mood", 'e')),
            (
                2,
                CatalogueType {
                    base: 1700,
                    base_modifier: 4 + 3,
                    ..own("price", 'd')
                },
            ),
            (
                3,
                CatalogueType {
                    base: 2,
                    ..own("cost", 'd')
                },
            ),
            (
                4,
                CatalogueType {
                    base: 4,
                    ..own("of itself", 'd')
                },
            ),
            (5, own("address", 'c')),
            (6, list_of(1700)),
            (7, list_of(2)),
            (8, own("text", 'b')),
            (3220, builtin("pg_lsn")),
            (1560, builtin("bit")),
            (1184, builtin("timestamptz")),
        ]
        .into()
    }

    #[test]
    fn the_catalogue_tells_the_kind_of_a_column() {
        let of = |oid, modifier| kind_of(&catalogue(), oid, modifier);
        assert_eq!(of(1700, -1), Some(Kind::Decimal(0)));
        assert_eq!(of(1700, (12 << 16 | 4) + 4), Some(Kind::Decimal(4)));
        assert_eq!(of(1, -1), Some(Kind::Text));
        assert_eq!(
            of(3, -1),
            Some(Kind::Decimal(3)),
            "a domain over a domain has the modifier of the inner one"
        );
        assert_eq!(of(6, -1), Some(Kind::List(Box::new(Kind::Decimal(0)))));
        assert_eq!((of(1560, 1), of(1560, 12)), (Some(Kind::Bit), Some(Kind::Bits)));
        assert_eq!(of(1184, -1), Some(Kind::TimestampWithZone(6)));
        assert_eq!(of(1184, 0), Some(Kind::TimestampWithZone(0)));
        let no_modifier_of_it = of(1184, i32::MAX);
        assert_eq!(no_modifier_of_it, Some(Kind::TimestampWithZone(6)));
    }

    #[test]
    fn what_the_connector_does_not_read_is_left_out() {
        for oid in [4, 5, 7, 8, 3220, 9_999] {
            assert_eq!(kind_of(&catalogue(), oid, -1), None, "{oid}");
        }
    }
}

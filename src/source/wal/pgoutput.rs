//! The messages of Postgres' logical decoding plug-in `pgoutput`, protocol version 1.
//!
//! Source: "Logical Replication Message Formats" in the documentation of PostgreSQL. Only what stands between the begin and
//! the commit of a transaction is read here; both of these come from the client library already in parts. Nothing is copied:
//! a tuple borrows the bytes of its message.

use std::collections::BTreeSet;

/// Columns a table of Postgres can have (`MaxTupleAttributeNumber`).
const COLUMNS_MAX: usize = 1_664;

/// A message that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message {kind:?} of pgoutput {what}")]
pub struct Malformed {
    /// Its first byte.
    pub kind: char,
    /// What is wrong with it.
    pub what: &'static str,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// How the rows of a table look from here on.
    Relation(Relation),
    /// A new row.
    Insert {
        /// The table's oid.
        relation: u32,
        /// Its columns.
        new: Tuple<'a>,
    },
    /// A changed row.
    Update {
        /// The table's oid.
        relation: u32,
        /// What was sent of the old row.
        old: Option<Old<'a>>,
        /// The new row; what is out of line and did not change is not sent.
        new: Tuple<'a>,
    },
    /// A deleted row.
    Delete {
        /// The table's oid.
        relation: u32,
        /// What was sent of it.
        old: Old<'a>,
    },
    /// Tables that were emptied together.
    Truncate {
        /// Their oids.
        relations: Vec<u32>,
    },
    /// Nothing that a change consists of: the origin of a transaction, or the name of a type.
    Other,
}

/// A table as `pgoutput` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// What identifies an old row.
    pub identity: Identity,
    /// Its columns, in the order of a tuple.
    pub columns: Vec<Column>,
}

/// `REPLICA IDENTITY` of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The primary key.
    Key,
    /// The whole row.
    Full,
    /// The columns of an index.
    Index,
    /// Nothing.
    Nothing,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether it is part of the replica identity.
    pub identifies: bool,
    /// Oid of its type.
    pub type_oid: u32,
    /// The type's modifier, -1 for none.
    pub type_modifier: i32,
}

/// What was sent of an old row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old<'a> {
    /// The columns of the replica identity; the others stand as null and say nothing.
    Identity(Tuple<'a>),
    /// The whole row.
    Whole(Tuple<'a>),
}

/// The columns of a row.
pub type Tuple<'a> = Vec<Datum<'a>>;

/// The value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datum<'a> {
    /// Null.
    Null,
    /// Out of line, not changed and not sent.
    Unchanged,
    /// As the type's output function prints it.
    Text(&'a str),
}

/// Reads one message.
///
/// # Errors
/// When it is none of protocol version 1, or one that was not asked for.
pub fn parse(message: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut reader = Reader {
        kind: message.first().map_or(' ', |byte| char::from(*byte)),
        rest: message.get(1..).unwrap_or_default(),
    };
    let parsed = match reader.kind {
        'R' => Message::Relation(relation(&mut reader)?),
        'I' => {
            let relation = reader.u32()?;
            reader.expect(b'N')?;
            let new = reader.tuple()?;
            Message::Insert { relation, new }
        }
        'U' => {
            let relation = reader.u32()?;
            let old = match reader.byte()? {
                b'N' => None,
                mark => {
                    let old = reader.old(mark)?;
                    reader.expect(b'N')?;
                    Some(old)
                }
            };
            let new = reader.tuple()?;
            Message::Update { relation, old, new }
        }
        'D' => {
            let relation = reader.u32()?;
            let mark = reader.byte()?;
            let old = reader.old(mark)?;
            Message::Delete { relation, old }
        }
        'T' => {
            let count = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
            reader.byte()?;
            reader.holds(count.saturating_mul(4))?;
            let relations = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
            Message::Truncate { relations }
        }
        'O' | 'Y' => return Ok(Message::Other),
        _ => return Err(reader.wrong("is none of protocol version 1")),
    };
    if !reader.rest.is_empty() {
        return Err(reader.wrong("is longer than its parts"));
    }
    Ok(parsed)
}

fn relation(reader: &mut Reader<'_>) -> Result<Relation, Malformed> {
    let oid = reader.u32()?;
    let schema = match reader.text()? {
        "" => "pg_catalog",
        schema => schema,
    };
    let schema = schema.to_owned();
    let table = reader.text()?.to_owned();
    let identity = match reader.byte()? {
        b'd' => Identity::Key,
        b'f' => Identity::Full,
        b'i' => Identity::Index,
        b'n' => Identity::Nothing,
        _ => return Err(reader.wrong("has an unknown replica identity")),
    };
    let count = reader.columns()?;
    let mut columns = Vec::with_capacity(count);
    let mut names = BTreeSet::new();
    for _ in 0..count {
        let flags = reader.byte()?;
        let name = reader.text()?;
        if !names.insert(name) {
            return Err(reader.wrong("has two columns of one name"));
        }
        columns.push(Column {
            name: name.to_owned(),
            identifies: flags & 1 == 1,
            type_oid: reader.u32()?,
            type_modifier: reader.u32()?.cast_signed(),
        });
    }
    Ok(Relation {
        oid,
        schema,
        table,
        identity,
        columns,
    })
}

/// What is left of a message.
struct Reader<'a> {
    kind: char,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn wrong(&self, what: &'static str) -> Malformed {
        Malformed { kind: self.kind, what }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(self.wrong("ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn holds(&self, count: usize) -> Result<(), Malformed> {
        match self.rest.len() >= count {
            true => Ok(()),
            false => Err(self.wrong("ends too early")),
        }
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.take(1)?.first().copied();
        byte.ok_or(self.wrong("ends too early"))
    }

    fn expect(&mut self, mark: u8) -> Result<(), Malformed> {
        match self.byte()? == mark {
            true => Ok(()),
            false => Err(self.wrong("lacks its new row")),
        }
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        let bytes: Result<[u8; 4], _> = self.take(4)?.try_into();
        bytes.map(u32::from_be_bytes).map_err(|_| self.wrong("ends too early"))
    }

    /// A count of columns.
    fn columns(&mut self) -> Result<usize, Malformed> {
        let bytes: Result<[u8; 2], _> = self.take(2)?.try_into();
        let count = bytes
            .map(u16::from_be_bytes)
            .map_err(|_| self.wrong("ends too early"))?;
        match usize::from(count) {
            count if count <= COLUMNS_MAX => Ok(count),
            _ => Err(self.wrong("has more columns than a table can have")),
        }
    }

    /// Text that ends with a zero byte.
    fn text(&mut self) -> Result<&'a str, Malformed> {
        let end = self.rest.iter().position(|byte| *byte == 0);
        let bytes = self.take(end.ok_or(self.wrong("has a name without end"))?)?;
        self.byte()?;
        std::str::from_utf8(bytes).map_err(|_| self.wrong("has a name that is not UTF-8"))
    }

    fn old(&mut self, mark: u8) -> Result<Old<'a>, Malformed> {
        match mark {
            b'K' => Ok(Old::Identity(self.tuple()?)),
            b'O' => Ok(Old::Whole(self.tuple()?)),
            _ => Err(self.wrong("lacks its old row")),
        }
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        let count = self.columns()?;
        self.holds(count)?;
        let mut tuple = Vec::with_capacity(count);
        for _ in 0..count {
            tuple.push(match self.byte()? {
                b'n' => Datum::Null,
                b'u' => Datum::Unchanged,
                b't' => {
                    let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
                    let bytes = self.take(length)?;
                    Datum::Text(std::str::from_utf8(bytes).map_err(|_| self.wrong("has a value that is not UTF-8"))?)
                }
                _ => return Err(self.wrong("has a value of a kind that was not asked for")),
            });
        }
        Ok(tuple)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> Vec<u8> {
        let mut bytes = b"R\0\0\0\x07public\0t\0d\0\x02".to_vec();
        bytes.extend(b"\x01id\0\0\0\0\x17\xff\xff\xff\xff");
        bytes.extend(b"\0note\0\0\0\0\x19\xff\xff\xff\xff");
        bytes
    }

    #[test]
    fn a_table_is_described() {
        let column = |name: &str, identifies, type_oid| Column {
            name: name.to_owned(),
            identifies,
            type_oid,
            type_modifier: -1,
        };
        assert_eq!(
            parse(&described()),
            Ok(Message::Relation(Relation {
                oid: 7,
                schema: "public".to_owned(),
                table: "t".to_owned(),
                identity: Identity::Key,
                columns: vec![column("id", true, 23), column("note", false, 25)],
            }))
        );
    }

    #[test]
    fn rows_are_read_with_what_was_not_sent() {
        let new = b"N\0\x02t\0\0\0\x011u";
        let insert = [b"I\0\0\0\x07".as_slice(), new].concat();
        let whole = vec![Datum::Text("1"), Datum::Unchanged];
        assert_eq!(
            parse(&insert),
            Ok(Message::Insert {
                relation: 7,
                new: whole.clone()
            })
        );
        let key = b"K\0\x02t\0\0\0\x010n";
        let update = [b"U\0\0\0\x07".as_slice(), key, new].concat();
        assert_eq!(
            parse(&update),
            Ok(Message::Update {
                relation: 7,
                old: Some(Old::Identity(vec![Datum::Text("0"), Datum::Null])),
                new: whole.clone(),
            })
        );
        let plain = [b"U\0\0\0\x07".as_slice(), new].concat();
        assert!(matches!(parse(&plain), Ok(Message::Update { old: None, .. })));
        let delete = b"D\0\0\0\x07O\0\x01n";
        let old = Old::Whole(vec![Datum::Null]);
        assert_eq!(parse(delete), Ok(Message::Delete { relation: 7, old }));
        let truncate = b"T\0\0\0\x02\0\0\0\0\x07\0\0\0\x08";
        assert_eq!(parse(truncate), Ok(Message::Truncate { relations: vec![7, 8] }));
        assert_eq!(parse(b"Y\0\0\0\x01public\0mood\0"), Ok(Message::Other));
    }

    #[test]
    fn whatever_is_cut_off_or_goes_on_is_refused() {
        let whole = described();
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
        let longer = [whole.as_slice(), b"x"].concat();
        assert_eq!(parse(&longer).unwrap_err().what, "is longer than its parts");
        let claims_more = b"T\xff\xff\xff\xff\0";
        assert_eq!(parse(claims_more).unwrap_err().what, "ends too early");
        let binary = b"I\0\0\0\x07N\0\x01b\0\0\0\x01x";
        assert!(parse(binary).is_err());
    }
}

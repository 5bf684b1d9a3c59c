//! Messages of `pgoutput` as a server sends them, as seeds of damaged ones.

use crate::targets::frame;

/// Columns with their type's oid and modifier, and texts that a server prints for it. The first is the primary key.
const COLUMNS: [(&str, u32, i32, &[&str]); 34] = [
    ("id", 23, -1, &["7", "-2147483648"]),
    ("flag", 16, -1, &["t", "f"]),
    ("bytes", 17, -1, &["\\xdeadbeef", "\\x"]),
    ("name", 19, -1, &["pg_class"]),
    ("large", 20, -1, &["9223372036854775807"]),
    ("note", 25, -1, &["line\n\"quoted\" \\ \u{1f600}", ""]),
    ("document", 114, -1, &["{\"a\": [1, null]}"]),
    ("point", 600, -1, &["(1.5,-2)"]),
    ("segment", 601, -1, &["[(1,2),(3,4)]"]),
    ("path", 602, -1, &["[(0,0),(1,1)]", "((0,0),(1,1))"]),
    ("box", 603, -1, &["(3,4),(1,2)"]),
    ("polygon", 604, -1, &["((0,0),(0,1),(1,0))"]),
    ("line", 628, -1, &["{1,2,3}"]),
    ("float", 701, -1, &["NaN", "-Infinity", "1e-307"]),
    ("circle", 718, -1, &["<(1,2),3>"]),
    ("money", 790, -1, &["-$1,234.50"]),
    ("day", 1082, -1, &["2026-11-25", "infinity", "0044-03-15 BC"]),
    ("time", 1083, -1, &["23:59:59.999999", "24:00:00"]),
    ("moment", 1114, -1, &["2026-11-25 12:30:00.5", "-infinity"]),
    ("moment_zoned", 1184, 3, &["2026-11-25 12:30:00.123+00"]),
    ("span", 1186, -1, &["P1Y2M3DT4H5M6.7S", "P-1D"]),
    ("time_zoned", 1266, -1, &["12:30:00+05:30"]),
    ("bit", 1560, 1, &["1"]),
    ("bits", 1560, 12, &["101010101010"]),
    ("varbit", 1562, -1, &["10110"]),
    ("amount", 1700, 786_438, &["12.5", "NaN", "1000000000000000000000"]),
    ("labels", 1009, -1, &["{a,\"b,c\",NULL}", "[0:1]={x,y}", "{{a},{b}}"]),
    ("days", 1182, -1, &["{2026-11-25,infinity}"]),
    ("amounts", 1231, 786_438, &["{1.5,NULL}"]),
    ("moments", 1185, -1, &["{\"2026-11-25 12:30:00+00\"}"]),
    ("pairs", 20_000, -1, &["\"a\"=>\"1\", \"b\"=>NULL"]),
    ("mood", 20_001, -1, &["happy"]),
    ("price", 20_002, -1, &["9.99"]),
    ("unknown", 3220, -1, &["0/16B3748"]),
];

type Column = (&'static str, u32, i32, &'static [&'static str]);

/// Inputs of the target: a table and what happens to its rows.
pub(crate) fn seeds() -> impl Iterator<Item = Vec<u8>> {
    let id = COLUMNS[0];
    let alone = COLUMNS[1..].iter().map(move |column| vec![id, *column]);
    let tables = alone.chain([COLUMNS.to_vec(), COLUMNS[..6].to_vec()]);
    // No record of a table without a name is decoded, whatever its rows hold.
    let nameless = [&[4][..], &history("", b'f', &COLUMNS[..6], b'O')].concat();
    let named = tables.flat_map(|columns| {
        let whole = history("users", b'f', &columns, b'O');
        let key = history("users", b'd', &columns, b'K');
        // The key is the first of the columns that identify, as if it were declared.
        [[&[4][..], &whole].concat(), [&[4][..], &key].concat()]
    });
    named.chain([nameless])
}

fn history(table: &str, identity: u8, columns: &[Column], old: u8) -> Vec<u8> {
    let relation = relation(table, identity, columns);
    let row = |turn: usize| {
        let texts = columns
            .iter()
            .map(move |(_, _, _, texts)| Some(texts[turn % texts.len()]));
        tuple(texts)
    };
    let (first, second) = (row(0), row(1));
    // What was not sent of the old row is null, of the new one unchanged.
    let known = match old {
        b'K' => tuple(
            columns
                .iter()
                .enumerate()
                .map(|(place, column)| (place == 0).then_some(column.3[0])),
        ),
        _ => first.clone(),
    };
    let mut unchanged = tuple(columns[..1].iter().map(|column| Some(column.3[0])));
    unchanged[1] = u8::try_from(columns.len()).expect("they are few");
    unchanged.extend(columns[1..].iter().map(|_| b'u'));
    let insert = [&b"I\0\0\0\x07N"[..], &first].concat();
    let moved = [&b"U\0\0\0\x07"[..], &[old], &known, b"N", &second].concat();
    let kept = [&b"U\0\0\0\x07"[..], &[old], &known, b"N", &unchanged].concat();
    let plain = [&b"U\0\0\0\x07N"[..], &unchanged].concat();
    let delete = [&b"D\0\0\0\x07"[..], &[old], &known].concat();
    let truncate = b"T\0\0\0\x01\0\0\0\0\x07";
    frame::joined(&[&relation, &insert, &moved, &kept, &plain, &delete, truncate])
}

fn relation(table: &str, identity: u8, columns: &[Column]) -> Vec<u8> {
    let mut bytes = [b"R\0\0\0\x07public\0", table.as_bytes(), b"\0"].concat();
    bytes.push(identity);
    bytes.extend(count(columns.len()));
    for (place, (name, oid, modifier, _)) in columns.iter().enumerate() {
        bytes.push(u8::from(identity == b'f' || place == 0));
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(oid.to_be_bytes());
        bytes.extend(modifier.to_be_bytes());
    }
    bytes
}

fn tuple<'a>(texts: impl ExactSizeIterator<Item = Option<&'a str>>) -> Vec<u8> {
    let mut bytes = count(texts.len()).to_vec();
    for text in texts {
        let Some(text) = text else {
            bytes.push(b'n');
            continue;
        };
        bytes.push(b't');
        bytes.extend(u32::try_from(text.len()).expect("it is short").to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

fn count(columns: usize) -> [u8; 2] {
    u16::try_from(columns).expect("they are few").to_be_bytes()
}

//! Records inside of an input: parts between marks that no connector writes, so that what is inserted or cut out inside
//! of a part leaves the others whole.

use afterwrite::event::delivery::RawRecord;

/// Ends a part.
const PART: &[u8] = b"\x1e\x1e\x1e\x1e";

/// Ends a record.
const RECORD: &[u8] = b"\x1d\x1d\x1d\x1d";

/// Records of one input; more add nothing but time.
const RECORDS_MAX: usize = 4;

/// Bits of a record's first byte.
const NULL_KEY: u8 = 1;
const NULL_VALUE: u8 = 2;

/// The parts of an input.
pub fn parts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(input, PART)
}

/// The first byte of an input, and the records behind it, each with its topic.
pub fn records(input: &[u8]) -> Option<(u8, Vec<(String, RawRecord)>)> {
    let (first, rest) = input.split_first()?;
    let records: Option<Vec<_>> = split(rest, RECORD).take(RECORDS_MAX).map(record).collect();
    Some((*first, records?))
}

fn record(framed: &[u8]) -> Option<(String, RawRecord)> {
    let (bits, rest) = framed.split_first()?;
    let mut parts = parts(rest);
    let mut next = || parts.next().unwrap_or_default();
    let topic = String::from_utf8_lossy(next()).into_owned();
    let (key, value) = (next().to_vec(), next().to_vec());
    let mut headers = Vec::new();
    while let Some(name) = parts.next() {
        let value = parts.next().map(|value| value.to_vec().into());
        headers.push((String::from_utf8_lossy(name).into_owned(), value));
    }
    let record = RawRecord {
        key: (bits & NULL_KEY == 0).then(|| key.into()),
        value: (bits & NULL_VALUE == 0).then(|| value.into()),
        headers,
        timestamp_ms: None,
    };
    Some((topic, record))
}

/// The input that [`records`] takes apart.
pub fn framed(first: u8, records: &[&(String, RawRecord)]) -> Vec<u8> {
    let records = records.iter().map(|(topic, record)| {
        let bits = b'0' + u8::from(record.key.is_none()) * NULL_KEY + u8::from(record.value.is_none()) * NULL_VALUE;
        let part = |bytes: &Option<bytes::Bytes>| bytes.as_deref().unwrap_or_default().to_vec();
        let mut parts = vec![topic.clone().into_bytes(), part(&record.key), part(&record.value)];
        for (name, value) in &record.headers {
            parts.extend([name.clone().into_bytes(), part(value)]);
        }
        [vec![bits], parts.join(PART)].concat()
    });
    [vec![first], records.collect::<Vec<_>>().join(RECORD)].concat()
}

/// The input that [`parts`] takes apart.
pub fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(PART)
}

/// What stands between the marks; one part at least.
fn split<'i>(input: &'i [u8], mark: &'static [u8]) -> impl Iterator<Item = &'i [u8]> {
    let mut rest = Some(input);
    std::iter::from_fn(move || {
        let text = rest?;
        let found = text.windows(mark.len()).position(|window| window == mark);
        let (part, behind) = match found {
            Some(place) => (&text[..place], Some(&text[place + mark.len()..])),
            None => (text, None),
        };
        rest = behind;
        Some(part)
    })
}

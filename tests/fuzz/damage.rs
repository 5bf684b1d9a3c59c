//! Ways to damage bytes: blindly, and with the words that decoders look for.

use crate::random::Random;

/// Texts and bytes on which decoders decide, and the numbers at which things overflow.
const WORDS: &[&[u8]] = &[
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud83d",
    b",",
    b":",
    b" ",
    b"\n",
    b"\"op\":\"u\"",
    b"\"op\":\"d\"",
    b"\"op\":\"t\"",
    b"\"op\":\"m\"",
    b"\"before\":null",
    b"\"after\":{}",
    b"\"schema\":",
    b"\"payload\":",
    b"\"fields\":[",
    b"\"type\":\"struct\"",
    b"\"scale\":\"16383\"",
    b"\"__debezium_unavailable_value\"",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"1E16383",
    b"1E-16383",
    b"1e308",
    b"1e999",
    b"-0",
    b"0.1",
    b"NaN",
    b"2146033979",
    b"\x00",
    b"\x00\x00\x00\x00\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xc3\x28",
    b"\xed\xa0\x80",
];

/// Some bytes with one to eight damages.
pub(crate) fn damaged(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    let times = 1 + random.below(8);
    for _ in 0..times {
        damage(&mut damaged, other, random);
    }
    damaged
}

fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(64)).min(bytes.len());
    match random.below(9) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => drop(bytes.splice(at..at, random.of(WORDS).iter().copied())),
        3 => drop(bytes.splice(at..end, random.of(WORDS).iter().copied())),
        4 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.next().to_le_bytes()[0];
            }
        }
        5 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        // A part of the record once more.
        6 => {
            let part = bytes[at..end].to_vec();
            let place = random.below(bytes.len() + 1);
            drop(bytes.splice(place..place, part));
        }
        // A part of another record.
        7 => {
            let from = random.below(other.len() + 1);
            let to = (from + random.below(256)).min(other.len());
            drop(bytes.splice(at..end, other[from..to].iter().copied()));
        }
        // Nesting.
        _ => {
            let word = *random.of(WORDS);
            let times = 1 + random.below(300);
            drop(bytes.splice(at..at, word.repeat(times)));
        }
    }
}

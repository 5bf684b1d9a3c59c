//! Decimals that arrive as big-endian two's complement with a scale, printed as plain digits.
//!
//! Sizes are checked before anything is allocated: Postgres allows 131,072 digits before the point and 16,383 after
//! it, and nothing larger is a decimal of Postgres.

/// 147,455 digits need fewer bytes than this.
const UNSCALED_BYTES_MAX: usize = 64 * 1024;
const SCALE_MAX: i32 = 32 * 1024;
/// The largest power of ten in 32 bits, and its digits.
const CHUNK: u64 = 1_000_000_000;
const CHUNK_DIGITS: usize = 9;

/// The plain text of a decimal, or why there is none.
pub(crate) fn print(unscaled: &[u8], scale: i32) -> Result<String, &'static str> {
    if unscaled.len() > UNSCALED_BYTES_MAX {
        return Err("holds a decimal with more digits than Postgres allows");
    }
    if !(-SCALE_MAX..=SCALE_MAX).contains(&scale) {
        return Err("holds a decimal with a scale that Postgres does not allow");
    }
    let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
    let digits = magnitude(unscaled, negative);
    let mut text = String::with_capacity(digits.len() + scale.unsigned_abs() as usize + 3);
    if negative {
        text.push('-');
    }
    place_point(&mut text, &digits, scale);
    Ok(text)
}

fn place_point(text: &mut String, digits: &str, scale: i32) {
    let fraction = usize::try_from(scale).unwrap_or(0);
    if scale < 0 && digits != "0" {
        text.push_str(digits);
        text.extend(std::iter::repeat_n('0', scale.unsigned_abs() as usize));
    } else if fraction == 0 {
        text.push_str(digits);
    } else if digits.len() > fraction {
        let (whole, rest) = digits.split_at(digits.len() - fraction);
        text.push_str(whole);
        text.push('.');
        text.push_str(rest);
    } else {
        text.push_str("0.");
        text.extend(std::iter::repeat_n('0', fraction - digits.len()));
        text.push_str(digits);
    }
}

/// Decimal digits of the absolute value.
fn magnitude(unscaled: &[u8], negative: bool) -> String {
    if unscaled.len() <= 16 {
        let fill = if negative { 0xff } else { 0 };
        let mut wide = [fill; 16];
        wide[16 - unscaled.len()..].copy_from_slice(unscaled);
        return i128::from_be_bytes(wide).unsigned_abs().to_string();
    }
    let mut limbs = limbs(unscaled, negative);
    let mut chunks = Vec::with_capacity(unscaled.len() / 3);
    while !limbs.is_empty() {
        let mut rest = 0_u64;
        for limb in &mut limbs {
            let value = (rest << 32) | u64::from(*limb);
            *limb = u32::try_from(value / CHUNK).expect("the remainder is below the divisor, so is the high half");
            rest = value % CHUNK;
        }
        chunks.push(rest);
        let zeros = limbs.iter().take_while(|limb| **limb == 0).count();
        limbs.drain(..zeros);
    }
    let mut digits = String::with_capacity(chunks.len() * CHUNK_DIGITS);
    for (index, chunk) in chunks.iter().rev().enumerate() {
        if index == 0 {
            digits.push_str(&chunk.to_string());
        } else {
            digits.push_str(&format!("{chunk:09}"));
        }
    }
    digits
}

/// The absolute value as 32-bit limbs, most significant first, without leading zeros.
fn limbs(unscaled: &[u8], negative: bool) -> Vec<u32> {
    let mut absolute = unscaled.to_vec();
    if negative {
        let mut carry = true;
        for byte in absolute.iter_mut().rev() {
            let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
            *byte = sum;
            carry = overflow;
        }
        // Only the most negative value of a width carries out of it; its magnitude is then exactly the bytes as they
        // are, read as unsigned.
    }
    let mut limbs: Vec<u32> = absolute
        .rchunks(4)
        .rev()
        .map(|chunk| chunk.iter().fold(0, |limb, byte| (limb << 8) | u32::from(*byte)))
        .collect();
    let zeros = limbs.iter().take_while(|limb| **limb == 0).count();
    limbs.drain(..zeros);
    limbs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_print_as_postgres_writes_them() {
        for (bytes, scale, expected) in [
            (&b"09"[..], 2, "123.45"),
            (&[0x00][..], 2, "0.00"),
            (&[0xff][..], 3, "-0.001"),
            (&[0x01][..], 0, "1"),
            (&[0x0c][..], -2, "1200"),
            (&[][..], 0, "0"),
            (&[0x03, 0x66, 0x2e][..], 4, "22.2766"),
            (&[0x80][..], 0, "-128"),
        ] {
            assert_eq!(print(bytes, scale).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn long_decimals_agree_with_the_short_path() {
        for value in [1_i128, -1, i128::MAX, i128::MIN, 10_i128.pow(30), -(10_i128.pow(38))] {
            let short = value.to_be_bytes().to_vec();
            let fill = if value < 0 { 0xff } else { 0 };
            let mut long = vec![fill; 5];
            long.extend_from_slice(&short);
            assert_eq!(print(&short, 3), print(&long, 3));
        }
    }

    #[test]
    fn the_most_negative_value_of_a_width_prints() {
        let mut bytes = vec![0; 20];
        bytes[0] = 0x80;
        let text = print(&bytes, 0).unwrap();
        assert_eq!(text, "-730750818665451459101842416358141509827966271488");
    }

    #[test]
    fn absurd_sizes_are_refused_before_they_cost_memory() {
        assert!(print(&[1], i32::MAX).is_err());
        assert!(print(&[1], i32::MIN).is_err());
        assert!(print(&vec![1; UNSCALED_BYTES_MAX + 1], 0).is_err());
    }
}

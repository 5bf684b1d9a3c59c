//! Decimals that arrive as big-endian two's complement with a scale, printed as plain digits.
//!
//! Sizes are checked before anything is allocated: Postgres allows 131,072 digits before the point and 16,383 after
//! it, and nothing larger is a decimal of Postgres.

use bigdecimal::num_bigint::BigInt;

use crate::decode::types::Budget;

/// 147,455 digits need fewer bytes than this.
const UNSCALED_BYTES_MAX: usize = 62 * 1024;
/// Digits before the point, where a negative scale puts zeros, and digits after it.
const SCALES: std::ops::RangeInclusive<i32> = -131_072..=16_383;
pub(crate) const WRONG_SCALE: &str = "holds a decimal with a scale that Postgres does not allow";

/// The plain text of a decimal, or why there is none.
pub(crate) fn print(unscaled: &[u8], scale: i32, budget: &mut Budget) -> Result<String, &'static str> {
    if unscaled.len() > UNSCALED_BYTES_MAX {
        return Err("holds a decimal with more digits than Postgres allows");
    }
    if !SCALES.contains(&scale) {
        return Err(WRONG_SCALE);
    }
    budget.spend(scale.unsigned_abs() as usize)?;
    let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
    let digits = magnitude(unscaled, negative);
    let mut text = String::with_capacity(digits.len() + scale.unsigned_abs() as usize + 3);
    if negative {
        text.push('-');
    }
    place_point(&mut text, &digits, scale);
    Ok(text)
}

/// The plain text of a decimal that was written as a JSON number, which may have an exponent.
pub(crate) fn print_literal(literal: &str, budget: &mut Budget) -> Result<String, &'static str> {
    let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
    let exponent: i32 = exponent.parse().map_err(|_| WRONG_SCALE)?;
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let places = i32::try_from(fraction.len()).map_err(|_| WRONG_SCALE)?;
    let scale = places.checked_sub(exponent).ok_or(WRONG_SCALE)?;
    if !SCALES.contains(&scale) {
        return Err(WRONG_SCALE);
    }
    budget.spend(scale.unsigned_abs() as usize)?;
    let joined = format!("{whole}{fraction}");
    let significant = joined.trim_start_matches('0');
    let mut text = sign.to_owned();
    place_point(&mut text, if significant.is_empty() { "0" } else { significant }, scale);
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
    BigInt::from_signed_bytes_be(unscaled).magnitude().to_string()
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
            assert_eq!(print(bytes, scale, &mut Budget::of(0)).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn literals_lose_their_exponent_and_keep_their_digits() {
        for (literal, expected) in [
            ("1E-7", "0.0000001"),
            ("-1.50e2", "-150"),
            ("1.10", "1.10"),
            ("0.00", "0.00"),
            ("1E+3", "1000"),
            ("12345678901234567890123.5", "12345678901234567890123.5"),
        ] {
            assert_eq!(print_literal(literal, &mut Budget::of(0)).as_deref(), Ok(expected));
        }
        assert!(print_literal("1E-2147483648", &mut Budget::of(0)).is_err());
        assert!(print_literal("1E999999", &mut Budget::of(0)).is_err());
    }

    #[test]
    fn long_decimals_agree_with_the_short_path() {
        for value in [1_i128, -1, i128::MAX, i128::MIN, 10_i128.pow(30), -(10_i128.pow(38))] {
            let short = value.to_be_bytes().to_vec();
            let fill = if value < 0 { 0xff } else { 0 };
            let mut long = vec![fill; 5];
            long.extend_from_slice(&short);
            let mut budget = Budget::of(0);
            assert_eq!(print(&short, 3, &mut budget), print(&long, 3, &mut budget));
        }
    }

    #[test]
    fn the_longest_decimal_of_postgres_prints() {
        // 147,455 nines.
        let longest = BigInt::parse_bytes(&vec![b'9'; 147_455], 10).unwrap();
        let bytes = longest.to_signed_bytes_be();
        assert!(bytes.len() <= UNSCALED_BYTES_MAX);
        let text = print(&bytes, 16_383, &mut Budget::of(0)).unwrap();
        assert_eq!(text, format!("{}.{}", "9".repeat(131_072), "9".repeat(16_383)));
    }

    #[test]
    fn the_most_negative_value_of_a_width_prints() {
        let mut bytes = vec![0; 20];
        bytes[0] = 0x80;
        let text = print(&bytes, 0, &mut Budget::of(0)).unwrap();
        assert_eq!(text, "-730750818665451459101842416358141509827966271488");
    }

    #[test]
    fn absurd_sizes_are_refused_before_they_cost_memory() {
        let refused = |unscaled: &[u8], scale| print(unscaled, scale, &mut Budget::of(0)).is_err();
        assert!(refused(&[1], i32::MAX));
        assert!(refused(&[1], i32::MIN));
        assert!(refused(&vec![1; UNSCALED_BYTES_MAX + 1], 0));
    }

    #[test]
    fn many_small_scales_do_not_add_up_to_much_memory() {
        let mut budget = Budget::of(1_000);
        let printed = std::iter::repeat_with(|| print(&[1], 16_383, &mut budget))
            .take_while(Result::is_ok)
            .count();
        assert!(
            printed < 20,
            "{printed} decimals of 16 KiB each came out of one small record"
        );
        assert!(print_literal("1E-16383", &mut budget).is_err());
        assert!(print_literal("1.5", &mut budget).is_ok());
    }
}

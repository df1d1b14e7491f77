//! Numbers in the headers of tar: octal digits, or bytes (GNU); and in their extensions: decimal digits (pax).

use crate::layer::Time;

/// Reads a number that is not negative. An empty field is zero.
pub fn unsigned(field: &[u8]) -> Option<u64> {
    signed(field)?.try_into().ok()
}

/// Reads a number, which may be negative if it is in bytes.
pub fn signed(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        return octal(field);
    }
    let is_negative = first & 0x40 != 0;
    // The bit that says that there are bytes is no part of the number.
    let start = i128::from(first & 0x3f) - if is_negative { 0x40 } else { 0 };
    let add = |sum: i128, &byte: &u8| sum.checked_mul(256)?.checked_add(byte.into());
    rest.iter().try_fold(start, add)?.try_into().ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let end = field.iter().position(|&byte| byte == 0);
    let text = str::from_utf8(&field[..end.unwrap_or(field.len())])
        .ok()?
        .trim();
    match text.is_empty() {
        true => Some(0),
        false if text.starts_with(['+', '-']) => None,
        false => i64::from_str_radix(text, 8).ok(),
    }
}

/// Reads decimal digits.
pub fn decimal(text: &[u8]) -> Option<u64> {
    let is_plain = text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok()?.parse().ok().filter(|_| is_plain)
}

/// Reads a moment, which has decimal digits after a point, and may be before 1970.
pub fn moment(text: &[u8]) -> Option<Time> {
    let text = str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Time {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        });
    }
    Some(Time {
        seconds,
        nanoseconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_bytes_and_empty_ones_zero() {
        assert_eq!(unsigned(b"0000644\0"), Some(0o644));
        assert_eq!(unsigned(b"   17 \0"), Some(0o17));
        assert_eq!(unsigned(&[0; 8]), Some(0));
        assert_eq!(unsigned(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(signed(&[0xff; 12]), Some(-1));
        assert_eq!(unsigned(&[0xff; 12]), None);
        for wrong in [
            &b"-1"[..],
            b"8",
            b"0x1",
            b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(signed(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn moments_have_parts_of_seconds_and_may_be_before_1970() {
        let time = |seconds, nanoseconds| {
            Some(Time {
                seconds,
                nanoseconds,
            })
        };
        assert_eq!(moment(b"12"), time(12, 0));
        assert_eq!(moment(b"12.5"), time(12, 500_000_000));
        assert_eq!(moment(b"-1.25"), time(-2, 750_000_000));
        assert_eq!(moment(b"1.0000000019"), time(1, 1));
        for wrong in [&b""[..], b".5", b"1.x", b"1.-5", b"\xff"] {
            assert_eq!(moment(wrong), None, "{wrong:?}");
        }
    }
}

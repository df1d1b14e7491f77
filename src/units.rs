//! Units of memory, and sizes and times as people write them.

use std::time::Duration;

/// The bytes of a page of memory, in the guest and on the host.
pub const PAGE: usize = 4096;
/// The bytes of a huge page, in the guest and on the host.
pub const HUGE_PAGE: usize = 2 << 20;

/// A time limit, if any.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timeout(pub Option<Duration>);

/// The shortest limit.
const LEAST: Duration = Duration::from_nanos(1);

/// Parses a number of bytes with an optional binary unit: `1048576`, `1024K`, `1M`, `1G`, `1MiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "give bytes, or a number with K, M or G, such as 512M".to_string();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(wrong()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(wrong)
}

/// Formats a size in MiB, in bytes, or in both if it is not a whole number of MiB.
pub fn format_size(size: u64) -> String {
    const MIB: u64 = 1 << 20;
    match size {
        0..MIB => format!("{size} bytes"),
        _ if size.is_multiple_of(MIB) => format!("{} MiB", size / MIB),
        _ => format!("{size} bytes ({} MiB)", size / MIB),
    }
}

/// The fewest bytes of a guest's memory.
pub const MEMORY_MIN: u64 = 64 << 20;

/// The bytes of a piece: a guest's memory is a whole number of pieces.
pub const MEMORY_PIECE: u64 = 2 << 20;

/// Parses the size of a guest's memory and rounds it up to whole pieces of 2 MiB. It must be a size
/// that a guest can have.
pub fn parse_memory(text: &str) -> Result<u64, String> {
    const MOST: u64 = 64 << 30;
    let size = parse_size(text)?;
    if !(MEMORY_MIN..=MOST).contains(&size) {
        return Err("give between 64M and 64G".into());
    }
    Ok(size.next_multiple_of(MEMORY_PIECE))
}

/// Returns the memory of the saved machine that a guest with this much starts from: the least power
/// of two that is enough, or three quarters of it. So there are few machines, whatever users ask for.
pub fn memory_step(size: u64) -> u64 {
    let size = size.max(MEMORY_MIN);
    let Some(most) = size.checked_next_power_of_two() else {
        return size;
    };
    let less = most / 4 * 3;
    if less >= size { less } else { most }
}

/// Units of time, with their seconds.
const UNITS: [(&[&str], f64); 5] = [
    (&["ms", "millisecond", "milliseconds"], 0.001),
    (&["", "s", "sec", "secs", "second", "seconds"], 1.0),
    (&["m", "min", "mins", "minute", "minutes"], 60.0),
    (&["h", "hr", "hrs", "hour", "hours"], 3600.0),
    (&["d", "day", "days"], 86400.0),
];

/// Parses a time: by timeout(1)'s grammar a number, with an optional unit, or several of these with
/// their units (`1h30m`). Anything above 0 is a limit, however small.
pub fn parse_timeout(text: &str) -> Result<Timeout, String> {
    let wrong =
        || "give seconds, or a time such as 500ms, 30s, 2m, 1h30m or 1d; 0 is no limit".to_string();
    let (mut limit, mut is_zero, mut rest) = (Duration::ZERO, true, text);
    loop {
        let (number, unit, after) = first_time(rest).ok_or_else(wrong)?;
        // Only the last and only one may be without a unit.
        let is_alone = rest.len() == text.len() && after.is_empty();
        if unit.is_empty() && !is_alone {
            return Err(wrong());
        }
        let mut units = UNITS.iter();
        let (_, seconds) = units
            .find(|(names, _)| names.contains(&unit))
            .ok_or_else(wrong)?;
        let value: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(value * seconds).map_err(|_| wrong())?;
        limit = limit.checked_add(part).ok_or_else(wrong)?;
        // The digits decide whether it is zero, since both types round.
        let digits = number.split(['e', 'E']).next().unwrap_or_default();
        is_zero &= digits.bytes().all(|byte| !matches!(byte, b'1'..=b'9'));
        rest = after;
        if rest.is_empty() {
            return Ok(Timeout((!is_zero).then(|| limit.max(LEAST))));
        }
    }
}

/// Splits off the first time: its number, its unit, and what follows.
fn first_time(text: &str) -> Option<(&str, &str, &str)> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut end = text.find(|c| !is_number(c)).unwrap_or(text.len());
    if end == 0 {
        return None;
    }
    // An exponent, as in 1e-3.
    if let Some(exponent) = text[end..].strip_prefix(['e', 'E']) {
        let signed = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let digits = signed
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(signed.len());
        end = text.len() - signed.len() + digits;
    }
    let after = &text[end..];
    let unit = after
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(after.len());
    Some((&text[..end], &after[..unit], &after[unit..]))
}

/// Parses a span of time by the same grammar; it may be 0.
pub fn parse_grace(text: &str) -> Result<Duration, String> {
    let parsed = parse_timeout(text);
    let wrong = |_| "give seconds, or a time such as 500ms or 2s; 0 is none".to_string();
    Ok(parsed.map_err(wrong)?.0.unwrap_or_default())
}

/// Formats a duration in the largest unit of which it has at least two.
pub fn rough(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_the_grammar_of_timeout() {
        let seconds = |s| Ok(Timeout(Some(Duration::from_secs_f64(s))));
        for (text, expected) in [
            ("30", seconds(30.0)),
            ("30s", seconds(30.0)),
            ("0.5", seconds(0.5)),
            ("2m", seconds(120.0)),
            ("1.5h", seconds(5400.0)),
            ("1d", seconds(86400.0)),
            ("0", Ok(Timeout(None))),
            ("0s", Ok(Timeout(None))),
            ("0.00", Ok(Timeout(None))),
            ("0e5", Ok(Timeout(None))),
            ("1e-10", Ok(Timeout(Some(LEAST)))),
            ("0.0000000001d", seconds(0.00000864)),
            ("1e-999s", Ok(Timeout(Some(LEAST)))),
            ("500ms", seconds(0.5)),
            ("0ms", Ok(Timeout(None))),
            ("10sec", seconds(10.0)),
            ("1.5min", seconds(90.0)),
            ("1h30m", seconds(5400.0)),
            ("1m0.5s", seconds(60.5)),
            ("2hours", seconds(7200.0)),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
        for wrong in [
            "", "s", "-1", "1w", "1 s", "NaN", "inf", "1e400", "ü", "1h30", "1M", "1h-1m", ".",
            "1.2.3s", "1e", "m1",
        ] {
            assert!(parse_timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_comes_in_few_steps_none_of_which_is_half_too_much() {
        for (asked, step) in [
            (1, 64),
            (64, 64),
            (66, 96),
            (96, 96),
            (98, 128),
            (256, 256),
            (258, 384),
            (700, 768),
            (50_000, 65_536),
            (65_536, 65_536),
        ] {
            assert_eq!(memory_step(asked << 20), step << 20, "{asked}");
        }
        let sizes = (MEMORY_MIN..=1 << 33).step_by(MEMORY_PIECE as usize);
        let steps: std::collections::BTreeSet<_> = sizes
            .map(|size| {
                let step = memory_step(size);
                assert!((size..size + size / 2).contains(&step), "{size}: {step}");
                assert!(step.is_multiple_of(MEMORY_PIECE));
                step
            })
            .collect();
        assert_eq!(steps.len(), 15);
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, expected) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64k", 64 << 10),
            ("256M", 256 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for wrong in ["", "M", "-1M", "1T", "1.5G", "99999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}

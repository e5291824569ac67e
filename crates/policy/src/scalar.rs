//! Scalars of the YAML 1.2 core schema, and RFC 3339 times.

use capstan_engine::Timestamp;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Largest integer of the range that a double (in JSON and protobuf) represents exactly: 2^53 − 1.
pub(crate) const INTEGER_MAX: i64 = (1 << 53) - 1;

/// The form of a time, for a diagnostic.
pub(crate) const TIME: &str = "a time in RFC 3339, such as 2027-01-01T00:00:00Z";

/// The type and value of a plain (unquoted) scalar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plain {
    Null,
    Boolean(bool),
    Number(f64),
    /// An integer: decimal, octal (`0o`) or hexadecimal (`0x`). `None` if it does not fit.
    Integer(Option<i64>),
    String,
}

/// Resolves a plain scalar by section 10.3.2 of YAML 1.2.2.
pub(crate) fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Boolean(true),
        "false" | "False" | "FALSE" => return Plain::Boolean(false),
        ".nan" | ".NaN" | ".NAN" => return Plain::Number(f64::NAN),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return integer_in_radix(digits, 8);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return integer_in_radix(digits, 16);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Plain::Number(f64::INFINITY),
        _ if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) => {
            return Plain::Integer(text.parse().ok());
        }
        _ => {}
    }
    if is_float(unsigned) {
        text.parse().map_or(Plain::String, Plain::Number)
    } else {
        Plain::String
    }
}

fn integer_in_radix(digits: &str, radix: u32) -> Plain {
    if !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix)) {
        Plain::Integer(i64::from_str_radix(digits, radix).ok())
    } else {
        Plain::String
    }
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent_is_right = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    exponent_is_right
        && digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
}

/// The value as an integer, if it has no fraction and is within ±(2^53 − 1): the range that JSON
/// and protobuf represent exactly.
#[must_use]
pub fn whole(value: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "guarded: whole and within 2^53")]
    let integer = |value: f64| value as i64;
    (value.fract() == 0.0 && value.abs() <= integer_max()).then(|| integer(value))
}

#[expect(clippy::cast_precision_loss, reason = "2^53 - 1 is exact")]
const fn integer_max() -> f64 {
    INTEGER_MAX as f64
}

/// Parses an RFC 3339 time to the nanosecond. In UTC it must lie in the years 1 to 9999, the range
/// of a protobuf `Timestamp`.
///
/// # Errors
///
/// The expected form, for a diagnostic.
pub fn parse_timestamp(text: &str) -> Result<Timestamp, &'static str> {
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| TIME)?;
    let utc = time.checked_to_offset(time::UtcOffset::UTC).ok_or(TIME)?;
    if !(1..=9999).contains(&utc.year()) {
        return Err(TIME);
    }
    Ok(Timestamp::new(utc.unix_timestamp(), utc.nanosecond()))
}

/// Formats a time by RFC 3339, in UTC. `None` if it lies outside the years 1 to 9999.
#[must_use]
pub fn format_timestamp(timestamp: Timestamp) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(timestamp.seconds()).ok()?;
    if !(1..=9999).contains(&time.year()) {
        return None;
    }
    time.replace_nanosecond(timestamp.nanos()).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(resolve(text), Plain::Null);
        }
        assert_eq!(resolve("TRUE"), Plain::Boolean(true));
        assert_eq!(resolve("false"), Plain::Boolean(false));
        for (text, value) in
            [("0", 0), ("-7", -7), ("+12", 12), ("0o17", 15), ("0xfF", 255), ("007", 7)]
        {
            assert_eq!(resolve(text), Plain::Integer(Some(value)), "{text}");
        }
        assert_eq!(resolve("99999999999999999999"), Plain::Integer(None));
        for text in ["1.5", "1.", ".5", "1e3", "-1.5E-3", ".inf", "-.INF", "12345e6789"] {
            assert!(matches!(resolve(text), Plain::Number(_)), "{text}");
        }
        // Strings in YAML 1.2, also those that YAML 1.1 resolves to other types.
        for text in [
            "no",
            "yes",
            "on",
            "nULL",
            "1_000",
            "0b1",
            "1:30",
            ".",
            "e5",
            "-",
            "+",
            "0x",
            "1e",
            "2027-01-01",
        ] {
            assert_eq!(resolve(text), Plain::String, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_exact() {
        assert_eq!(whole(3.0), Some(3));
        assert_eq!(whole(-9_007_199_254_740_991.0), Some(-INTEGER_MAX));
        assert_eq!(whole(9_007_199_254_740_992.0), None);
        assert_eq!(whole(1.5), None);
        assert_eq!(whole(f64::NAN), None);
        assert_eq!(whole(f64::INFINITY), None);
    }

    #[test]
    fn times_are_rfc_3339() {
        let time = |text| parse_timestamp(text).map(|t| (t.seconds(), t.nanos()));
        assert_eq!(time("1970-01-01T00:00:00Z"), Ok((0, 0)));
        assert_eq!(time("2027-01-01T01:00:00.5+01:00"), Ok((1_798_761_600, 500_000_000)));
        assert_eq!(time("0001-01-01T00:00:00Z"), Ok((-62_135_596_800, 0)));
        for bad in [
            "",
            "2027-01-01",
            "2027-13-01T00:00:00Z",
            "2027-01-01T00:00:00",
            "10000-01-01T00:00:00Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+01:00",
            "tomorrow",
        ] {
            assert!(parse_timestamp(bad).is_err(), "{bad}");
        }
        let text = "2027-01-01T00:00:00.000000001Z";
        assert_eq!(format_timestamp(parse_timestamp(text).unwrap()).as_deref(), Some(text));
    }
}

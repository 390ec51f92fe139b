//! Phone numbers.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::hex;

/// A phone number in its normal form, `+` and up to 15 digits (ITU-T E.164).
#[derive(Clone, PartialEq, Eq)]
pub struct Phone(String);

impl Phone {
    /// Parses a number as people write it: with its country code after `+` or `00`, or without, which means
    /// `country`. Spaces, dots, dashes and brackets are ignored, and so is the 0 before a number within a
    /// country.
    pub fn parse(text: &str, country: &str) -> Result<Self, Error> {
        let wanted = || {
            Error::bad_request(format!(
                "phone: want {DIGITS_MIN} to {DIGITS_MAX} digits, such as +8613800000000"
            ))
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(wanted());
        }
        let plain: String = text.chars().filter(|char| !" .-()".contains(*char)).collect();
        let digits = match (plain.strip_prefix('+').or_else(|| plain.strip_prefix("00")), &plain) {
            (Some(abroad), _) => abroad.to_owned(),
            (None, within) => format!("{country}{}", within.strip_prefix('0').unwrap_or(within)),
        };
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        match is_number && (DIGITS_MIN..=DIGITS_MAX).contains(&digits.len()) {
            true => Ok(Self(format!("+{digits}"))),
            false => Err(wanted()),
        }
    }

    /// The number in its normal form.
    pub fn number(&self) -> &str {
        &self.0
    }

    /// [`Phone::hash`] in hexadecimal, for keys of the cache.
    pub fn key(&self) -> String {
        hex::text(&self.hash())
    }

    /// The hash under which database and cache know it. There are so few numbers that somebody who has the
    /// hashes can try them all: it keeps numbers out of sight, not secret.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    /// The last four digits.
    pub fn last_digits(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }
}

/// For logs: the last digits only.
impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+...{}", self.last_digits())
    }
}

/// The number of digits in the shortest numbers of a country, with its code.
const DIGITS_MIN: usize = 7;
/// The limit of E.164.
const DIGITS_MAX: usize = 15;
/// The longest text that is parsed.
const TEXT_BYTES_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_has_one_normal_form() {
        for text in
            ["+8613800000001", "008613800000001", "13800000001", " +86 138-0000-0001", "(0138) 0000.0001"]
        {
            assert_eq!(Phone::parse(text, "86").unwrap().0, "+8613800000001", "{text}");
        }
        let phone = Phone::parse("+1 202 555 0100", "86").unwrap();
        assert_eq!((phone.0.as_str(), phone.to_string().as_str()), ("+12025550100", "+...0100"));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let long = "1".repeat(1 << 20);
        for text in [
            "",
            "+",
            "86",
            "++8613800000001",
            "+0123456789",
            "abc",
            "1380000000x",
            "' OR 1=1 --",
            "１３８００００００００",
            "13800000001\0",
            "+8613800000001;",
            "+1234567890123456",
            "-1",
            &long,
        ] {
            assert!(Phone::parse(text, "86").is_err(), "{text:.40}");
        }
    }
}

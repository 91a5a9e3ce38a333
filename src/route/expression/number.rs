//! Exact numbers: whole ones and decimals of any size.

use std::cmp::Ordering;
use std::str::FromStr;

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, RoundingMode, ToPrimitive, Zero};

use super::value::Reason;

/// Digits that a division keeps.
const DIVISION_DIGITS: u64 = 34;

/// No result has more digits on either side of the point: one product of huge columns must not take the memory.
const DIGITS_MAX: u64 = 10_000;

/// Most are small: they are counted with as they are.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::route) enum Number {
    Small(i64),
    Large(BigDecimal),
}

impl Number {
    /// In the contract's form of [`towpath_contract::Kind::Int`] and `Decimal`. `None` for `NaN` and infinities.
    pub(super) fn parse(text: &str) -> Option<Number> {
        if let Ok(small) = text.parse() {
            return Some(Number::Small(small));
        }
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        // The library reads exponents, which a column's form never has, and which could be gigantic.
        let is_plain = unsigned.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !is_plain || !unsigned.bytes().any(|byte| byte.is_ascii_digit()) {
            return None;
        }
        BigDecimal::from_str(text).ok().map(Number::Large)
    }

    pub(super) fn from_float(float: f64) -> Option<Number> {
        let mut text = Vec::new();
        super::value::write_float(float, &mut text);
        let text = String::from_utf8(text).ok()?;
        float.is_finite().then(|| BigDecimal::from_str(&text).ok()).flatten().map(Number::Large)
    }

    pub(super) fn to_float(&self) -> f64 {
        match self {
            Number::Small(small) => *small as f64,
            Number::Large(large) => large.to_f64().unwrap_or(f64::NAN),
        }
    }

    fn large(&self) -> BigDecimal {
        match self {
            Number::Small(small) => BigDecimal::from(*small),
            Number::Large(large) => large.clone(),
        }
    }

    pub(super) fn order(&self, other: &Number) -> Ordering {
        match (self, other) {
            (Number::Small(a), Number::Small(b)) => a.cmp(b),
            _ => self.large().cmp(&other.large()),
        }
    }

    pub(super) fn order_float(&self, float: f64) -> Option<Ordering> {
        match float {
            f64::INFINITY => Some(Ordering::Less),
            f64::NEG_INFINITY => Some(Ordering::Greater),
            _ => Number::from_float(float).map(|other| self.order(&other)),
        }
    }

    pub(super) fn add(&self, other: &Number) -> Result<Number, Reason> {
        self.combine(other, i64::checked_add, |a, b| aligned(a, b, |a, b| a + b))
    }

    pub(super) fn subtract(&self, other: &Number) -> Result<Number, Reason> {
        self.combine(other, i64::checked_sub, |a, b| aligned(a, b, |a, b| a - b))
    }

    pub(super) fn multiply(&self, other: &Number) -> Result<Number, Reason> {
        self.combine(other, i64::checked_mul, |a, b| {
            let ((a, a_scale), (b, b_scale)) = (a.into_bigint_and_exponent(), b.into_bigint_and_exponent());
            BigDecimal::new(a * b, a_scale + b_scale)
        })
    }

    /// `whole`: both are whole, and so is the result, which goes towards zero.
    pub(super) fn divide(&self, other: &Number, whole: bool) -> Result<Number, Reason> {
        if other.is_zero() {
            return Err("a division by zero".into());
        }
        if whole {
            let quotient = |a: BigDecimal, b: BigDecimal| {
                let (a, b) = (whole_part(&a), whole_part(&b));
                BigDecimal::from(a / b)
            };
            return self.combine(other, i64::checked_div, quotient);
        }
        let quotient = self.large() / other.large();
        let rounded = quotient.with_precision_round(
            std::num::NonZeroU64::new(DIVISION_DIGITS).expect("not zero"),
            RoundingMode::HalfEven,
        );
        // 10 / 4 is 2.5, not 2.500…
        bounded(rounded.normalized())
    }

    pub(super) fn remainder(&self, other: &Number) -> Result<Number, Reason> {
        if other.is_zero() {
            return Err("a division by zero".into());
        }
        self.combine(other, i64::checked_rem, |a, b| BigDecimal::from(whole_part(&a) % whole_part(&b)))
    }

    pub(super) fn negate(&self) -> Number {
        match self {
            Number::Small(small) if *small != i64::MIN => Number::Small(-small),
            other => Number::Large(-other.large()),
        }
    }

    pub(super) fn absolute(&self) -> Number {
        if self.order(&Number::Small(0)) == Ordering::Less { self.negate() } else { self.clone() }
    }

    /// Half away from zero, as people round money.
    pub(super) fn round(&self, digits: i64) -> Result<Number, Reason> {
        if digits.unsigned_abs() > DIGITS_MAX {
            return Err("that many digits cannot be rounded to".into());
        }
        bounded(self.large().with_scale_round(digits, RoundingMode::HalfUp))
    }

    /// Towards zero.
    pub(super) fn truncate(&self) -> Number {
        match self {
            Number::Small(_) => self.clone(),
            Number::Large(large) => {
                let whole = whole_part(large);
                whole.to_i64().map_or_else(|| Number::Large(BigDecimal::from(whole)), Number::Small)
            }
        }
    }

    pub(super) fn to_i64(&self) -> Option<i64> {
        match self {
            Number::Small(small) => Some(*small),
            Number::Large(large) if large.is_integer() => large.to_i64(),
            Number::Large(_) => None,
        }
    }

    fn is_zero(&self) -> bool {
        match self {
            Number::Small(small) => *small == 0,
            Number::Large(large) => large.is_zero(),
        }
    }

    fn combine(
        &self,
        other: &Number,
        small: fn(i64, i64) -> Option<i64>,
        large: impl FnOnce(BigDecimal, BigDecimal) -> BigDecimal,
    ) -> Result<Number, Reason> {
        if let (Number::Small(a), Number::Small(b)) = (self, other)
            && let Some(result) = small(*a, *b)
        {
            return Ok(Number::Small(result));
        }
        bounded(large(self.large(), other.large()))
    }

    /// Digits, and as many behind the point as the operation left.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        use std::io::Write as _;
        match self {
            Number::Small(small) => write!(out, "{small}"),
            Number::Large(large) => write!(out, "{}", large.to_plain_string()),
        }
        .expect("a Vec takes all");
    }
}

/// With as many digits behind the point as the longer of the two has: the library drops zeros when one of them is 0 or 1.
fn aligned(a: BigDecimal, b: BigDecimal, combine: impl FnOnce(BigInt, BigInt) -> BigInt) -> BigDecimal {
    let scale = a.fractional_digit_count().max(b.fractional_digit_count());
    let digits = |decimal: BigDecimal| decimal.with_scale(scale).into_bigint_and_exponent().0;
    BigDecimal::new(combine(digits(a), digits(b)), scale)
}

fn whole_part(decimal: &BigDecimal) -> BigInt {
    decimal.with_scale_round(0, RoundingMode::Down).into_bigint_and_exponent().0
}

fn bounded(result: BigDecimal) -> Result<Number, Reason> {
    if result.digits() > DIGITS_MAX || result.fractional_digit_count().unsigned_abs() > DIGITS_MAX {
        return Err("the result has more than 10000 digits".into());
    }
    Ok(Number::Large(result))
}

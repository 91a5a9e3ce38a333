//! PICTURE: what a character string says about a field.
//!
//! IBM, *Language Reference*, "PICTURE clause": symbols, their sizes and the categories that they make.

/// A PICTURE, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    pub category: Category,
    /// Character positions in DISPLAY form: what S, V and P take is not among them.
    pub positions: u32,
    /// Digits stored (9s).
    pub digits: u16,
    /// Digits after the decimal point, or, negative, zeros to be put after the digits (`9(3)PP`: −2).
    pub scale: i16,
    pub signed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// 9, S, V, P.
    Numeric,
    /// X, A, and 9 among them; or edited: characters as they are.
    Text,
    /// Z, `,`, `.`, `*`, `+`, `-`, CR, DB, `$` and the like: a number as printed.
    NumericEdited,
    /// N: two bytes each.
    National,
}

/// Digits of a numeric field. Compilers end at 31 (ARITH(EXTEND)) or 38.
const DIGITS_MAX: u64 = 38;
/// Far above any real field, far below what could exhaust memory.
const POSITIONS_MAX: u64 = 1 << 27;

/// `text` is in upper case. The error says what is wrong with it.
pub(super) fn picture(text: &str) -> Result<Picture, String> {
    let symbols = symbols(text)?;
    let count = |wanted: &str| symbols.iter().filter(|(s, _)| wanted.contains(*s)).map(|(_, n)| *n).sum::<u64>();
    if let Some((symbol, _)) = symbols.iter().find(|(symbol, _)| "GE".contains(*symbol)) {
        return Err(format!(
            "PICTURE {text}: symbol {symbol} ({}) is not supported",
            match symbol {
                'G' => "double-byte characters",
                _ => "a number with an exponent",
            }
        ));
    }
    let category = match () {
        () if count("N") > 0 && symbols.iter().all(|(s, _)| "NB0/".contains(*s)) => Category::National,
        () if count("N") > 0 => return Err(format!("PICTURE {text}: N stands with N, B, 0 and / alone")),
        () if count("XA") > 0 && symbols.iter().all(|(s, _)| "XA9B0/".contains(*s)) => Category::Text,
        () if count("XA") > 0 => return Err(format!("PICTURE {text}: X and A stand with X, A, 9, B, 0 and / alone")),
        () if symbols.iter().all(|(s, _)| "9SVP".contains(*s)) => return numeric(text, &symbols),
        () if count("9Z*+-$") > 0 => Category::NumericEdited,
        () => return Err(format!("PICTURE {text}: nothing in it takes a character")),
    };
    let positions: u64 = symbols.iter().map(|(symbol, n)| n * width(*symbol)).sum();
    if positions > POSITIONS_MAX {
        return Err(format!("PICTURE {text}: {positions} characters are more than {POSITIONS_MAX}"));
    }
    Ok(Picture { category, positions: positions as u32, digits: 0, scale: 0, signed: false })
}

/// Character positions that a symbol takes; `R` stands for CR, `D` for DB.
fn width(symbol: char) -> u64 {
    match symbol {
        'S' | 'V' | 'P' => 0,
        'R' | 'D' => 2,
        _ => 1,
    }
}

/// The symbols with their repetitions.
fn symbols(text: &str) -> Result<Vec<(char, u64)>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut symbols = Vec::new();
    let mut index = 0;
    while let Some(char) = chars.get(index) {
        let symbol = match (char, chars.get(index + 1)) {
            ('C', Some('R')) => 'R',
            ('D', Some('B')) => 'D',
            (
                '9' | 'X' | 'A' | 'N' | 'G' | 'E' | 'S' | 'V' | 'P' | 'Z' | 'B' | '0' | '/' | ',' | '.' | '*' | '+'
                | '-' | '$',
                _,
            ) => *char,
            ('€' | '£' | '¥', _) => '$',
            _ => return Err(format!("PICTURE {text}: {char:?} is no symbol that it may have")),
        };
        index += if matches!(symbol, 'R' | 'D') { 2 } else { 1 };
        let mut times = 1;
        if chars.get(index) == Some(&'(') {
            let end = chars[index..].iter().position(|char| *char == ')').map(|length| index + length);
            let number = end.and_then(|end| chars[index + 1..end].iter().collect::<String>().parse::<u64>().ok());
            match (end, number) {
                (Some(end), Some(number)) if number > 0 && number <= POSITIONS_MAX => {
                    (times, index) = (number, end + 1)
                }
                _ => {
                    return Err(format!(
                        "PICTURE {text}: after `(` a number from 1 to {POSITIONS_MAX} and `)` are expected"
                    ));
                }
            }
        }
        symbols.push((symbol, times));
    }
    if symbols.is_empty() { Err("PICTURE has no symbols".into()) } else { Ok(symbols) }
}

/// `S`, then digits with at most one assumed point. P stands at one end: at the right for zeros before the point, at the left after it.
fn numeric(text: &str, symbols: &[(char, u64)]) -> Result<Picture, String> {
    let wrong = |what: &str| Err(format!("PICTURE {text}: {what}"));
    let (signed, rest) = match symbols.split_first() {
        Some((('S', 1), rest)) => (true, rest),
        _ => (false, symbols),
    };
    if rest.iter().any(|(symbol, _)| *symbol == 'S') {
        return wrong("S stands once, and first");
    }
    let (mut digits, mut fraction, mut scaling, mut scaled_left, mut point) = (0u64, 0u64, 0u64, 0u64, false);
    for (symbol, times) in rest {
        match symbol {
            'V' if point || *times > 1 => return wrong("V stands once"),
            'V' => point = true,
            'P' if digits == 0 => scaled_left += times,
            'P' => scaling += times,
            _ if scaling > 0 => return wrong("P stands at one end of the digits"),
            _ => {
                digits += times;
                fraction += if point { *times } else { 0 };
            }
        }
    }
    if digits == 0 || digits > DIGITS_MAX {
        return wrong(&format!("{digits} digits, expected 1 to {DIGITS_MAX}"));
    }
    // `PP99` and `VPP99` and `PPV…`: the point is at the left of the Ps. `99PP` and `99PPV`: at their right.
    let scale = match (scaled_left, scaling) {
        (0, 0) => fraction as i64,
        (left, 0) if !point || fraction == digits => (left + digits) as i64,
        (0, right) if !point || fraction == 0 => -(right as i64),
        _ => return wrong("P stands at one end of the digits, away from the point"),
    };
    match i16::try_from(scale) {
        Ok(scale) if scale.unsigned_abs() as u64 <= DIGITS_MAX * 2 => {
            Ok(Picture { category: Category::Numeric, positions: digits as u32, digits: digits as u16, scale, signed })
        }
        _ => wrong("P moves the point too far"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(text: &str) -> (u16, i16, bool) {
        let picture = picture(text).unwrap();
        assert_eq!(picture.category, Category::Numeric, "{text}");
        assert_eq!(picture.positions, picture.digits as u32, "{text}");
        (picture.digits, picture.scale, picture.signed)
    }

    #[test]
    fn numbers_have_digits_a_scale_and_a_sign() {
        assert_eq!(numeric("9"), (1, 0, false));
        assert_eq!(numeric("S9(10)V99"), (12, 2, true));
        assert_eq!(numeric("S9(4)V9(2)"), (6, 2, true));
        assert_eq!(numeric("SV9(3)"), (3, 3, true));
        assert_eq!(numeric("9(3)PP"), (3, -2, false));
        assert_eq!(numeric("9(3)PPV"), (3, -2, false));
        assert_eq!(numeric("PP99"), (2, 4, false));
        assert_eq!(numeric("SVP(3)9(4)"), (4, 7, true));
    }

    #[test]
    fn others_have_a_category_and_a_width() {
        for (text, category, positions) in [
            ("X(16)", Category::Text, 16),
            ("A(3)X9(2)", Category::Text, 6),
            ("XXBXX/XX", Category::Text, 8),
            ("ZZ,ZZ9.99-", Category::NumericEdited, 10),
            ("$$$,$$9.99CR", Category::NumericEdited, 12),
            ("-(7)9V.99", Category::NumericEdited, 11),
            ("****9", Category::NumericEdited, 5),
            ("9(5).99DB", Category::NumericEdited, 10),
            ("+9(3)", Category::NumericEdited, 4),
            ("N(10)", Category::National, 10),
        ] {
            let found = picture(text).unwrap();
            assert_eq!((found.category, found.positions), (category, positions), "{text}");
        }
    }

    #[test]
    fn what_is_no_picture_says_why() {
        for (text, says) in [
            ("", "no symbols"),
            ("Q", "no symbol"),
            ("9(0)", "number from 1"),
            ("9(5", "number from 1"),
            ("X(999999999999)", "number from 1"),
            ("9S", "S stands once"),
            ("9V9V9", "V stands once"),
            ("9P9", "one end"),
            ("P9P", "one end"),
            ("9(39)", "1 to 38"),
            ("S", "1 to 38"),
            ("G(5)", "double-byte"),
            ("+9.99E+99", "exponent"),
            ("XZ", "X and A stand"),
            ("BB", "takes a character"),
        ] {
            let error = picture(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}

//! Numbers and strings as people read them.

/// `1,234,567`
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// At most three significant digits, none that are zero.
pub fn digits(x: f64) -> String {
    let text = significant(x);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Three significant digits.
pub fn significant(x: f64) -> String {
    let places = match x.abs() {
        0.0 => 0,
        a if a >= 100.0 => 0,
        a if a >= 10.0 => 1,
        a if a >= 1.0 => 2,
        a if a >= 0.1 => 3,
        a if a >= 0.01 => 4,
        a if a >= 0.001 => 5,
        _ => 6,
    };
    format!("{x:.places$}")
}

/// With a sign, and no more digits than it has: `-3`, `+0.25`.
pub fn signed(x: f64) -> String {
    let text = trim(x);
    if x >= 0.0 { format!("+{text}") } else { text }
}

/// At most two decimals, none that are zero.
pub fn trim(x: f64) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share in percent, without digits it does not have.
pub fn percent(share: f64) -> f64 {
    libm::round(share * 100_000.0) / 1_000.0
}

/// Whatever [`is_hidden`] as an escape: what people see is what is there. The one escaper, for lines and for messages.
pub fn plain(text: &str) -> String {
    if !text.contains(is_hidden) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            // Above ASCII a byte and a character of the same number are two things.
            c if is_hidden(c) && c.is_ascii() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if is_hidden(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Characters that could move a cursor, reorder a line or stand there unseen: controls, zero-width and
/// bidirectional marks, line separators.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

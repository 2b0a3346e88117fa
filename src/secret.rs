//! Text that cannot be printed, logged, serialized, or compared by accident.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;
use zeroize::Zeroizing;

/// What stands in the place of a secret.
pub const MASK: &str = "****";

/// A password or token. `Debug` and `Display` show [`MASK`].
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Hands the text out, for a wire or a child's environment.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A text without what may be a password in a URL: whatever stands between a colon and an `@` in one
/// word.
pub fn without_url_passwords(text: &str) -> String {
    let mask = |word: &str| {
        let Some(at) = word.rfind('@') else { return word.to_owned() };
        let (before, after) = word.split_at(at);
        let start = before.find("://").map_or(0, |scheme| scheme + 3);
        match before.get(start..).and_then(|rest| rest.find(':')) {
            Some(colon) => format!("{}:{MASK}{after}", before.get(..start + colon).unwrap_or_default()),
            None => word.to_owned(),
        }
    };
    text.split_inclusive(char::is_whitespace).map(mask).collect::<Vec<_>>().concat()
}

/// Replaces secrets, in every encoding in which a program may print them.
#[derive(Clone, Default)]
pub struct Masker(Vec<Zeroizing<String>>);

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masker({} forms)", self.0.len())
    }
}

impl Masker {
    /// Learns a secret: raw, URL-encoded, JSON-escaped, and doubled as in SQL literals.
    ///
    /// A secret shorter than three characters is not masked: it would hit ordinary text.
    pub fn learn(&mut self, secret: &Secret) {
        let raw = secret.expose();
        if raw.len() < 3 {
            return;
        }
        let json = serde_json::Value::from(raw).to_string();
        let json_inner = json.trim_matches('"').to_owned();
        let forms = [
            raw.to_owned(),
            utf8_percent_encode(raw, NON_ALPHANUMERIC).to_string(),
            url::form_urlencoded::byte_serialize(raw.as_bytes()).collect(),
            json_inner,
            raw.replace('\'', "''"),
            raw.replace('\\', "\\\\").replace('"', "\\\""),
        ];
        for form in forms {
            if !self.0.iter().any(|known| **known == form) {
                self.0.push(Zeroizing::new(form));
            }
        }
        self.0.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// Learns what another one knows.
    pub fn merge(&mut self, other: &Self) {
        for form in &other.0 {
            if !self.0.iter().any(|known| known == form) {
                self.0.push(form.clone());
            }
        }
        self.0.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// Returns the text with every known secret replaced by [`MASK`].
    pub fn mask(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, form| {
            if text.contains(form.as_str()) { text.replace(form.as_str(), MASK) } else { text }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_loses_its_password_wherever_it_stands() {
        for (text, masked) in [
            ("argument 'postgresql://u:p:w@h/d' found\n", "argument 'postgresql://u:****@h/d' found\n"),
            ("u:p@h", "u:****@h"),
            ("postgresql://u@h:5432/d a: b@c", "postgresql://u@h:5432/d a: b@c"),
        ] {
            assert_eq!(without_url_passwords(text), masked);
        }
    }

    #[test]
    fn a_secret_never_shows() {
        let secret = Secret::new("s3cr\"et@x");
        assert_eq!(format!("{secret} {secret:?}"), "**** ****");
    }

    #[test]
    fn every_encoding_is_masked() {
        let mut masker = Masker::default();
        masker.learn(&Secret::new("p@ss/\"w'%r\\d"));
        let text =
            "raw p@ss/\"w'%r\\d url p%40ss%2F%22w%27%25r%5Cd json p@ss/\\\"w'%r\\\\d sql p@ss/\"w''%r\\d";
        assert_eq!(masker.mask(text), "raw **** url **** json **** sql ****");
    }
}

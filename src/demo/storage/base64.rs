//! Base64, as far as tokens and headers need it.

const PLAIN: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Without padding, in the alphabet of URLs.
pub(super) fn encode_url(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let joined = group.iter().fold(0_u32, |joined, byte| (joined << 8) | u32::from(*byte));
        let joined = joined << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            let six = usize::try_from((joined >> (18 - 6 * place)) & 63).unwrap_or_default();
            text.push(char::from(PLAIN.get(six).copied().unwrap_or(b'A')));
        }
    }
    text.replace('+', "-").replace('/', "_")
}

/// In either alphabet, with or without padding.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut joined, mut bits) = (Vec::new(), 0_u32, 0_u32);
    for letter in text.trim_end_matches('=').bytes() {
        let plain = match letter {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
        let six = PLAIN.iter().position(|known| *known == plain)?;
        joined = (joined << 6) | u32::try_from(six).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((joined >> bits) & 255).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for text in ["", "a", "ab", "abc", "abcd", "ÿþ?>~"] {
            assert_eq!(decode(&encode_url(text.as_bytes())).unwrap(), text.as_bytes());
        }
        assert_eq!(encode_url(b"foob"), "Zm9vYg");
        assert_eq!(decode("Zm9vYg==").unwrap(), b"foob");
        assert_eq!(decode("+/-_").unwrap(), decode("-_+/").unwrap());
        assert_eq!(decode("a b"), None);
    }
}

//! Takes apart the names of fingerprint lines, which are quoted as SQL wants them.

/// An identifier at the beginning of a text, as it is written, and the rest.
pub(super) fn identifier(text: &str) -> Option<(&str, &str)> {
    let mut letters = text.char_indices().peekable();
    if text.starts_with('"') {
        letters.next();
        while let Some((at, letter)) = letters.next() {
            if letter == '"' && letters.next_if(|(_, next)| *next == '"').is_none() {
                return Some(text.split_at(at + 1));
            }
        }
        return None;
    }
    let end = text.find(['.', ' ', ':', '(', ')', ',']).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// The identifiers of a dotted name, as they are written.
pub(super) fn parts(name: &str) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    let mut rest = name;
    loop {
        let (part, more) = identifier(rest)?;
        found.push(part);
        if more.is_empty() {
            return Some(found);
        }
        rest = more.strip_prefix('.')?;
    }
}

/// `name on table` as the two, as they are written.
pub(super) fn on(identity: &str) -> Option<(&str, &str)> {
    let (name, rest) = identifier(identity)?;
    Some((name, rest.strip_prefix(" on ")?))
}

/// What stands before and behind the first such word that is not within quotes.
pub(super) fn around<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let mut places = text.match_indices(word).map(|(at, _)| at);
    let at = places.find(|at| text.bytes().take(*at).filter(|byte| *byte == b'"').count() % 2 == 0)?;
    Some((text.get(..at)?, text.get(at + word.len()..)?))
}

/// A column's relation and name, as they are written.
pub(super) fn column(identity: &str) -> Option<(&str, &str)> {
    let parts = parts(identity)?;
    let last = parts.last().filter(|_| parts.len() > 1)?;
    let relation = identity.strip_suffix(last)?.strip_suffix('.')?;
    Some((relation, last))
}

/// `publication: object` as the two, as they are written.
pub(super) fn member(identity: &str) -> Option<(&str, &str)> {
    let (publication, rest) = identifier(identity)?;
    Some((publication, rest.strip_prefix(": ")?))
}

/// An identifier without its quotes.
pub(super) fn plain(identifier: &str) -> String {
    match identifier.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => identifier.to_owned(),
    }
}

/// Schema and name of a qualified name, without quotes.
pub(super) fn qualified(name: &str) -> Option<(String, String)> {
    match parts(name)?[..] {
        [schema, name] => Some((plain(schema), plain(name))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(parts("public.orders"), Some(vec!["public", "orders"]));
        assert_eq!(parts("\"a.b\".\"c \"\"d\".e"), Some(vec!["\"a.b\"", "\"c \"\"d\"", "e"]));
        assert_eq!(on("\"x on y\" on public.\"T\""), Some(("\"x on y\"", "public.\"T\"")));
        assert_eq!(on("own on domain public.d"), Some(("own", "domain public.d")));
        assert_eq!(column("public.\"T\".\"a.b\""), Some(("public.\"T\"", "\"a.b\"")));
        assert_eq!(member("supabase_realtime: public.orders"), Some(("supabase_realtime", "public.orders")));
        assert_eq!(around("\"a in b\" in \"c in \"\"d\"", " in "), Some(("\"a in b\"", "\"c in \"\"d\"")));
        assert_eq!(around("\"a in b\"", " in "), None);
        assert_eq!(qualified("public.\"O\"\"dd\""), Some(("public".into(), "O\"dd".into())));
        for nonsense in ["", "\"open", "a..b", "a."] {
            assert_eq!(parts(nonsense), None, "{nonsense}");
        }
    }
}

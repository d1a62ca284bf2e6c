//! The key that a request shows, in whichever header its client puts it.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

/// Headers that hold nothing but a key.
const BARE: [&str; 3] = ["x-api-key", "api-key", "x-goog-api-key"];

/// What every key of ours begins with.
const OURS: &str = "tl_";

/// What a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown<'a> {
    /// No key. What does not begin as ours do is none: many clients cannot be used without some word, and some send
    /// their own vendor's key beside ours.
    Nothing,
    /// One, perhaps in several headers.
    One(&'a str),
    /// Different ones, or none that is text: it is not guessed which is meant.
    Unclear,
}

/// Reads all headers that may hold a key.
pub(crate) fn shown(headers: &HeaderMap) -> Shown<'_> {
    let authorization = headers.get_all(AUTHORIZATION).iter().map(|value| {
        let text = value.to_str().ok()?;
        let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
        let key = key.trim();
        // One of ours under another scheme, or under none, is a mistake that is better told than passed over.
        let misplaced = scheme.starts_with(OURS) || key.starts_with(OURS);
        match scheme.eq_ignore_ascii_case("bearer") {
            true => Some(key),
            false => (!misplaced).then_some(""),
        }
    });
    let bare = BARE.iter().flat_map(|name| headers.get_all(*name));
    let bare = bare.map(|value| value.to_str().ok().map(str::trim));
    let mut found = Shown::Nothing;
    for key in authorization.chain(bare) {
        found = match (found, key) {
            (_, Some(other)) if !other.starts_with(OURS) => found,
            (Shown::Nothing, Some(key)) => Shown::One(key),
            (Shown::One(known), Some(key)) if known == key => found,
            _ => return Shown::Unclear,
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[(&'static str, &str)], want: Shown<'_>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        assert_eq!(shown(&headers), want, "{fields:?}");
    }

    #[test]
    fn every_carrier_is_equal() {
        check(&[], Shown::Nothing);
        check(&[("authorization", "Bearer"), ("x-api-key", "")], Shown::Nothing);
        for field in [
            ("authorization", "Bearer tl_k"),
            ("authorization", "bearer  tl_k "),
            ("x-api-key", "tl_k"),
            ("api-key", "tl_k"),
            ("x-goog-api-key", "tl_k"),
        ] {
            check(&[field], Shown::One("tl_k"));
        }
        check(&[("authorization", "Bearer tl_k"), ("x-api-key", "tl_k")], Shown::One("tl_k"));
    }

    #[test]
    fn what_is_not_meant_for_us_is_no_key() {
        for field in [
            ("authorization", "Bearer k"),
            ("authorization", "Basic dXNlcjpwYXNz"),
            ("authorization", "k"),
            ("x-api-key", "sk-ant-k"),
        ] {
            check(&[field], Shown::Nothing);
            check(&[field, ("api-key", "tl_k")], Shown::One("tl_k"));
        }
        check(&[("authorization", "Bearer k"), ("x-api-key", "other")], Shown::Nothing);
    }

    #[test]
    fn nothing_is_guessed() {
        check(&[("authorization", "Bearer tl_k"), ("x-api-key", "tl_other")], Shown::Unclear);
        check(&[("x-api-key", "tl_k"), ("x-api-key", "tl_other")], Shown::Unclear);
        check(&[("authorization", "Basic tl_k")], Shown::Unclear);
        check(&[("authorization", "tl_k")], Shown::Unclear);
        let mut headers = HeaderMap::new();
        let value = axum::http::HeaderValue::from_bytes(b"\xff\xfe").unwrap();
        headers.insert("x-api-key", value);
        assert_eq!(shown(&headers), Shown::Unclear);
    }
}

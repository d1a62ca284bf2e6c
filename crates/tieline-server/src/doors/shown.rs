//! The key that a request shows, in whichever header its client puts it.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

/// Headers that hold nothing but a key.
const BARE: [&str; 3] = ["x-api-key", "api-key", "x-goog-api-key"];

/// What a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown<'a> {
    /// No key.
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
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let bare = BARE.iter().flat_map(|name| headers.get_all(*name));
    let bare = bare.map(|value| value.to_str().ok().map(str::trim));
    let mut found = Shown::Nothing;
    for key in authorization.chain(bare) {
        found = match (found, key) {
            // What clients send that were given an empty key.
            (_, Some("")) => found,
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
            ("authorization", "Bearer k"),
            ("authorization", "bearer  k "),
            ("x-api-key", "k"),
            ("api-key", "k"),
            ("x-goog-api-key", "k"),
        ] {
            check(&[field], Shown::One("k"));
        }
        check(&[("authorization", "Bearer k"), ("x-api-key", "k")], Shown::One("k"));
    }

    #[test]
    fn nothing_is_guessed() {
        check(&[("authorization", "Bearer k"), ("x-api-key", "other")], Shown::Unclear);
        check(&[("x-api-key", "k"), ("x-api-key", "other")], Shown::Unclear);
        check(&[("authorization", "Basic dXNlcjpwYXNz")], Shown::Unclear);
        check(&[("authorization", "k")], Shown::Unclear);
        let mut headers = HeaderMap::new();
        let value = axum::http::HeaderValue::from_bytes(b"\xff\xfe").unwrap();
        headers.insert("x-api-key", value);
        assert_eq!(shown(&headers), Shown::Unclear);
    }
}

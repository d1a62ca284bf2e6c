//! Which page asks.

use axum::http::Method;
use axum::http::header::{HeaderMap, HeaderValue, ORIGIN};

use super::Peer;

/// The page that asks, where one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// None: no browser, or no page's script.
    None,
    /// Our own.
    Ours,
    /// One that was configured.
    Allowed(HeaderValue),
}

/// Decides. `host` is the name that was called, already known to be ours.
///
/// # Errors
/// The page may not ask; why, for the caller.
pub(crate) fn check(
    (method, headers): (&Method, &HeaderMap),
    peer: &Peer,
    host: &str,
    allowed: &[String],
) -> Result<Page, &'static str> {
    let page = page(headers, peer, host, allowed)?;
    let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if changes {
        own_site(headers, &page)?;
    }
    Ok(page)
}

/// What only our own pages and those on the list may ask: also by a link or an image, which have no origin.
///
/// # Errors
/// A page of another site asks; why it may not, for the caller.
pub(crate) fn own_site(headers: &HeaderMap, page: &Page) -> Result<(), &'static str> {
    let foreign = headers.get_all("sec-fetch-site").iter().any(|site| site == "cross-site");
    match foreign && !matches!(page, Page::Allowed(_)) {
        true => Err("a page of another site may not ask this"),
        false => Ok(()),
    }
}

fn page(
    headers: &HeaderMap,
    peer: &Peer,
    host: &str,
    allowed: &[String],
) -> Result<Page, &'static str> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(Page::None) };
    let text = origin.to_str().unwrap_or("null");
    // `null` is what sandboxed frames and files say: anybody's.
    if origins.next().is_some() || text == "null" {
        return Err("this page may not ask");
    }
    if text == format!("{}://{host}", peer.scheme()) {
        return Ok(Page::Ours);
    }
    if allowed.iter().any(|known| known == text) {
        return Ok(Page::Allowed(origin.clone()));
    }
    Err("this page may not ask: its origin is not on the list of allowed ones")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &Method, fields: &[(&'static str, &str)]) -> Result<Page, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let allowed = ["https://app.example".to_owned(), "null".to_owned()];
        check((method, &headers), &Peer::local(11434), "localhost:11434", &allowed)
    }

    #[test]
    fn pages_that_are_allowed_may_ask() {
        let get = |fields: &[(&'static str, &str)]| ask(&Method::POST, fields);
        assert_eq!(get(&[]), Ok(Page::None));
        assert_eq!(get(&[("origin", "http://localhost:11434")]), Ok(Page::Ours));
        let allowed = Page::Allowed(HeaderValue::from_static("https://app.example"));
        assert_eq!(get(&[("origin", "https://app.example")]), Ok(allowed.clone()));
        let both = [("origin", "https://app.example"), ("sec-fetch-site", "cross-site")];
        assert_eq!(get(&both), Ok(allowed));
    }

    #[test]
    fn other_pages_may_not() {
        for origin in [
            "null",
            "https://evil.example",
            "https://app.example.evil.example",
            "http://app.example",
            "https://app.example:8443",
            "https://localhost:11434",
            "http://localhost",
            "http://127.0.0.1:11434",
            "HTTPS://app.example",
            "",
        ] {
            assert!(ask(&Method::GET, &[("origin", origin)]).is_err(), "{origin}");
        }
        let twice = [("origin", "https://app.example"), ("origin", "https://app.example")];
        assert!(ask(&Method::GET, &twice).is_err());
    }

    #[test]
    fn another_site_changes_nothing_even_without_an_origin() {
        let foreign = [("sec-fetch-site", "cross-site")];
        assert!(ask(&Method::POST, &foreign).is_err());
        assert!(ask(&Method::DELETE, &foreign).is_err());
        assert!(ask(&Method::GET, &foreign).is_ok());
        assert!(ask(&Method::POST, &[("sec-fetch-site", "same-origin")]).is_ok());
    }
}

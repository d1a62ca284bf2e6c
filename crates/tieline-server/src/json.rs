//! JSON bodies: bounded, declared as JSON, and every member that nobody reads is named.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::BytesMut;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::error::{ApiError, Fault};
use crate::picture;

/// A body of which nothing comes for so long is given up.
const BODY_IDLE: Duration = Duration::from_secs(15);

/// Ignored members that are named at most.
const NAMED: usize = 16;

/// A body that was read, and beside it those of its members that several routes share. They are read in a
/// second pass: serde's `flatten` would hide which members nobody reads.
#[derive(Debug)]
pub(crate) struct Json<T, S = Nothing> {
    pub(crate) value: T,
    pub(crate) shared: S,
    /// Members that nobody reads here.
    pub(crate) ignored: Vec<String>,
}

/// No shared members.
#[derive(Debug, Deserialize)]
pub(crate) struct Nothing {}

impl<T: DeserializeOwned, S: DeserializeOwned> FromRequest<App> for Json<T, S> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        if !is_json(&head.headers) && !is_undeclared(&head) {
            let text = "the body must be declared as JSON: Content-Type: application/json";
            return Err(ApiError::new(Fault::NotJson, text));
        }
        let limits = &app.config().limits;
        let size = |bytes: tieline_types::Bytes| usize::try_from(bytes.0).unwrap_or(usize::MAX);
        let most = size(limits.body);
        if !picture::may_come(head.uri.path()) {
            let bytes = read_within(limits.request, body, most).await?;
            return parse(&bytes, limits.depth);
        }
        let bytes = read_within(limits.request, body, size(limits.with_pictures())).await?;
        if bytes.len() > most && bytes.len() - picture::bytes_in(&bytes) > most {
            return Err(too_long(most, " beside its pictures"));
        }
        parse(&bytes, limits.depth)
    }
}

/// Whether it is a body without a type of a client of Ollama's, some of which declare none. A page can send such
/// a body too, but not without saying that it is a page.
fn is_undeclared(head: &Parts) -> bool {
    let says = |name: &str| head.headers.contains_key(name);
    head.uri.path().starts_with("/api/")
        && !["content-type", "origin", "sec-fetch-site", "referer"].into_iter().any(says)
}

/// Whether a body is declared as JSON: what a page of another site cannot do without being asked.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let Some(declared) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let media = declared.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("application/json")
        || (media.len() > 5 && media[media.len() - 5..].eq_ignore_ascii_case("+json"))
}

/// The whole body, within this time: a byte now and then would keep a place for days.
async fn read_within(time: Duration, body: Body, most: usize) -> Result<Bytes, ApiError> {
    tokio::time::timeout(time, read(body, most)).await.unwrap_or_else(|_| {
        let text = format!("the body did not come within {} seconds", time.as_secs());
        Err(ApiError::new(Fault::SlowBody, text))
    })
}

/// The whole body, up to `most` bytes.
pub(crate) async fn read(body: Body, most: usize) -> Result<Bytes, ApiError> {
    let mut body = Limited::new(body, most);
    let mut bytes = BytesMut::new();
    loop {
        match idle(body.frame()).await? {
            None => return Ok(bytes.freeze()),
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(too_long(most, ""));
            }
            Some(Err(_)) => return Err(ApiError::new(Fault::BadBody, "the body broke off")),
        }
    }
}

fn too_long(most: usize, of: &str) -> ApiError {
    let text =
        format!("the body is longer than {most} bytes{of}: tieline serve --max-body allows more");
    ApiError::new(Fault::TooLarge, text)
}

/// What comes of a body next, unless nothing comes for too long.
pub(crate) async fn idle<T>(next: impl Future<Output = T>) -> Result<T, ApiError> {
    tokio::time::timeout(BODY_IDLE, next).await.map_err(|_| {
        let text = format!("nothing of the body came for {} seconds", BODY_IDLE.as_secs());
        ApiError::new(Fault::SlowBody, text)
    })
}

/// Reads JSON of this form.
pub(crate) fn parse<T: DeserializeOwned, S: DeserializeOwned>(
    bytes: &[u8],
    depth: usize,
) -> Result<Json<T, S>, ApiError> {
    if is_deeper(bytes, depth) {
        return Err(ApiError::new(Fault::BadBody, format!("the body nests deeper than {depth}")));
    }
    let (value, mut ignored) = read_form(bytes)?;
    let (shared, others) = read_form(bytes)?;
    ignored.retain(|name: &String| others.contains(name));
    ignored.truncate(NAMED);
    Ok(Json { value, shared, ignored })
}

/// A form, and the members that it does not read.
fn read_form<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<String>), ApiError> {
    // One form's may be many, and be read by the other.
    const MOST: usize = 256;
    let mut ignored = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_ignored::deserialize(&mut reader, |path| {
        if ignored.len() < MOST {
            ignored.push(name(&path));
        }
    });
    let value = value.and_then(|value| reader.end().map(|()| value));
    let told = |error| {
        ApiError::new(Fault::BadBody, format!("the body is not as expected: {}", tell(&error)))
    };
    Ok((value.map_err(told)?, ignored))
}

/// A member's path, fit for a header.
fn name(path: &serde_ignored::Path<'_>) -> String {
    path.to_string().chars().filter(|c| c.is_ascii_graphic()).take(100).collect()
}

/// serde's words without what the caller wrote, which may be a prompt: only what was expected, and where.
fn tell(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // The last: the caller's own text may hold these words too.
    match text.rfind(", expected ") {
        Some(at) => text[at + 2..].to_owned(),
        None if text.starts_with("unknown variant") => {
            "a word that is none of those known".to_owned()
        }
        None => text,
    }
}

/// Whether brackets nest deeper than `most`, strings left out.
fn is_deeper(bytes: &[u8], most: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Form {
        #[expect(dead_code, reason = "only its name matters")]
        known: u32,
    }

    #[derive(Debug, Deserialize)]
    struct Shared {
        common: u32,
    }

    #[test]
    fn members_that_nobody_reads_are_named() {
        let text = br#"{"known":1,"other":2,"more":{"x":1},"common":3}"#;
        let read: Json<Form> = parse(text, 64).unwrap();
        assert_eq!(read.ignored, ["other", "more", "common"]);
        let read: Json<Form, Shared> = parse(text, 64).unwrap();
        assert_eq!(read.shared.common, 3);
        assert_eq!(read.ignored, ["other", "more"]);
    }

    #[test]
    fn depth_is_bounded_at_its_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse::<Value, Value>(nested(64).as_bytes(), 64).is_ok());
        assert_eq!(
            parse::<Value, Value>(nested(65).as_bytes(), 64).unwrap_err().message,
            "the body nests deeper than 64"
        );
        let quoted = format!("\"{}\"", "[".repeat(100));
        assert!(parse::<Value, Value>(quoted.as_bytes(), 64).is_ok());
    }

    #[test]
    fn what_the_caller_wrote_is_not_repeated() {
        for text in ["CANARY", "x, expected CANARY"] {
            let body = format!(r#"{{"known":"{text}"}}"#);
            let error = parse::<Form, Nothing>(body.as_bytes(), 64).unwrap_err();
            assert!(!error.message.contains("CANARY"), "{}", error.message);
        }
        assert!(parse::<Form, Nothing>(br#"{"known":1} CANARY"#, 64).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up() {
        let drips = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(14)).await;
            Some((Ok::<_, std::convert::Infallible>(" "), ()))
        });
        let begun = tokio::time::Instant::now();
        let read = read_within(Duration::from_secs(600), Body::from_stream(drips), 1 << 20);
        assert_eq!(read.await.unwrap_err().fault, Fault::SlowBody);
        assert_eq!(begun.elapsed().as_secs(), 600);
    }

    #[test]
    fn a_client_of_ollamas_need_not_declare_json_and_a_page_must() {
        let check = |path: &str, header: Option<(&'static str, &str)>, want: bool| {
            let mut request = axum::http::Request::post(path);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(is_undeclared(&head), want, "{path} {header:?}");
        };
        check("/api/chat", None, true);
        check("/v1/chat/completions", None, false);
        check("/api/chat", Some(("content-type", "text/plain")), false);
        check("/api/chat", Some(("origin", "https://a.example")), false);
        check("/api/chat", Some(("sec-fetch-site", "cross-site")), false);
    }

    #[test]
    fn json_is_declared_in_several_ways() {
        let check = |value: &str, want: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            assert_eq!(is_json(&headers), want, "{value}");
        };
        check("application/json", true);
        check("Application/JSON; charset=utf-8", true);
        check("application/vnd.api+json", true);
        check("text/plain", false);
        check("application/x-www-form-urlencoded", false);
        assert!(!is_json(&HeaderMap::new()));
    }
}

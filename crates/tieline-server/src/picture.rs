//! Pictures as callers send them: checked, never looked at, never fetched.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tieline_types::{Picture, PictureKind, PictureSource};

use crate::error::ApiError;

/// What a picture may be, for whoever sent another.
const KINDS: &str = "expected a PNG, JPEG, GIF or WebP";

/// Where pictures may come.
pub(crate) fn may_come(path: &str) -> bool {
    matches!(
        path,
        "/v1/chat/completions"
            | "/api/v0/chat/completions"
            | "/v1/responses"
            | "/v1/responses/input_tokens"
            | "/v1/messages"
            | "/v1/messages/count_tokens"
            | "/api/chat"
            | "/api/generate"
    )
}

/// How many bytes of this JSON are pictures' base64, by how their texts begin: whether they are pictures is seen where
/// they are read.
pub(crate) fn bytes_in(json: &[u8]) -> usize {
    let (mut pictures, mut rest) = (0, json);
    while let Some(begins) = rest.iter().position(|&byte| byte == b'"') {
        rest = &rest[begins + 1..];
        let length = text_length(rest);
        if begins_as_picture(&rest[..length]) {
            pictures += length;
        }
        rest = rest.get(length + 1..).unwrap_or_default();
    }
    pictures
}

/// How long a text of JSON is that begins here, up to its closing quote.
fn text_length(json: &[u8]) -> usize {
    let mut escaped = false;
    let ends = json.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    ends.unwrap_or(json.len())
}

/// Whether a text of JSON begins as the base64 of a PNG, JPEG, GIF or WebP, or as a URL of such. Some writers of JSON
/// escape a slash.
fn begins_as_picture(text: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 4] = [b"iVBORw0KGgo", b"/9j/", b"R0lGOD", b"UklGR"];
    let begins = text.iter().copied().filter(|&byte| byte != b'\\').take(64).collect::<Vec<u8>>();
    let base64 = match begins.strip_prefix(b"data:") {
        Some(url) => {
            let comma = url.iter().position(|&byte| byte == b',');
            comma.map_or(&[][..], |comma| &url[comma + 1..])
        }
        None => &begins,
    };
    BEGINNINGS.iter().any(|beginning| base64.starts_with(beginning))
}

/// A picture's bytes, in base64. Its bytes say what it is; a media type that is none of a picture's is refused.
pub(crate) fn from_base64(
    param: &str,
    media_type: Option<&str>,
    base64: String,
) -> Result<PictureSource, ApiError> {
    if let Some(other) = media_type.filter(|word| !is_known(word)) {
        let word: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
        let text = format!("{param} is of media type {word:?}: {KINDS}");
        return Err(ApiError::unsupported(param, text));
    }
    if base64.len() > Picture::MAX_BYTES.div_ceil(3) * 4 {
        let most = Picture::MAX_BYTES >> 20;
        let text = format!("{param} is too large: expected at most {most} MiB");
        return Err(ApiError::invalid(param, text));
    }
    // The decoder's own words may repeat a part of it.
    let bytes = STANDARD
        .decode(&base64)
        .map_err(|_| ApiError::invalid(param, format!("{param} is no base64 with padding")))?;
    match PictureKind::of(&bytes) {
        Some(kind) => Ok(PictureSource::Bytes { kind, base64: base64.into() }),
        None => Err(ApiError::unsupported(param, format!("{param} is no picture: {KINDS}"))),
    }
}

fn is_known(media_type: &str) -> bool {
    let known = ["image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp"];
    known.iter().any(|known| media_type.eq_ignore_ascii_case(known))
}

/// A picture's URL: its bytes as `data:`, or a link.
pub(crate) fn from_url(param: &str, url: &str) -> Result<PictureSource, ApiError> {
    let begins =
        |start: &str| url.get(..start.len()).is_some_and(|is| is.eq_ignore_ascii_case(start));
    if begins("data:") {
        let (kind, base64) = url[5..].split_once(',').unwrap_or_default();
        return match kind.strip_suffix(";base64") {
            Some(media_type) => from_base64(param, Some(media_type), base64.to_owned()),
            None => Err(ApiError::invalid(param, format!("{param} is a data URL without base64"))),
        };
    }
    link(param, url)
}

/// A link: whoever answers may fetch it, and nobody here does.
pub(crate) fn link(param: &str, url: &str) -> Result<PictureSource, ApiError> {
    let plain = url.chars().all(|c| c.is_ascii_graphic());
    let fits = (9..=Picture::MAX_LINK_BYTES).contains(&url.len());
    if fits && plain && url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://")) {
        return Ok(PictureSource::Link(url.into()));
    }
    let text = format!("{param} is no URL of a picture: expected data: or https:");
    Err(ApiError::invalid(param, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a PNG.
    const PNG: &str = "iVBORw0KGgo=";

    #[test]
    fn a_url_holds_the_bytes_or_leads_to_them() {
        let want = PictureSource::Bytes { kind: PictureKind::Png, base64: PNG.into() };
        for media_type in ["image/png", "IMAGE/PNG", "image/jpg"] {
            let url = format!("data:{media_type};base64,{PNG}");
            assert_eq!(from_url("x", &url).unwrap(), want);
        }
        let url = "https://example.org/a.png?b=c";
        assert_eq!(from_url("x", url).unwrap(), PictureSource::Link(url.into()));
    }

    #[test]
    fn the_bytes_of_pictures_are_told_from_others() {
        for (json, want) in [
            (r#"{"images":["iVBORw0KGgo=","R0lGODlh"],"x":"iV"}"#, 20),
            (r#"{"url":"data:image/jpeg;base64,/9j/AA"}"#, 29),
            (r#"["\/9j\/AA", "UklGRg\"", "a\\", "UklGR"]"#, 8 + 8 + 5),
            (r#"["data:image/png", "data:text/plain,x", "", "xiVBORw0KGgo"]"#, 0),
            (r#"["UklGRg"#, 6),
            ("", 0),
        ] {
            assert_eq!(bytes_in(json.as_bytes()), want, "{json}");
        }
    }

    #[test]
    fn they_come_on_routes_that_are_there() {
        let table = crate::table::table();
        let routes = table.iter().filter(|route| may_come(route.path));
        assert_eq!(routes.count(), 8);
    }

    #[test]
    fn what_is_no_picture_is_refused_and_not_repeated() {
        let long = format!("https://{}", "x".repeat(Picture::MAX_LINK_BYTES));
        for url in [
            "",
            "http://example.org/a.png",
            "file:///etc/passwd",
            "https://",
            "https://a b",
            "https://a\nb",
            &long,
            "data:image/png,CANARY",
            "data:image/png;base64,CANARY!",
            "data:image/png;base64,iVBORw0KGgo",
            "data:image/png;base64,",
            "data:image/svg+xml;base64,PHN2Zz4=",
            "data:image/png;base64,PHN2Zz4=",
        ] {
            let error = from_url("x", url).unwrap_err();
            assert!(!error.message.contains("CANARY"), "{}", error.message);
        }
        let most =
            STANDARD.encode([b"\xff\xd8\xff".as_slice(), &vec![0; Picture::MAX_BYTES]].concat());
        assert!(from_base64("x", None, most).unwrap_err().message.contains("too large"));
    }
}

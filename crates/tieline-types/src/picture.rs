//! Pictures in a conversation. Nobody here looks at one, and nobody fetches one.

use crate::Private;

/// A picture in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The byte of the message's text before which it stands.
    pub at: usize,
    /// Where it is.
    pub source: PictureSource,
    /// How closely a model is to look; `None`: as its vendor does.
    pub detail: Option<Detail>,
}

/// Where a picture is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PictureSource {
    /// Here.
    Bytes {
        /// What it is.
        kind: PictureKind,
        /// Its bytes, in base64 with padding, RFC 4648 §4.
        base64: Private,
    },
    /// Elsewhere: an `https` URL, which tells something by itself.
    Link(Private),
}

/// What a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureKind {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// GIF.
    Gif,
    /// WebP.
    Webp,
}

/// How closely a model is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// From afar: few tokens.
    Low,
    /// Closely: many.
    High,
}

impl Detail {
    /// OpenAI's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
        }
    }
}

impl PictureKind {
    /// What these bytes are, by how they begin. `None`: none of these.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            _ => None,
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
        }
    }
}

impl Picture {
    /// The most pictures in a request: Anthropic's limit, which is the least.
    pub const MAX: usize = 100;
    /// The most bytes of one, before base64: Anthropic's limit, which is the least.
    pub const MAX_BYTES: usize = 5 << 20;
    /// The longest link, in bytes.
    pub const MAX_LINK_BYTES: usize = 8192;

    /// What leaves of it, in bytes: its base64, or its link.
    pub fn bytes(&self) -> usize {
        match &self.source {
            PictureSource::Bytes { base64, .. } => base64.expose().len(),
            PictureSource::Link(url) => url.expose().len(),
        }
    }

    /// It as one URL: its link, or its bytes as `data:`, RFC 2397.
    pub fn url(&self) -> String {
        match &self.source {
            PictureSource::Bytes { kind, base64 } => {
                format!("data:{};base64,{}", kind.media_type(), base64.expose())
            }
            PictureSource::Link(url) => url.expose().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_how_they_begin() {
        for (bytes, want) in [
            (b"\x89PNG\r\n\x1a\nxx".as_slice(), Some(PictureKind::Png)),
            (b"\xff\xd8\xff\xe0", Some(PictureKind::Jpeg)),
            (b"GIF89a..", Some(PictureKind::Gif)),
            (b"RIFF\x01\x02\x03\x04WEBPVP8 ", Some(PictureKind::Webp)),
            (b"RIFF\x01\x02\x03\x04WAVE", None),
            (b"<svg>", None),
            (b"", None),
        ] {
            assert_eq!(PictureKind::of(bytes), want);
        }
    }

    #[test]
    fn nothing_of_a_picture_is_shown() {
        let source = PictureSource::Bytes { kind: PictureKind::Png, base64: "CANARY".into() };
        let bytes = Picture { at: 0, source, detail: None };
        let source = PictureSource::Link("https://CANARY".into());
        let link = Picture { source, ..bytes.clone() };
        assert!(!format!("{bytes:?}{link:?}").contains("CANARY"));
        assert_eq!(bytes.url(), "data:image/png;base64,CANARY");
        assert_eq!((bytes.bytes(), link.bytes()), (6, 14));
    }
}

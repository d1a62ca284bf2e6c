//! What is in a request, without a word of it: what whoever decides where it may go has to know.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tieline_types::Request;

use crate::detect::{Detectors, Entity};
use crate::surfaces::walk;

/// What was found in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How often each kind of thing was found.
    pub found: BTreeMap<Entity, u32>,
    /// Bytes of text, on all surfaces.
    pub bytes: u64,
    /// Pictures, which nobody looks at.
    pub pictures: u32,
}

/// The detectors failed: nobody knows what is in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the detectors failed")]
pub struct Unknown;

/// Looks through all surfaces of a request. Tokens are no text: nobody knows what is in them.
///
/// # Errors
/// The detectors panicked.
pub fn survey(request: &Request, detectors: &Detectors) -> Result<Survey, Unknown> {
    let look = || {
        let pictures = u32::try_from(request.pictures().count()).unwrap_or(u32::MAX);
        let mut survey = Survey { pictures, ..Survey::default() };
        let Ok(()) = walk::<Infallible>(&mut request.clone(), &mut |_, text| {
            survey.bytes += u64::try_from(text.len()).unwrap_or(u64::MAX);
            for finding in detectors.find(&text) {
                *survey.found.entry(finding.entity).or_default() += 1;
            }
            Ok(text)
        });
        survey
    };
    catch_unwind(AssertUnwindSafe(look)).map_err(|_| Unknown)
}

#[cfg(test)]
mod tests {
    use tieline_types::{Message, Picture, PictureKind, PictureSource, Prompt, Role, Tool};

    use super::*;

    #[test]
    fn every_surface_is_looked_through_and_counted() {
        let messages = vec![
            Message::new(Role::System, "Write to anna@example.org."),
            Message::new(Role::User, "or to bob@example.org, card 4111 1111 1111 1111"),
        ];
        let request = Request {
            tools: vec![Tool {
                name: "mail".to_owned(),
                description: "to carl@example.org".to_owned(),
                parameters: String::new(),
            }],
            ..Request::new(Prompt::Chat(messages))
        };
        let survey = survey(&request, &Detectors::default()).unwrap();
        let found: Vec<_> = survey.found.into_iter().collect();
        assert_eq!(found, [(Entity::Email, 3), (Entity::Card, 1)]);
        assert!(survey.bytes > 80);
    }

    #[test]
    fn a_picture_is_counted_and_its_link_is_text() {
        let link =
            |url: &str| Picture { at: 0, source: PictureSource::Link(url.into()), detail: None };
        let kind = PictureKind::Png;
        let bytes = PictureSource::Bytes { kind, base64: "anna@example.org".into() };
        let bytes = Picture { source: bytes, ..link("") };
        let mut message = Message::new(Role::User, "");
        message.pictures = vec![link("https://a.org/?to=anna@example.org"), bytes];
        let request = Request::new(Prompt::Chat(vec![message]));
        let survey = survey(&request, &Detectors::default()).unwrap();
        assert_eq!((survey.pictures, survey.found[&Entity::Email], survey.bytes), (2, 1, 34));
    }

    #[test]
    fn tokens_are_no_text() {
        let request = Request::new(Prompt::Tokens(vec![1, 2, 3]));
        assert_eq!(survey(&request, &Detectors::default()).unwrap(), Survey::default());
    }
}

//! What is in a request, without a word of it: what whoever decides where it may go has to know.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tieline_types::Request;

use crate::detect::{Detectors, Entity};
use crate::redact::{Format, counted};
use crate::surfaces::walk;

/// What was found in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many things of each kind were found; one that is seen with and without its escapes read is one.
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

/// Looks through all surfaces of a request, with their escapes read. Tokens are no text: nobody knows what is in them.
///
/// # Errors
/// The detectors panicked, or found what is not there.
pub fn survey(request: &Request, detectors: &Detectors) -> Result<Survey, Unknown> {
    let look = || {
        let pictures = u32::try_from(request.pictures().count()).unwrap_or(u32::MAX);
        let mut survey = Survey { pictures, ..Survey::default() };
        walk(&mut request.clone(), &mut |surface, text| {
            survey.bytes += u64::try_from(text.len()).unwrap_or(u64::MAX);
            // As the redaction reads it: what that would hide decides whether the text may leave without it.
            let format = surface.format().unwrap_or(Format::Plain);
            let see = |text: &str| Ok(detectors.find(text));
            for (entity, count) in counted(&see, &text, format).map_err(|_| Unknown)? {
                let all = survey.found.entry(entity).or_default();
                *all = all.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            }
            Ok(text)
        })?;
        Ok(survey)
    };
    catch_unwind(AssertUnwindSafe(look)).unwrap_or(Err(Unknown))
}

#[cfg(test)]
mod tests {
    use tieline_types::{
        Message, Picture, PictureKind, PictureSource, Prompt, Role, Tool, ToolCall,
    };

    use super::*;
    use crate::detect::Dictionary;

    /// What is found in a call of these arguments, and in a result that says the same.
    #[track_caller]
    fn check(json: &str, want: &[(Entity, u32)]) {
        let dictionary = Dictionary { terms: vec!["falke".to_owned(), "Müller".to_owned()] };
        let detectors = Detectors::new(&dictionary).unwrap();
        let mut called = Message::new(Role::Assistant, "");
        let (id, name) = ("call_1".to_owned(), "write".to_owned());
        called.tool_calls = vec![ToolCall { id, name, arguments: json.into() }];
        for message in [called, Message::new(Role::Tool, json)] {
            let request = Request::new(Prompt::Chat(vec![message]));
            let found: Vec<_> = survey(&request, &detectors).unwrap().found.into_iter().collect();
            assert_eq!(found, want, "{json}");
        }
    }

    #[test]
    fn what_stands_right_after_an_escape_is_found() {
        check(r#"{"content":"Card:\n4111 1111 1111 1111"}"#, &[(Entity::Card, 1)]);
        check(r#"{"content":"Card:\t4111 1111 1111 1111\n"}"#, &[(Entity::Card, 1)]);
        check(r#"{"a":"x\nDE89 3704 0044 0532 0130 00"}"#, &[(Entity::Iban, 1)]);
        check(r#"{"a":"with\nfalke and\tfalke"}"#, &[(Entity::Term, 2)]);
        check(r#"{"a":"M\u00fcller"}"#, &[(Entity::Term, 1)]);
        check(r#"{"a":"\u0061nna@example.org\u000abob@example.org"}"#, &[(Entity::Email, 2)]);
        check(r#"{"a":"{\"b\":\"x\\nfalke\"}"}"#, &[(Entity::Term, 1)]);
    }

    #[test]
    fn what_is_seen_more_than_once_counts_once() {
        check(
            r#"{"a":"anna@example.org","n":4111111111111111}"#,
            &[(Entity::Email, 1), (Entity::Card, 1)],
        );
        check(r#"{"a":"to\nanna@example.org"}"#, &[(Entity::Email, 1)]);
        // Read as it is, the password goes on into the card; neither may hide the other.
        check(
            r#"{"content":"password: hunter22\n4111 1111 1111 1111"}"#,
            &[(Entity::Card, 1), (Entity::Secret, 1)],
        );
        check(r#"{"lat": 52.52437, "lng": 13.41053}"#, &[(Entity::Coordinates, 1)]);
    }

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

//! How a user names a model in a registry.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::model_ref::ParseModelRefError;

/// A tag that nobody writes.
const LATEST: &str = "latest";

/// A model in a registry that speaks the OCI distribution protocol: `host[:port]/path[:tag]`.
///
/// The host has a dot or a port, or is `localhost`: else it would be the first step of a path. No text that is
/// accepted climbs out of a path, holds a password, or is read by a URL as more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegistryRef {
    host: String,
    repository: String,
    tag: String,
}

impl RegistryRef {
    /// The host, and its port where one was written.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path of the repository at the host, such as `me/pirate`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The last step of the path.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// The tag; `latest` where none was written.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Whether the tag is the one that needs not be written.
    pub fn is_latest(&self) -> bool {
        self.tag == LATEST
    }

    /// Whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        let name = match self.host.rsplit_once(':') {
            Some((name, port)) if is_port(port) => name,
            _ => &self.host,
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for RegistryRef {
    type Err = ParseModelRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| ParseModelRefError::new(text, problem))
    }
}

pub(crate) fn parse(text: &str) -> Result<RegistryRef, &'static str> {
    if text.len() > 512 {
        return Err("it is longer than 512 bytes");
    }
    let Some((host, path)) = text.split_once('/').filter(|(host, _)| is_host(host)) else {
        return Err("no registry is named: expected HOST[:PORT]/NAMESPACE/NAME[:TAG]");
    };
    let (repository, tag) = path.split_once(':').unwrap_or((path, LATEST));
    if !repository.split('/').all(is_step) {
        return Err("a path in a registry has letters, digits and . _ - in each of its steps");
    }
    if !is_tag(tag) {
        return Err("a tag has letters, digits and . _ - and at most 128 of them");
    }
    let [host, repository, tag] =
        [host.to_ascii_lowercase(), repository.to_owned(), tag.to_owned()];
    Ok(RegistryRef { host, repository, tag })
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let is_v6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_v6 = is_v6.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    let is_name = name.split('.').all(is_label);
    let is_meant = port.is_some() || name.contains('.') || name == "localhost" || is_v6;
    (is_v6 || is_name) && is_meant && port.is_none_or(is_port)
}

fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn is_step(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_plain)
}

fn is_tag(text: &str) -> bool {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    starts_well && text.len() <= 128 && text.chars().all(is_plain)
}

impl fmt::Display for RegistryRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if self.is_latest() { Ok(()) } else { write!(f, ":{}", self.tag) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, want: (&str, &str, &str)) {
        let found: RegistryRef = text.parse().unwrap();
        assert_eq!((found.host(), found.repository(), found.tag()), want);
        assert_eq!(found.to_string().parse(), Ok(found));
    }

    #[test]
    fn every_form_is_read() {
        check("localhost:5000/me/pirate:v1", ("localhost:5000", "me/pirate", "v1"));
        check("localhost/pirate", ("localhost", "pirate", "latest"));
        check("Reg.Example/a/b/c_d:Q4_K_M", ("reg.example", "a/b/c_d", "Q4_K_M"));
        check("box:80/me/x:latest", ("box:80", "me/x", "latest"));
        check("[::1]:5000/me/x", ("[::1]:5000", "me/x", "latest"));
    }

    #[track_caller]
    fn refused(text: &str, problem: &str) {
        let error = text.parse::<RegistryRef>().unwrap_err();
        assert!(error.problem().contains(problem), "{text}: {error}");
    }

    #[test]
    fn bad_forms_say_what_is_wrong() {
        for text in ["", "pirate", "me/pirate", "/x/y", "box:0/x", "box:99999/x", "box:+1/x"] {
            refused(text, "no registry is named");
        }
        for text in ["me:pw@reg.example/a/b", "https://reg.example/a", "a..b/x", "-a.b/x", "[::1/x"]
        {
            refused(text, "no registry is named");
        }
        for text in ["reg.example/", "reg.example/a//b", "reg.example/../b", "reg.example/a?x"] {
            refused(text, "each of its steps");
        }
        for text in ["reg.example/a:", "reg.example/a:b/c", "reg.example/a:-b", "reg.example/a:b:c"]
        {
            refused(text, "a tag has");
        }
        refused(&format!("reg.example/a:{}", "t".repeat(129)), "a tag has");
        refused(&format!("reg.example/{}", "a".repeat(600)), "longer");
    }

    #[test]
    fn this_machine_is_known() {
        let is_loopback = |text: &str| text.parse::<RegistryRef>().unwrap().is_loopback();
        for text in ["localhost/x", "localhost:1/x", "127.0.0.1:5000/x", "127.1.2.3/x", "[::1]/x"] {
            assert!(is_loopback(text), "{text}");
        }
        for text in ["reg.example/x", "10.0.0.1:80/x", "localhost.evil.example/x", "[::2]:1/x"] {
            assert!(!is_loopback(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_never_climbs(text in "[a-zA-Z0-9.:/_\\[\\]-]{0,40}") {
            if let Ok(found) = text.parse::<RegistryRef>() {
                prop_assert!(found.repository().split('/').all(|step| step != ".." && !step.is_empty()));
                prop_assert_eq!(found.to_string().parse(), Ok(found));
            }
        }
    }
}

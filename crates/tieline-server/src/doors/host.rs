//! Whether a request calls us by one of our names. A page of another site that has its own name point to this
//! machine still sends its own name.

use axum::http::header::HOST;
use axum::http::{HeaderMap, Uri};

use super::Peer;

const OURS: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// The name called, where it is one of ours: in small letters, as a page's origin would have it.
///
/// `names` are names that were configured, `name` or `name:port`.
///
/// # Errors
/// Why it is not, for the caller.
pub(crate) fn check(
    headers: &HeaderMap,
    uri: &Uri,
    peer: &Peer,
    names: &[String],
) -> Result<String, &'static str> {
    let mut values = headers.get_all(HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err("a request names its host exactly once");
    };
    let text = value.to_str().map_err(|_| "the host is no name")?;
    if uri.authority().is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(text)) {
        return Err("the request's line and its Host header name different hosts");
    }
    let text = text.to_ascii_lowercase();
    let (name, port) = split(&text).ok_or("the host is no name")?;
    let usual = peer.port == peer.usual_port();
    let is_called = |port: Option<u16>| port.map_or(usual, |port| port == peer.port);
    let ours = OURS.contains(&name) && is_called(port);
    if ours || names.iter().any(|configured| is(configured, (name, port), peer)) {
        return Ok(text);
    }
    Err("this server has another name: call it by an address that it was told of")
}

/// Whether it is the configured name. Without a port it is that name behind a proxy, or with our own port.
fn is(configured: &str, (name, port): (&str, Option<u16>), peer: &Peer) -> bool {
    let configured = configured.to_ascii_lowercase();
    match split(&configured) {
        Some((known, Some(its))) => known == name && port == Some(its),
        Some((known, None)) => known == name && port.is_none_or(|port| port == peer.port),
        None => false,
    }
}

/// Name and port; one dot at the name's end is left out. `None`: it is neither a name nor an address.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            (&text[..end + 2], &rest[end + 1..])
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        Some(_) => return None,
        None if port.is_empty() => None,
        None => return None,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let plain = name.bytes().all(known);
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = address.is_some_and(|a| a.parse::<std::net::Ipv6Addr>().is_ok());
    (!name.is_empty() && (plain || address)).then_some((name, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(hosts: &[&str], uri: &str, peer: &Peer) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        let names = ["box.lan".to_owned(), "ai.example:8443".to_owned()];
        check(&headers, &uri.parse().unwrap(), peer, &names).is_ok()
    }

    #[track_caller]
    fn check_host(host: &str, want: bool) {
        assert_eq!(ask(&[host], "/", &Peer::local(11434)), want, "{host}");
    }

    #[test]
    fn our_names_are_ours() {
        for host in ["127.0.0.1", "localhost", "[::1]", "LocalHost", "localhost.", "box.lan."] {
            check_host(&format!("{host}:11434"), true);
        }
        check_host("box.lan", true);
        check_host("ai.example:8443", true);
    }

    #[test]
    fn other_names_are_not() {
        for host in [
            "evil.example:11434",
            "localhost",
            "localhost:80",
            "localhost:114340",
            "localhost:",
            "localhost:+11434",
            "localhost..:11434",
            "localhost.evil.example:11434",
            "127.0.0.1.nip.io:11434",
            "127.1:11434",
            "2130706433:11434",
            "0.0.0.0:11434",
            "[::]:11434",
            "[::ffff:127.0.0.1]:11434",
            "::1:11434",
            "user@localhost:11434",
            "localhost:11434@evil.example",
            "localhost:11434/x",
            "local host:11434",
            "",
            ":11434",
            "[]:11434",
            "[::1:11434",
            "box.lan:1",
            "ai.example",
            "ai.example:11434",
            "box.lan.evil.example",
        ] {
            check_host(host, false);
        }
    }

    #[test]
    fn a_host_is_named_exactly_once() {
        let peer = Peer::local(11434);
        assert!(!ask(&[], "/", &peer));
        assert!(!ask(&["localhost:11434", "localhost:11434"], "/", &peer));
        assert!(!ask(&["localhost:11434", "evil.example"], "/", &peer));
    }

    #[test]
    fn the_request_line_names_no_other_host() {
        let peer = Peer::local(11434);
        assert!(ask(&["localhost:11434"], "http://localhost:11434/x", &peer));
        assert!(!ask(&["localhost:11434"], "http://evil.example/x", &peer));
        assert!(!ask(&["localhost:11434"], "http://user@localhost:11434/x", &peer));
    }

    #[test]
    fn the_usual_port_need_not_be_named() {
        let peer = Peer { tls: true, ..Peer::local(443) };
        assert!(ask(&["localhost"], "/", &peer));
        assert!(!ask(&["localhost"], "/", &Peer { tls: true, ..Peer::local(80) }));
    }
}

//! Addresses and connection strings with a password in them.

use std::ops::Range;

use super::cue::Cue;
use super::entity::Entity;
use super::secret::is_placeholder;
use super::text::{Candidate, Text};

/// The longest address or connection string that is looked at, in bytes.
const LONGEST: usize = 1024;

/// Schemes by which programs reach databases, queues and directories.
const SOURCES: [&str; 26] = [
    "postgres",
    "postgresql",
    "mysql",
    "mariadb",
    "mongodb",
    "redis",
    "rediss",
    "amqp",
    "amqps",
    "mssql",
    "sqlserver",
    "oracle",
    "clickhouse",
    "cockroachdb",
    "kafka",
    "nats",
    "ldap",
    "ldaps",
    "cassandra",
    "neo4j",
    "bolt",
    "couchdb",
    "memcached",
    "influxdb",
    "snowflake",
    "db2",
];

/// Keys whose value is the password of a connection string.
const KEYS: [&str; 6] =
    ["password=", "pwd=", "accountkey=", "sharedaccesskey=", "accesskey=", "passwd="];

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    let mut end = 0;
    for hit in &text.hits {
        if hit.cue == Cue::Scheme {
            out.extend(with_user(text, hit.start, hit.end));
        } else if hit.cue == Cue::Source && hit.start >= end {
            let found = source(text, hit.start);
            // What this line holds, it holds for the cues that follow in it too.
            let line = text.ahead(hit.start, LONGEST).iter().take_while(|byte| **byte != b'\n');
            end = found.as_ref().map_or(hit.start + line.count(), |found| found.range.end);
            out.extend(found);
        }
    }
}

/// `scheme://user:password@host…` around a `://`.
fn with_user(text: &Text<'_>, start: usize, end: usize) -> Option<Candidate> {
    let belongs = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let scheme =
        text.bytes()[..start].iter().rev().take(24).take_while(|byte| belongs(byte)).count();
    let rest = text.ahead(end, LONGEST);
    let whole = rest.iter().take_while(|byte| !ends_address(**byte)).count();
    let host = rest[..whole].iter().take_while(|byte| !matches!(byte, b'/' | b'?' | b'#')).count();
    // A password may hold a slash that nobody escaped.
    let at = rest[..host].iter().rposition(|byte| *byte == b'@');
    let at = at.or_else(|| rest[..whole].iter().position(|byte| *byte == b'@'))?;
    let colon = rest[..at].iter().position(|byte| *byte == b':')?;
    let password = std::str::from_utf8(&rest[colon + 1..at]).ok()?;
    if scheme == 0 || password.is_empty() || password.contains("//") || is_placeholder(password) {
        return None;
    }
    let len = whole - rest[..whole].iter().rev().take_while(|byte| trails(**byte)).count();
    let name = text.str[start - scheme..start].to_ascii_lowercase();
    let base = name.split('+').next().unwrap_or_default();
    let entity =
        if SOURCES.contains(&base) { Entity::ConnectionString } else { Entity::CredentialUrl };
    (len > at).then(|| Candidate { range: start - scheme..end + len, entity })
}

fn ends_address(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`' | b'\\' | b'|')
}

fn trails(byte: u8) -> bool {
    matches!(byte, b'.' | b',' | b';' | b')' | b']' | b'}' | b':' | b'!' | b'?')
}

/// `Server=…;…;Password=…`, `host=… password=…` and `jdbc:…?password=…`.
fn source(text: &Text<'_>, start: usize) -> Option<Candidate> {
    let rest = text.ahead(start, LONGEST);
    let line = rest
        .iter()
        .take_while(|byte| !matches!(byte, b'\n' | b'\r' | b'"' | b'\'' | b'`' | b'<'))
        .count();
    let lower = rest[..line].to_ascii_lowercase();
    let key =
        KEYS.iter().filter_map(|key| position(&lower, key.as_bytes())).min_by_key(|at| at.start)?;
    let whole = if lower[..key.start].contains(&b';') && !lower.starts_with(b"jdbc:") {
        pairs(&lower, b';')
    } else if lower.starts_with(b"jdbc:") {
        lower.iter().take_while(|byte| !byte.is_ascii_whitespace()).count()
    } else {
        pairs(&lower, b' ')
    };
    let value: Vec<u8> =
        rest[key.end..].iter().copied().take_while(|byte| !ends_value(*byte)).collect();
    let value = String::from_utf8(value).ok()?;
    let len = whole - rest[..whole].iter().rev().take_while(|byte| trails(**byte)).count();
    let good = key.end < len && !value.is_empty() && !is_placeholder(&value);
    let end = start + len;
    (good && text.str.is_char_boundary(end))
        .then_some(Candidate { range: start..end, entity: Entity::ConnectionString })
}

fn ends_value(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b';' | b'&' | b'"' | b'\'')
}

fn position(line: &[u8], key: &[u8]) -> Option<Range<usize>> {
    let start = line.windows(key.len()).position(|part| part == key)?;
    Some(start..start + key.len())
}

/// How far `key=value` pairs go that are parted so.
fn pairs(line: &[u8], between: u8) -> usize {
    let mut len = 0;
    for pair in line.split_inclusive(|byte| *byte == between) {
        let blank = pair.iter().all(|byte| *byte == b' ' || *byte == between);
        if !pair.contains(&b'=') && !blank {
            break;
        }
        len += pair.len();
    }
    let blanks = line[..len].iter().rev().take_while(|byte| byte.is_ascii_whitespace()).count();
    len - blanks
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::{ConnectionString, CredentialUrl};

    #[test]
    fn addresses_with_passwords() {
        check(
            "see https://bob:s3cr3t@host.example/x?y=1.",
            &[(CredentialUrl, "https://bob:s3cr3t@host.example/x?y=1")],
        );
        check(
            "DB=postgresql+asyncpg://u:p4ss@db:5432/x\n",
            &[(ConnectionString, "postgresql+asyncpg://u:p4ss@db:5432/x")],
        );
        check(
            "redis://:hunter2@cache:6379/0",
            &[(ConnectionString, "redis://:hunter2@cache:6379/0")],
        );
        check(
            "https://example.org:8080/a, postgres://db/x, https://u:${PASS}@h/, ssh://git@h/x",
            &[],
        );
    }

    #[test]
    fn pairs_with_passwords() {
        let net =
            "Server=tcp:db.example,1433;Database=x;User Id=sa;Password=Tr0ub4dor;Encrypt=True;";
        check(&format!("\"{net}\""), &[(ConnectionString, &net[..net.len() - 1])]);
        let dsn = "host=db user=app password=w0rd99 dbname=x";
        check(&format!("dsn: {dsn}\n"), &[(ConnectionString, dsn)]);
        check("Server=localhost;Database=x;Trusted_Connection=True", &[]);
    }
}

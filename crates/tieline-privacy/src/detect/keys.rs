//! Keys and tokens that are known by their form.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::cue::{Cue, Hit};
use super::entity::Entity;
use super::text::{Candidate, Text};

/// Of which signs a key is made after its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signs {
    /// `0-9a-f`.
    Hex,
    /// `0-9A-Z`.
    Great,
    /// `0-9A-Za-z`.
    Plain,
    /// These, `-` and `_`.
    Wide,
    /// These and `.`, `/`, `+`, `=`.
    All,
}

impl Signs {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Hex => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            Self::Great => byte.is_ascii_digit() || byte.is_ascii_uppercase(),
            Self::Plain => byte.is_ascii_alphanumeric(),
            Self::Wide => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Self::All => Self::Wide.has(byte) || matches!(byte, b'.' | b'/' | b'+' | b'='),
        }
    }
}

/// The form of a vendor's keys: what they begin with, and how many signs of which kind follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) prefix: &'static str,
    signs: Signs,
    least: usize,
    most: usize,
}

const fn form(prefix: &'static str, signs: Signs, least: usize, most: usize) -> Form {
    Form { prefix, signs, least, most }
}

/// The longest key that is looked at.
const LONGEST: usize = 600;

use Signs::{All, Great, Hex, Plain, Wide};

/// The forms that we know, as their vendors document them or as their scanners publish them.
pub(super) const FORMS: &[Form] = &[
    form("AKIA", Great, 16, 16),
    form("ASIA", Great, 16, 16),
    form("ABIA", Great, 16, 16),
    form("ACCA", Great, 16, 16),
    form("AIza", Wide, 35, 35),
    form("GOCSPX-", Wide, 28, 28),
    form("ya29.", Wide, 30, LONGEST),
    form("sk-ant-", Wide, 40, 200),
    form("sk-or-v1-", Hex, 64, 64),
    form("sk-proj-", Wide, 40, 220),
    form("sk-svcacct-", Wide, 40, 220),
    form("sk-admin-", Wide, 40, 220),
    form("sk-", Plain, 32, 64),
    form("ghp_", Plain, 36, 255),
    form("gho_", Plain, 36, 255),
    form("ghu_", Plain, 36, 255),
    form("ghs_", Plain, 36, 255),
    form("ghr_", Plain, 36, 255),
    form("github_pat_", Wide, 60, 255),
    form("glpat-", Wide, 20, 64),
    form("gldt-", Wide, 20, 64),
    form("glrt-", Wide, 20, 64),
    form("glcbt-", Wide, 20, 64),
    form("glptt-", Wide, 40, 64),
    form("gloas-", Wide, 40, 80),
    form("xoxb-", Wide, 20, LONGEST),
    form("xoxa-", Wide, 20, LONGEST),
    form("xoxp-", Wide, 20, LONGEST),
    form("xoxr-", Wide, 20, LONGEST),
    form("xoxs-", Wide, 20, LONGEST),
    form("xoxe-", Wide, 20, LONGEST),
    form("xapp-", Wide, 20, LONGEST),
    form("hooks.slack.com/services/T", All, 30, 80),
    form("sk_live_", Plain, 16, 255),
    form("sk_test_", Plain, 16, 255),
    form("rk_live_", Plain, 16, 255),
    form("rk_test_", Plain, 16, 255),
    form("whsec_", All, 24, 80),
    form("hf_", Plain, 30, 40),
    form("api_org_", Plain, 30, 40),
    form("npm_", Plain, 36, 36),
    form("pypi-AgE", Wide, 50, LONGEST),
    form("SG.", All, 60, 70),
    form("SK", Hex, 32, 32),
    form("AC", Hex, 32, 32),
    form("dop_v1_", Hex, 64, 64),
    form("doo_v1_", Hex, 64, 64),
    form("dor_v1_", Hex, 64, 64),
    form("shpat_", Hex, 32, 32),
    form("shpss_", Hex, 32, 32),
    form("shpca_", Hex, 32, 32),
    form("shppa_", Hex, 32, 32),
    form("sq0atp-", Wide, 22, 22),
    form("sq0csp-", Wide, 43, 43),
    form("key-", Hex, 32, 32),
    form("PMAK-", Wide, 50, 64),
    form("lin_api_", Plain, 32, 48),
    form("ntn_", Plain, 40, 50),
    form("secret_", Plain, 43, 43),
    form("gsk_", Plain, 40, 60),
    form("r8_", Plain, 37, 37),
    form("pplx-", Plain, 40, 60),
    form("xai-", Plain, 60, 100),
    form("dapi", Hex, 32, 32),
    form("dp.pt.", Plain, 40, 48),
    form("glsa_", Wide, 41, 41),
    form("glc_", All, 40, LONGEST),
    form("NRAK-", Great, 27, 27),
    form("pscale_tkn_", Wide, 32, 64),
    form("pscale_pw_", Wide, 32, 64),
    form("pul-", Hex, 40, 40),
    form("hvs.", Wide, 24, 200),
    form("hvb.", Wide, 24, 300),
    form("sntrys_", All, 40, LONGEST),
    form("sbp_", Hex, 40, 40),
    form("figd_", Wide, 40, 60),
    form("ATATT3xFfGF0", All, 60, LONGEST),
    form("rubygems_", Hex, 48, 48),
    form("dckr_pat_", Wide, 27, 36),
    form("tvly-", Wide, 28, 64),
    form("AGE-SECRET-KEY-1", Great, 58, 58),
    form("discord.com/api/webhooks/", All, 70, 120),
    form("discordapp.com/api/webhooks/", All, 70, 120),
    form("tl_infer_", Wide, 39, 39),
    form("tl_admin_", Wide, 39, 39),
    form("tl_local_", Wide, 39, 39),
    form("fw_", Plain, 22, 26),
    form("nvapi-", Wide, 60, 80),
    form("csk-", Plain, 40, 60),
    form("jina_", Wide, 50, 80),
    form("pcsk_", Wide, 50, 90),
    form("wandb_v1_", Wide, 40, 120),
    form("co_api_", Plain, 32, 64),
];

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    let mut seen = 0;
    for hit in &text.hits {
        if let Cue::Key(form) = hit.cue {
            out.extend(known(text, *hit, FORMS[form]));
        } else if hit.cue == Cue::Jwt && hit.start >= seen {
            let token = token(text, hit.start);
            seen = hit.start + token.len();
            out.extend(jwt(token, hit.start));
        }
    }
    for number in &text.numbers {
        out.extend(telegram(text, number.start, number.end));
    }
    pem(text, out);
}

fn known(text: &Text<'_>, hit: Hit, form: Form) -> Option<Candidate> {
    if &text.str[hit.start..hit.end] != form.prefix {
        return None;
    }
    let rest = text.ahead(hit.end, LONGEST + 1);
    let mut len = rest.iter().take_while(|byte| form.signs.has(**byte)).count();
    if form.signs == All {
        len -= rest[..len].iter().rev().take_while(|byte| **byte == b'.').count();
    }
    let body = &rest[..len];
    let goes_on = rest.get(len).is_some_and(|byte| Wide.has(*byte));
    let is_mixed = body.iter().any(u8::is_ascii_digit) || len >= 34;
    let fits = (form.least..=form.most).contains(&len) && !goes_on && is_mixed;
    fits.then(|| Candidate { range: hit.start..hit.end + len, entity: Entity::ApiKey })
}

/// `123456789:` and 35 signs: the token of a Telegram bot.
fn telegram(text: &Text<'_>, start: usize, end: usize) -> Option<Candidate> {
    if !(8..=10).contains(&(end - start)) || text.byte(end) != Some(b':') {
        return None;
    }
    let len = text.ahead(end + 1, 36).iter().take_while(|byte| Wide.has(**byte)).count();
    let is_key = len == 35 && text.byte(end + 1) == Some(b'A');
    is_key.then(|| Candidate { range: start..end + 36, entity: Entity::ApiKey })
}

/// The parts of a token at `start`.
fn token<'t>(text: &Text<'t>, start: usize) -> &'t [u8] {
    /// No token that fits into a header is longer.
    const MOST: usize = 16 * 1024;
    let signs = text.ahead(start, MOST);
    &signs[..signs.iter().take_while(|byte| Wide.has(**byte) || **byte == b'.').count()]
}

/// Three (signed) or five (encrypted) parts, the first of which is a header that names its algorithm.
fn jwt(token: &[u8], start: usize) -> Option<Candidate> {
    let len = token.iter().rposition(|byte| *byte != b'.')? + 1;
    let mut parts = token[..len].split(|byte| *byte == b'.');
    let header = BASE64_URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
    let header = String::from_utf8(header).ok()?;
    let rest: Vec<_> = parts.collect();
    let is_full = matches!(rest.len(), 1 | 2 | 4) && rest[0].len() >= 8;
    let is_token = is_full && header.contains("\"alg\"");
    is_token.then(|| Candidate { range: start..start + len, entity: Entity::Jwt })
}

/// From `-----BEGIN … PRIVATE KEY…-----` to its end, or as far as the key's lines go.
fn pem(text: &Text<'_>, out: &mut Vec<Candidate>) {
    let borders = text.hits.iter().filter(|hit| matches!(hit.cue, Cue::Begin | Cue::End));
    let mut open: Option<Hit> = None;
    for hit in borders {
        let begun = open.take();
        if hit.cue == Cue::Begin {
            out.extend(begun.map(|begun| unended(text, begun, hit.start)));
            open = is_private(text, hit.end).then_some(*hit);
        } else if let Some(begun) = begun {
            let line = text.ahead(hit.end, 64);
            let tail = line.windows(5).position(|dashes| dashes == b"-----");
            let end = hit.end + tail.map_or(0, |tail| tail + 5);
            out.push(Candidate { range: begun.start..end, entity: Entity::PrivateKey });
        }
    }
    out.extend(open.map(|begin| unended(text, begin, text.str.len())));
}

fn is_private(text: &Text<'_>, start: usize) -> bool {
    let title = text.ahead(start, 48);
    title.windows(11).any(|words| words == b"PRIVATE KEY")
}

/// A key without its last line: all lines of base64 or headers that follow, before `limit`.
fn unended(text: &Text<'_>, begin: Hit, limit: usize) -> Candidate {
    let body = &text.bytes()[begin.end..limit];
    let belongs = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'+' | b'/' | b'=' | b'\n' | b'\r' | b'-' | b'\\')
    };
    let title =
        body.windows(5).take(64).position(|dashes| dashes == b"-----").map_or(0, |at| at + 5);
    let title =
        if title == 0 { body.iter().take_while(|byte| **byte != b'\n').count() } else { title };
    let len = title + body[title..].iter().take_while(|byte| belongs(byte)).count();
    let kept =
        body[..len].iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |at| at + 1);
    Candidate { range: begin.start..begin.end + floor(&body[..kept]), entity: Entity::PrivateKey }
}

/// How much of `bytes` ends at a border of characters.
fn floor(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.len(),
        Err(fault) => fault.valid_up_to(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::{ApiKey, Jwt, PrivateKey};

    #[test]
    fn keys_of_vendors() {
        let key = format!("AKIA{}", "IOSFODNN7EXAMPLE");
        check(&format!("id {key}."), &[(ApiKey, &key)]);
        let key = format!("ghp_{}", "a1B2".repeat(9));
        check(&format!("x={key}\n"), &[(ApiKey, &key)]);
        let key = format!("110201543:AA{}", "Hd_-9".repeat(6) + "xyz");
        check(&format!("/bot{key}/send"), &[(ApiKey, &key)]);
        check("AKIA is a prefix, ghp_short too, task_AC12", &[]);
    }

    #[test]
    fn a_token_has_a_header() {
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
        check(&format!("Bearer {token},"), &[(Jwt, token)]);
        check("eyJub3QiOjF9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", &[]);
    }

    #[test]
    fn pem_blocks() {
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIB\nAAAA\n-----END RSA PRIVATE KEY-----";
        check(&format!("a\n{key}\nb"), &[(PrivateKey, key)]);
        let cut = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\nAAAA";
        check(&format!("{cut}\n\nso"), &[(PrivateKey, &format!("{cut}\n\nso"))]);
        check("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", &[]);
    }
}

//! Words and prefixes that tell what stands beside them, found in one pass by one automaton.

mod words;

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::keys::FORMS;

/// What a word or prefix tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cue {
    /// A date of birth follows, or goes before.
    Birth,
    /// A telephone number follows.
    Phone,
    /// A password follows.
    Password,
    /// A random value follows.
    Token,
    /// `Bearer` or `Basic`: credentials follow after a blank.
    Bearer,
    /// `-u` of a command: a user and a password follow.
    Login,
    /// A number of this state's follows.
    State(State),
    /// A road in front of its name: `rue`, `calle`.
    RoadBefore,
    /// A road after its name: `straße`, `gatan`.
    RoadAfter,
    /// A Japanese prefecture, or its postal mark.
    Prefecture,
    /// A place on the globe follows.
    Globe,
    /// `://`.
    Scheme,
    /// `jdbc:`, `Server=` and the like.
    Source,
    /// `-----BEGIN `.
    Begin,
    /// `-----END `.
    End,
    /// `eyJ`, which is `{"` in base64.
    Jwt,
    /// The form of a vendor's key, by its place among [`FORMS`].
    Key(usize),
    /// A folder of home directories.
    Home,
    /// Who wrote a commit or mail follows.
    Author,
    /// An `@` that is written as a word.
    At,
}

/// Numbers that are told from others only by a word beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ssn,
    Nino,
    Nhs,
    Nir,
    SteuerId,
    Dni,
    Bsn,
    Belgian,
    Pesel,
    Cpf,
    Cnpj,
    Aadhaar,
    Pan,
    Personnummer,
    Turkish,
    Nif,
    Sin,
    MyNumber,
    Inn,
    Danish,
}

/// A cue in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) cue: Cue,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The automaton of all cues.
#[derive(Clone, Debug)]
pub(super) struct Cues {
    automaton: AhoCorasick,
    cues: Vec<Cue>,
}

/// The same for everybody, and 4 MB: made for the first text that is looked through.
static ALL: LazyLock<Cues> = LazyLock::new(Cues::new);

impl Cues {
    /// All cues.
    pub(super) fn all() -> &'static Self {
        &ALL
    }

    fn new() -> Self {
        let keys = FORMS.iter().enumerate().map(|(form, known)| (Cue::Key(form), known.prefix));
        let all: Vec<(Cue, &str)> = words::all().chain(keys).collect();
        let mut builder = AhoCorasick::builder();
        builder.ascii_case_insensitive(true).match_kind(MatchKind::Standard);
        let built =
            builder.kind(Some(AhoCorasickKind::DFA)).build(all.iter().map(|(_, word)| word));
        #[expect(clippy::expect_used, reason = "the words are constants, and a test builds them")]
        let automaton = built.expect("few words make a small automaton");
        Self { automaton, cues: all.into_iter().map(|(cue, _)| cue).collect() }
    }

    /// All cues of `text` that stand as words, by where they end.
    pub(super) fn find(&self, text: &str) -> Vec<Hit> {
        let found = self.automaton.find_overlapping_iter(text);
        let hits = found.map(|hit| {
            let cue = self.cues[hit.pattern().as_usize()];
            Hit { cue, start: hit.start(), end: hit.end() }
        });
        hits.filter(|hit| stands(text, *hit)).collect()
    }
}

/// Whether the cue is a word of its own, where it must be one.
fn stands(text: &str, hit: Hit) -> bool {
    match hit.cue {
        Cue::Scheme | Cue::Begin | Cue::End | Cue::At | Cue::Home | Cue::Prefecture => true,
        Cue::RoadAfter => ends_word(text, hit),
        Cue::Jwt | Cue::Key(_) => begins_token(text.as_bytes(), hit.start),
        Cue::RoadBefore | Cue::Source | Cue::Author => begins_word(text, hit),
        Cue::Birth
        | Cue::Phone
        | Cue::Password
        | Cue::Token
        | Cue::Bearer
        | Cue::Login
        | Cue::State(_)
        | Cue::Globe => begins_word(text, hit) && ends_word(text, hit),
    }
}

/// Whether a key may begin here.
fn begins_token(bytes: &[u8], start: usize) -> bool {
    start.checked_sub(1).is_none_or(|before| {
        let byte = bytes[before];
        !byte.is_ascii_alphanumeric() && byte != b'_'
    })
}

/// Whether a word begins with the cue: nothing of a word stands before it, or a small letter before a great one.
fn begins_word(text: &str, hit: Hit) -> bool {
    let Some(first) = text[hit.start..].chars().next() else { return false };
    let Some(last) = text[..hit.start].chars().next_back() else { return true };
    !is_letter(last) || !is_letter(first) || (last.is_lowercase() && first.is_uppercase())
}

/// Whether a word ends with the cue.
fn ends_word(text: &str, hit: Hit) -> bool {
    let Some(last) = text[..hit.end].chars().next_back() else { return false };
    let Some(next) = text[hit.end..].chars().next() else { return true };
    !is_letter(next) || !is_letter(last) || (last.is_lowercase() && next.is_uppercase())
}

/// Whether it is of a script that parts its words.
fn is_letter(sign: char) -> bool {
    sign.is_alphabetic() && !matches!(sign, '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[(Cue, &str)]) {
        let hits = Cues::all().find(text);
        let found: Vec<_> = hits.iter().map(|hit| (hit.cue, &text[hit.start..hit.end])).collect();
        assert_eq!(found, want);
    }

    #[test]
    fn cues_are_words() {
        check("Tel. telling", &[(Cue::Phone, "Tel")]);
        check("myPassword=1", &[(Cue::Password, "Password")]);
        check("née le", &[(Cue::Birth, "née le")]);
        check("passwords2", &[(Cue::Password, "passwords")]);
        check("生年月日は", &[(Cue::Birth, "生年月日")]);
        check("Hauptstraße 5", &[(Cue::RoadAfter, "straße")]);
    }
}

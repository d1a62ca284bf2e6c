//! The form of git's configuration files, as far as it is needed to read values from them.

use std::iter::Peekable;
use std::str::Chars;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// In small letters.
    pub(super) section: String,
    /// What stands beside the section's name.
    pub(super) part: Option<String>,
    /// In small letters.
    pub(super) key: String,
    pub(super) value: String,
}

/// Why a text is no such file. Nothing of it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) why: &'static str,
}

/// All keys with a value, in order.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut signs = Signs { rest: text.chars().peekable(), line: 1 };
    let (mut all, mut section) = (Vec::new(), None);
    while let Some(sign) = signs.next() {
        match sign {
            sign if sign.is_whitespace() => {}
            '#' | ';' => signs.skip_line(),
            '[' => section = Some(signs.head()?),
            sign if sign.is_ascii_alphabetic() => {
                let (key, value) = signs.pair(sign)?;
                let Some((section, part)) = section.clone() else {
                    return Err(signs.fault("a key stands before the first section"));
                };
                all.extend(value.map(|value| Entry { section, part, key, value }));
            }
            _ => return Err(signs.fault("it is neither a section nor a key")),
        }
    }
    Ok(all)
}

struct Signs<'t> {
    rest: Peekable<Chars<'t>>,
    line: usize,
}

impl Signs<'_> {
    fn next(&mut self) -> Option<char> {
        let sign = self.rest.next()?;
        self.line += usize::from(sign == '\n');
        Some(sign)
    }

    /// The next one, where it is like that.
    fn take(&mut self, is: impl Fn(char) -> bool) -> Option<char> {
        self.rest.peek().copied().filter(|sign| is(*sign))?;
        self.next()
    }

    fn take_all(&mut self, is: impl Fn(char) -> bool + Copy) -> String {
        std::iter::from_fn(|| self.take(is)).collect()
    }

    fn skip_blanks(&mut self) {
        while self.take(|sign| matches!(sign, ' ' | '\t')).is_some() {}
    }

    fn skip_line(&mut self) {
        while self.take(|sign| sign != '\n').is_some() {}
    }

    fn fault(&self, why: &'static str) -> Fault {
        Fault { line: self.line, why }
    }

    /// A section's name, and what stands beside it in quotes.
    fn head(&mut self) -> Result<(String, Option<String>), Fault> {
        const OPEN: &str = "a section's head has no end";
        let name = self.take_all(|sign| sign.is_ascii_alphanumeric() || matches!(sign, '-' | '.'));
        self.skip_blanks();
        let mut part = None;
        if self.take(|sign| sign == '"').is_some() {
            let mut text = String::new();
            loop {
                match self.take(|sign| sign != '\n').ok_or(self.fault(OPEN))? {
                    '"' => break,
                    '\\' => text.extend(self.take(|sign| sign != '\n')),
                    sign => text.push(sign),
                }
            }
            part = Some(text);
        }
        self.take(|sign| sign == ']').ok_or(self.fault(OPEN))?;
        Ok((name.to_ascii_lowercase(), part))
    }

    /// A key, and its value where it has one.
    fn pair(&mut self, first: char) -> Result<(String, Option<String>), Fault> {
        let rest = self.take_all(|sign| sign.is_ascii_alphanumeric() || sign == '-');
        let key = format!("{first}{rest}").to_ascii_lowercase();
        self.skip_blanks();
        match self.rest.peek() {
            Some('=') => {
                self.next();
                self.skip_blanks();
                Ok((key, Some(self.value()?)))
            }
            None | Some('\n' | '#' | ';') => Ok((key, None)),
            Some(_) => Err(self.fault("expected = after a key")),
        }
    }

    fn value(&mut self) -> Result<String, Fault> {
        let (mut value, mut quoted) = (String::new(), false);
        // Blanks at the end do not count, unless they are quoted.
        let mut kept = 0;
        while let Some(sign) = self.take(|sign| sign != '\n') {
            match sign {
                '"' => quoted = !quoted,
                '#' | ';' if !quoted => self.skip_line(),
                '\\' => match self.next() {
                    Some('\n') => continue,
                    Some(sign @ ('"' | '\\')) => value.push(sign),
                    Some('n') => value.push('\n'),
                    Some('t') => value.push('\t'),
                    Some('b') => value.push('\u{8}'),
                    Some(_) | None => return Err(self.fault("no such sign follows a backslash")),
                },
                sign if sign.is_whitespace() && !quoted => {
                    value.push(sign);
                    continue;
                }
                sign => value.push(sign),
            }
            if !matches!(sign, '#' | ';') || quoted {
                kept = value.len();
            }
        }
        if quoted {
            return Err(self.fault("a quotation has no end"));
        }
        value.truncate(kept);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[(&str, Option<&str>, &str, &str)]) {
        let all = entries(text).unwrap();
        let found: Vec<_> = all
            .iter()
            .map(|one| (&*one.section, one.part.as_deref(), &*one.key, &*one.value))
            .collect();
        assert_eq!(found, want);
    }

    #[test]
    fn sections_keys_and_values_are_read_as_git_does() {
        check("", &[]);
        check("\u{feff}[user]\r\nname = Jane  Roe \r\n", &[("user", None, "name", "Jane  Roe")]);
        check("[User] Name=Jane # not she\n", &[("user", None, "name", "Jane")]);
        check("# [user]\n; x\n[a.b]\n\tk-1 = v;w\nflag\n", &[("a.b", None, "k-1", "v")]);
        check("[b \"O\\\"x\\\\ y\"]\nk = 1\n", &[("b", Some("O\"x\\ y"), "k", "1")]);
        check("[u]\nk = \" a # b \" c \\\n  d\\t\n", &[("u", None, "k", " a # b  c   d\t")]);
        check("[u]\nk = a\\\"b\\\\\n", &[("u", None, "k", "a\"b\\")]);
        check("[u]\nk =\nl = \"\"\n", &[("u", None, "k", ""), ("u", None, "l", "")]);
        check("[u]\nk = x #c \\\nl = y", &[("u", None, "k", "x"), ("u", None, "l", "y")]);
    }

    #[test]
    fn what_is_no_such_file_is_said_with_its_line() {
        let check = |text: &str, line: usize, why: &str| {
            let fault = entries(text).unwrap_err();
            assert_eq!((fault.line, fault.why), (line, why), "{text:?}");
        };
        check("name = x\n", 1, "a key stands before the first section");
        check("[user\nname = x\n", 1, "a section's head has no end");
        check("[user \"x\n\"]\n", 1, "a section's head has no end");
        check("[u]\n\n= x\n", 3, "it is neither a section nor a key");
        check("[u]\nk v\n", 2, "expected = after a key");
        check("[u]\nk = \"v\nl = \"\n", 2, "a quotation has no end");
        check("[u]\nk = \\q\n", 2, "no such sign follows a backslash");
    }
}

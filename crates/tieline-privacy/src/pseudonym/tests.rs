use super::*;

const KIND: Kind = Kind::Found(Entity::Email);

fn id() -> Id {
    Id::from_number(0x1234_5678_9abc_def0)
}

fn token() -> String {
    write(KIND, id())
}

#[track_caller]
fn check_reads(text: &str) {
    let want = Scan::Pseudonym { bytes: text.len(), kind: KIND, id: id() };
    assert_eq!(scan(text, false), want, "{text:?}");
}

#[test]
fn the_form_is_what_the_documents_say() {
    let token = token();
    assert!(token.starts_with("TLX_EMAIL_"), "{token}");
    assert_eq!(token.len(), "TLX_EMAIL_".len() + 10);
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    let longest = Kind::all().map(|kind| write(kind, id()).len()).max();
    assert_eq!(longest, Some(25));
}

#[test]
fn nothing_before_a_pseudonym_can_swallow_its_beginning() {
    assert!(!DIGITS.contains(&b'T') && !DIGITS.contains(&b'L'));
    for kind in Kind::all() {
        assert!(!kind.tag().contains(MAGIC));
        let others = Kind::all().filter(|other| *other != kind);
        assert!(others.into_iter().all(|other| !other.tag().starts_with(kind.tag())), "{kind:?}");
    }
}

#[test]
fn every_kind_is_read_again() {
    for kind in Kind::all() {
        for number in [0, 1, 28, 29, u64::MAX] {
            let id = Id::from_number(number);
            let text = write(kind, id);
            assert_eq!(scan(&text, true), Scan::Pseudonym { bytes: text.len(), kind, id });
        }
    }
}

#[test]
fn what_models_and_formats_do_to_it_is_undone() {
    let token = token();
    check_reads(&token);
    check_reads(&token.to_lowercase());
    check_reads(&token.replace('_', "\\_"));
    check_reads(&token.replace('_', "-"));
    check_reads(&token.replace('_', ""));
    check_reads(&token.replace('_', "_\n    > "));
    check_reads(&token.replace('_', "\\u005f"));
    check_reads(&token.replace('_', "_\\n"));
    check_reads(&token.replace('T', "\\u0054"));
    check_reads(&token.replace('M', "M\u{200b}"));
    check_reads(&token.replace("EMAIL", "**EMAIL**"));
    check_reads(&format!("{}\r\n{}", &token[..12], &token[12..]));
}

#[test]
fn a_wrong_digit_and_two_exchanged_ones_are_noticed() {
    let token = token();
    let start = token.len() - 10;
    let lookalike = Scan::Lookalike { bytes: token.len() };
    for at in start..token.len() {
        for digit in DIGITS {
            let mut wrong = token.clone().into_bytes();
            if wrong[at] == *digit {
                continue;
            }
            wrong[at] = *digit;
            assert_eq!(scan(std::str::from_utf8(&wrong).unwrap(), true), lookalike);
        }
    }
    for at in start..token.len() - 3 {
        let mut wrong = token.clone().into_bytes();
        wrong.swap(at, at + 1);
        let wrong = String::from_utf8(wrong).unwrap();
        assert!(wrong == token || scan(&wrong, true) == lookalike, "{wrong}");
    }
}

#[test]
fn any_two_wrong_digits_are_noticed() {
    let right = id().digits();
    let want = check(KIND, right);
    for (first, second) in (0..ID_DIGITS).flat_map(|at| (0..at).map(move |other| (other, at))) {
        for (one, two) in (1..29).flat_map(|one| (1..29).map(move |two| (one, two))) {
            let mut wrong = right;
            wrong[first] = (wrong[first] + one) % 29;
            wrong[second] = (wrong[second] + two) % 29;
            assert_ne!(check(KIND, wrong), want);
        }
    }
}

#[test]
fn what_is_none_is_left_alone() {
    for text in ["The", "TLX", "tlx email", "TLX_OTHER_1", "T LX_EMAIL_1", "TLX_EMAIL", "\\", ""] {
        assert_eq!(scan(text, true), Scan::Other, "{text:?}");
    }
    assert_eq!(scan("TLX_EMAIL_1", true), Scan::Lookalike { bytes: 11 });
    assert_eq!(scan("TLX_EMAIL_1", false), Scan::Partial);
    assert_eq!(scan("TLX_EMAIL_1.", false), Scan::Lookalike { bytes: 11 });
    assert_eq!(scan("tlxip12", true), Scan::Other);
    assert_eq!(scan("tlxip1234 ", true), Scan::Lookalike { bytes: 9 });
}

#[test]
fn every_beginning_may_still_become_one() {
    let token = token();
    for end in 1..token.len() {
        assert_eq!(scan(&token[..end], false), Scan::Partial, "{end}");
    }
    let wide: Vec<String> = "TLXEMAIL000".chars().map(String::from).collect();
    assert_eq!(scan(&wide.join(&"-".repeat(20)), false), Scan::Partial);
    let wider = scan(&wide.join(&"-".repeat(30)), false);
    assert_eq!(wider, Scan::Lookalike { bytes: 8 * 31 + 1 });
    let spread = format!("TLX{}", "_".repeat(MAX_SPREAD));
    assert_eq!(scan(&spread, false), Scan::Other);
}

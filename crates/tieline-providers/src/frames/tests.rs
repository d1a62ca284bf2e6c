use proptest::prelude::*;

use super::*;

fn divide(framing: Framing, pieces: &[&[u8]]) -> (Vec<(String, String)>, Option<FrameError>) {
    let mut frames = Frames::new(framing);
    let fault = pieces.iter().find_map(|piece| frames.push(piece).err());
    let fault = fault.or_else(|| frames.end().err());
    let mut found = Vec::new();
    while let Some(frame) = frames.next_frame() {
        found.push((frame.event, frame.data));
    }
    (found, fault)
}

#[track_caller]
fn check(framing: Framing, text: &str, want: &[(&str, &str)]) {
    let want: Vec<_> = want.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect();
    assert_eq!(divide(framing, &[text.as_bytes()]), (want.clone(), None));
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    assert_eq!(divide(framing, &bytes), (want, None));
}

#[test]
fn every_line_end_is_one() {
    for end in ["\n", "\r", "\r\n"] {
        let text = format!("event: a{end}data: 1{end}data: 2{end}{end}data: [DONE]{end}{end}");
        check(Framing::Sse, &text, &[("a", "1\n2"), ("", "[DONE]")]);
    }
}

#[test]
fn what_is_no_data_is_passed_over() {
    check(Framing::Sse, "\u{feff}data: 1\n\n", &[("", "1")]);
    check(
        Framing::Sse,
        ": OPENROUTER PROCESSING\n\n:\n\ndata:1\nid: 4\nretry: 9\n\n",
        &[("", "1")],
    );
    check(Framing::Sse, "event: ping\n\ndata\n\n", &[("", "")]);
    check(Framing::Sse, "data:  two\n\n", &[("", " two")]);
    // Without its empty line an event never came.
    check(Framing::Sse, "data: 1\n\ndata: 2\n", &[("", "1")]);
}

#[test]
fn each_line_is_a_frame() {
    check(
        Framing::Lines,
        "{\"a\":1}\r\n\n {\"b\":2}\n{\"c\"",
        &[("", "{\"a\":1}"), ("", "{\"b\":2}"), ("", "{\"c\"")],
    );
}

#[test]
fn bytes_that_are_no_text_are_a_fault_after_the_frames_before() {
    let (frames, fault) = divide(Framing::Sse, &[b"data: 1\n\ndata: \xff\n\n"]);
    assert_eq!(frames, [(String::new(), "1".to_owned())]);
    assert_eq!(fault, Some(FrameError::NotText));
}

#[test]
fn no_frame_grows_without_end() {
    let line = vec![b'x'; MOST_FRAME_BYTES / 4];
    for end in [&b""[..], b"\ndata: "] {
        let mut frames = Frames::new(Framing::Sse);
        frames.push(b"data: ").unwrap();
        let fault = (0..5).find_map(|_| frames.push(&line).and_then(|()| frames.push(end)).err());
        assert_eq!(fault, Some(FrameError::TooLong));
    }
}

proptest! {
    #[test]
    fn how_bytes_are_cut_changes_nothing(
        text in "(data|event|id|:|data: |\\{\"a\":1\\}|é|\u{feff}|\r|\n|\r\n|\n\n| |x){0,40}",
        cuts in prop::collection::vec(1usize..8, 1..20),
        sse in any::<bool>(),
    ) {
        let framing = if sse { Framing::Sse } else { Framing::Lines };
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut rest = text.as_bytes();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        prop_assert_eq!(divide(framing, &[text.as_bytes()]), divide(framing, &pieces));
    }
}

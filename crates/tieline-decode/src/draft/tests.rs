use proptest::prelude::*;

use super::*;

mod exact;
mod model;

/// What one more token costs in the simulated machine, as a share of a step with one.
const EACH: f64 = 0.15;

/// A target that says `answer` whatever is drafted, on a machine where a step of `1 + k` tokens takes `1 + c·k`.
struct Run {
    steps: usize,
    units: f64,
    longest: usize,
    resumed: Vec<usize>,
}

impl Run {
    fn of(prompt: &[i32], answer: &[i32]) -> Self {
        Self::with(prompt, answer, EACH)
    }

    fn with(prompt: &[i32], answer: &[i32], each: f64) -> Self {
        Self::on(prompt, answer, |tokens| 1.0 + each * (tokens - 1) as f64)
    }

    /// On a machine where a step of so many tokens takes `time` of them.
    fn on(prompt: &[i32], answer: &[i32], time: impl Fn(usize) -> f64) -> Self {
        let (mut lookup, mut pace) = (Lookup::new(), Pace::new());
        lookup.extend(prompt);
        let mut run = Self { steps: 0, units: 0.0, longest: 0, resumed: Vec::new() };
        let mut said = 0;
        while said < answer.len() {
            let draft = lookup.draft(pace.length(0));
            let right = draft.iter().zip(&answer[said..]).take_while(|(a, b)| a == b).count();
            let new = &answer[said..answer.len().min(said + right + 1)];
            lookup.extend(new);
            pace.report(draft.len(), right);
            let units = time(1 + draft.len());
            pace.cost(1 + draft.len(), units * 0.02);
            run.steps += 1;
            run.units += units;
            run.longest = run.longest.max(new.len());
            if right >= 2 {
                run.resumed.push(said);
            }
            said += new.len();
        }
        run
    }

    fn speed_up(&self, answer: &[i32]) -> f64 {
        answer.len() as f64 / self.units
    }
}

/// Numbers without a pattern, the same in each run (Marsaglia's xorshift).
fn noise(seed: u64, count: usize, vocabulary: u64) -> Vec<i32> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        i32::try_from(state % vocabulary).unwrap()
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A file of lines of ten tokens, each ending in the same two, and the same with one line in `every` changed.
fn file_and_edit(lines: usize, every: usize) -> (Vec<i32>, Vec<i32>) {
    let (mut file, mut edited) = (Vec::new(), Vec::new());
    for line in 0..lines {
        let mut text = noise(77 + line as u64 * 31, 8, 400);
        text.extend([1, 2]);
        file.extend(&text);
        if line % every == every / 2 {
            text[3] = 5000;
            text[4] = 5001;
        }
        edited.extend(&text);
    }
    (file, edited)
}

#[track_caller]
fn check(history: &[i32], most: usize, want: &[i32]) {
    let mut lookup = Lookup::new();
    lookup.extend(history);
    assert_eq!(lookup.draft(most), want);
}

#[test]
fn drafts_what_followed() {
    check(&[1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4], 3, &[5, 6, 7]);
    check(&[1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4], 0, &[]);
    check(&[], 16, &[]);
    check(&[1, 2, 3], 16, &[]);
}

#[test]
fn the_longest_match_wins_then_the_latest() {
    // The quad 1 2 3 4 was followed by 5; the later triple 2 3 4 by 6.
    check(&[1, 2, 3, 4, 5, 9, 2, 3, 4, 6, 8, 1, 2, 3, 4], 1, &[5]);
    check(&[1, 2, 3, 4, 5, 9, 1, 2, 3, 4, 6, 8, 1, 2, 3, 4], 1, &[6]);
}

#[test]
fn a_pair_is_not_trusted_at_first() {
    let history = [1, 2, 3, 4, 5, 6, 1, 2];
    check(&history, CAUTIOUS, &[]);
    check(&history, CAUTIOUS + 1, &[3, 4, 5, 6]);
}

#[test]
fn a_loop_goes_on() {
    check(&[7, 7, 7, 7, 7], 6, &[7; 6]);
    check(&[1, 2, 1, 2, 1, 2], 5, &[1, 2, 1, 2, 1]);
}

#[test]
fn debug_shows_no_token() {
    let mut lookup = Lookup::new();
    lookup.extend(&[424_242; 9]);
    assert_eq!(format!("{lookup:?}"), "Lookup { tokens: 9, .. }");
}

#[test]
fn memory_is_bounded_and_the_newer_half_is_still_found() {
    let mut lookup = Lookup::new();
    let counting: Vec<i32> = (0..300_000).collect();
    lookup.extend(&counting);
    assert!(lookup.tokens.len() <= 2 * KEPT);
    assert!(lookup.pairs.len() <= 2 * KEPT && lookup.triples.len() <= 2 * KEPT);
    lookup.extend(&[290_000, 290_001, 290_002, 290_003]);
    assert_eq!(lookup.draft(2), [290_004, 290_005]);
    lookup.extend(&[10, 11, 12, 13]);
    assert!(lookup.draft(2).is_empty());
}

#[test]
fn starts_small() {
    assert!((1..=CAUTIOUS).contains(&Pace::new().length(0)));
}

#[test]
fn a_copy_reaches_the_most() {
    let (file, _) = file_and_edit(200, 10);
    let run = Run::of(&file, &file);
    assert_eq!(run.longest, MOST + 1);
    assert!(run.steps < file.len() / 14, "{} steps", run.steps);
}

#[test]
fn a_copy_with_edits_is_faster() {
    let (file, edited) = file_and_edit(120, 10);
    let run = Run::of(&file, &edited);
    assert!(run.speed_up(&edited) >= 1.8, "{}", run.speed_up(&edited));
}

#[test]
fn finds_its_way_back_after_a_changed_line() {
    let (file, mut edited) = file_and_edit(60, 1000);
    edited[300] = 9999;
    let run = Run::of(&file, &edited);
    assert!(run.resumed.iter().any(|at| (301..=308).contains(at)), "{:?}", run.resumed);
}

#[test]
fn text_without_repetition_loses_nothing() {
    let prompt = noise(3, 500, 2000);
    for seed in 10..30 {
        let answer = noise(seed, 1000, 2000);
        assert!(Run::of(&prompt, &answer).units <= 1000.0 * 1.02);
    }
}

#[test]
fn false_matches_lose_little() {
    // So few words that nearly every three were said before, and what follows is chance.
    for vocabulary in [8, 12, 16, 20, 40] {
        for seed in 1..20 {
            let run = Run::of(&noise(91, 4000, vocabulary), &noise(seed, 1000, vocabulary));
            assert!(run.units <= 1000.0 * 1.02, "{vocabulary}, {seed}: {}", run.units);
        }
    }
}

#[test]
fn alternating_text_gains_and_a_free_part_loses_little() {
    let (file, _) = file_and_edit(100, 10);
    let mut answer = Vec::new();
    for (part, copied) in file.chunks(200).enumerate() {
        answer.extend(copied);
        answer.extend(noise(part as u64 + 5, 200, 3000));
    }
    let run = Run::of(&file, &answer);
    assert!(run.speed_up(&answer) >= 1.4, "{}", run.speed_up(&answer));
}

#[test]
fn a_machine_where_checking_costs_as_much_drafts_no_more() {
    let (file, edited) = file_and_edit(300, 2);
    let run = Run::with(&file, &edited, 1.0);
    assert!(run.units <= edited.len() as f64 * 1.03, "{}", run.units);
}

#[test]
fn learns_what_a_token_costs() {
    for want in [0.02, 0.15, 0.4, 0.9] {
        let mut pace = Pace::new();
        for step in 0..400 {
            let tokens = [1, 3, 1, 9, 17][step % 5];
            let disturbed = if step % 50 == 7 { 8.0 } else { 1.0 };
            pace.cost(tokens, 0.01 * (1.0 + want * (tokens - 1) as f64) * disturbed);
        }
        assert!((pace.steps.each - want).abs() < 0.1 * want + 0.04, "{want}: {}", pace.steps.each);
    }
}

/// Steps of one to three tokens take one kernel after another, longer ones a better kernel.
fn two_kernels(tokens: usize) -> f64 {
    if tokens < 4 {
        0.8 + 0.2 * tokens as f64 + 0.4 * (tokens - 1) as f64
    } else {
        1.2 + 0.03 * tokens as f64
    }
}

#[test]
fn a_kernel_that_begins_at_four_tokens_is_found_and_used() {
    let (file, edited) = file_and_edit(300, 5);
    let run = Run::on(&file, &edited, two_kernels);
    assert!(run.speed_up(&edited) >= 1.6, "{}", run.speed_up(&edited));
    let mut pace = Pace::new();
    for step in 0..40 {
        let tokens = [1, 2, 3, 4][step % 4];
        pace.cost(tokens, 0.01 * two_kernels(tokens));
    }
    // Nothing was right lately: what is tried again is the cheap step.
    for _ in 0..9 {
        pace.report(2, 0);
    }
    pace.since = LONGEST_PAUSE;
    assert_eq!(pace.length(0), CAUTIOUS);
}

/// As measured with SmolLM2 in Q4_1 on two cores with AVX-512: a step of four takes twice one of one, each further
/// token little. A short draft hardly pays, so a line through what was seen would never try a long one.
#[test]
fn long_drafts_are_found_where_short_ones_hardly_pay() {
    let dear_start = |tokens: usize| match tokens {
        1..4 => 1.0 + 0.9 * (tokens - 1) as f64,
        _ => 1.9 + 0.13 * tokens as f64,
    };
    let (file, edited) = file_and_edit(300, 8);
    let run = Run::on(&file, &edited, dear_start);
    assert!(run.speed_up(&edited) >= 2.0, "{}", run.speed_up(&edited));
}

#[test]
fn a_disturbance_does_not_turn_drafting_off() {
    let mut pace = Pace::new();
    for _ in 0..20 {
        pace.report(8, 8);
        pace.cost(9, 0.022);
        pace.cost(1, 0.01);
    }
    assert_eq!(pace.length(0), MOST);
    pace.cost(9, 5.0);
    assert!(pace.length(0) >= 8, "{}", pace.length(0));
}

#[test]
fn misses_pause_for_longer_and_longer_but_not_for_ever() {
    let mut pace = Pace::new();
    let mut waits = Vec::new();
    for _ in 0..20 {
        let mut waited = 0;
        while pace.length(0) == 0 {
            pace.report(0, 0);
            waited += 1;
            assert!(waited <= LONGEST_PAUSE);
        }
        waits.push(waited);
        pace.report(pace.length(0), 0);
    }
    assert!(waits.is_sorted());
    assert_eq!(waits.last(), Some(&LONGEST_PAUSE));
    pace.since = LONGEST_PAUSE;
    pace.report(2, 2);
    assert!(pace.length(0) >= 1, "one success must bring drafting back");
    for _ in 0..30 {
        pace.report(pace.length(0), pace.length(0));
    }
    assert_eq!(pace.length(0), MOST);
}

#[test]
fn companions_make_drafts_shorter() {
    let mut pace = Pace::new();
    for _ in 0..20 {
        pace.report(3, 2);
    }
    assert!(pace.length(0) > pace.length(30));
    for _ in 0..20 {
        pace.report(16, 16);
    }
    assert_eq!(pace.length(8), MOST);
}

proptest! {
    #[test]
    fn a_draft_continues_an_earlier_occurrence(
        tokens in prop::collection::vec(0..6i32, 0..80), most in 0..40usize
    ) {
        let mut lookup = Lookup::new();
        lookup.extend(&tokens);
        let draft = lookup.draft(most);
        prop_assert!(draft.len() <= most.min(MOST));
        let least = if most > CAUTIOUS { 2 } else { 3 };
        let all: Vec<i32> = tokens.iter().chain(&draft).copied().collect();
        let occurrences = |length: usize| {
            let suffix = tokens.len().checked_sub(length).map(|at| &tokens[at..]);
            (length..tokens.len()).rev().find(|at| Some(&tokens[at - length..*at]) == suffix)
        };
        let from = (least..=LONGEST_MATCH).rev().find_map(occurrences);
        prop_assert_eq!(draft.is_empty(), from.is_none() || most == 0);
        if let Some(from) = from {
            prop_assert_eq!(&draft[..], &all[from..from + draft.len()]);
        }
    }

    #[test]
    fn the_split_of_extend_does_not_matter(
        tokens in prop::collection::vec(0..3i32, 0..60), cut in 0..60usize
    ) {
        let (mut whole, mut parts) = (Lookup::new(), Lookup::new());
        whole.extend(&tokens);
        let (head, tail) = tokens.split_at(cut.min(tokens.len()));
        parts.extend(head);
        parts.extend(tail);
        for most in 0..20 {
            prop_assert_eq!(whole.draft(most), parts.draft(most));
        }
    }

    #[test]
    fn no_report_breaks_the_pace(
        reports in prop::collection::vec(
            (any::<usize>(), any::<usize>(), any::<usize>(), any::<f64>()), 0..200),
        companions in any::<usize>(),
    ) {
        let mut pace = Pace::new();
        for (drafted, accepted, tokens, seconds) in reports {
            pace.report(drafted, accepted);
            pace.cost(tokens % 80, seconds);
            prop_assert!(pace.length(companions) <= MOST);
            prop_assert!(pace.length(0) <= MOST);
            prop_assert!((0.0..=1.0).contains(&pace.steps.each));
            prop_assert!((0.0..=1.0).contains(&pace.acceptance.rate()));
        }
    }
}

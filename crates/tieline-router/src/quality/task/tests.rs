use super::super::random::Random;
use super::*;

const HELD_OUT: &str = include_str!("../../../testdata/tasks-held-out.tsv");

fn model() -> Model {
    Model::built_in().unwrap()
}

#[track_caller]
fn check(prompt: &str, hints: Hints, want: (Option<Task>, By)) {
    let got = model().infer(prompt, hints);
    assert_eq!((got.task, got.by), want, "{got:?}");
}

#[test]
fn who_says_what_the_task_is() {
    let none = Hints::default();
    let declared = Hints { declared: Some(Task::Math), ..none };
    check("translate this", declared, (Some(Task::Math), By::Declared));
    check("Translate this code: ```x```", none, (Some(Task::Translate), By::Rule));
    check("请把这封信翻译成法语", none, (Some(Task::Translate), By::Rule));
    check("look at src/main.rs, please", none, (Some(Task::Code), By::Rule));
    check("SELECT name FROM users", none, (Some(Task::Code), By::Rule));
    check("Solve x^2 - 5x + 6 = 0", none, (Some(Task::Math), By::Model));
    check("zzz qqq", none, (None, By::Model));
    // Code by 0.44, which is wrong: better unknown.
    let letter = "Write to anna.muster@example.org that her card 4111 1111 1111 1111 is blocked.";
    check(letter, none, (None, By::Model));
    check("", none, (None, By::Model));
    check("zzz qqq", Hints { has_tools: true, ..none }, (Some(Task::Agent), By::Rule));
    check("zzz qqq", Hints { has_schema: true, ..none }, (Some(Task::Extract), By::Rule));
    check("zzz qqq", Hints { held: Some(Task::Code), ..none }, (Some(Task::Code), By::Held));
}

#[test]
fn a_model_is_kept_as_json_and_is_small() {
    let text = serde_json::to_string(&model()).unwrap();
    assert!(text.len() < 200_000, "{}", text.len());
    assert_eq!(
        serde_json::from_str::<Model>(&text).unwrap().chances("hello"),
        model().chances("hello")
    );
    assert_eq!(
        Model::train(&lines("code\tx")).unwrap_err().to_string().split(' ').next(),
        Some("1")
    );
    assert!("poetry".parse::<Task>().is_err());
}

#[test]
fn no_held_out_prompt_is_a_training_prompt() {
    let train = lines(LINES);
    let held_out = lines(HELD_OUT);
    assert_eq!((train.len(), held_out.len()), (250, 100));
    let same = |a: &Line<'_>| train.iter().any(|b| a.prompt.eq_ignore_ascii_case(b.prompt));
    assert_eq!(held_out.iter().filter(|line| same(line)).count(), 0);
}

/// Right, wrong and unknown among prompts written apart from the training prompts.
#[test]
fn accuracy_on_prompts_it_has_not_seen() {
    let model = model();
    let held_out = lines(HELD_OUT);
    let said =
        held_out.iter().map(|line| (line.task, model.infer(line.prompt, Hints::default()).task));
    let (mut right, mut unknown) = (0, 0);
    for (task, said) in said {
        right += usize::from(said == Some(task));
        unknown += usize::from(said.is_none());
    }
    // 69 and 3 in docs/quality.md; room for another machine's last bits.
    let wrong = 100 - right - unknown;
    assert!(right >= 67 && wrong <= 4, "{right} right, {wrong} wrong, {unknown} unknown");
}

/// One typo: two characters exchanged, one dropped, one in other case, a space more, or another mark at the end.
fn typo(prompt: &str, random: &mut Random) -> String {
    let mut characters: Vec<char> = prompt.chars().collect();
    let at = random.below(characters.len().saturating_sub(1));
    match random.below(5) {
        0 => characters.swap(at, at + 1),
        1 => drop(characters.remove(at)),
        2 if characters[at].is_lowercase() => characters[at] = characters[at].to_ascii_uppercase(),
        2 => characters[at] = characters[at].to_ascii_lowercase(),
        3 => characters.insert(at, ' '),
        _ => {
            let last = characters.pop().filter(|last| last.is_alphanumeric());
            characters.extend(last);
            characters.push(['.', '?', '!'][random.below(3)]);
        }
    }
    characters.into_iter().collect()
}

#[test]
fn a_typo_rarely_changes_the_task() {
    let model = model();
    let mut random = Random::new(11);
    let (mut flips, mut held_flips, mut tried) = (0, 0, 0);
    for line in lines(HELD_OUT) {
        let before = model.infer(line.prompt, Hints::default()).task;
        for _ in 0..20 {
            let changed = typo(line.prompt, &mut random);
            flips += usize::from(model.infer(&changed, Hints::default()).task != before);
            let hints = Hints { held: before, ..Hints::default() };
            held_flips += usize::from(model.infer(&changed, hints).task != before);
            tried += 1;
        }
    }
    // 158 and 39 of 2000 in docs/quality.md.
    assert_eq!(tried, 2000);
    assert!(
        flips <= 175 && held_flips <= 48,
        "{flips} flips, {held_flips} where the session holds"
    );
}

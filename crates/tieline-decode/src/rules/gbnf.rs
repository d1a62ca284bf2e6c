//! Turns llama.cpp's GBNF into Lark.
//!
//! GBNF works on characters; the engine works on terminals and takes the longest. A rule that never
//! leads back to itself becomes a terminal, and so does each stretch between rules that do: then
//! automata do most of the work. White space of any length is the exception: grammars write it before
//! and after the same line end, where the longest would leave nothing. It is read character by
//! character. Elsewhere a terminal that could stop or go on goes on; the language may lose a text by
//! that and never gains one.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use serde_json::Value;

use super::RuleError;
use super::limits::shown;
use parse::{Atom, Choice, Item, Rule};

mod parse;

const WHAT: &str = "GBNF grammar";

/// The grammar in Lark; it begins at `start`.
///
/// # Errors
/// `Invalid` if the text is not GBNF, has no `root`, uses a rule that it does not define, or has a rule
/// that begins with itself; `TooLarge` if its groups are nested too deeply.
pub(super) fn to_lark(source: &str) -> Result<String, RuleError> {
    let rules = parse::parse(source)?;
    let places: HashMap<_, _> =
        rules.iter().enumerate().map(|(at, rule)| (rule.name, at)).collect();
    let root =
        *places.get("root").ok_or_else(|| RuleError::invalid(WHAT, "there is no rule root"))?;
    let grammar =
        Grammar { rules: &rules, places, terminals: BTreeSet::new(), spaces: BTreeSet::new() };
    let grammar = grammar.find_terminals()?;
    grammar.refuse_left_recursion()?;
    let mut lark = Lark { grammar: &grammar, text: String::new(), parts: String::new(), count: 0 };
    lark.line(&format!("start: {}", grammar.name(root)));
    for (at, rule) in rules.iter().enumerate() {
        let terminal = grammar.terminals.contains(&at);
        let body = if terminal { lark.terminal(&rule.choice) } else { lark.rule(&rule.choice) };
        lark.line(&format!("{}: {body}", grammar.name(at)));
    }
    Ok(lark.text + &lark.parts)
}

struct Grammar<'source> {
    rules: &'source [Rule<'source>],
    places: HashMap<&'source str, usize>,
    /// The rules that never lead back to themselves, nor to such a rule, nor to loose white space.
    terminals: BTreeSet<usize>,
    /// The rules that are white space alone.
    spaces: BTreeSet<usize>,
}

impl Grammar<'_> {
    fn find_terminals(mut self) -> Result<Self, RuleError> {
        for rule in self.rules {
            self.uses(rule)?;
        }
        self.spaces = self.gather(|grammar, known, rule| grammar.is_space(&rule.choice, known));
        self.terminals =
            self.gather(|grammar, known, rule| grammar.is_terminal_choice(&rule.choice, known));
        Ok(self)
    }

    /// The rules that pass, where whether one passes depends on which others do.
    fn gather(&self, pass: impl Fn(&Self, &BTreeSet<usize>, &Rule<'_>) -> bool) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        loop {
            let known = found.len();
            for (at, rule) in self.rules.iter().enumerate() {
                if pass(self, &found, rule) {
                    found.insert(at);
                }
            }
            if found.len() == known {
                return found;
            }
        }
    }

    fn is_in(&self, name: &str, set: &BTreeSet<usize>) -> bool {
        self.places.get(name).is_some_and(|place| set.contains(place))
    }

    fn is_space(&self, choice: &Choice<'_>, known: &BTreeSet<usize>) -> bool {
        choice.iter().flatten().all(|item| match &item.atom {
            Atom::Text(text) => text.chars().all(parse::is_space),
            Atom::Class(_, space) => *space,
            Atom::Name(name) => self.is_in(name, known),
            Atom::Group(inner) => self.is_space(inner, known),
        })
    }

    /// Whether an item is white space of no fixed length.
    fn is_loose(&self, item: &Item<'_>) -> bool {
        let repeated = (item.least, item.most) != (1, Some(1));
        match &item.atom {
            Atom::Text(text) => repeated && text.chars().all(parse::is_space),
            Atom::Class(_, space) => repeated && *space,
            Atom::Name(name) => self.is_in(name, &self.spaces),
            Atom::Group(inner) => self.is_space(inner, &self.spaces),
        }
    }

    fn is_terminal_choice(&self, choice: &Choice<'_>, known: &BTreeSet<usize>) -> bool {
        let loose = choice.len() > 1 && self.is_space(choice, &self.spaces);
        !loose && choice.iter().flatten().all(|item| self.is_terminal_item(item, known))
    }

    fn is_terminal_item(&self, item: &Item<'_>, known: &BTreeSet<usize>) -> bool {
        !self.is_loose(item)
            && match &item.atom {
                Atom::Text(_) | Atom::Class(..) => true,
                Atom::Name(name) => self.is_in(name, known),
                Atom::Group(inner) => self.is_terminal_choice(inner, known),
            }
    }

    fn is_terminal(&self, item: &Item<'_>) -> bool {
        self.is_terminal_item(item, &self.terminals)
    }

    /// The rules that a rule uses.
    fn uses(&self, rule: &Rule<'_>) -> Result<BTreeSet<usize>, RuleError> {
        let mut uses = BTreeSet::new();
        let mut open = vec![&rule.choice];
        while let Some(choice) = open.pop() {
            for item in choice.iter().flatten() {
                match &item.atom {
                    Atom::Name(name) => {
                        let unknown = || {
                            format!("rule {} uses {}, which is not defined", rule.name, shown(name))
                        };
                        let place = self.places.get(name);
                        uses.insert(*place.ok_or_else(|| RuleError::invalid(WHAT, &unknown()))?);
                    }
                    Atom::Group(inner) => open.push(inner),
                    Atom::Text(_) | Atom::Class(..) => {}
                }
            }
        }
        Ok(uses)
    }

    /// A rule that can begin with itself would never end; llama.cpp refuses it too.
    fn refuse_left_recursion(&self) -> Result<(), RuleError> {
        // Rules that match the empty text let the next one begin.
        let empty = self.gather(|grammar, known, rule| grammar.is_empty(&rule.choice, known));
        let first: Vec<_> =
            self.rules.iter().map(|rule| self.first(&rule.choice, &empty)).collect();
        for (at, rule) in
            self.rules.iter().enumerate().filter(|(at, _)| !self.terminals.contains(at))
        {
            let mut met = BTreeSet::new();
            let mut open: Vec<usize> = first[at].iter().copied().collect();
            while let Some(place) = open.pop() {
                if met.insert(place) {
                    open.extend(&first[place]);
                }
            }
            if met.contains(&at) {
                return Err(RuleError::invalid(
                    WHAT,
                    &format!("rule {} can begin with itself", rule.name),
                ));
            }
        }
        Ok(())
    }

    fn is_empty(&self, choice: &Choice<'_>, empty: &BTreeSet<usize>) -> bool {
        choice.iter().any(|items| items.iter().all(|item| self.item_is_empty(item, empty)))
    }

    fn item_is_empty(&self, item: &Item<'_>, empty: &BTreeSet<usize>) -> bool {
        item.least == 0
            || match &item.atom {
                Atom::Text(text) => text.is_empty(),
                Atom::Class(..) => false,
                Atom::Name(name) => {
                    self.places.get(name).is_some_and(|place| empty.contains(place))
                }
                Atom::Group(inner) => self.is_empty(inner, empty),
            }
    }

    /// The rules that a text of this choice may begin with.
    fn first(&self, choice: &Choice<'_>, empty: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut first = BTreeSet::new();
        for items in choice {
            for item in items {
                match &item.atom {
                    Atom::Name(name) => first.extend(self.places.get(name)),
                    Atom::Group(inner) => first.extend(self.first(inner, empty)),
                    Atom::Text(_) | Atom::Class(..) => {}
                }
                if !self.item_is_empty(item, empty) {
                    break;
                }
            }
        }
        first
    }

    /// A rule's name in Lark: terminals in capitals, and numbered, as GBNF names may differ by case alone.
    fn name(&self, place: usize) -> String {
        let letter = if self.terminals.contains(&place) { 'T' } else { 'r' };
        format!("{letter}{place}")
    }
}

/// The grammar as it is written out.
struct Lark<'grammar> {
    grammar: &'grammar Grammar<'grammar>,
    text: String,
    /// Terminals that have no name in the source.
    parts: String,
    count: usize,
}

impl Lark<'_> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A choice of terminals alone.
    fn terminal(&self, choice: &Choice<'_>) -> String {
        let options: Vec<_> = choice.iter().map(|items| self.terminal_items(items)).collect();
        join(&options)
    }

    fn terminal_items(&self, items: &[Item<'_>]) -> String {
        let items: Vec<_> = items.iter().map(|item| self.terminal_item(item)).collect();
        if items.is_empty() { "\"\"".to_owned() } else { items.join(" ") }
    }

    fn terminal_item(&self, item: &Item<'_>) -> String {
        repeated(self.terminal_atom(&item.atom), item)
    }

    fn terminal_atom(&self, atom: &Atom<'_>) -> String {
        match atom {
            Atom::Text(text) => quoted(text),
            Atom::Class(class, _) => format!("/{class}/"),
            Atom::Name(name) => self.named(name),
            Atom::Group(inner) => format!("({})", self.terminal(inner)),
        }
    }

    /// A choice in which rules occur. What needs none of them is one terminal, from end to end.
    fn rule(&mut self, choice: &Choice<'_>) -> String {
        let mut options = Vec::new();
        for items in choice {
            let mut parts = Vec::new();
            for run in
                items.chunk_by(|a, b| self.grammar.is_terminal(a) && self.grammar.is_terminal(b))
            {
                parts.push(match run {
                    [item] if !self.grammar.is_terminal(item) => self.rule_item(item),
                    terminals => {
                        let body = self.terminal_items(terminals);
                        self.part(&body)
                    }
                });
            }
            options.push(if parts.is_empty() { "\"\"".to_owned() } else { parts.join(" ") });
        }
        join(&options)
    }

    fn rule_item(&mut self, item: &Item<'_>) -> String {
        let atom = match &item.atom {
            Atom::Group(inner) => format!("({})", self.rule(inner)),
            Atom::Name(name) => self.named(name),
            Atom::Text(_) | Atom::Class(..) => {
                let once = self.terminal_atom(&item.atom);
                self.part(&once)
            }
        };
        repeated(atom, item)
    }

    /// Names a stretch of terminals.
    fn part(&mut self, body: &str) -> String {
        let name = format!("P{}", self.count);
        self.count += 1;
        // Writing to a string cannot fail.
        _ = writeln!(self.parts, "{name}: {body}");
        name
    }

    fn named(&self, name: &str) -> String {
        self.grammar.places.get(name).map(|place| self.grammar.name(*place)).unwrap_or_default()
    }
}

fn join(options: &[String]) -> String {
    options.join(" | ")
}

fn repeated(atom: String, item: &Item<'_>) -> String {
    match (item.least, item.most) {
        (1, Some(1)) => atom,
        (0, None) => format!("{atom}*"),
        (1, None) => format!("{atom}+"),
        (0, Some(1)) => format!("{atom}?"),
        // In brackets, or Lark takes a name and a brace for a template.
        (least, None) => format!("({atom}){{{least},}}"),
        (least, Some(most)) => format!("({atom}){{{least},{most}}}"),
    }
}

/// A Lark string: written as in JSON, where 7f is no control character.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

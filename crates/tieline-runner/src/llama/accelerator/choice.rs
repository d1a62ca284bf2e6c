//! Which products are ours: by a short measurement on this machine, or by the kernels' tables.
//!
//! Whose kernel is faster depends on the processor, the format and the number of tokens, and little on anything else. So
//! for each format and width of the model's matrices, rows of its own weights are multiplied in turns by our kernels and
//! by ggml's, on one thread, at several numbers of tokens; others each time, since how far they come from matters, too. Time is the thread's own on its processor, and of each the
//! best round counts, so that others who compute meanwhile disturb little. Where rounds do not agree who is faster, the
//! table decides, and the choice is not settled. What was chosen before is not measured again: answers move with it by
//! rounding, so it must be the same at every start.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;
use tieline_kernels::Level;
use tieline_types::KernelChoice;

use super::anew::Kind;
use super::job::length;
use super::{INNER, Inner, ON};

mod turns;

use turns::Turns;

/// When no further kind of matrix is measured.
const TIME: Duration = Duration::from_millis(250);
/// Numbers of tokens that the kernel for many is measured with. What beats ggml with the last beats it with more.
const MANY: [usize; 8] = [4, 8, 12, 16, 32, 64, 128, 256];
/// Rounds of which the best counts.
const ROUNDS: usize = 4;
/// From here on one is faster than the other; between, they are even.
const FASTER: f64 = 1.02;
/// Matrices of a kind that rows are taken of, at most.
const MATRICES: usize = 512;

/// What was chosen for this process.
static CHOSEN: OnceLock<Vec<(Kind, usize, Worth)>> = OnceLock::new();

thread_local! {
    /// The model's matrices, while its contexts are made.
    static SEEN: RefCell<Option<Vec<Seen>>> = RefCell::default();
}

/// Matrices of one kind.
#[derive(Debug)]
struct Seen {
    kind: Kind,
    width: usize,
    tensors: Vec<*const sys::ggml_tensor>,
}

/// Which numbers of tokens are worth taking from ggml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Worth {
    /// Of few: bit `n` for `n` tokens.
    few: u16,
    /// Of more: from so many on.
    many: Option<usize>,
}

impl Worth {
    /// As the kernels' tables say.
    fn table(level: Level, kind: Kind) -> Self {
        let bits = (1..=Level::FEW).filter(|&tokens| kind.few(level, tokens));
        Self { few: bits.fold(0, |all, tokens| all | 1 << tokens), many: kind.tokens(level) }
    }

    pub(super) fn few(self, tokens: usize) -> bool {
        tokens <= Level::FEW && self.few & 1 << tokens != 0
    }

    pub(super) fn many(self, tokens: usize) -> bool {
        self.many.is_some_and(|least| tokens >= least)
    }
}

/// What is worth taking of matrices of this kind.
pub(super) fn of(level: Level, kind: Kind, width: usize) -> Worth {
    let chosen = CHOSEN.get().into_iter().flatten();
    chosen
        .filter(|(of, wide, _)| (*of, *wide) == (kind, width))
        .map(|(.., worth)| *worth)
        .next()
        .unwrap_or_else(|| Worth::table(level, kind))
}

/// Begins to note what is multiplied.
pub(super) fn watch() {
    SEEN.set(Some(Vec::new()));
}

/// Notes a matrix of the model. llama.cpp asks for all its products while it makes a context.
pub(super) fn see(kind: Kind, weights: &sys::ggml_tensor) {
    SEEN.with_borrow_mut(|seen| {
        let Some(seen) = seen else { return };
        let width = length(weights.ne[0]);
        let known = seen.iter().position(|one| (one.kind, one.width) == (kind, width));
        let at = known.unwrap_or(seen.len());
        if known.is_none() {
            seen.push(Seen { kind, width, tensors: Vec::new() });
        }
        let tensors = &mut seen[at].tensors;
        let weights = std::ptr::from_ref(weights);
        if tensors.len() < MATRICES && !tensors.contains(&weights) {
            tensors.push(weights);
        }
    });
}

/// Chooses for all matrices of the models whose contexts were made since the kernels were switched on: as was `known`
/// before, else by measuring, if that is asked for. Once per process, before anything is computed.
///
/// Returns what it goes by from now on. Where nothing was chosen, the tables hold.
pub(crate) fn choose(known: &[KernelChoice], measure: bool) -> Vec<KernelChoice> {
    let seen = SEEN.take().unwrap_or_default();
    let Some(inner) = INNER.get().filter(|_| ON.load(Ordering::Relaxed)) else {
        return Vec::new();
    };
    let started = Instant::now();
    let mut chosen = Vec::new();
    let mut worth = Vec::new();
    for seen in &seen {
        let name = seen.kind.to_string();
        let same = |one: &&KernelChoice| one.format == name && one.width as usize == seen.width;
        let choice = match known.iter().find(same) {
            Some(known) => known.clone(),
            None if measure => by_measuring(inner, seen, started.elapsed() < TIME),
            None => continue,
        };
        let many = choice.many.map(|least| least.max(1) as usize);
        let few = if seen.kind.takes_few(inner.level, seen.width) { choice.few } else { 0 };
        worth.push((seen.kind, seen.width, Worth { few, many }));
        chosen.push(choice);
    }
    // Cannot be set: a process chooses once.
    let _ = CHOSEN.set(worth);
    chosen
}

/// Measures a kind of matrix, if there is time, else takes it from the table.
fn by_measuring(inner: &Inner, seen: &Seen, has_time: bool) -> KernelChoice {
    let table = Worth::table(inner.level, seen.kind);
    let measured = if has_time { measured(inner, seen, table) } else { None };
    let (worth, settled) = measured.unwrap_or((table, false));
    KernelChoice {
        format: seen.kind.to_string(),
        width: u32::try_from(seen.width).unwrap_or(u32::MAX),
        few: worth.few,
        many: worth.many.and_then(|least| u32::try_from(least).ok()),
        settled,
    }
}

/// What is worth taking, and whether rounds agreed everywhere. `None`: ggml computes nothing here.
fn measured(inner: &Inner, seen: &Seen, table: Worth) -> Option<(Worth, bool)> {
    let thin = seen.kind.takes_few(inner.level, seen.width);
    let most = *MANY.last()?;
    let mut turns = Turns::new(inner, (seen.kind, seen.width), &seen.tensors, most)?;
    let (mut worth, mut settled) = (Worth { few: 0, many: None }, true);
    for tokens in (seen.kind.fewest()..=Level::FEW).filter(|_| thin) {
        let (ours, sure) = judge(&turns.rounds::<ROUNDS>(tokens, true)?, table.few(tokens));
        worth.few |= u16::from(ours) << tokens;
        settled &= sure;
    }
    // Few were measured one by one.
    let least = if thin { Level::FEW + 1 } else { 1 };
    for &tokens in MANY.iter().rev().take_while(|&&tokens| tokens >= least) {
        let (ours, sure) = judge(&turns.rounds::<ROUNDS>(tokens, false)?, table.many(tokens));
        settled &= sure;
        if !ours {
            break;
        }
        worth.many = Some(tokens);
    }
    Some((worth, settled))
}

/// Whether ours are the faster by the seconds of rounds, ours and ggml's, and whether that is sure. Where they are even
/// or it is not, the table's word is taken.
fn judge(rounds: &[[f64; 2]], table: bool) -> (bool, bool) {
    let best = |whose: usize| rounds.iter().map(|round| round[whose]).fold(f64::INFINITY, f64::min);
    let gain = best(1) / best(0);
    let ours = if gain >= FASTER {
        true
    } else if gain <= 1.0 / FASTER {
        false
    } else {
        return (table, true);
    };
    let agree = rounds.iter().filter(|[own, ggmls]| (own < ggmls) == ours).count();
    if 4 * agree >= 3 * rounds.len() { (ours, true) } else { (table, false) }
}

#[cfg(test)]
mod tests {
    use tieline_kernels::Format;

    use super::*;

    #[track_caller]
    fn check(ours: [f64; 4], ggmls: [f64; 4], table: bool, want: (bool, bool)) {
        let rounds: Vec<[f64; 2]> = ours.into_iter().zip(ggmls).map(|(a, b)| [a, b]).collect();
        assert_eq!(judge(&rounds, table), want);
    }

    #[test]
    fn the_faster_is_chosen_whatever_the_table_says() {
        for table in [true, false] {
            check([1.0, 1.1, 1.0, 1.0], [1.2, 1.2, 1.3, 1.2], table, (true, true));
            check([1.2, 1.2, 1.3, 1.2], [1.0, 1.1, 1.0, 1.0], table, (false, true));
        }
    }

    #[test]
    fn one_round_that_was_disturbed_changes_nothing() {
        check([1.0, 9.0, 1.0, 1.0], [1.2, 1.2, 1.3, 1.2], false, (true, true));
    }

    #[test]
    fn where_both_are_even_the_table_decides_and_that_is_settled() {
        for table in [true, false] {
            check([1.0, 1.0, 1.0, 1.0], [1.01, 1.2, 0.99, 1.2], table, (table, true));
        }
    }

    #[test]
    fn where_rounds_do_not_agree_the_table_decides_and_nothing_is_settled() {
        for table in [true, false] {
            check([1.0, 1.5, 1.6, 1.5], [1.2, 1.2, 1.2, 1.2], table, (table, false));
        }
    }

    #[test]
    fn the_table_is_what_the_kernels_say() {
        let table = |format, in_eights| Worth::table(Level::Avx512Vnni, Kind { format, in_eights });
        let worth = table(Format::Q6K, false);
        assert!((0..20).filter(|&tokens| worth.few(tokens)).eq(2..=Level::FEW));
        assert!(worth.many(16) && !worth.many(15));
        assert!(!table(Format::Q2K, false).many(100_000));
    }
}

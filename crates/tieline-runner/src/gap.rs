//! The tokens around a gap that the model fills in.
//!
//! The order is that of llama.cpp's server (`/infill`) by default and of the models' papers: the token for
//! what stands before, that text, the token for what stands after, that text, the token for the gap. Unlike
//! that server this invents no names of a project and a file before them.

/// How a model marks a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The token of a text's beginning, where the model wants one.
    pub(crate) bos: Option<i32>,
    /// Those of what stands before the gap, of what stands after it, and of the gap.
    pub(crate) marks: [i32; 3],
}

impl Gap {
    /// A prompt of at most `room` tokens, and how many tokens of the texts were left out: those farthest from
    /// the gap. `None`: not even the marks fit.
    pub(crate) fn fitted(
        self,
        before: &[i32],
        after: &[i32],
        room: usize,
    ) -> Option<(Vec<i32>, usize)> {
        let marks = self.marks.len() + usize::from(self.bos.is_some());
        let room = room.checked_sub(marks)?;
        let (kept_before, kept_after) = share(before.len(), after.len(), room);
        let dropped = before.len() + after.len() - kept_before - kept_after;
        let tokens = self.tokens(&before[before.len() - kept_before..], &after[..kept_after]);
        Some((tokens, dropped))
    }

    /// The whole prompt.
    pub(crate) fn tokens(self, before: &[i32], after: &[i32]) -> Vec<i32> {
        let [start, end, gap] = self.marks;
        let mut tokens: Vec<i32> = self.bos.into_iter().collect();
        tokens.push(start);
        tokens.extend(before);
        tokens.push(end);
        tokens.extend(after);
        tokens.push(gap);
        tokens
    }
}

/// How much of either text stays: three quarters of the room are for what stands before the gap, and what one
/// does not need the other gets.
fn share(before: usize, after: usize, room: usize) -> (usize, usize) {
    let kept_after = after.min((room / 4).max(room.saturating_sub(before)));
    (before.min(room - kept_after), kept_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Gap = Gap { bos: Some(1), marks: [90, 91, 92] };

    #[test]
    fn each_text_stands_behind_its_mark() {
        assert_eq!(GAP.tokens(&[5, 6], &[7]), [1, 90, 5, 6, 91, 7, 92]);
        let plain = Gap { bos: None, ..GAP };
        assert_eq!(plain.tokens(&[5], &[]), [90, 5, 91, 92]);
        assert_eq!(plain.tokens(&[], &[7]), [90, 91, 7, 92]);
    }

    #[track_caller]
    fn check(before: usize, after: usize, room: usize, want: Option<(usize, usize)>) {
        let number = |at: usize| i32::try_from(at).unwrap();
        let (texts, others): (Vec<i32>, Vec<i32>) =
            ((100..100 + number(before)).collect(), (500..500 + number(after)).collect());
        let found = GAP.fitted(&texts, &others, room);
        let want = want.map(|(kept_before, kept_after)| {
            // The end of what stands before, the beginning of what stands after.
            let tokens = GAP.tokens(&texts[before - kept_before..], &others[..kept_after]);
            (tokens, before + after - kept_before - kept_after)
        });
        assert_eq!(found, want);
        assert!(found.is_none_or(|(tokens, _)| tokens.len() <= room));
    }

    #[test]
    fn what_is_farthest_from_the_gap_goes_first() {
        check(10, 10, 24, Some((10, 10)));
        check(100, 100, 44, Some((30, 10)));
        // What one text does not need, the other gets.
        check(10, 100, 44, Some((10, 30)));
        check(100, 5, 44, Some((35, 5)));
        check(100, 0, 44, Some((40, 0)));
        check(0, 100, 44, Some((0, 40)));
        check(100, 100, 4, Some((0, 0)));
        check(0, 0, 3, None);
    }
}

//! Tokens that are picked, from matrices that lie one after another.

use proptest::prelude::*;

use super::*;

/// Rows of an expert: not whole strips.
const ROWS: usize = 37;
const EXPERTS: usize = 5;

/// Every expert multiplied with its own picks, in parts; what nobody writes is -7.
fn mixture(
    (level, few): (Level, bool),
    matrix: &Matrix<'_>,
    activations: &Activations,
    experts: &[Vec<Pick>],
    outputs: usize,
) -> Vec<f32> {
    let mut floats = vec![-7.0; (ROWS + 3) * outputs];
    // SAFETY: one thread, and the floats outlive the output.
    let output = unsafe { Output::new(floats.as_mut_ptr(), ROWS + 3, outputs) };
    let mut scratch = Scratch::default();
    for (expert, tokens) in experts.iter().enumerate() {
        let first = expert * ROWS;
        let output = output.from_row(first);
        for rows in [first + 32..first + ROWS, first..first + 32] {
            let (part, picks) =
                (Part { rows, next: first + ROWS..usize::MAX }, Picks { tokens, few });
            // SAFETY: one thread, and all tokens are filled.
            unsafe {
                multiply_picked(level, (matrix, part), (activations, picks), &output, &mut scratch);
            }
        }
    }
    floats
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever else is picked, in what order and how often: a token's products are those of its expert's matrix alone.
    #[test]
    fn a_picked_token_does_not_depend_on_its_neighbours(
        format in proptest::sample::select(quantised()),
        few in any::<bool>(),
        tokens in 1usize..9,
        picked in proptest::collection::vec((0..EXPERTS, any::<prop::sample::Index>()), 0..60),
        seed in any::<u64>(),
    ) {
        let width = 2 * format.block_weights();
        let bytes = bytes(format, EXPERTS * ROWS, width, seed);
        let matrix = Matrix::new(format, &bytes, EXPERTS * ROWS, width).unwrap();
        let mut experts = vec![Vec::new(); EXPERTS];
        for (to, (expert, token)) in picked.iter().enumerate() {
            // Written from behind, so that the order is another than that of the tokens.
            experts[*expert].push(Pick { token: token.index(tokens), to: picked.len() - to });
        }
        for level in levels() {
            let activations = rounded((format, level), tokens, width, &values(tokens, width, 1.0));
            let got = mixture((level, few), &matrix, &activations, &experts, picked.len() + 1);
            prop_assert_eq!(&got[..ROWS + 3], &[-7.0; ROWS + 3], "nobody picked the first");
            for (expert, picks) in experts.iter().enumerate() {
                let alone = &bytes[expert * ROWS * matrix.row_bytes()..];
                let alone = Matrix::new(format, alone, ROWS, width).unwrap();
                for pick in picks {
                    let one = [Pick { token: pick.token, to: 0 }];
                    let mut want = vec![0.0; ROWS];
                    // SAFETY: one thread, and the floats outlive the output.
                    unsafe {
                        let output = Output::new(want.as_mut_ptr(), ROWS, 1);
                        let (part, picks) = ((0..ROWS).into(), Picks { tokens: &one, few });
                        let with = (&activations, picks);
                        multiply_picked(level, (&alone, part), with, &output, &mut Scratch::default());
                    }
                    let got = &got[pick.to * (ROWS + 3)..][..ROWS + 3];
                    prop_assert_eq!(&got[..ROWS], &want[..], "{:?} {:?}", format, level);
                    prop_assert_eq!(&got[ROWS..], &[-7.0; 3], "written beyond the rows");
                }
            }
        }
    }
}

/// The kernels are those that multiply all tokens.
#[test]
fn picked_are_multiplied_as_all_are() {
    let (tokens, width) = (30, 256);
    for (format, level) in
        quantised().into_iter().flat_map(|format| levels().map(move |level| (format, level)))
    {
        let bytes = bytes(format, ROWS, width, 4);
        let matrix = Matrix::new(format, &bytes, ROWS, width).unwrap();
        for kernel in [(level, false), (level, true)] {
            let activations = rounded((format, level), tokens, width, &values(tokens, width, 1.0));
            let all = product(kernel, &matrix, &activations, one(&(0..ROWS)));
            let picks = (0..tokens).map(|token| Pick { token, to: token }).collect();
            let got = mixture(kernel, &matrix, &activations, &[picks], tokens);
            let got: Vec<f32> =
                got.chunks(ROWS + 3).flat_map(|token| token[..ROWS].to_vec()).collect();
            assert_eq!(got, all, "{format:?} {level:?}");
        }
    }
}

/// What a thread keeps of the tokens picked last is theirs alone: other tokens, or other values of the same, are taken in anew.
#[test]
fn what_was_picked_before_is_not_multiplied_again() {
    let (tokens, width) = (9, 64);
    let bytes = bytes(Format::Q8_0, ROWS, width, 4);
    let matrix = Matrix::new(Format::Q8_0, &bytes, ROWS, width).unwrap();
    let lists =
        [vec![0, 1, 2, 3, 4, 5, 6], vec![0, 1, 2, 8, 4, 5, 6], vec![0, 1, 2, 8], vec![7; 7]];
    for level in levels() {
        let (mut activations, mut scratch) = (Activations::default(), Scratch::default());
        let mut there = 0.0;
        for (scale, list) in [(1.0, 0), (2.0, 0), (2.0, 1), (2.0, 1), (2.0, 2), (1.0, 3)] {
            if scale != there {
                there = scale;
                activations.resize(Rounding::Bytes, Layout::Rows, tokens, width);
                for (token, values) in values(tokens, width, scale).chunks(width).enumerate() {
                    // SAFETY: one thread.
                    unsafe { activations.fill(level, token, values) };
                }
            }
            let all = product((level, false), &matrix, &activations, one(&(0..ROWS)));
            let picks: Vec<_> =
                (0..).zip(&lists[list]).map(|(to, &token)| Pick { token, to }).collect();
            let mut got = vec![0.0; ROWS * picks.len()];
            // SAFETY: one thread, and the floats outlive the output.
            unsafe {
                let output = Output::new(got.as_mut_ptr(), ROWS, picks.len());
                let with = (&activations, Picks { tokens: &picks, few: false });
                multiply_picked(level, (&matrix, (0..ROWS).into()), with, &output, &mut scratch);
            }
            for (got, token) in got.chunks(ROWS).zip(&lists[list]) {
                assert_eq!(got, &all[token * ROWS..][..ROWS], "{level:?} {scale} {list}");
            }
        }
    }
}

/// Rows may be filled again without making room, where what was taken in of them is forgotten.
#[test]
fn what_is_forgotten_is_taken_in_anew() {
    let (tokens, width) = (4, 64);
    let bytes = bytes(Format::Q8_0, ROWS, width, 4);
    let matrix = Matrix::new(Format::Q8_0, &bytes, ROWS, width).unwrap();
    for level in levels() {
        let (mut activations, mut scratch) = (Activations::default(), Scratch::default());
        activations.resize(Rounding::Bytes, Layout::Rows, tokens, width);
        for scale in [1.0, 2.0] {
            let values = values(tokens, width, scale);
            for (token, values) in values.chunks(width).enumerate() {
                // SAFETY: one thread.
                unsafe { activations.fill(level, token, values) };
            }
            scratch.forget();
            let mut got = vec![0.0; ROWS * tokens];
            // SAFETY: one thread, and the floats outlive the output.
            unsafe {
                let output = Output::new(got.as_mut_ptr(), ROWS, tokens);
                let part = (&matrix, (0..ROWS).into());
                multiply((level, false), part, &activations, &output, &mut scratch);
            }
            let fresh = rounded((Format::Q8_0, level), tokens, width, &values);
            assert_eq!(got, product((level, false), &matrix, &fresh, one(&(0..ROWS))), "{level:?}");
        }
    }
}

#[track_caller]
fn refused(pick: Pick, first: usize) {
    let bytes = bytes(Format::Q8_0, EXPERTS * ROWS, 64, 1);
    let matrix = Matrix::new(Format::Q8_0, &bytes, EXPERTS * ROWS, 64).unwrap();
    let activations = rounded((Format::Q8_0, Level::Portable), 2, 64, &values(2, 64, 1.0));
    let mut floats = vec![0.0; ROWS * 3];
    // SAFETY: one thread, and the floats outlive the output.
    unsafe {
        let output = Output::new(floats.as_mut_ptr(), ROWS, 3).from_row(first);
        let with = (&activations, Picks { tokens: &[pick], few: false });
        let part = (ROWS..2 * ROWS).into();
        multiply_picked(Level::Portable, (&matrix, part), with, &output, &mut Scratch::default());
    }
}

#[test]
fn what_fits_is_not_refused() {
    refused(Pick { token: 1, to: 2 }, ROWS);
}

#[test]
#[should_panic(expected = "beyond the activations")]
fn tokens_that_are_not_there_are_refused() {
    refused(Pick { token: 2, to: 2 }, ROWS);
}

#[test]
#[should_panic(expected = "or the output")]
fn products_that_have_no_room_are_refused() {
    refused(Pick { token: 1, to: 3 }, ROWS);
}

#[test]
#[should_panic(expected = "rows beyond the output")]
fn rows_after_the_outputs_are_refused() {
    refused(Pick { token: 1, to: 2 }, ROWS - 1);
}

#[test]
#[should_panic(expected = "rows beyond the output")]
fn rows_before_the_outputs_are_refused() {
    refused(Pick { token: 1, to: 2 }, ROWS + 1);
}

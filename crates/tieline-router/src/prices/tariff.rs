//! A price that may be another one for long prompts.

use tieline_types::{MicroUsd, Price, Tokens, Usage};

/// What a model's answers cost: by one price, or by two, where the prompt's length says which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tariff {
    /// The price.
    pub price: Price,
    /// The price of all tokens of a request whose prompt has more than so many, where the vendor has another.
    pub above: Option<(Tokens, Price)>,
}

impl Tariff {
    /// The price of a request whose prompt has so many tokens.
    pub fn of_prompt(&self, prompt: Tokens) -> Price {
        match self.above {
            Some((most, price)) if prompt > most => price,
            Some(_) | None => self.price,
        }
    }

    /// What an answer cost. Thoughts are among the tokens written, and paid once.
    pub fn cost(&self, usage: &Usage) -> MicroUsd {
        self.of_prompt(usage.prompt_tokens).cost(usage)
    }

    /// The most that a request can cost whose prompt has at most so many tokens and whose answer has at most so many:
    /// every token of the prompt at the dearest of its three prices, and all of the answer; by whichever of the prices
    /// that can apply is the higher, since the prompt may turn out shorter.
    pub fn worst(&self, prompt: Tokens, completion: Tokens) -> MicroUsd {
        let dearest = |prompt: Tokens, price: Price| {
            let usage =
                Usage { prompt_tokens: prompt, completion_tokens: completion, ..Usage::default() };
            Price { input: dearest_input(price), ..price }.cost(&usage)
        };
        match self.above {
            Some((most, above)) if prompt > most => {
                dearest(prompt, above).max(dearest(most, self.price))
            }
            Some(_) | None => dearest(prompt, self.price),
        }
    }
}

/// The dearest of the prices of what is read.
pub(super) fn dearest_input(price: Price) -> MicroUsd {
    price.input.max(price.cached_input).max(price.cache_write)
}

//! Chooses the next token: llama.cpp's own samplers in its own order.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;
use tieline_types::Sampling;

use super::{Context, Model};
use crate::logprobs::likeliest_of;

/// Below this a temperature is greedy: dividing logits by much less gives infinities.
const COLD: f32 = 1e-3;

/// A chain of samplers with the state of one answer.
#[derive(Debug)]
pub(crate) struct Sampler {
    chain: NonNull<sys::llama_sampler>,
    /// Nothing but the likeliest token is ever chosen: no need to list all candidates.
    plain: bool,
}

impl Sampler {
    /// Penalties, then top-k, top-p, min-p, temperature and a seeded draw; without a temperature the
    /// likeliest token. Samplers that would change nothing are left out.
    ///
    /// `sampling` is valid and `seed` is not `u32::MAX`, which llama.cpp takes for "any".
    pub(crate) fn new(model: &Model, sampling: &Sampling, seed: u32) -> Option<Self> {
        // SAFETY: fills a plain struct.
        let params = unsafe { sys::llama_sampler_chain_default_params() };
        // SAFETY: takes the struct by value.
        let chain = NonNull::new(unsafe { sys::llama_sampler_chain_init(params) })?;
        let cold = sampling.temperature < COLD;
        let chain = Self { chain, plain: cold && penalty_window(sampling).is_none() };
        if let Some(window) = penalty_window(sampling) {
            // SAFETY: the values are in range; `add` takes the new sampler, as below.
            chain.add(unsafe {
                sys::llama_sampler_init_penalties(
                    model.vocabulary(),
                    window,
                    sampling.repeat_penalty,
                    sampling.frequency_penalty,
                    sampling.presence_penalty,
                )
            });
        }
        if cold {
            // SAFETY: takes nothing.
            chain.add(unsafe { sys::llama_sampler_init_greedy() });
            return Some(chain);
        }
        if let Some(top_k) = i32::try_from(sampling.top_k).ok().filter(|&k| k > 0) {
            // SAFETY: takes a number.
            chain.add(unsafe { sys::llama_sampler_init_top_k(top_k) });
        }
        if sampling.top_p < 1.0 {
            // SAFETY: takes numbers.
            chain.add(unsafe { sys::llama_sampler_init_top_p(sampling.top_p, 1) });
        }
        if sampling.min_p > 0.0 {
            // SAFETY: takes numbers.
            chain.add(unsafe { sys::llama_sampler_init_min_p(sampling.min_p, 1) });
        }
        // SAFETY: takes a number.
        chain.add(unsafe { sys::llama_sampler_init_temp(sampling.temperature) });
        // SAFETY: takes a number.
        chain.add(unsafe { sys::llama_sampler_init_dist(seed) });
        Some(chain)
    }

    fn add(&self, sampler: *mut sys::llama_sampler) {
        // SAFETY: the chain is valid and now owns the sampler.
        unsafe { sys::llama_sampler_chain_add(self.chain.as_ptr(), sampler) };
    }

    /// Tells the penalties that `token` came, without choosing it.
    pub(crate) fn accept(&mut self, token: i32) {
        // SAFETY: the chain is valid.
        unsafe { sys::llama_sampler_accept(self.chain.as_ptr(), token) };
    }

    /// Chooses a token by the logits of a row of the last batch; `None` where it has none.
    pub(crate) fn sample(&mut self, context: &mut Context<'_>, row: usize) -> Option<i32> {
        let logits = context.logits(row)?;
        if self.plain {
            return likeliest_of(logits);
        }
        let row = i32::try_from(row).ok()?;
        // SAFETY: both are valid and the row's logits exist, as just checked.
        Some(unsafe {
            sys::llama_sampler_sample(self.chain.as_ptr(), context.as_sampling_ptr(), row)
        })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once, with all samplers in it.
        unsafe { sys::llama_sampler_free(self.chain.as_ptr()) };
    }
}

#[expect(clippy::float_cmp, reason = "exactly 1 and 0 mean off")]
fn penalty_window(sampling: &Sampling) -> Option<i32> {
    let off = sampling.repeat_penalty == 1.0
        && sampling.frequency_penalty == 0.0
        && sampling.presence_penalty == 0.0;
    i32::try_from(sampling.penalty_window.0).ok().filter(|&window| window > 0 && !off)
}

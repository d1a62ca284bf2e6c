//! Reads a price, and says which text was none.

use tieline_types::MicroUsd;

/// Text that is no amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no amount of dollars: expected digits, at most six of them after a point, such as 2.50"
)]
pub struct NoAmount {
    /// The text.
    pub text: String,
}

/// Reads dollars, such as `2.50`, exactly.
///
/// # Errors
/// It is below zero, has more than six decimals, or is no such number.
pub fn parse_usd(text: &str) -> Result<MicroUsd, NoAmount> {
    text.parse().map_err(|_| NoAmount { text: text.chars().take(40).collect() })
}

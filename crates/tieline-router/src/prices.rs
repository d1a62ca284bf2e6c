//! What an answer costs: a dated table of prices inside the program, and the policy's own.
//!
//! The table is data that was true on a day: each row says on which, and where from. Its digest is shown beside a price
//! so that two people can tell whether they reckon with the same numbers. It is signed, and another table takes its place
//! only where a key signed that too. A model that no row names has no price: nothing is guessed from a name. Pure: asks
//! nobody and reads no clock.

mod decimal;
mod glob;
mod row;
mod signed;
mod tariff;
#[cfg(test)]
mod tests;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use tieline_types::{Bytes, Digest, MicroUsd, Price, Tokens, Usage};

pub use decimal::{NoAmount, parse_usd};
pub use row::{PriceError, PriceRow, PriceTier};
pub use signed::{SignatureError, key_line};
pub use tariff::Tariff;

use row::Compiled;
use tariff::dearest_input;

/// The table as it is in the program.
const TABLE: &str = include_str!("prices/prices.toml");
/// What [`KEY`] signed it with.
const SIGNATURE: &str = include_str!("prices/prices.toml.minisig");
/// The public key of whoever signs the program's table, as minisign writes it.
pub const KEY: &str = include_str!("prices/prices.pub");

/// A price that nobody has looked at for so long is said to be old, in days.
const STALE_DAYS: i64 = 90;

/// What vendors may add to a prompt that we did not write, such as the instructions for tools, in tokens. Anthropic
/// documents some 800 at most.
const ADDED_TOKENS: u32 = 1024;

/// The most tokens that a vendor charges for one picture, by their documentation: `gpt-4o-mini` at high detail, 2833 and
/// 5667 for each of at most 8 tiles. `docs/money.md` has the others, all of which are less.
const PICTURE_TOKENS: u32 = 2833 + 8 * 5667;

/// What vendors write around a message, a call or a tool at most, in tokens: who speaks, a name, a beginning and an end.
/// OpenAI documents 3 for a message and 1 for a name.
const PART_TOKENS: u32 = 8;

/// The most tokens that the prompt in a request's body can have, of so many messages, calls and tools. Tokenisers of
/// bytes make no more tokens than there are bytes. Too much by a factor of three or four for plain text, which the
/// settlement gives back. Pictures are no text: each is taken for the dearest.
pub fn most_prompt_tokens(text: Bytes, pictures: u32, parts: u32) -> Tokens {
    let bytes = u32::try_from(text.0).unwrap_or(u32::MAX);
    let pictures = pictures.saturating_mul(PICTURE_TOKENS);
    let parts = parts.saturating_mul(PART_TOKENS);
    Tokens(bytes.saturating_add(pictures).saturating_add(parts).saturating_add(ADDED_TOKENS))
}

/// Whose price is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The backend's name in the policy.
    pub backend: &'a str,
    /// The vendor behind it, such as `openai`.
    pub vendor: &'a str,
    /// The model, as the vendor names it.
    pub model: &'a str,
}

/// Where a price is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PriceSource {
    /// The program's own table.
    Table {
        /// The day that it is known for.
        date: Date,
        /// The vendor's page.
        url: String,
    },
    /// The user's policy.
    Policy {
        /// The day that it is known for, where the policy says.
        date: Option<Date>,
    },
}

impl PriceSource {
    /// The word for it in ledgers.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Table { .. } => "table",
            Self::Policy { .. } => "policy",
        }
    }

    /// The day that the price is known for.
    pub fn date(&self) -> Option<Date> {
        match self {
            Self::Table { date, .. } => Some(*date),
            Self::Policy { date } => *date,
        }
    }
}

/// What a model's answers cost, and how we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priced {
    /// The price.
    pub price: Price,
    /// The price of all tokens of a request whose prompt has more than so many, where the vendor has another.
    pub above: Option<(Tokens, Price)>,
    /// Where it is from.
    pub source: PriceSource,
}

impl Priced {
    /// The prices alone.
    pub fn tariff(&self) -> Tariff {
        Tariff { price: self.price, above: self.above }
    }

    /// What an answer cost: see [`Tariff::cost`].
    pub fn cost(&self, usage: &Usage) -> MicroUsd {
        self.tariff().cost(usage)
    }

    /// The most that a request can cost: see [`Tariff::worst`].
    pub fn worst(&self, prompt: Tokens, completion: Tokens) -> MicroUsd {
        self.tariff().worst(prompt, completion)
    }

    /// A usage of so many tokens that costs as much as [`Priced::worst`] says.
    pub fn worst_usage(&self, prompt: Tokens, completion: Tokens) -> Usage {
        let price = self.tariff().of_prompt(prompt);
        let dearest = dearest_input(price);
        let (cached, written) = match dearest {
            dearest if dearest == price.input => (Tokens(0), Tokens(0)),
            dearest if dearest == price.cache_write => (Tokens(0), prompt),
            _ => (prompt, Tokens(0)),
        };
        Usage {
            prompt_tokens: prompt,
            cached_tokens: cached,
            cache_write_tokens: written,
            completion_tokens: completion,
            ..Usage::default()
        }
    }

    /// How old the price is, in days, where that is more than it should be.
    pub fn stale_days(&self, now_unix_s: i64) -> Option<i64> {
        self.source.date().and_then(|date| stale_days(date, now_unix_s))
    }
}

/// All prices that are known.
#[derive(Clone, Debug)]
pub struct Prices {
    policy: Vec<Compiled>,
    table: Vec<Compiled>,
    as_of: Date,
    digest: Digest,
    key: Option<String>,
}

impl Prices {
    /// The table of the program.
    ///
    /// # Errors
    /// The table cannot be read, or is not what was signed: a test rules both out.
    pub fn builtin() -> Result<Self, PriceError> {
        Self::signed(TABLE, SIGNATURE, KEY)
    }

    /// With the policy's prices before the table's.
    ///
    /// # Errors
    /// A row has no amount or no model, or a date that is none.
    pub fn with_policy(self, rows: &[PriceRow]) -> Result<Self, PriceError> {
        let policy = rows.iter().map(Compiled::of_policy).collect::<Result<_, _>>()?;
        Ok(Self { policy, ..self })
    }

    /// A table that `key` signed, in place of the program's.
    ///
    /// # Errors
    /// It is not what the key signed, it is no table of prices, or a row of it lacks something.
    pub fn signed(text: &str, signature: &str, key: &str) -> Result<Self, PriceError> {
        signed::verify(text, signature, key).map_err(PriceError::Signature)?;
        Ok(Self { key: Some(key_line(key).to_owned()), ..Self::of_table(text)? })
    }

    /// A table that nobody signed.
    ///
    /// # Errors
    /// It is no table of prices, or a row of it lacks something.
    pub fn of_table(text: &str) -> Result<Self, PriceError> {
        let table: Vec<Compiled> =
            row::read(text)?.iter().map(Compiled::of_table).collect::<Result<_, _>>()?;
        let as_of = table.iter().filter_map(|row| row.priced.source.date()).max();
        let digest = Digest(Sha256::digest(text).into());
        Ok(Self { policy: Vec::new(), table, as_of: as_of.unwrap_or_default(), digest, key: None })
    }

    /// The price of the row that names this model most exactly; the policy's rows come first. `None`: nobody knows.
    pub fn find(&self, target: Target<'_>) -> Option<&Priced> {
        best(&self.policy, target).or_else(|| best(&self.table, target))
    }

    /// The newest day that any price of the table is known for. Others may be older: see [`Priced::source`].
    pub fn as_of(&self) -> Date {
        self.as_of
    }

    /// The SHA-256 of the table.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The public key that signed the table: the line of it that minisign takes.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Whether the key that signed it is the program's own.
    pub fn is_by_program(&self) -> bool {
        self.key() == Some(key_line(KEY))
    }

    /// How old the newest price of the table is, in days, where that is more than it should be.
    pub fn stale_days(&self, now_unix_s: i64) -> Option<i64> {
        stale_days(self.as_of, now_unix_s)
    }

    /// Which table this is, in a few words for people.
    pub fn edition(&self) -> String {
        format!("prices as of {}, digest {}", self.as_of, self.digest.short())
    }
}

fn best<'a>(rows: &'a [Compiled], target: Target<'_>) -> Option<&'a Priced> {
    let mut found: Option<(usize, &Priced)> = None;
    for row in rows {
        // Of two that are as exact the first one counts.
        if let Some(exact) = row.matches(target)
            && found.is_none_or(|(before, _)| exact > before)
        {
            found = Some((exact, &row.priced));
        }
    }
    found.map(|(_, priced)| priced)
}

fn stale_days(date: Date, now_unix_s: i64) -> Option<i64> {
    let began = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    let days = now_unix_s.saturating_sub(began) / 86_400;
    (days > STALE_DAYS).then_some(days)
}

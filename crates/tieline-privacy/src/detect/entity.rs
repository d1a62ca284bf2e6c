//! What can be found, and how much harm it does outside.

use std::fmt;

use serde::{Deserialize, Serialize};
use tieline_types::DataClass;

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Entity {
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
    /// A payment card's number.
    Card,
    /// An international bank account number.
    Iban,
    /// A number that a state gives to a person or firm: social security, tax, identity card.
    NationalId,
    /// An address of the Internet Protocol, version 4 or 6.
    IpAddress,
    /// A network device's hardware address.
    MacAddress,
    /// A latitude and a longitude.
    Coordinates,
    /// A street and a house number, with the town where it is written.
    PostalAddress,
    /// The date on which somebody was born.
    BirthDate,
    /// An address of the web with a password in it.
    CredentialUrl,
    /// A private key of TLS, SSH or PGP.
    PrivateKey,
    /// A signed token of the JSON web kind.
    Jwt,
    /// A vendor's key, known by its form.
    ApiKey,
    /// A value that looks random, or is said to be a password.
    Secret,
    /// How a program reaches a database or queue, with a password in it.
    ConnectionString,
    /// A term of the user's dictionary.
    Term,
    /// A user's name in the path of a home directory.
    Path,
    /// Who wrote a commit: a name and an e-mail address.
    GitIdentity,
}

impl Entity {
    /// All, in the order in which they are declared.
    pub const ALL: [Self; 19] = [
        Self::Email,
        Self::Phone,
        Self::Card,
        Self::Iban,
        Self::NationalId,
        Self::IpAddress,
        Self::MacAddress,
        Self::Coordinates,
        Self::PostalAddress,
        Self::BirthDate,
        Self::CredentialUrl,
        Self::PrivateKey,
        Self::Jwt,
        Self::ApiKey,
        Self::Secret,
        Self::ConnectionString,
        Self::Term,
        Self::Path,
        Self::GitIdentity,
    ];

    /// The word for it in policies, pseudonyms and figures; the same as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Card => "card",
            Self::Iban => "iban",
            Self::NationalId => "national_id",
            Self::IpAddress => "ip_address",
            Self::MacAddress => "mac_address",
            Self::Coordinates => "coordinates",
            Self::PostalAddress => "postal_address",
            Self::BirthDate => "birth_date",
            Self::CredentialUrl => "credential_url",
            Self::PrivateKey => "private_key",
            Self::Jwt => "jwt",
            Self::ApiKey => "api_key",
            Self::Secret => "secret",
            Self::ConnectionString => "connection_string",
            Self::Term => "term",
            Self::Path => "path",
            Self::GitIdentity => "git_identity",
        }
    }

    /// The least class of a text in which this was found.
    ///
    /// What opens something is secret. What is of a person is private. Addresses of machines are internal: every
    /// log is full of them, they tell of a network rather than of a person, and a policy may still hide them.
    pub fn class(self) -> DataClass {
        match self {
            Self::CredentialUrl
            | Self::PrivateKey
            | Self::Jwt
            | Self::ApiKey
            | Self::Secret
            | Self::ConnectionString => DataClass::Secret,
            Self::Email
            | Self::Phone
            | Self::Card
            | Self::Iban
            | Self::NationalId
            | Self::Coordinates
            | Self::PostalAddress
            | Self::BirthDate
            | Self::Term
            | Self::Path
            | Self::GitIdentity => DataClass::Private,
            Self::IpAddress | Self::MacAddress => DataClass::Internal,
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_the_one_of_json() {
        for entity in Entity::ALL {
            let json = serde_json::to_string(&entity).unwrap();
            assert_eq!(json, format!("\"{entity}\""));
        }
    }

    #[test]
    fn all_are_in_order() {
        assert!(Entity::ALL.is_sorted_by(|one, next| one < next));
    }
}

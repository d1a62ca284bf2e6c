//! Values of every kind that are found nowhere else, and requests that hold them everywhere.

use serde_json::json;
use tieline_privacy::{Detectors, Dictionary, Entity};
use tieline_types::{Constraint, Message, Owner, Prompt, Request, Role, Tool, ToolCall};

/// A value that must not leave.
#[derive(Clone, Debug)]
pub(crate) struct Canary {
    pub(crate) entity: Entity,
    /// The sentence that it stands in.
    pub(crate) sentence: String,
    /// What nobody else may see of it.
    pub(crate) secret: String,
}

/// So many canaries, all kinds in turn.
pub(crate) fn canaries(count: usize) -> Vec<Canary> {
    let kinds = Entity::ALL.iter().cycle();
    kinds.take(count).enumerate().map(|(at, entity)| canary(*entity, 1000 + at)).collect()
}

/// Detectors that know the canaries' terms.
pub(crate) fn detectors(canaries: &[Canary]) -> Detectors {
    let terms = canaries.iter().filter(|canary| canary.entity == Entity::Term);
    let terms = terms.map(|canary| canary.secret.clone()).collect();
    Detectors::new(&Dictionary { terms }).unwrap()
}

fn canary(entity: Entity, number: usize) -> Canary {
    let (before, secret, after) = parts(entity, number);
    Canary { entity, sentence: format!("{before}{secret}{after}"), secret }
}

/// A value, and what stands before and after it. `number` has four digits.
fn parts(entity: Entity, number: usize) -> (&'static str, String, &'static str) {
    match entity {
        Entity::Email => ("write to ", format!("anna{number}@post{number}.org"), " soon"),
        Entity::Phone => ("call ", format!("+49 30 9018 {number}"), " today"),
        Entity::Card => ("card ", luhn(&format!("41111111111{number}")), ", exp 12/29"),
        Entity::Iban => ("IBAN: ", iban(number), " (bank)"),
        Entity::NationalId => ("SSN: ", format!("536-22-{number}"), ","),
        Entity::IpAddress => {
            ("from ", format!("10.77.{}.{}", number / 100, number % 100 + 1), " today")
        }
        Entity::MacAddress => {
            ("mac ", format!("00:1a:2b:3c:{}:{}", number / 100, 10 + number % 90), " up")
        }
        Entity::Coordinates => ("at ", format!("52.{number}° N, 13.{number}° E"), " now"),
        Entity::PostalAddress => ("at ", format!("Hauptstraße {number}, 10115 Berlin"), " now"),
        Entity::BirthDate => {
            ("born on ", format!("March {}, {}", number % 28 + 1, 900 + number), " in Rome")
        }
        Entity::CredentialUrl => {
            ("get ", format!("https://bob:pa55w{number}rd@host.org/x"), " now")
        }
        Entity::PrivateKey => {
            ("-----BEGIN PRIVATE KEY-----\n", key(number), "\n-----END PRIVATE KEY-----")
        }
        Entity::Jwt => ("token ", jwt(number), ","),
        Entity::ApiKey => (
            "key ",
            format!("sk-ant-api03-Qx7Lw9{number}Zr4Tb8Vn2Mk6Hj3Pd5Gs1Fy0Uc{number}-AA"),
            ".",
        ),
        Entity::Secret => ("password: ", format!("Tr0ub4dor&{number}x"), ", ok"),
        Entity::ConnectionString => {
            ("dsn: ", format!("postgres://app:s3cr3t{number}@db.host.org/app"), " ok")
        }
        Entity::Term => ("about ", format!("Zebulon{number}"), " then"),
        Entity::Path => ("open /home/", format!("canary{number}"), "/src/x.rs"),
        Entity::GitIdentity => ("Author: ", format!("Jane Roe <jane{number}@roe.org>"), "\nDate:"),
        other => panic!("no canary of {other:?}"),
    }
}

fn key(number: usize) -> String {
    format!("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC{number}\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj{number}")
}

fn jwt(number: usize) -> String {
    // {"alg":"HS256","typ":"JWT"}
    let header = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
    format!(
        "{header}.eyJzdWIiOiIxMjM0NTY3ODkwIn{number}.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0T{number}"
    )
}

fn luhn(digits: &str) -> String {
    let sum: u32 = (0_u32..)
        .zip(digits.bytes().rev())
        .map(|(at, digit)| {
            let digit = u32::from(digit - b'0') * (2 - at % 2);
            digit / 10 + digit % 10
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

fn iban(number: usize) -> String {
    let account = format!("37040044053201{number}");
    // DE00 in figures stands after the account.
    let rest = format!("{account}131400")
        .bytes()
        .fold(0, |rest, digit| (rest * 10 + u64::from(digit - b'0')) % 97);
    format!("DE{:02}{account}", 98 - rest)
}

/// Requests that hold the canaries on every surface, plain, in JSON and in JSON with escapes. Every request takes
/// fifteen.
pub(crate) fn requests(canaries: &[Canary]) -> Vec<Request> {
    canaries.chunks(15).map(request).collect()
}

fn request(canaries: &[Canary]) -> Request {
    let say = |at: usize| canaries[at % canaries.len()].sentence.clone();
    let object = |at: usize| json!({ "to": say(at), "list": [1, say(at + 1)] }).to_string();
    let mut asked = Message::new(Role::User, say(0));
    asked.name = Some(say(1));
    let mut called = Message::new(Role::Assistant, format!("{}\n\n{}", say(2), say(3)));
    called.reasoning = Some(say(4).into());
    called.tool_calls = vec![ToolCall {
        id: "call_1".to_owned(),
        name: "mail".to_owned(),
        arguments: object(5).into(),
    }];
    let mut result = Message::new(Role::Tool, ascii(&object(7)));
    result.tool_call_id = Some("call_1".to_owned());
    result.name = Some("mail".to_owned());
    let system = Message::new(Role::System, say(9));
    let mut request = Request::new(Prompt::Chat(vec![system, asked, called, result]));
    request.tools = vec![Tool {
        name: "mail".to_owned(),
        description: say(10),
        parameters: ascii(&json!({ "type": "object", "description": say(11) }).to_string()),
    }];
    request.stop = vec![say(12)];
    let schema = json!({ "type": "string", "enum": [say(13), say(14)] });
    request.constraint = Some(Constraint::JsonSchema(schema.to_string()));
    request.owner = Owner(say(0));
    request
}

/// JSON as Python writes it: all that is not ASCII escaped.
fn ascii(json: &str) -> String {
    json.chars().fold(String::new(), |mut out, unit| {
        match unit.is_ascii() {
            true => out.push(unit),
            false => out.push_str(&format!("\\u{:04x}", u32::from(unit))),
        }
        out
    })
}

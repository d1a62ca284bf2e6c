//! Every dialect of clients with every protocol of vendors, cell by cell: what the vendor got in its words, and
//! what the client got in its own. `docs/matrix.md` is made of what came of it.

mod answers;
mod cells;
pub(crate) mod clients;
mod page;
pub(crate) mod town;
mod words;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use super::http::{post, send};
use cells::{Cell, FEATURES, Outcome};
use clients::Client;
use town::{Town, backends};

/// A row for each backend; for each client what came of a whole answer and of a streamed one.
type Table = Vec<(&'static str, Vec<[Outcome; 2]>)>;

/// `DOCS=write` writes the page anew.
#[test]
fn every_client_with_every_vendor() {
    let town = Town::new();
    let (mut asked, mut wrong) = (0, Vec::new());
    let mut page = page::Page::default();
    for feature in &FEATURES {
        let mut table = Table::new();
        for backend in backends() {
            let row = Client::ALL.map(|client| {
                [false, true].map(|stream| {
                    asked += 1;
                    town.renew(asked);
                    let cell = Cell { client, backend: &backend };
                    let asked = catch_unwind(AssertUnwindSafe(|| cell.ask(&town, feature, stream)));
                    asked.unwrap_or_else(|_| {
                        wrong.push(format!(
                            "{client:?} to {}, {stream}: {}",
                            backend.name, feature.title
                        ));
                        Outcome::NoWord
                    })
                })
            });
            table.push((backend.name, row.to_vec()));
        }
        page.add(feature.title, &table);
    }
    assert!(wrong.is_empty(), "{} of {asked}: {wrong:#?}", wrong.len());
    page.compare();
}

#[test]
fn every_list_has_what_may_be_asked() {
    let rules = "[models.fast]\ntask = \"chat\"\n[[rule]]\nname = \"all\"\nclass = \"any\"\nzone = \"cloud\"\nas = \"as-is\"\n";
    let town = Town::with(town::Terms { rules, terms: Vec::new() });
    let anthropic = [("anthropic-version", "2023-06-01")];
    let list = |path: &str, headers: &[(&str, &str)]| {
        send(town.address, ("GET", path), headers, "").is(200)
    };
    let names = |list: &Value, member: &str, name: &str| {
        let all = list[member].as_array().unwrap().iter();
        all.map(|model| model[name].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let lists = [
        names(&list("/v1/models", &[]), "data", "id"),
        names(&list("/v1/models", &anthropic), "data", "id"),
        names(&list("/api/tags", &[]), "models", "name"),
    ];
    for all in lists {
        for wanted in ["mock", "fast", "anthropic/claude-sonnet-4-5", "ollama/big"] {
            assert!(all.iter().any(|name| name == wanted), "{wanted}: {all:?}");
        }
    }
    let one = list("/v1/models/ollama/big", &anthropic);
    assert_eq!((&one["id"], &one["max_input_tokens"]), (&json!("ollama/big"), &json!(200_000)));
    let shown = post(town.address, "/api/show", &json!({ "model": "ollama/big" })).is(200);
    assert_eq!(shown["capabilities"], json!(["completion", "tools", "vision", "thinking"]));
    assert_eq!(shown["model_info"]["remote.context_length"], 200_000);
}

//! Every dialect of clients with every protocol of vendors, cell by cell: what the vendor got in its words, and
//! what the client got in its own. `docs/matrix.md` is made of what came of it.

mod answers;
mod cells;
pub(crate) mod clients;
mod page;
pub(crate) mod town;
mod words;

use std::panic::{AssertUnwindSafe, catch_unwind};

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

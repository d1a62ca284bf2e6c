//! Prints the OpenAPI document, or with `routes` the table of routes and their guards.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    let text = match std::env::args().nth(1).as_deref() {
        Some("routes") => tieline_server::routes_text(),
        _ => tieline_server::openapi(),
    };
    io::stdout().write_all(text.as_bytes())
}

//! Sizes: of files, of inline test modules, of functions and their parameter lists.

use std::path::Path;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, ImplItemFn, ItemFn, ItemImpl, ItemMod, Meta, Signature, TraitItemFn};

const FILE_LINES: usize = 600;
const TEST_MODULE_LINES: usize = 200;
const FUNCTION_LINES: usize = 60;
const PARAMETERS: usize = 5;

pub(super) fn faults(path: &str, text: &str) -> Vec<String> {
    let file = match syn::parse_file(text) {
        Ok(file) => file,
        Err(error) => return vec![format!("{path}: cannot be parsed: {error}")],
    };
    let mut sizes = Sizes { path, in_tests: is_test_file(path), ..Sizes::default() };
    sizes.visit_file(&file);
    let lines = text.lines().count() - sizes.test_lines;
    if !is_test_file(path) && lines > FILE_LINES {
        sizes.faults.push(format!("{path}: {lines} lines without tests, {FILE_LINES} at most"));
    }
    sizes.faults
}

/// A file of tests alone: `tests.rs`, or anything in a folder `tests`.
fn is_test_file(path: &str) -> bool {
    let path = Path::new(path);
    path.file_name().is_some_and(|name| name == "tests.rs")
        || path.components().any(|part| part.as_os_str() == "tests")
}

#[derive(Default)]
struct Sizes<'a> {
    path: &'a str,
    faults: Vec<String>,
    /// Lines of inline test modules, with their attributes.
    test_lines: usize,
    in_tests: bool,
    /// Inside `impl Trait for`: the trait fixes the parameters.
    in_trait_impl: bool,
}

impl Sizes<'_> {
    fn function(&mut self, signature: &Signature, body: &Block) {
        let name = &signature.ident;
        let at = format!("{}:{}", self.path, name.span().start().line);
        let lines = lines(signature.span(), body.span());
        if lines > FUNCTION_LINES {
            self.faults
                .push(format!("{at}: fn {name} has {lines} lines, {FUNCTION_LINES} at most"));
        }
        let parameters = signature.inputs.len();
        // A callback's parameters are fixed by the C header.
        let is_free = !self.in_tests && !self.in_trait_impl && signature.abi.is_none();
        if is_free && parameters > PARAMETERS {
            self.faults
                .push(format!("{at}: fn {name} has {parameters} parameters, {PARAMETERS} at most"));
        }
    }
}

impl<'ast> Visit<'ast> for Sizes<'_> {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let starts_tests = module.content.is_some() && is_cfg_test(&module.attrs) && !self.in_tests;
        if !starts_tests {
            return visit::visit_item_mod(self, module);
        }
        let lines = lines(module.span(), module.span());
        self.test_lines += lines;
        if lines > TEST_MODULE_LINES {
            let at = format!("{}:{}", self.path, module.ident.span().start().line);
            let advice = "move them to a file tests.rs";
            self.faults.push(format!("{at}: {lines} lines of inline tests: {advice}"));
        }
        self.in_tests = true;
        visit::visit_item_mod(self, module);
        self.in_tests = false;
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let outer = std::mem::replace(&mut self.in_trait_impl, item.trait_.is_some());
        visit::visit_item_impl(self, item);
        self.in_trait_impl = outer;
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        let empty = Block { brace_token: syn::token::Brace::default(), stmts: Vec::new() };
        self.function(&function.sig, function.default.as_ref().unwrap_or(&empty));
        visit::visit_trait_item_fn(self, function);
    }
}

/// Lines from the first of `start` to the last of `end`.
fn lines(start: Span, end: Span) -> usize {
    (end.end().line + 1).saturating_sub(start.start().line)
}

fn is_cfg_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        Meta::Path(_) | Meta::NameValue(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::faults;

    /// `count` lines of code.
    fn code(count: usize) -> String {
        "const _: () = ();\n".repeat(count)
    }

    /// A test module of `count` lines.
    fn test_module(count: usize) -> String {
        format!("#[cfg(test)]\nmod tests {{\n{}}}\n", code(count - 3))
    }

    /// A function of `count` lines.
    fn function(count: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    g();\n".repeat(count - 2))
    }

    #[track_caller]
    fn check(path: &str, text: &str, want: &[&str]) {
        assert_eq!(faults(path, text), want);
    }

    #[test]
    fn a_file_has_600_lines_at_most() {
        check("a.rs", &code(600), &[]);
        check("a.rs", &code(601), &["a.rs: 601 lines without tests, 600 at most"]);
    }

    #[test]
    fn inline_tests_do_not_count_and_test_files_have_no_limit() {
        check("a.rs", &(code(600) + &test_module(150)), &[]);
        check("src/a/tests.rs", &code(900), &[]);
        check("tests/it/main.rs", &code(900), &[]);
    }

    #[test]
    fn a_module_that_is_not_for_tests_counts() {
        let text = code(598) + "mod m {\n}\n#[cfg(unix)]\nmod n {\n}\n";
        check("a.rs", &text, &["a.rs: 603 lines without tests, 600 at most"]);
    }

    #[test]
    fn inline_tests_have_200_lines_at_most() {
        check("a.rs", &test_module(200), &[]);
        let want = ["a.rs:2: 201 lines of inline tests: move them to a file tests.rs"];
        check("a.rs", &test_module(201), &want);
    }

    #[test]
    fn a_function_has_60_lines_at_most() {
        check("a.rs", &function(60), &[]);
        check("a.rs", &function(61), &["a.rs:1: fn f has 61 lines, 60 at most"]);
        let method = format!("impl A {{\n{}}}\n", function(61));
        check("a.rs", &method, &["a.rs:2: fn f has 61 lines, 60 at most"]);
        let default = format!("trait A {{\n{}}}\n", function(61));
        check("a.rs", &default, &["a.rs:2: fn f has 61 lines, 60 at most"]);
    }

    #[test]
    fn a_function_has_5_parameters_at_most() {
        check("a.rs", "fn f(a: A, b: A, c: A, d: A, e: A) {}", &[]);
        let six = "fn f(a: A, b: A, c: A, d: A, e: A, f: A) {}";
        let want = ["a.rs:1: fn f has 6 parameters, 5 at most"];
        check("a.rs", six, &want);
        check("a.rs", &format!("impl B {{ {six} }}"), &want);
        check("a.rs", "trait B { fn f(a: A, b: A, c: A, d: A, e: A, f: A); }", &want);
    }

    #[test]
    fn tests_traits_of_others_and_callbacks_may_have_more() {
        let six = "fn f(a: A, b: A, c: A, d: A, e: A, f: A) {}";
        check("a.rs", &format!("impl T for B {{ {six} }}"), &[]);
        check("a.rs", &format!("extern \"C\" {six}"), &[]);
        check("a.rs", &format!("#[cfg(test)]\nmod tests {{ {six} }}"), &[]);
        check("src/tests.rs", six, &[]);
    }

    #[test]
    fn a_file_that_is_not_rust_is_a_fault() {
        assert_eq!(faults("a.rs", "fn (").len(), 1);
    }
}

//! What goes wrong, what the user reads then, and the exit code.

use super::home::{Home, check};

#[test]
fn unknown_models_are_named_with_what_was_meant() {
    let home = Home::shared();
    check!(home, home.tieline(["show", "smolm2"]), @r#"
    exit 1
    --- stderr
    error: no model "smolm2" is here
    hint: did you mean smollm2?
    "#);
    check!(home, home.tieline(["show", "zzz"]), @r#"
    exit 1
    --- stderr
    error: no model "zzz" is here
    hint: tieline list shows the models here; tieline pull fetches one
    "#);
    check!(home, home.tieline(["rm", "smolm2"]), @r#"
    exit 1
    --- stderr
    error: no model "smolm2" is here
    hint: did you mean smollm2?
    "#);
    check!(home, home.tieline(["run", "smolm3", "hi"]), @r#"
    exit 1
    --- stderr
    error: no model "smolm3" in the catalogue
    hint: did you mean smollm2?
    "#);
    check!(home, home.tieline(["bench", "zzz"]), @r#"
    exit 1
    --- stderr
    error: no model "zzz" in the catalogue
    hint: a model elsewhere is written hf:OWNER/REPO, https://…, pypi:… or file:…
    "#);
    let empty = Home::empty();
    check!(empty, empty.tieline(["show", "smollm2"]), @r#"
    exit 1
    --- stderr
    error: no model "smollm2" is here
    hint: tieline pull smollm2
    "#);
}

#[test]
fn an_error_is_json_where_results_are() {
    let home = Home::shared();
    check!(home, home.tieline(["show", "smolm2", "--json"]), @r#"
    exit 1
    --- stderr
    {"error":{"message":"no model \"smolm2\" is here","hint":"did you mean smollm2?","exit_code":1}}
    "#);
    check!(home, home.tieline(["list", "--json", "--bogus"]), @r#"
    exit 1
    --- stderr
    {"error":{"message":"unexpected argument '--bogus' found","hint":"--help shows what is expected","exit_code":1}}
    "#);
    check!(home, home.tieline(["rm", "--json"]), @r#"
    exit 1
    --- stderr
    {"error":{"message":"the following required arguments were not provided: <MODELS>...","hint":"--help shows what is expected","exit_code":1}}
    "#);
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let home = Home::shared();
    check!(home, home.tieline(["list", "--bogus"]), @"
    exit 1
    --- stderr
    error: unexpected argument '--bogus' found

    Usage: tieline list [OPTIONS]

    For more information, try '--help'.
    ");
    check!(home, home.tieline(["lst"]), @"
    exit 1
    --- stderr
    error: unrecognized subcommand 'lst'

      tip: some similar subcommands exist: 'cost', 'list'

    Usage: tieline [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    check!(home, home.tieline(["rm"]), @"
    exit 1
    --- stderr
    error: the following required arguments were not provided:
      <MODELS>...

    Usage: tieline rm --home <FOLDER> --offline <MODELS>...

    For more information, try '--help'.
    ");
    check!(home, home.tieline(["--home", "", "list"]), @"
    exit 1
    --- stderr
    error: a value is required for '--home <FOLDER>' but none was supplied

    For more information, try '--help'.
    ");
}

#[test]
fn arguments_that_do_not_go_together_are_refused() {
    let home = Home::shared();
    check!(home, home.tieline(["run", "smollm2", "hi", "--logprobs", "2"]), @"
    exit 1
    --- stderr
    error: the following required arguments were not provided:
      --json

    Usage: tieline run --json --logprobs <N> --kernel-table --prompt-cache <SIZE> --home <FOLDER> --offline <MODEL> <PROMPT>

    For more information, try '--help'.
    ");
    check!(home, home.tieline(["run", "smollm2", "hi", "--raw", "--system", "x"]), @"
    exit 1
    --- stderr
    error: the argument '--raw' cannot be used with '--system <TEXT>'

    Usage: tieline run --raw --kernel-table --prompt-cache <SIZE> --home <FOLDER> --offline <MODEL> <PROMPT>

    For more information, try '--help'.
    ");
    check!(home, home.tieline(["bench", "smollm2", "--prefill", "0", "--decode", "0"]), @"
    exit 1
    --- stderr
    error: there is nothing to measure: both --prefill and --decode are 0
    ");
}

#[test]
fn no_command_shows_the_help_and_fails() {
    let home = Home::empty();
    let output = home.tieline::<&str>([]).output();
    assert_eq!(output.status.code(), Some(1));
    let help = home.tieline(["--help"]).text();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), help);
    assert!(help.contains("Usage: tieline") && !help.contains("reference"));
}

#[test]
fn values_out_of_range_are_refused() {
    let home = Home::shared();
    let run = |args: &[&str]| home.tieline(["run", "smollm2", "hi"]).args(args);
    check!(home, run(&["--temperature", "x"]), @"
    exit 1
    --- stderr
    error: invalid value 'x' for '--temperature <T>': invalid float literal

    For more information, try '--help'.
    ");
    check!(home, run(&["--temperature", "NaN"]), @"
    exit 1
    --- stderr
    error: temperature is NaN: expected a number from 0 to 5
    ");
    check!(home, run(&["--temperature=-1"]), @"
    exit 1
    --- stderr
    error: temperature is -1: expected a number from 0 to 5
    ");
    check!(home, run(&["--top-p", "2"]), @"
    exit 1
    --- stderr
    error: top_p is 2: expected a number from 0 to 1
    ");
    check!(home, run(&["--kv", "foo"]), @"
    exit 1
    --- stderr
    error: invalid value 'foo' for '--kv <TYPE>'
      [possible values: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0]

    For more information, try '--help'.
    ");
    check!(home, run(&["--seed", "4294967295"]), @"
    exit 1
    --- stderr
    error: seed is 4294967295: expected at most 4294967294
    ");
    check!(home, run(&["--seed", "4294967296"]), @"
    exit 1
    --- stderr
    error: invalid value '4294967296' for '--seed <N>': 4294967296 is not in 0..=4294967295

    For more information, try '--help'.
    ");
}

#[test]
fn requests_and_loads_out_of_range_are_refused() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let run = |args: &[&str]| home.tieline(["run", "smollm2", "hi"]).args(args).runner(&runner);
    check!(home, run(&["--ctx", "0"]), @"
    exit 1
    --- stderr
    error: the context is 0 tokens: expected from 1 to 8192 for this model
    ");
    check!(home, run(&["--stop", ""]), @"
    exit 1
    --- stderr
    error: stop is a text of 0 bytes: expected texts of 1 to 1024 bytes
    ");
    check!(home, run(&["--logprobs", "21", "--json"]), @r#"
    exit 1
    --- stderr
    {"error":{"message":"logprobs is 21: expected at most 20","hint":null,"exit_code":1}}
    "#);
    check!(home, run(&["--threads", "0"]), @"
    exit 1
    --- stderr
    error: threads is 0: expected a number from 1 to 512
    ");
}

#[test]
fn what_cannot_be_pushed_is_refused() {
    let home = Home::empty();
    check!(home, home.tieline(["push", "smollm2", "me/smollm2"]), @r#"
    exit 1
    --- stderr
    error: "me/smollm2" names no model: no registry is named: expected HOST[:PORT]/NAMESPACE/NAME[:TAG]
    "#);
    check!(home, home.tieline(["push", "smollm2", "localhost:9/me/smollm2"]), @r#"
    exit 1
    --- stderr
    error: no model "smollm2" is here
    hint: tieline pull smollm2
    "#);
    check!(home, home.tieline(["pull", "oci:localhost:9/me/x", "--offline"]), @"
    exit 1
    --- stderr
    error: cannot pull oci:localhost:9/me/x: working offline
    hint: go online, or pull a file: reference
    ");
}

#[test]
fn what_is_no_model_is_refused() {
    let home = Home::empty();
    let text = home.file("text.gguf", "no model");
    let at = |path: &std::path::Path| format!("file:{}", path.display());
    check!(home, home.tieline(["pull", "s3:bucket/key"]), @r#"
    exit 1
    --- stderr
    error: "s3:bucket/key" names no model: known prefixes are hf: https: pypi: oci: file: sha256:
    hint: for example smollm2, hf:OWNER/REPO:QUANT, https://…, pypi:PROJECT or file:PATH
    "#);
    check!(home, home.tieline(["pull", "./model.gguf"]), @r#"
    exit 1
    --- stderr
    error: "./model.gguf" names no model: a file on this machine is written file:PATH, a Hugging Face repository hf:OWNER/REPO
    hint: for example smollm2, hf:OWNER/REPO:QUANT, https://…, pypi:PROJECT or file:PATH
    "#);
    check!(home, home.tieline(["pull", "file:/nowhere/model.gguf"]), @"
    exit 1
    --- stderr
    error: cannot pull file:/nowhere/model.gguf: cannot copy /nowhere/model.gguf: there is no such file
    ");
    check!(home, home.tieline(["pull", &at(text.parent().unwrap())]), @"
    exit 1
    --- stderr
    error: cannot pull file:[ROOT]: cannot copy [ROOT]: it is a folder, not a file
    ");
    check!(home, home.tieline(["pull", &at(&text)]), @r#"
    exit 1
    --- stderr
    error: cannot pull file:[ROOT]/text.gguf: the file was refused: the file starts with "no m" and not with "GGUF": it is no GGUF model
    hint: look for a file ending in .gguf at the same place
    "#);
    check!(home, home.tieline(["pull", "smollm2", "--digest", "sha256:12"]), @r#"
    exit 1
    --- stderr
    error: "sha256:12" is not a digest: expected "sha256:" and 64 lower-case hex digits
    "#);
    check!(home, home.tieline(["pull", "smollm2", "--name", "a/b"]), @r#"
    exit 1
    --- stderr
    error: "a/b" is no model name
    hint: a name has letters, digits and . _ - : and at most 128 of them
    "#);
    let other = format!("sha256:{}", "0".repeat(64));
    check!(home, home.tieline(["pull", "smollm2", "--digest", &other]), @r#"
    exit 1
    --- stderr
    error: the catalogue's "smollm2" is sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53, but sha256:0000000000000000000000000000000000000000000000000000000000000000 was asked for
    hint: leave the digest out, or name the source
    "#);
}

#[test]
fn nobody_is_asked_offline() {
    let home = Home::empty();
    check!(home, home.tieline(["pull", "hf:owner/repo:Q4_0"]), @"
    exit 1
    --- stderr
    error: cannot pull hf:owner/repo:Q4_0: working offline
    hint: go online, or pull a file: reference
    ");
    check!(home, home.tieline(["pull", "https://models.invalid/a.gguf"]), @"
    exit 1
    --- stderr
    error: cannot pull https://models.invalid/a.gguf: working offline
    hint: go online, or pull a file: reference
    ");
}

#[test]
fn prompts_that_cannot_be_read_are_refused() {
    let home = Home::shared();
    let text = home.file("latin1.txt", b"caf\xe9");
    let (text, folder) = (text.to_str().unwrap(), text.parent().unwrap().to_str().unwrap());
    let run = |args: &[&str]| home.tieline(["run", "smollm2"]).args(args);
    check!(home, run(&[""]), @"
    exit 1
    --- stderr
    error: the prompt is empty
    ");
    check!(home, run(&[]).input(" \n"), @"
    exit 1
    --- stderr
    error: the prompt is empty
    ");
    check!(home, run(&["--file", text]), @"
    exit 1
    --- stderr
    error: the prompt from [ROOT]/latin1.txt is no UTF-8 text: byte 3 begins no character
    ");
    check!(home, run(&["-"]).input(b"caf\xe9".to_vec()), @"
    exit 1
    --- stderr
    error: the prompt from standard input is no UTF-8 text: byte 3 begins no character
    ");
    check!(home, run(&["--file", "/nowhere/prompt"]), @"
    exit 1
    --- stderr
    error: cannot read the prompt from /nowhere/prompt: No such file or directory (os error 2)
    ");
    check!(home, run(&["--file", folder]), @"
    exit 1
    --- stderr
    error: cannot read the prompt from [ROOT]: Is a directory (os error 21)
    ");
}

#[test]
fn a_prompt_longer_than_the_context_is_refused() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let long = "word ".repeat(600);
    check!(home, home.run(&runner, &["-"]).input(long), @"
    exit 1
    --- stderr
    error: the prompt has 631 tokens and the context holds 512, one of them for the answer
    hint: shorten the prompt or ask for a context of at least 632 tokens
    ");
}

#[test]
fn a_home_that_cannot_be_used_is_named() {
    let home = Home::empty();
    let file = home.file("file", "");
    check!(home, home.tieline(["list"]).env("TIELINE_HOME", &file), @"
    exit 1
    --- stderr
    error: cannot make the store's folders in [ROOT]/file: Not a directory (os error 20)
    ");
    check!(home, home.tieline(["list"]).env("TIELINE_CATALOGUE", file.with_file_name("none")), @"
    exit 1
    --- stderr
    error: cannot read the catalogue [ROOT]/none: No such file or directory (os error 2)
    hint: mend the file, or unset TIELINE_CATALOGUE
    ");
}

#[test]
fn flags_of_an_answer_that_do_not_go_together_are_refused() {
    let home = Home::shared();
    let first_line = |args: &[&str]| {
        let output = home.tieline(["run", "smollm2", "hi"]).args(args).output();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap().lines().next().unwrap().to_owned()
    };
    let refused = |args: &[&str], want: &str| assert_eq!(first_line(args), want, "{args:?}");
    refused(
        &["--json-schema", "{}", "--regex", "a"],
        "error: the argument '--json-schema <FILE|JSON>' cannot be used with '--regex <REGEX>'",
    );
    refused(
        &["--regex", "a", "--grammar", "a.gbnf"],
        "error: the argument '--regex <REGEX>' cannot be used with '--grammar <FILE>'",
    );
    refused(
        &["--think", "--no-think"],
        "error: the argument '--think' cannot be used with '--no-think'",
    );
    refused(&["--raw", "--think"], "error: the argument '--raw' cannot be used with '--think'");
    refused(&["--receipt", "x"], "error: the following required arguments were not provided:");
    refused(&["--overflow", "cut"], "error: invalid value 'cut' for '--overflow <WHAT>'");
    refused(
        &["--prompt-cache", "much"],
        "error: invalid value 'much' for '--prompt-cache <SIZE>': expected a size such as 2GB or 500MB, or off",
    );
    refused(
        &["--draft", "x", "--deterministic"],
        "error: the argument '--draft <MODEL>' cannot be used with '--deterministic'",
    );
    refused(
        &["--parallel", "0"],
        "error: invalid value '0' for '--parallel <N>': 0 is not in 1..=64",
    );
}

#[test]
fn rules_that_cannot_be_are_refused_before_a_model_is_loaded() {
    let home = Home::shared();
    let run = |args: &[&str]| home.tieline(["run", "smollm2", "hi"]).args(args);
    check!(home, run(&["--json-schema", "{\"type\":"]), @r"
    exit 1
    --- stderr
    error: the JSON schema is no JSON: EOF while parsing a value at line 1 column 8
    ");
    check!(home, run(&["--json-schema", "/nowhere/schema.json"]), @r"
    exit 1
    --- stderr
    error: cannot read the JSON schema from /nowhere/schema.json: No such file or directory (os error 2)
    hint: a schema on the command line begins with {
    ");
    check!(home, run(&["--grammar", "/nowhere/a.gbnf"]), @r"
    exit 1
    --- stderr
    error: cannot read the grammar from /nowhere/a.gbnf: No such file or directory (os error 2)
    ");
    let empty = home.file("empty.lark", " \n");
    check!(home, run(&["--grammar", empty.to_str().unwrap()]), @r"
    exit 1
    --- stderr
    error: the Lark grammar is empty
    ");
    let long = "a".repeat(64 * 1024 + 1);
    check!(home, run(&["--regex", &long]), @r"
    exit 1
    --- stderr
    error: constraint is 65537 bytes: expected at most 65536
    ");
    let receipt = ["--deterministic", "--receipt", "/nowhere/receipt.json"];
    check!(home, run(&receipt), @r"
    exit 1
    --- stderr
    error: cannot write the receipt: no folder /nowhere
    ");
}

#[test]
fn a_draft_model_that_is_of_no_use_is_refused() {
    let home = Home::shared();
    check!(home, home.tieline(["run", "smollm2", "hi", "--draft", "smollm2"]), @r#"
    exit 1
    --- stderr
    error: smollm2 cannot guess for itself: it would cost as much as answering
    hint: take a smaller model of the same family, or leave out --draft
    "#);
    let off = ["run", "smollm2", "hi", "--draft", "smollm2", "--speculation", "off"];
    check!(home, home.tieline(off), @r#"
    exit 1
    --- stderr
    error: a draft model guesses, and --speculation off forbids to
    hint: leave out one of --draft and --speculation off
    "#);
    check!(home, home.tieline(["run", "smollm2", "hi", "--draft", "zzz"]), @r#"
    exit 1
    --- stderr
    error: no model "zzz" in the catalogue
    hint: a model elsewhere is written hf:OWNER/REPO, https://…, pypi:… or file:…
    "#);
}

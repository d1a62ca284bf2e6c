//! What a policy may say, and what is told when it says something else.

use super::*;
use crate::choose::{Asked, explain};

#[track_caller]
fn faults(text: &str) -> String {
    Policy::parse(text).unwrap_err().to_string()
}

#[track_caller]
fn passes(text: &str) -> CheckReport {
    let policy = Policy::parse(text).unwrap();
    let report = policy.check(&[]);
    assert!(report.passed() && !report.tests.is_empty(), "{report}");
    report
}

#[test]
fn a_price_of_the_policys_own_is_read_and_checked() {
    let row = |rest: &str| format!("[[price]]\nvendor = \"work\"\nmodels = [\"gpt-5*\"]\n{rest}");
    let good = row("input = \"1.10\"\noutput = \"8\"\nknown = \"2026-11-01\"\n\
        above = { prompt_tokens = 272000, input = \"2.20\", output = \"12\" }");
    let prices = Policy::parse(&good).unwrap().prices;
    assert_eq!((prices[0].input.as_str(), prices[0].vendor.as_str()), ("1.10", "work"));
    assert_eq!(prices[0].above.as_ref().map(|above| above.prompt_tokens), Some(272_000));
    let check = |rest: &str, want: &str| {
        let said = faults(&row(rest));
        assert!(said.contains(want), "{said}");
    };
    check("input = \"1\"", "the key \"output\" is missing");
    check("input = \"1,5\"\noutput = \"8\"", "cannot read the price of \"work\" for \"gpt-5*\": ");
    check("input = \"1\"\noutput = \"8\"\nknown = \"today\"", "YYYY-MM-DD");
    check("inptu = \"1\"\ninput = \"1\"\noutput = \"8\"", "did you mean");
}

#[test]
fn the_git_identity_is_asked_for_by_a_word_or_by_projects() {
    let identity = |text: &str| Policy::parse(text).unwrap().git_identity;
    assert_eq!((identity(""), identity("git_identity = false")), (None, None));
    assert_eq!(identity("git_identity = true"), Some(Vec::new()));
    let projects = ["~/falcon".to_owned(), "/srv/heron".to_owned()];
    assert_eq!(identity("git_identity = [\"~/falcon\", \"/srv/heron\"]"), Some(projects.into()));
    assert!(faults("git_identity = [\"falcon\"]").contains("by its whole path"));
    assert!(faults("git_identity = 1").contains("git_identity"));
}

#[test]
fn a_check_ends_with_a_verdict() {
    let check = |text: &str, want: &str| {
        let report = Policy::parse(text).unwrap().check(&[]);
        assert_eq!(report.verdict(), want);
    };
    let test =
        |class: &str| format!("[[test]]\nrequest = {{}}\nexpect = {{ class = \"{class}\" }}\n");
    let (good, bad) = (test("internal"), test("public"));
    check("", "the policy can be used; it has no tests");
    check(&good, "the policy can be used; its test passed");
    check(&good.repeat(2), "the policy can be used; its 2 tests passed");
    check(&format!("{good}{bad}{good}"), "1 of the policy's 3 tests failed");
}

#[test]
fn the_examples_are_policies_that_pass_their_own_tests() {
    passes(include_str!("../../../../packaging/policy/local.toml"));
    passes(include_str!("../../../../packaging/policy/demo.toml"));
    passes(include_str!("../../../../packaging/policy/team.toml"));
    let report = passes(include_str!("../../../../packaging/policy/home.toml"));
    insta::assert_snapshot!(report, @r#"
    a request that nothing classifies is internal
    a request is private where email or phone or iban or card or postal_address or birth_date or national_id or term is found in it (classify "personal text")
    a request is secret where private_key or api_key or jwt or secret or credential_url or connection_string is found in it (classify "keys and passwords")
    a request is secret where its path is /home/*/tax/** (classify "the tax folder")
    public may reach lan as-is (rule "the den may read all but secrets"), or else cloud as-is (rule "daily work in the cloud")
    internal may reach lan as-is (rule "the den may read all but secrets"), or else cloud as-is (rule "daily work in the cloud")
    private may reach lan as-is (rule "the den may read all but secrets"), or else cloud redacted (rule "personal text in the cloud, redacted")
    secret stays on this machine
    backend anthropic in zone cloud: claude-sonnet
    backend den in zone lan: qwen3-30b
    deadlines: 10 s for a connection, 30 s until the first token, 60 s between two, 600 s in all
    preferences: of a quality from 0 to 1 a dollar is worth 5, a missed deadline 0.3, a second 0.002, a kilojoule 0.01; a forgotten session counts 1 times; a session moves for 0.05, a model of this machine is tried first within 0.1; fallbacks: 2
    no answer is kept to be given again
    all together may spend $2.50 a day and $30.00 a month
    test "hard code goes to the vendor": passed
    test "a customer's mail leaves redacted": passed
    test "a key never leaves": passed
    test "nor does the tax folder": passed
    test "the private alias stays in the house": passed
    "#);
}

#[test]
fn classes_times_weights_and_kept_answers_are_said() {
    let policy = r#"
[[classify]]
name = "deeds"
class = "secret"
path = ["deeds/**", "wills/**"]
label = "notary"
[[classify]]
name = "lists"
class = "private"
entity = "email"
at_least = 3
[deadlines]
first_token = "800ms"
[models.quick]
total = "5s"
[preferences]
cost_per_usd = 7
[cache]
exact = true
class = "public"
"#;
    let report = Policy::parse(policy).unwrap().check(&[]);
    for line in [
        "a request is secret where its path is deeds/** or wills/** and its label is notary (classify \"deeds\")",
        "a request is private where at least 3 of email are found in it (classify \"lists\")",
        "deadlines: 10 s for a connection, 0.8 s until the first token, 60 s between two, 600 s in all",
        "alias quick: an answer ends within 5 s",
        "an answer to a public request may be given again for 3600 s",
    ] {
        assert!(report.lines.contains(&line.to_owned()), "{line}: {:?}", report.lines);
    }
    let weighs =
        |line: &String| line.starts_with("preferences:") && line.contains("a dollar is worth 7,");
    assert!(report.lines.iter().any(weighs), "{:?}", report.lines);
    let kept = |line: &String| line == "no answer is kept to be given again";
    assert!(Policy::default().check(&[]).lines.iter().any(kept));
}

#[test]
fn what_may_be_spent_and_who_judges_answers_is_said() {
    let policy = "[[budget]]\nkey = \"team\"\nday = 2\n[hedge]\nday = 0.1\n[models.code]\ncheck = \"judge\"\n";
    let report = Policy::parse(policy).unwrap().check(&[]);
    let want = [
        "key team may spend $2.00 a day",
        "hedges may spend $0.10 a day",
        "alias code: judge judges what a cascade's first model says, within 10 s",
    ];
    assert!(report.lines.ends_with(&want.map(str::to_owned)), "{:?}", report.lines);
}

#[test]
fn an_empty_file_is_the_policy_without_one() {
    assert_eq!(Policy::parse("").unwrap(), Policy::default());
}

#[test]
fn another_text_has_another_digest() {
    let digests = ["", "# a", "# b"].map(|text| Policy::parse(text).unwrap().digest);
    assert!(digests[0] != digests[1] && digests[1] != digests[2]);
}

#[test]
fn money_of_a_file_is_exact() {
    let policy = Policy::parse("[[budget]]\nday = 0.1\nmonth = \"$1234.567891\"").unwrap();
    assert_eq!(policy.budgets[0].day, Some(MicroUsd(100_000)));
    assert_eq!(policy.budgets[0].month, Some(MicroUsd(1_234_567_891)));
}

#[test]
fn what_this_machine_costs_is_read_told_and_checked() {
    let policy = |text: &str| Policy::parse(&format!("[machine]\n{text}\n"));
    let said = policy("tariff = 0.30\nwatts = 65.5\nhardware = 1200\nlife = 20000").unwrap();
    let machine = MachinePolicy {
        tariff_per_kwh: Some(MicroUsd(300_000)),
        milliwatts: Some(65_500),
        hardware: Some((MicroUsd(1_200_000_000), 20_000)),
    };
    assert_eq!(said.machine, machine);
    let told = said.check(&[]).to_string();
    let want = "this machine: a kilowatt hour costs $0.30, it draws 65.5 W where nobody measured, \
                it cost $1200.00 for 20000 hours of answering\n";
    assert!(told.contains(want), "{told}");
    assert!(!Policy::parse("").unwrap().check(&[]).to_string().contains("this machine:"));
    for (text, want) in [
        ("watts = 65", "without a tariff"),
        ("tariff = 0.3\nwatts = -1", "watts"),
        ("tariff = 0.3\nwatts = nan", "watts"),
        ("tariff = 0.3\nwatts = 1e7", "watts"),
        ("tariff = -0.3", "tariff"),
        ("hardware = 1200", "hardware and life go together"),
        ("life = 1200", "hardware and life go together"),
        ("hardware = 1200\nlife = 0", "from 1 to 1000000 hours"),
        ("hardware = 1200\nlife = 1000001", "from 1 to 1000000 hours"),
        ("tarif = 0.3", "did you mean \"tariff\"?"),
    ] {
        let faults = policy(text).unwrap_err().to_string();
        assert!(faults.contains(want), "{text}: {faults}");
    }
}

#[test]
fn a_failed_test_says_what_differs() {
    let text = "[[test]]\nname = \"n\"\nrequest = { model = \"auto\" }\n\
                expect = { first = \"a/*\", class = \"public\", refused = false, as = \"as-is\", rule = \"r\" }";
    let report = Policy::parse(text).unwrap().check(&[]);
    assert!(!report.passed());
    insta::assert_snapshot!(report.tests[0].problems.join("\n"), @r#"
    the first is nobody, not a/*
    refused is true, not false
    the class is internal, not public
    the treatment is none, not as-is
    the rule is "none", not "r"
    "#);
}

#[test]
fn what_must_not_be_is_judged_by_all_who_may_answer() {
    let backend = |name: &str, zone: &str| {
        format!(
            "[backends.{name}]\nprotocol = \"openai\"\nurl = \"https://{name}.example\"\n\
             zone = \"{zone}\"\nmodels.m = {{ context = 8000 }}\n"
        )
    };
    let rule = |zone: &str, how: &str| {
        format!(
            "[[rule]]\nname = \"{zone}\"\nclass = \"internal\"\nzone = \"{zone}\"\nas = \"{how}\"\n"
        )
    };
    // Only one is asked, the one in the house, unless it is in trouble.
    let policy = [
        "[preferences]\nfallbacks = 0\n",
        &backend("house", "lan"),
        &backend("vendor", "cloud"),
        &rule("lan", "redacted"),
        &rule("cloud", "as-is"),
    ];
    let test = |expect: &str| {
        format!("[[test]]\nrequest = {{ model = \"auto\" }}\nexpect = {{ {expect} }}\n")
    };
    let report = |expect: &str| {
        let text = policy.concat() + &test(expect);
        let report = Policy::parse(&text).unwrap().check(&[]);
        assert_eq!(report.tests[0].decision.tries.len(), 1);
        report.tests[0].problems.join("\n")
    };
    assert_eq!(report("first = \"house/*\", as = \"redacted\""), "");
    assert_eq!(report("farthest = \"lan\""), "the farthest zone is cloud, not lan");
    assert_eq!(report("farthest = \"cloud\", leaves = \"as-is\""), "");
    assert_eq!(report("leaves = \"redacted\""), "what leaves is as-is, not at most redacted");
    assert_eq!(report("leaves = \"nothing\""), "what leaves is as-is, not at most nothing");
    let alone = [policy[1], policy[3], &test("leaves = \"redacted\"")].concat();
    passes(&alone);
    let misspelt = |expect: &str| {
        let test = test(expect).replace("\"auto\"", "\"house/mm\"");
        Policy::parse(&(policy.concat() + &test)).unwrap().check(&[]).tests[0].problems.join("\n")
    };
    assert_eq!(misspelt("leaves = \"nothing\""), "nobody has the model that it names");
    assert_eq!(misspelt("leaves = \"nothing\", refused = true"), "");
    let nobody = [policy[1], &test("leaves = \"nothing\", refused = true")].concat();
    passes(&nobody);
}

#[test]
fn unknown_keys_and_words_are_told_with_what_is_near() {
    insta::assert_snapshot!(faults("deafult_class = \"privte\"\n[[rule]]\nname = \"r\"\nclass = \"internl\"\nzone = \"clod\"\nas = \"redactd\"\nbudget = 1"), @r#"
    the policy has 5 faults:
      line 1, column 1: there is no key "deafult_class"; did you mean "default_class"?
      line 4, column 9: rule[1].class: there is no "internl": expected any, public, internal, private, secret; did you mean "internal"?
      line 5, column 8: rule[1].zone: there is no "clod": expected host, lan, cloud-zero-retention, cloud; did you mean "cloud"?
      line 6, column 6: rule[1].as: there is no "redactd": expected as-is, redacted; did you mean "redacted"?
      line 7, column 1: rule[1]: there is no key "budget"
    "#);
    insta::assert_snapshot!(faults("default_class = \"privte\"\n[[classify]]\nclass = \"public\"\nentity = \"emial\"\n[models.x]\ncandidate = \"*\""), @r#"
    the policy has 3 faults:
      line 1, column 17: default_class: there is no "privte": expected public, internal, private, secret; did you mean "private"?
      line 4, column 10: classify[1].entity: there is no "emial": expected email, phone, card, iban, national_id, ip_address, mac_address, coordinates, postal_address, birth_date, credential_url, private_key, jwt, api_key, secret, connection_string, term, path, git_identity; did you mean "email"?
      line 6, column 1: models.x: there is no key "candidate"; did you mean "candidates"?
    "#);
}

#[test]
fn a_text_that_is_no_toml_is_told_without_its_lines() {
    let text = faults("key = \"CANARY\nother = CANARY");
    assert!(!text.contains("CANARY"), "{text}");
    insta::assert_snapshot!(text, @r#"
    the policy has 2 faults:
      line 1, column 14: invalid basic string, expected `"`
      line 2, column 9: string values must be quoted, expected literal string
    "#);
}

#[test]
fn values_of_other_kinds_are_told() {
    insta::assert_snapshot!(faults("default_class = 1\ntrust_declared = \"yes\"\nlicences = true\nrule = 3\n[deadlines]\nconnect = 5\nidle = \"5\"\ntotal = \"0s\"\n[preferences]\ncost_per_usd = -1\nmargin = \"a\"\nfallbacks = 1.5\n[[budget]]\nday = true\n[[budget]]\nday = 0.0000001"), @r#"
    the policy has 13 faults:
      line 1, column 17: default_class: expected a text, not a number
      line 2, column 18: trust_declared: expected true or false, not a text
      line 3, column 12: licences: expected a text, not true or false
      line 4, column 8: rule: expected several tables: write [[rule]]
      line 6, column 11: deadlines.connect: expected a text, not a number
      line 7, column 8: deadlines.idle: expected a time, such as "500ms", "2s", "5m" or "1h"
      line 8, column 9: deadlines.total: no time at all is no deadline
      line 10, column 16: preferences.cost_per_usd: expected a number from 0 to 1000000
      line 11, column 10: preferences.margin: expected a number, not a text
      line 12, column 13: preferences.fallbacks: expected a whole number, not a number with a fraction
      line 14, column 7: budget[1].day: expected dollars, such as 2.50, not true or false
      line 15, column 1: budget[2]: another budget is for the same
      line 16, column 7: budget[2].day: money counts in millionths of a dollar: six decimals at most
    "#);
}

#[test]
fn what_is_missing_is_told() {
    insta::assert_snapshot!(faults("[backends.a]\n[backends.b.models.m]\nprice = { input = 1 }\n[[rule]]\n[[classify]]\n[[budget]]\n[[test]]\n"), @r#"
    the policy has 16 faults:
      line 1, column 1: backends.a: the key "protocol" is missing
      line 1, column 1: backends.a: the key "zone" is missing
      line 1, column 1: backends.a: the key "url" is missing
      line 2, column 11: backends.b: the key "protocol" is missing
      line 2, column 11: backends.b: the key "zone" is missing
      line 2, column 11: backends.b: the key "url" is missing
      line 3, column 9: backends.b.models.m.price: the key "output" is missing: dollars for a million tokens
      line 4, column 1: rule[1]: the key "name" is missing
      line 4, column 1: rule[1]: the key "class" is missing
      line 4, column 1: rule[1]: the key "zone" is missing
      line 4, column 1: rule[1]: the key "as" is missing
      line 5, column 1: classify[1]: the key "class" is missing
      line 5, column 1: classify[1]: it says nothing that must hold: path, key, label, project or entity
      line 6, column 1: budget[1]: it says no amount: day or month
      line 7, column 1: test[1]: the key "request" is missing
      line 7, column 1: test[1]: the key "expect" is missing
    "#);
}

#[test]
fn a_key_in_the_file_is_told_and_not_repeated() {
    let backend = "[backends.a]\nprotocol = \"openai\"\nzone = \"cloud\"\n";
    let text = faults(&format!("{backend}url = \"https://CANARY@x.example\"\nkey = \"CANARY\""));
    assert!(!text.contains("CANARY"), "{text}");
    insta::assert_snapshot!(text, @r#"
    the policy has 2 faults:
      line 4, column 7: backends.a.url: no name or password stands in a URL: use key
      line 5, column 7: backends.a.key: no key stands in a policy: write { env = "NAME" }, { file = "PATH" } or { keyring = "NAME" }
    "#);
    insta::assert_snapshot!(faults(&format!("{backend}url = \"https://x.example\"\nkey = {{ env = \"A\", file = \"B\" }}")), @r#"
    the policy has a fault:
      line 5, column 7: backends.a.key: no key stands in a policy: write { env = "NAME" }, { file = "PATH" } or { keyring = "NAME" }
    "#);
}

#[test]
fn urls_agree_with_their_zones() {
    let of = |url: &str, zone: &str| {
        format!("[backends.a]\nprotocol = \"openai\"\nurl = \"{url}\"\nzone = \"{zone}\"")
    };
    insta::assert_snapshot!(faults(&of("http://x.example/v1", "cloud")), @r#"
    the policy has a fault:
      line 3, column 7: backends.a.url: a cloud is reached by https:// alone
    "#);
    insta::assert_snapshot!(faults(&of("http://127.0.0.1.x.example", "host")), @r#"
    the policy has a fault:
      line 3, column 7: backends.a.url: zone "host" is this machine alone, and the URL is not: say the zone that it is in
    "#);
    insta::assert_snapshot!(faults(&of("ftp://x.example", "lan")), @r#"
    the policy has a fault:
      line 3, column 7: backends.a.url: expected a URL that begins with https:// or http://
    "#);
    for near in ["http://localhost:11434", "http://127.0.0.1/v1", "http://[::1]:80"] {
        assert!(Policy::parse(&of(near, "host")).is_ok(), "{near}");
    }
}

#[test]
fn contradictions_are_told() {
    insta::assert_snapshot!(faults("[[rule]]\nname = \"r\"\nclass = \"any\"\nzone = [\"host\", \"lan\"]\nas = \"as-is\"\n[[rule]]\nname = \"r\"\nclass = []\nzone = \"lan\"\nas = \"as-is\"\n[[budget]]\nday = 1\n[[budget]]\nmonth = 1\n[[budget]]\nkey = \"k\"\nproject = \"p\"\nday = 1\n[deadlines]\nfirst_token = \"2m\"\ntotal = \"1m\"\n[models.\"a/b\"]\n[[test]]\nrequest = {}\nexpect = {}"), @r#"
    the policy has 9 faults:
      line 4, column 8: rule[1].zone: what stays on this machine needs no rule: leave "host" out
      line 7, column 8: rule[2].name: another rule has this name, and ledgers know rules by it
      line 8, column 9: rule[2].class: an empty list fits nothing: leave the key out
      line 13, column 1: budget[2]: another budget is for the same
      line 15, column 1: budget[3]: another budget is for the same
      line 17, column 11: budget[3].project: a budget is for a key or for a project
      line 20, column 15: deadlines.first_token: it is later than the end, which is "total"
      line 22, column 1: models: an alias's name is 1 to 128 bytes, with no slash or colon
      line 25, column 10: test[1].expect: it expects nothing
    "#);
}

#[test]
fn any_class_is_not_the_secret_one() {
    let rule = "[[rule]]\nname = \"r\"\nzone = \"lan\"\nas = \"as-is\"\nclass = ";
    let classes =
        |class: &str| Policy::parse(&format!("{rule}{class}")).unwrap().rules.remove(0).classes;
    assert!(!classes("\"any\"").contains(&DataClass::Secret));
    assert!(classes("[\"any\", \"secret\"]").contains(&DataClass::Secret));
}

#[track_caller]
fn classified(text: &str, found: &[(Entity, u32)], want: DataClass) {
    let asked = Asked { found: found.iter().copied().collect(), ..Asked::default() };
    assert_eq!(Policy::parse(text).unwrap().classify(&asked).0, want, "{text:?} {found:?}");
}

#[test]
fn what_was_found_asks_for_its_class_unless_a_rule_is_about_it() {
    let (key, mail, address) = ((Entity::ApiKey, 1), (Entity::Email, 1), (Entity::IpAddress, 1));
    classified("", &[], DataClass::Internal);
    classified("", &[key], DataClass::Secret);
    classified("", &[mail], DataClass::Private);
    // Never below the default.
    classified("default_class = \"private\"", &[address], DataClass::Private);
    classified("default_class = \"public\"", &[address], DataClass::Internal);
    let rule = "[[classify]]\nentity = \"email\"\nat_least = 3\nclass = \"private\"\n";
    classified(rule, &[mail], DataClass::Internal);
    classified(rule, &[(Entity::Email, 3)], DataClass::Private);
    classified(rule, &[mail, key], DataClass::Secret);
    // Many of them are worse; one is as bad as ever.
    let worse = rule.replace("private", "secret");
    classified(&worse, &[mail], DataClass::Private);
    classified(&worse, &[(Entity::Email, 3)], DataClass::Secret);
    // A rule that asks for more than the find is no word on it.
    let narrow = format!("{rule}project = \"/code/x\"\n");
    classified(&narrow, &[mail], DataClass::Private);
}

#[test]
fn a_relay_on_this_machine_may_stand_for_a_cloud() {
    let with = |url: &str| {
        format!(
            "[backends.a]\nprotocol = \"openai\"\nzone = \"cloud\"\nurl = {url:?}\n[backends.a.models.m]\n"
        )
    };
    assert!(Policy::parse(&with("http://127.0.0.1:4000/v1")).is_ok());
    assert!(Policy::parse(&with("http://127.0.0.1.x.example/v1")).is_err());
}

#[test]
fn what_is_kept_and_what_hedges_may_cost_is_read() {
    let read = |text: &str| Policy::parse(text).unwrap();
    assert!(!read("").cache.exact);
    let usual = read("[cache]\nexact = true\nkeep = \"5m\"\n").cache;
    assert_eq!((usual.exact, usual.keep), (true, Some(std::time::Duration::from_secs(300))));
    assert_eq!(usual.classes, [DataClass::Public, DataClass::Internal]);
    let cache = read("[cache]\nexact = true\nclass = [\"private\"]\n").cache;
    assert_eq!(cache.classes, [DataClass::Private]);
    let hedge = read("[hedge]\nday = 0.5\n").hedge;
    assert_eq!((hedge.day, hedge.after), (MicroUsd(500_000), None));
    assert!(faults("[hedge]\nafter = \"1s\"\n").contains("it says no amount: day"));
    assert!(faults("[cache]\nclass = \"privat\"\n").contains("did you mean \"private\"?"));
}

#[test]
fn aliases_of_vectors_are_told_with_their_spaces() {
    let backend = |name: &str, models: &str| {
        format!(
            "[backends.{name}]\nprotocol = \"openai\"\nurl = \"https://{name}.example\"\n\
             zone = \"cloud\"\n{models}\n"
        )
    };
    let text = [
        "[models]\nsame = { candidates = [\"*/vec\"] }\nmixed = { candidates = [\"a/*\"] }\n\
         talk = { candidates = [\"b/talker\"] }\n",
        &backend("a", "models.vec = { embeddings = true }\nmodels.big = { embeddings = true }"),
        &backend("b", "models.vec = { embeddings = true }\nmodels.talker = {}"),
        "[[rule]]\nname = \"r\"\nclass = \"any\"\nzone = \"cloud\"\nas = \"as-is\"\n",
        "[[test]]\nrequest = { model = \"same\", embeddings = true }\nexpect = { first = \"a/vec\" }\n",
        "[[test]]\nrequest = { model = \"mixed\", embeddings = true }\nexpect = { refused = true }\n",
        "[[test]]\nrequest = { model = \"a/vec\" }\nexpect = { refused = true }\n",
    ];
    let report = passes(&text.concat());
    let told: Vec<_> = report.lines.iter().filter(|line| line.contains("alias")).collect();
    let want = [
        "note: alias mixed makes no vectors: those of big, vec cannot be compared",
        "alias same makes vectors of the space vec",
    ];
    assert_eq!(told, want);
}

#[test]
fn a_check_is_a_program_and_its_time() {
    let policy = |text: &str| Policy::parse(&format!("[models.code]\n{text}\n"));
    let check = |text: &str| policy(text).unwrap().aliases["code"].check.clone().unwrap();
    let seconds = std::time::Duration::from_secs;
    let usual = check("check = [\"rustc\", \"-\"]");
    assert_eq!((usual.words, usual.time), (vec!["rustc".to_owned(), "-".to_owned()], seconds(10)));
    assert_eq!(check("check = \"judge\"\ncheck_time = \"30s\"").time, seconds(30));
    for wrong in [
        "check = []",
        "check = [\"\"]",
        "check = [1]",
        "check_time = \"3s\"",
        "check = [\"a\"]\ncheck_time = \"0s\"",
    ] {
        assert!(policy(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn who_scores_texts_does_nothing_else() {
    let backend = |name: &str, models: &str| {
        format!(
            "[backends.{name}]\nprotocol = \"openai\"\nurl = \"https://{name}.example\"\n\
             zone = \"cloud\"\n{models}\n"
        )
    };
    let text = [
        "[models]\norder = { candidates = [\"*/judge\"] }\n",
        &backend("a", "models.judge = { rerank = true }\nmodels.vec = { embeddings = true }"),
        &backend("b", "models.judge = { rerank = true }\nmodels.talker = {}"),
        "[[rule]]\nname = \"r\"\nclass = \"any\"\nzone = \"cloud\"\nas = \"as-is\"\n",
        // Scores of one call are one model's, so an alias may stand for several.
        "[[test]]\nrequest = { model = \"order\", rerank = true }\nexpect = { first = \"a/judge\" }\n",
        "[[test]]\nrequest = { model = \"order\" }\nexpect = { refused = true }\n",
        "[[test]]\nrequest = { model = \"order\", embeddings = true }\nexpect = { refused = true }\n",
        "[[test]]\nrequest = { model = \"b/talker\", rerank = true }\nexpect = { refused = true }\n",
        "[[test]]\nrequest = { model = \"auto\" }\nexpect = { first = \"b/talker\" }\n",
    ];
    passes(&text.concat());
}

#[test]
fn tools_say_what_a_request_is_about() {
    let text = r#"
models.sql-helper = { task = "code" }
[[task]]
name = "sql"
tool = ["run_query", "db_*"]
[[task]]
name = "edit"
tool = "*edit*"
[[test]]
request = { tool = ["search", "db_edit"] }
expect = { task = "sql" }
[[test]]
request = { tool = "str_replace_based_edit_tool" }
expect = { task = "edit" }
[[test]]
request = { tool = "search" }
expect = { task = "any" }
[[test]]
request = { tool = "run_query", task = "math" }
expect = { task = "math" }
[[test]]
request = { tool = "run_query", model = "sql-helper" }
expect = { task = "code" }
"#;
    let report = passes(text);
    let line = "a request that offers a tool run_query or db_* is about sql".to_owned();
    assert!(report.lines.contains(&line), "{:?}", report.lines);
    assert!(explain(&report.tests[0].decision).contains("task sql: the policy has it of a tool"));
    let wrong = text.replace("task = \"edit\"", "task = \"sql\"");
    let report = Policy::parse(&wrong).unwrap().check(&[]);
    assert_eq!(report.tests[1].problems, ["the task is edit, not sql"]);
    insta::assert_snapshot!(faults("[[task]]\nname = \"two words\"\n[[task]]\ntool = []\n"), @r#"
    the policy has 4 faults:
      line 1, column 1: task[1]: the key "tool" is missing
      line 2, column 8: task[1].name: a task is a word of at most 32 letters, digits, _ - and .
      line 3, column 1: task[2]: the key "name" is missing
      line 4, column 8: task[2].tool: an empty list fits nothing: leave the key out
    "#);
}

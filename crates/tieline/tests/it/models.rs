//! `pull`, `list`, `show`, `rm`.

use super::home::{Home, catalogue, check, keys};

#[test]
fn a_home_without_models_says_what_to_do() {
    let home = Home::empty();
    check!(home, home.tieline(["list"]), @"
    exit 0
    --- stderr
    no models yet: tieline pull smollm2
    ");
    check!(home, home.tieline(["list", "--json"]), @"
    exit 0
    --- stdout
    []
    ");
    check!(home, home.tieline(["list", "--quiet"]), @"exit 0");
    check!(home, home.tieline(["ps"]), @"
    exit 0
    --- stderr
    no models run now
    ");
    check!(home, home.tieline(["ps", "--json"]), @"
    exit 0
    --- stdout
    []
    ");
}

#[test]
fn a_name_may_end_with_latest() {
    let home = Home::shared();
    for name in ["smollm2:latest", "SmolLM2:latest"] {
        assert_eq!(home.tieline(["show", name, "--json"]).json()["name"], "smollm2");
    }
}

#[test]
fn a_model_comes_and_goes() {
    let home = Home::empty();
    check!(home, home.tieline(["pull", "smollm2"]), @"
    exit 0
    --- stderr
    smollm2 pulled: 98.3 MB, pinned, file:[MODEL]
    ");
    check!(home, home.tieline(["pull", "smollm2"]), @"
    exit 0
    --- stderr
    smollm2 is already here: 98.3 MB, pinned, file:[MODEL]
    ");
    check!(home, home.tieline(["pull", "smollm2", "--quiet"]), @"exit 0");
    let file = format!("file:{}", testkit::smollm2().display());
    check!(home, home.tieline(["pull", &file, "--name", "mine"]), @"
    exit 0
    --- stderr
    mine pulled: 98.3 MB, first-seen, file:[MODEL]
    ");
    check!(home, home.tieline(["list"]), @"
    exit 0
    --- stdout
    NAME     DIGEST           SIZE  TYPE  TRUST       PULLED
    mine     b179c9523d0e  98.3 MB  Q4_1  first-seen  [DATE]
    smollm2  b179c9523d0e  98.3 MB  Q4_1  pinned      [DATE]
    ");
    check!(home, home.tieline(["rm", "mine"]), @"
    exit 0
    --- stderr
    removed mine; its file stays for smollm2
    ");
    check!(home, home.tieline(["rm", "smollm2", "--json"]), @r#"
    exit 0
    --- stdout
    [
      {
        "name": "smollm2",
        "digest": "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "freed_bytes": 98362432,
        "kept_by": []
      }
    ]
    "#);
    check!(home, home.tieline(["rm", "smollm2"]), @r#"
    exit 1
    --- stderr
    error: no model "smollm2" is here
    hint: tieline pull smollm2
    "#);
    assert_eq!(home.tieline(["list", "--json"]).text(), "[]\n");
}

#[test]
fn a_pull_tells_programs_what_came() {
    let home = Home::shared();
    let report = home.tieline(["pull", "smollm2-135m", "--json"]).json();
    assert_eq!(report["already_here"], true);
    assert_eq!(report["name"], "smollm2");
    assert_eq!(report["digest"], format!("sha256:{}", testkit::SMOLLM2_DIGEST));
}

#[test]
fn a_mirror_that_fails_is_named_and_the_next_one_tried() {
    let home = Home::empty();
    let mirrors = catalogue().replace("['file:", "['file:/nowhere/model', 'file:");
    home.file("catalogue.toml", mirrors);
    check!(home, home.tieline(["pull", "smollm2"]), @"
    exit 0
    --- stderr
    mirror failed: file:/nowhere/model: cannot copy /nowhere/model: there is no such file
    smollm2 pulled: 98.3 MB, pinned, file:[MODEL]
    ");
}

#[test]
fn a_list_of_one() {
    let home = Home::shared();
    check!(home, home.tieline(["list"]), @"
    exit 0
    --- stdout
    NAME     DIGEST           SIZE  TYPE  TRUST   PULLED
    smollm2  b179c9523d0e  98.3 MB  Q4_1  pinned  [DATE]
    ");
    check!(home, home.tieline(["list", "--json"]), @r#"
    exit 0
    --- stdout
    [
      {
        "name": "smollm2",
        "digest": "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "size_bytes": 98362432,
        "reference": "smollm2",
        "source": "file:[MODEL]",
        "licence": "Apache-2.0",
        "trust": "pinned",
        "architecture": "llama",
        "quantisation": "Q4_1",
        "parameters": 134515008,
        "context_tokens": 8192,
        "template_digest": "sha256:872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
        "pulled_at_unix_s": [TIME],
        "adapter": false,
        "missing": false
      }
    ]
    "#);
}

#[test]
fn another_name_of_the_catalogue_is_the_same_model() {
    let home = Home::shared();
    let shown = home.tieline(["show", "smollm2-135m", "--json"]).output();
    assert!(shown.status.success(), "{}", home.said(&shown));
    let report: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(report["name"], "smollm2");
}

#[test]
fn nothing_is_removed_where_one_of_several_is_not_here() {
    let home = Home::with_model();
    let refused = home.tieline(["rm", "smollm2", "no-such-model"]).output();
    assert_eq!(refused.status.code(), Some(1));
    let removed = home.tieline(["rm", "smollm2-135m", "--json"]).output();
    assert!(removed.status.success(), "{}", home.said(&removed));
    let report: serde_json::Value = serde_json::from_slice(&removed.stdout).unwrap();
    assert_eq!(report[0]["name"], "smollm2");
}

#[test]
fn a_model_is_shown() {
    let home = Home::shared();
    check!(home, home.tieline(["show", "smollm2"]), @"
    exit 0
    --- stdout
    name          smollm2
    architecture  llama
    parameters    134.5 million
    quantisation  Q4_1
    context       8192 tokens
    licence       Apache-2.0
    template      sha256:872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788
    size          98.3 MB
    digest        sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    trust         pinned
    reference     smollm2
    source        file:[MODEL]
    pulled        [DATE]
    file          [HOME]/blobs/sha256/b1/b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    weights
      F32   61 tensors   140.5 kB
      Q4_1  210 tensors  66.3 MB
      Q8_0  1 tensor     30.0 MB
    ");
    check!(home, home.tieline(["show", "b179c9523d0e", "--verify", "--template"]), @"
    exit 0
    --- stdout
    {% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
    You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
    ' }}{% endif %}{{'<|im_start|>' + message['role'] + '
    ' + message['content'] + '<|im_end|>' + '
    '}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
    ' }}{% endif %}
    --- stderr
    smollm2 holds sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    ");
    let report = home.tieline(["show", "smollm2", "--verify", "--json"]).json();
    insta::assert_snapshot!(keys(&report).join(" "), @"name digest size_bytes reference source licence trust architecture quantisation parameters context_tokens template_digest pulled_at_unix_s adapter missing path verified_now rank tensor_types chat_template profile");
    assert_eq!(report["verified_now"], true);
    assert_eq!(report["tensor_types"].as_array().unwrap().len(), 3);
    assert_eq!(keys(&report["tensor_types"][0]), ["name", "tensors", "bytes"]);
    // What it says is what can be opened.
    let path = std::path::Path::new(report["path"].as_str().unwrap());
    assert_eq!(path.metadata().unwrap().len(), report["size_bytes"].as_u64().unwrap());
}

#[test]
fn a_changed_file_is_not_used() {
    let home = Home::with_model();
    let report = home.tieline(["show", "smollm2", "--json"]).json();
    let path = std::path::Path::new(report["path"].as_str().unwrap());
    let copy = home.file("copy", "another model");
    std::fs::rename(copy, path).unwrap();
    check!(home, home.tieline(["run", "smollm2", "hi"]), @r#"
    exit 1
    --- stderr
    error: the file of model "smollm2" was changed: expected sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53, found sha256:93dc44381b5260808085f4dd99e5d439f52b86f2938527faf30bd72eb21afbc1
    hint: pull "smollm2" again
    "#);
    check!(home, home.tieline(["list"]), @"
    exit 0
    --- stdout
    NAME     DIGEST           SIZE  TYPE  TRUST     PULLED
    smollm2  b179c9523d0e  98.3 MB  Q4_1  mismatch  [DATE]
    ");
    std::fs::remove_file(path).unwrap();
    check!(home, home.tieline(["show", "smollm2"]), @r#"
    exit 1
    --- stderr
    error: the file of model "smollm2" is missing: [HOME]/blobs/sha256/b1/b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    hint: pull "smollm2" again
    "#);
    check!(home, home.tieline(["list"]), @"
    exit 0
    --- stdout
    NAME     DIGEST           SIZE  TYPE  TRUST    PULLED
    smollm2  b179c9523d0e  98.3 MB  Q4_1  missing  [DATE]
    ");
}

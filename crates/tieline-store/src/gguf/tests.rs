use std::io::Cursor;

use proptest::prelude::*;
use tieline_types::Hint;

use super::write::{Draft, DraftTensor};
use super::*;

fn read(bytes: &[u8]) -> Result<Gguf, GgufError> {
    Gguf::read(Cursor::new(bytes))
}

#[track_caller]
fn refused(draft: &Draft, want: &str) {
    refused_bytes(&draft.bytes(), want);
}

#[track_caller]
fn refused_bytes(bytes: &[u8], want: &str) {
    let error = read(bytes).unwrap_err();
    assert!(error.to_string().contains(want), "{error}");
    assert!(error.hint().is_some());
}

/// A sample whose only tensor was changed.
fn tensor(change: impl FnOnce(&mut DraftTensor)) -> Draft {
    let mut draft = Draft::sample(4096);
    change(&mut draft.tensors[0]);
    draft
}

fn key(key: &str, value: Value) -> Draft {
    let mut draft = Draft::sample(4096);
    draft.metadata.push((key.to_owned(), value));
    draft
}

#[test]
fn a_sample_says_what_it_is() {
    let gguf = read(&Draft::sample(4096).bytes()).unwrap();
    assert_eq!(gguf.version, 3);
    assert_eq!(gguf.architecture(), Some("llama"));
    assert_eq!(gguf.name(), Some("Sample"));
    assert_eq!(gguf.licence(), Some("apache-2.0"));
    assert_eq!(gguf.context_length(), Some(Tokens(2048)));
    assert_eq!(gguf.parameter_count(), 1024);
    assert_eq!(gguf.quantisation(), Some("F32"));
    assert_eq!(gguf.chat_template(), Some("{{ messages }}"));
    let digest = Digest(Sha256::digest("{{ messages }}").into());
    assert_eq!(gguf.chat_template_digest(), Some(digest));
    let shares: Vec<_> = gguf.bytes_by_type().into_iter().collect();
    let share = Share { tensors: 1, bytes: Bytes(4096) };
    assert_eq!(shares, [(TensorType::from_id(0).unwrap(), share)]);
    assert_eq!(gguf.data_start % 32, 0);
}

#[test]
fn version_2_is_read() {
    let draft = Draft { version: 2, ..Draft::sample(128) };
    assert_eq!(read(&draft.bytes()).unwrap().version, 2);
}

#[test]
fn other_files_and_versions_are_named() {
    refused_bytes(b"", "the file is empty");
    refused_bytes(b"PK\x03\x04....", "starts with \"PK\\\\x03\\\\x04\"");
    refused(&Draft { version: 1, ..Draft::sample(128) }, "GGUF version 1");
    refused(&Draft { version: 4, ..Draft::sample(128) }, "GGUF version 4");
    refused(&Draft { version: 0, ..Draft::sample(128) }, "GGUF version 0");
    refused(&Draft { version: 3_u32.swap_bytes(), ..Draft::sample(128) }, "big-endian");
}

#[test]
fn counts_are_checked_before_anything_is_kept() {
    let mut bytes = Draft::sample(4096).bytes();
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    refused_bytes(&bytes, "18446744073709551615 tensors");
    let mut bytes = Draft::sample(4096).bytes();
    bytes[16..24].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    refused_bytes(&bytes, "1099511627776 metadata keys");
    let element = ValueType::U8;
    refused(&key("x", Value::Skipped { element, length: u64::MAX }), "elements in");
    refused(&key("x", Value::Skipped { element: ValueType::String, length: 1 << 60 }), "elements");
}

#[test]
fn long_lists_are_passed_by_and_short_ones_kept() {
    let short = Value::Array(vec![Value::I32(-1); 8]);
    let gguf = read(&key("x", short.clone()).bytes()).unwrap();
    assert_eq!(gguf.metadata.get("x"), Some(&short));
    let words = vec![Value::String("word".into()); 5000];
    let gguf = read(&key("tokenizer.ggml.tokens", Value::Array(words)).bytes()).unwrap();
    let want = Value::Skipped { element: ValueType::String, length: 5000 };
    assert_eq!(gguf.metadata.get("tokenizer.ggml.tokens"), Some(&want));
}

#[test]
fn nesting_has_an_end() {
    let nested = |depth| {
        (0..depth).fold(Value::Array(vec![Value::U8(1)]), |inner, _| Value::Array(vec![inner]))
    };
    assert!(read(&key("x", nested(3)).bytes()).is_ok());
    refused(&key("x", nested(4)), "nested too deep");
    refused(&key("x", nested(1000)), "nested too deep");
    let many = Value::Array(vec![Value::Array(vec![]); 2000]);
    refused(&key("x", many), "too many lists");
}

#[test]
fn keys_come_once() {
    refused(&key("general.name", Value::U8(1)), "comes twice");
    refused(&key("", Value::U8(1)), "it is empty");
}

#[test]
fn templates_have_a_limit() {
    let template = |size| {
        let mut draft = Draft::sample(128);
        draft.metadata.pop();
        let text = Value::String("x".repeat(size));
        draft.metadata.push(("tokenizer.chat_template".into(), text));
        draft
    };
    assert!(read(&template(256 * 1024).bytes()).is_ok());
    refused(&template(256 * 1024 + 1), "the 262144");
    refused(&key("tokenizer.chat_template.tool", Value::String("x".repeat(300_000))), "300000");
}

#[test]
fn memory_has_a_limit() {
    let mut draft = Draft::sample(128);
    for index in 0..5 {
        let text = Value::String("x".repeat(15 * 1024 * 1024));
        draft.metadata.push((format!("x{index}"), text));
    }
    refused(&draft, "bytes of memory");
}

#[test]
fn alignment_is_a_power_of_two() {
    let aligned = |value| key("general.alignment", value);
    let draft = Draft { alignment: 64, ..aligned(Value::U32(64)) };
    assert_eq!(read(&draft.bytes()).unwrap().data_start % 64, 0);
    refused(&aligned(Value::U32(0)), "power of two");
    refused(&aligned(Value::U32(48)), "power of two");
    refused(&aligned(Value::U64(32)), "power of two");
}

#[test]
fn tensors_keep_the_rules() {
    refused(&tensor(|t| t.dimensions = vec![]), "0 dimensions");
    refused(&tensor(|t| t.dimensions = vec![1; 5]), "5 dimensions");
    refused(&tensor(|t| t.dimensions = vec![32, 0]), "a dimension is zero");
    refused(&tensor(|t| t.dimensions = vec![u64::MAX, 2]), "overflows");
    refused(&tensor(|t| t.dimensions = vec![1 << 32, 1 << 32]), "overflows");
    refused(&tensor(|t| t.dimensions = vec![1 << 61]), "overflows");
    refused(&tensor(|t| t.kind = 4), "no number format");
    refused(&tensor(|t| t.kind = 36), "no number format");
    refused(&tensor(|t| t.kind = 99), "no number format");
    refused(&tensor(|t| (t.kind, t.dimensions) = (12, vec![32])), "packs 256 together");
    refused(&tensor(|t| t.name = "x".repeat(64)), "bytes for the name of tensor 0");
    refused(&tensor(|t| t.offset = 16), "no multiple of 32");
    refused(&tensor(|t| t.offset = 32), "truncated");
    refused(&tensor(|t| t.offset = u64::MAX - 31), "truncated");
}

#[test]
fn tensors_are_apart() {
    let mut draft = Draft::sample(4096);
    let second =
        DraftTensor { name: "b".into(), dimensions: vec![32], kind: 0, offset: 4096 - 128 };
    draft.tensors.push(second);
    refused(&draft, "overlaps");
    draft.tensors[0].dimensions[1] -= 1;
    assert!(read(&draft.bytes()).is_ok());
    draft.tensors[1].name = draft.tensors[0].name.clone();
    refused(&draft, "comes twice");
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let mut draft = Draft::sample(1024);
    draft.metadata.push(("list".into(), Value::Array(vec![Value::String("ab".into()); 3])));
    let bytes = draft.bytes();
    assert!(read(&bytes).is_ok());
    for cut in 0..bytes.len() {
        let error = read(&bytes[..cut]).unwrap_err();
        assert!(!error.to_string().is_empty(), "cut at {cut}");
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<i32>().prop_map(|number| Value::F32(number as f32)),
        any::<bool>().prop_map(Value::Bool),
        "\\PC{0,20}".prop_map(Value::String),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<i32>().prop_map(|number| Value::F64(number.into())),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let list = (scalar(), 1..20_usize).prop_map(|(value, count)| vec![value; count]);
    prop_oneof![4 => scalar(), 1 => list.prop_map(Value::Array)]
}

fn draft() -> impl Strategy<Value = Draft> {
    let metadata = prop::collection::btree_map("[a-z.]{1,20}", value(), 0..12);
    let rows = prop::collection::vec(1..5_u64, 0..6);
    (metadata, rows).prop_map(|(metadata, rows)| {
        let mut offset = 0;
        let mut tensors = Vec::new();
        for (index, rows) in rows.into_iter().enumerate() {
            let name = format!("t{index}");
            tensors.push(DraftTensor { name, dimensions: vec![32, rows], kind: 8, offset });
            offset += (rows * 34).next_multiple_of(32);
        }
        let metadata = metadata.into_iter().collect();
        Draft { metadata, tensors, data_bytes: offset, ..Draft::default() }
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read(draft in draft()) {
        let gguf = read(&draft.bytes()).unwrap();
        let metadata: Vec<_> =
            gguf.metadata.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        prop_assert_eq!(metadata, draft.metadata);
        prop_assert_eq!(gguf.tensors.len(), draft.tensors.len());
        for (found, written) in gguf.tensors.iter().zip(&draft.tensors) {
            prop_assert_eq!(&found.name, &written.name);
            prop_assert_eq!(&found.dimensions, &written.dimensions);
            prop_assert_eq!(found.offset, written.offset);
        }
    }

    #[test]
    fn no_mutation_panics_or_escapes_the_file(
        draft in draft(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = draft.bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(gguf) = read(&bytes) {
            for tensor in &gguf.tensors {
                let end = u128::from(gguf.data_start) + u128::from(tensor.offset)
                    + u128::from(tensor.bytes);
                prop_assert!(end <= bytes.len() as u128);
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = read(&[b"GGUF\x03\0\0\0".as_slice(), &bytes].concat());
    }
}

/// The fuzzer's first inputs. `TIELINE_WRITE_SEEDS=1` writes them; without it they are compared.
#[test]
fn the_fuzzer_s_seeds_are_what_the_writer_writes() {
    let list = Value::Array(vec![Value::String("ab".into()); 3]);
    let nested = Value::Array(vec![Value::Array(vec![Value::I16(-1)]); 2]);
    let mut rich = key("list", list);
    rich.metadata.push(("nested".into(), nested));
    rich.metadata.push(("float".into(), Value::F64(0.5)));
    let seeds = [
        ("sample", Draft::sample(128)),
        ("version-2", Draft { version: 2, ..Draft::sample(128) }),
        ("rich", Draft { data_bytes: 4096, ..rich }),
        ("no-tensors", Draft::default()),
        ("outside", tensor(|tensor| tensor.offset = 1 << 40)),
        ("overflow", tensor(|tensor| tensor.dimensions = vec![1 << 40; 4])),
    ];
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/gguf");
    for (name, draft) in seeds {
        let path = folder.join(name);
        if std::env::var_os("TIELINE_WRITE_SEEDS").is_some() {
            std::fs::write(&path, draft.bytes()).unwrap();
        }
        assert_eq!(std::fs::read(path).unwrap(), draft.bytes(), "{name}");
    }
}

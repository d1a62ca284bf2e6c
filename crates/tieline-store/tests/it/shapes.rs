//! Models of every shape pass the check of their header, and say what they are.

use std::fs::File;

use testkit::Shape;
use tieline_store::gguf::Gguf;
use tieline_types::Tokens;

#[test]
fn every_shape_has_a_sound_header() {
    for shape in Shape::ALL {
        let gguf = Gguf::read(File::open(testkit::shape(shape)).unwrap());
        let gguf = gguf.unwrap_or_else(|error| panic!("{}: {error}", shape.name()));
        assert_eq!(gguf.architecture(), Some(shape.architecture()));
        assert_eq!(gguf.licence(), Some("apache-2.0"));
        let encodes = matches!(shape, Shape::Bert | Shape::Reranker);
        let context = if encodes { testkit::ENCODER_CONTEXT } else { testkit::CONTEXT };
        assert_eq!(gguf.context_length(), Some(Tokens(context)), "{}", shape.name());
        assert_eq!(gguf.chat_template().is_some(), !encodes, "{}", shape.name());
        assert!((50_000..1_000_000).contains(&gguf.parameter_count()), "{}", shape.name());
    }
}

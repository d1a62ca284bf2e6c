//! Makes whole characters of a stream of bytes: a token may end inside a character.

/// Keeps the bytes of an unfinished character.
#[derive(Debug, Default)]
pub(crate) struct Utf8Stream {
    unfinished: Vec<u8>,
}

impl Utf8Stream {
    /// Takes more bytes and gives back the whole characters so far. Bytes that can be no part of a
    /// character become U+FFFD.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.unfinished.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.unfinished.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = error.error_len() else {
                        rest = after;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[bad..];
                }
            }
        }
        self.unfinished = rest.to_vec();
        text
    }

    /// What is left when no more bytes come: nothing, or U+FFFD for an unfinished character.
    pub(crate) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.unfinished)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let mut stream = Utf8Stream::default();
        let bytes = "é→😀".as_bytes();
        let pieces: Vec<String> = bytes.iter().map(|byte| stream.push(&[*byte])).collect();
        assert_eq!(pieces, ["", "é", "", "", "→", "", "", "", "😀"]);
        assert_eq!(stream.finish(), "");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_read_as_they_do_whole(pieces: Vec<Vec<u8>>) {
            let mut stream = Utf8Stream::default();
            let mut text: String = pieces.iter().map(|piece| stream.push(piece)).collect();
            text += &stream.finish();
            let whole = pieces.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}

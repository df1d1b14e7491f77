//! Output that comes while no cell runs, for the next one.

use crate::run::record_of::encode;
use crate::session::protocol::{Message, Piece};

/// The most bytes that are kept.
const MOST: usize = 1 << 20;

/// Pieces of output, each with its stream. What there is no room for is dropped, and counted elsewhere.
#[derive(Default)]
pub struct Background(Vec<(&'static str, Vec<u8>)>);

impl Background {
    pub fn add(&mut self, stream: &'static str, bytes: Vec<u8>) {
        let held: usize = self.0.iter().map(|(_, bytes)| bytes.len()).sum();
        if held + bytes.len() > MOST {
            return;
        }
        match self.0.last_mut() {
            Some((last, piece)) if *last == stream => piece.extend(bytes),
            _ => self.0.push((stream, bytes)),
        }
    }

    /// Returns the messages that tell it.
    pub fn into_messages(self) -> impl Iterator<Item = Message> {
        self.0.into_iter().map(|(stream, bytes)| {
            let (data, encoding) = encode(bytes);
            Message::Background(Piece {
                stream: stream.into(),
                data,
                encoding,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_in_order() {
        let mut background = Background::default();
        background.add("stdout", b"a".into());
        background.add("stdout", b"b".into());
        background.add("stderr", b"c".into());
        background.add("stdout", vec![b'x'; MOST]);
        background.add("stdout", b"d".into());
        let told: Vec<_> = background
            .into_messages()
            .map(|message| match message {
                Message::Background(piece) => (piece.stream, piece.data),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")];
        assert_eq!(
            told,
            expected.map(|(stream, data)| (stream.into(), data.into()))
        );
    }
}

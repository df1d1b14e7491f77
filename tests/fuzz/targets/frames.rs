//! The stream from the guest, cut into pieces.

use guest::{Decoder, Frame, MAX_START, Malformed, encode};

/// How a stream is cut makes no difference, and a frame that is encoded again is the same.
pub fn frames(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else {
        return;
    };
    let whole = decode(stream, stream.len().max(1));
    assert_eq!(decode(stream, 1 + usize::from(piece)), whole);
    for frame in whole.0 {
        let mut bytes = Vec::new();
        encode(&frame, &mut bytes);
        assert_eq!(decode(&bytes, bytes.len()), (vec![frame], Ok(true)));
    }
}

/// The frames, and whether nothing is left over.
fn decode(stream: &[u8], piece: usize) -> (Vec<Frame>, Result<bool, Malformed>) {
    let mut decoder = Decoder::with_limit(MAX_START);
    let mut frames = Vec::new();
    for bytes in stream.chunks(piece) {
        decoder.push(bytes);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(malformed) => return (frames, Err(malformed)),
            }
        }
    }
    (frames, Ok(decoder.is_empty()))
}

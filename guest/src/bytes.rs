//! The encoding of numbers, byte strings and lists of them on the wire.

use std::fmt;

/// The error for a peer that broke the format; the text says how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed frame: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_le_bytes());
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len() as u32);
    out.extend(bytes);
}

pub fn put_list(out: &mut Vec<u8>, list: &[Vec<u8>]) {
    put_u32(out, list.len() as u32);
    list.iter().for_each(|bytes| put_bytes(out, bytes));
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or(Malformed("too short"))?;
    *rest = tail;
    Ok(head)
}

pub fn take_u32(rest: &mut &[u8]) -> Result<u32, Malformed> {
    let bytes = take(rest, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

pub fn take_bytes(rest: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
    let length = take_u32(rest)? as usize;
    Ok(take(rest, length)?.to_vec())
}

pub fn take_list(rest: &mut &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    (0..take_u32(rest)?).map(|_| take_bytes(rest)).collect()
}

//! Records of pax headers (POSIX, pax, "pax Extended Header"), which say more of the entry that follows.

use crate::error::Error;
use crate::layer::Time;
use crate::oci::numbers::{decimal, moment};
use crate::oci::refusal::{malformed, refused};

/// What such records say, as far as it is used.
#[derive(Debug, Default)]
pub struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub modified: Option<Time>,
}

impl Records {
    /// Reads records. Extended attributes are among those that are passed over.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, Error> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) =
                first(bytes).ok_or_else(|| malformed("a pax header has no sound records"))?;
            records.take(key, value)?;
            bytes = rest;
        }
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if key.starts_with(b"GNU.sparse.") {
            return Err(sparse());
        }
        let is_sound = match key {
            b"path" => given(&mut self.path, value, |value| Some(value.into())),
            b"linkpath" => given(&mut self.link, value, |value| Some(value.into())),
            b"size" => given(&mut self.size, value, decimal),
            b"uid" => given(&mut self.uid, value, decimal),
            b"gid" => given(&mut self.gid, value, decimal),
            b"mtime" => given(&mut self.modified, value, moment),
            _ => true,
        };
        match is_sound {
            true => Ok(()),
            false => Err(malformed(format!(
                "a pax header has a wrong {}",
                String::from_utf8_lossy(key)
            ))),
        }
    }
}

/// Sets what a record says. One without a value takes back what was said. Returns whether it is sound.
fn given<T>(field: &mut Option<T>, value: &[u8], parse: fn(&[u8]) -> Option<T>) -> bool {
    *field = Some(value)
        .filter(|value| !value.is_empty())
        .and_then(parse);
    value.is_empty() || field.is_some()
}

/// Splits off the first record, "LENGTH KEY=VALUE\n". The length counts all of it.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let record = bytes.get(space + 1..length)?;
    let (b'\n', record) = record.split_last()? else {
        return None;
    };
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

/// Returns the refusal of a file with holes that are not in the archive.
pub fn sparse() -> Error {
    refused(
        "it has a sparse file in the form of GNU tar, which is not read",
        "save the image with a tool that writes holes as zeros, as docker, podman and skopeo do",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_have_line_breaks_and_the_last_one_holds() {
        let records = Records::parse(b"13 x=a\nb 1=2\n8 uid=1\n8 uid=2\n8 path=\n").unwrap();
        assert_eq!((records.uid, records.path), (Some(2), None));
    }

    #[test]
    fn records_of_wrong_lengths_are_refused() {
        for wrong in [
            "7 uid=1\n",
            "9 uid=1\n",
            "0 uid=1\n",
            "8 uid:1\n",
            "x uid=1\n",
            " ",
            "2 \n",
        ] {
            let error = Records::parse(wrong.as_bytes()).unwrap_err();
            assert!(error.message.contains("no sound records"), "{wrong}");
        }
    }
}

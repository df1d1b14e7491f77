//! The entries of a tar archive, one after the other, with the long names of GNU and pax.
//!
//! The crate `tar` knows the fields of a header. What is between headers is read here, since that crate reads
//! names and extensions of any length into memory.

use crate::error::Error;
use crate::layer::Time;
use crate::oci::numbers::{signed, unsigned};
use crate::oci::pax::{Records, sparse};
use crate::oci::refusal::{damaged, malformed, shown, unreadable, within};
use crate::oci::region::Skip;
use std::io::{self, Read};
use tar::Header;

const BLOCK: usize = 512;
/// Upper bound on the bytes of a long name, or of the records before an entry.
const EXTENSION_MAX: u64 = 1 << 20;

/// A reader of entries. What is not read of one is passed over.
pub struct Entries<R> {
    reader: R,
    /// The bytes up to the next header.
    left: u64,
    /// Those of them that belong to the entry.
    content: u64,
}

/// What is before the content of an entry.
#[derive(Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: Time,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// A symbolic link with this target.
    Link(Vec<u8>),
    /// Another name of the file at this path.
    Name(Vec<u8>),
    /// A device.
    Device,
    /// A pipe with a name.
    Pipe,
}

/// What the entries before an entry say of it.
#[derive(Default)]
struct Said {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

impl<R: Skip> Entries<R> {
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            left: 0,
            content: 0,
        }
    }

    /// Reads the next entry. Returns `None` at the end.
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        let mut said = Said::default();
        loop {
            self.reader.skip(self.left).map_err(unreadable)?;
            (self.left, self.content) = (0, 0);
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            match header.as_old().linkflag[0] {
                b'L' => said.path = Some(self.long_name(&header)?),
                b'K' => said.link = Some(self.long_name(&header)?),
                b'x' => said.records = Records::parse(&self.extension(&header)?)?,
                b'g' => drop(self.extension(&header)?),
                _ => return self.entry(&header, said).map(Some),
            }
        }
    }

    /// Returns the reader, which is at what was not read yet.
    pub fn reader(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Reads the next header that is not at the end.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        let header = Header::from_byte_slice(&block);
        if block.iter().all(|&byte| byte == 0) {
            // Two blocks of zeros are the end; some leave out one or both.
            return match self.block()? {
                Some(block) if block.iter().any(|&byte| byte != 0) => {
                    Err(malformed("something follows its end"))
                }
                _ => Ok(None),
            };
        }
        let field = 148..156;
        let bytes = block.iter().enumerate();
        let bytes = bytes.map(|(at, &byte)| if field.contains(&at) { b' ' } else { byte });
        let sum: u64 = bytes.map(u64::from).sum();
        match unsigned(&header.as_old().cksum) {
            Some(told) if told == sum => Ok(Some(header.clone())),
            _ => Err(damaged(
                "it is no tar archive, or a header in it is damaged",
            )),
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut length = 0;
        while length < BLOCK {
            match self.reader.read(&mut block[length..]) {
                Ok(0) if length == 0 => return Ok(None),
                Ok(0) => return Err(unreadable(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        Ok(Some(block))
    }

    /// Begins to read so many bytes of content.
    fn begin(&mut self, size: u64) -> Result<(), Error> {
        let whole = size.checked_next_multiple_of(BLOCK as u64);
        self.left = whole.ok_or_else(|| malformed("an entry has an impossible size"))?;
        self.content = size;
        Ok(())
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Error> {
        let size = size_of(header)?;
        if size > EXTENSION_MAX {
            let what = format!("{size} bytes come before an entry to say more of it");
            return Err(malformed(what));
        }
        self.begin(size)?;
        let mut bytes = vec![0; size as usize];
        self.read_exact(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, Error> {
        let mut name = self.extension(header)?;
        // The zero that ends it in C.
        name.pop_if(|last| *last == 0);
        Ok(name)
    }

    fn entry(&mut self, header: &Header, said: Said) -> Result<Entry, Error> {
        let path = said.records.path.or(said.path);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = said.records.link.or(said.link);
        let link = link.or_else(|| header.link_name_bytes().map(Into::into));
        let place = shown(&path);
        let in_place = |error| within(&place, error);
        let old = header.as_old();
        let number = |said: Option<u64>, field: &[u8], what| {
            let number = said.or(unsigned(field)).map(u32::try_from);
            let wrong = || {
                in_place(malformed(format!(
                    "its {what} is no number that there can be"
                )))
            };
            number.and_then(Result::ok).ok_or_else(wrong)
        };
        let size = match said.records.size {
            Some(size) => size,
            None => size_of(header).map_err(in_place)?,
        };
        let kind = kind(old.linkflag[0], &path, link.unwrap_or_default()).map_err(in_place)?;
        if kind != Kind::File && size > 0 {
            return Err(in_place(malformed("it has content, but is not a file")));
        }
        let modified = said.records.modified.or_else(|| {
            let seconds = signed(&old.mtime)?;
            Some(Time {
                seconds,
                nanoseconds: 0,
            })
        });
        let entry = Entry {
            kind,
            size,
            mode: number(None, &old.mode, "mode")?,
            uid: number(said.records.uid, &old.uid, "owner")?,
            gid: number(said.records.gid, &old.gid, "group")?,
            modified: modified.ok_or_else(|| in_place(malformed("its time is no number")))?,
            path,
        };
        self.begin(size).map_err(in_place)?;
        Ok(entry)
    }
}

fn size_of(header: &Header) -> Result<u64, Error> {
    let wrong = || malformed("its size is no number that there can be");
    unsigned(&header.as_old().size).ok_or_else(wrong)
}

fn kind(flag: u8, path: &[u8], link: Vec<u8>) -> Result<Kind, Error> {
    Ok(match flag {
        // Before there was a type for directories, these had a slash at their end.
        0 if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' => Kind::File,
        b'1' => Kind::Name(link),
        b'2' => Kind::Link(link),
        b'3' | b'4' => Kind::Device,
        b'6' => Kind::Pipe,
        b'5' => Kind::Directory,
        b'S' => return Err(sparse()),
        _ => {
            let flag = shown([flag]);
            return Err(malformed(format!("its type, {flag}, is unknown")));
        }
    })
}

/// Reads the content of the entry that was read last.
impl<R: Skip> Read for Entries<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into
            .len()
            .min(self.content.try_into().unwrap_or(usize::MAX));
        let count = self.reader.read(&mut into[..length])?;
        if count == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

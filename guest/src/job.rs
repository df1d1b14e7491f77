//! A job: the program that the guest runs, as plain data.

use crate::bytes::{Malformed, put_bytes, put_list, put_u32, take_bytes, take_list, take_u32};
use crate::{File, Terminal};

/// A program to run once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFrame {
    /// The program and its arguments, as for execve(2). The program is found through PATH.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment, as `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// The most processes and threads that the program may have at once.
    pub pids_limit: u32,
    /// The user and the group that it runs as; 0 is the guest's root.
    pub user: u32,
    pub group: u32,
    /// Whether its root is the file system in the first window, and not the guest's own.
    pub has_own_root: bool,
    /// The working directory, as an absolute path.
    pub workdir: Vec<u8>,
    pub terminal: Option<Terminal>,
}

impl JobFrame {
    /// Encodes the job for an interpreter that is already started: behind its length, and with the
    /// script if the interpreter must run one. `flags` are those of [`crate::hypercall::handover`].
    pub fn handover(&self, script: Option<&File>, flags: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        self.encode(&mut bytes);
        put_u32(&mut bytes, flags);
        let nothing = File::default();
        let script = script.unwrap_or(&nothing);
        put_bytes(&mut bytes, &script.path);
        put_bytes(&mut bytes, &script.content);
        let length = bytes.len() as u32 - 4;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.argv);
        put_list(out, &self.env);
        put_u32(out, self.pids_limit);
        put_u32(out, self.user);
        put_u32(out, self.group);
        put_u32(out, self.has_own_root.into());
        put_bytes(out, &self.workdir);
        Terminal::encode(self.terminal, out);
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut rest = payload;
        let argv = take_list(&mut rest)?;
        let env = take_list(&mut rest)?;
        let pids_limit = take_u32(&mut rest)?;
        let user = take_u32(&mut rest)?;
        let group = take_u32(&mut rest)?;
        let has_own_root = take_u32(&mut rest)? != 0;
        let workdir = take_bytes(&mut rest)?;
        let terminal = Terminal::decode(&mut rest)?;
        if !rest.is_empty() {
            return Err(Malformed("bytes left over"));
        }
        Ok(Self {
            argv,
            env,
            pids_limit,
            user,
            group,
            has_own_root,
            workdir,
            terminal,
        })
    }

    /// Returns whether it runs as the guest's root.
    pub fn is_root(&self) -> bool {
        self.user == 0
    }
}

/// A cell of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// The name of its code in tracebacks has it.
    pub number: u64,
    pub code: Vec<u8>,
    /// The content of its standard input.
    pub stdin: Vec<u8>,
}

impl Cell {
    /// The number that no cell has: the interpreter passes a point, at which its machine may be saved to
    /// go on in others.
    pub const POINT: u64 = 0;

    /// Encodes the cell for a session's interpreter, behind its length.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        put_bytes(&mut bytes, self.number.to_string().as_bytes());
        put_bytes(&mut bytes, &self.code);
        put_bytes(&mut bytes, &self.stdin);
        let length = bytes.len() as u32 - 4;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }
}

/// Encodes the answer that an interpreter gets at a point, behind its length: whether its machine is another
/// one than that which came to the point.
pub fn point_answer(is_another: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_u32(&mut bytes, 4);
    put_u32(&mut bytes, is_another.into());
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::WindowSize;
    use proptest::collection::vec;
    use proptest::prelude::*;

    pub(crate) fn any_job() -> impl Strategy<Value = JobFrame> {
        let bytes = || vec(any::<u8>(), 0..40);
        (
            vec(bytes(), 0..6),
            vec(bytes(), 0..6),
            any::<u32>(),
            any::<(u32, u32, bool)>(),
            bytes(),
            proptest::option::of((1..8u32, any::<u32>())),
        )
            .prop_map(
                |(argv, env, pids_limit, (user, group, has_own_root), workdir, terminal)| {
                    JobFrame {
                        argv,
                        env,
                        pids_limit,
                        user,
                        group,
                        has_own_root,
                        workdir,
                        terminal: terminal.map(|(streams, size)| Terminal {
                            streams,
                            size: WindowSize::of(size),
                        }),
                    }
                },
            )
    }

    #[test]
    fn a_count_that_the_payload_cannot_hold_is_refused() {
        assert_eq!(JobFrame::decode(&[0xff; 8]), Err(Malformed("too short")));
    }

    proptest! {
        /// The numbers of the payload stand for counts and lengths, true or not.
        #[test]
        fn any_payload_is_one_job_or_refused(words in vec(prop_oneof![0..4u32, any::<u32>()], 0..20)) {
            let payload: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
            if let Ok(job) = JobFrame::decode(&payload) {
                let mut bytes = Vec::new();
                job.encode(&mut bytes);
                prop_assert_eq!(bytes.len(), payload.len());
                prop_assert_eq!(JobFrame::decode(&bytes), Ok(job));
            }
        }
    }
}

//! How far a call is, for a caller who wants to hear of it: what its program has printed so far.

use crate::text::escape_control;
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use rmcp::RoleServer;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;
use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// The interval of progress notifications to a caller that asked for them.
const PROGRESS: Duration = Duration::from_secs(1);
/// The most bytes of output that are told at once.
const TOLD: usize = 2 << 10;
/// The most bytes that are read for that: as many as a pipe holds (pipe(7)). Whatever a program prints,
/// it costs this server no more.
const READ: u64 = 64 << 10;

/// The end of what the program has printed. Of a flood, which the pipe does not hold, parts are missing.
pub struct Printed {
    pipe: File,
    end: Vec<u8>,
}

impl Printed {
    /// Returns also where the program's output is to be written, which takes what there is room for.
    pub fn open() -> Result<(Self, OwnedFd)> {
        let (reader, writer) =
            pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).context("making a pipe")?;
        let printed = Self {
            pipe: reader.into(),
            end: Vec::new(),
        };
        Ok((printed, writer))
    }

    /// Returns how far the program has come.
    pub fn so_far(&mut self) -> String {
        // An error says that there is no more for now; what came before it is kept.
        drop((&self.pipe).take(READ).read_to_end(&mut self.end));
        self.end.drain(..self.end.len().saturating_sub(TOLD));
        let is_middle = |&&byte: &&u8| byte & 0xc0 == 0x80;
        let cut = self.end.iter().take_while(is_middle).count();
        match String::from_utf8_lossy(&self.end[cut..]) {
            text if text.is_empty() => "it runs".into(),
            text => format!(
                "it runs; the end of what it has printed:\n{}",
                escape_control(&text)
            ),
        }
    }
}

/// Reports to the caller every second how far its call is, if it asked for progress.
pub async fn report(
    mut how_far: impl FnMut() -> String,
    context: &RequestContext<RoleServer>,
) -> Infallible {
    let Some(token) = context.meta.get_progress_token() else {
        return std::future::pending().await;
    };
    let began = Instant::now();
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let seconds = began.elapsed().as_secs_f64();
        let progress =
            ProgressNotificationParam::new(token.clone(), seconds).with_message(how_far());
        // A caller that cannot be notified has gone, which is noticed elsewhere.
        context
            .peer
            .notify_progress(progress)
            .await
            .unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_end_of_the_output_is_told_as_it_comes() {
        let (mut printed, writer) = Printed::open().unwrap();
        let mut writer = File::from(writer);
        assert_eq!(printed.so_far(), "it runs");
        writer.write_all(b"one\n").unwrap();
        let told = "it runs; the end of what it has printed:\n";
        assert_eq!(printed.so_far(), format!("{told}one\n"));
        writer.write_all("two\x1b\n".as_bytes()).unwrap();
        assert_eq!(printed.so_far(), format!("{told}one\ntwo\\u{{1b}}\n"));
        writer.write_all("ü".repeat(TOLD).as_bytes()).unwrap();
        writer.write_all(b"x").unwrap();
        let expected = format!("{told}{}x", "ü".repeat(TOLD / 2 - 1));
        assert_eq!(printed.so_far(), expected);
        drop(writer);
        assert_eq!(printed.so_far(), expected);
    }

    #[test]
    fn a_flood_is_neither_waited_for_nor_held() {
        let (mut printed, writer) = Printed::open().unwrap();
        let mut writer = File::from(writer);
        let flood = vec![b'x'; 1 << 20];
        while writer.write(&flood).is_ok() {}
        assert!(printed.so_far().len() < 2 * TOLD);
        assert!(printed.end.len() <= TOLD);
    }
}

//! The initramfs: a cpio archive in memory with the files that the kernel needs to start the agent
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const CONSOLE: u32 = 0o020_600;
/// The device number of /dev/console.
const CONSOLE_DEVICE: (u32, u32) = (5, 1);

/// Makes an archive with `/init`, and with `/dev/console` for its standard streams.
pub fn with_init(init: &[u8]) -> Vec<u8> {
    let mut archive = Vec::with_capacity(init.len() + 1024);
    put(&mut archive, "dev", DIRECTORY, (0, 0), &[]);
    put(&mut archive, "dev/console", CONSOLE, CONSOLE_DEVICE, &[]);
    put(&mut archive, "init", EXECUTABLE, (0, 0), init);
    put(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    archive
}

fn put(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    let (inode, owner, links, time, unused) = (0, 0, 1, 0, 0);
    let fields = [
        inode,
        mode,
        owner,
        owner,
        links,
        time,
        content.len() as u32,
        unused,
        unused,
        device.0,
        device.1,
        name.len() as u32 + 1,
        unused,
    ];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

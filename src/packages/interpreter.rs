//! A stand-in for the guest's interpreter: an executable that prints what the resolver asks every
//! interpreter for, and does nothing else. The resolver does not work without one, and Python need not
//! be on this host.

use crate::image::Packages;
use serde_json::{Value, json};

/// The address that the file is loaded at; any does.
const BASE: u32 = 0x40_0000;
/// The bytes of the header of an ELF file, and of its one segment.
const HEADER: usize = 0x40;
const SEGMENT: usize = 0x38;

/// Returns what the guest's interpreter would say of itself, as far as it matters where packages are
/// chosen and unpacked.
pub fn facts(packages: &Packages) -> Value {
    let [major, minor] = packages.glibc();
    let version = &packages.python;
    let short = packages.python_release();
    let site = &packages.site;
    let library = format!("/usr/lib/python{short}");
    let relative = format!("lib/python{short}/site-packages");
    json!({
        "result": "success",
        "markers": {
            "implementation_name": "cpython",
            "implementation_version": version,
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "6.12",
            "platform_system": "Linux",
            "platform_version": "#1 SMP",
            "python_full_version": version,
            "python_version": short,
            "sys_platform": "linux",
        },
        "sys_base_prefix": "/usr",
        "sys_base_exec_prefix": "/usr",
        "sys_prefix": "/usr",
        "sys_base_executable": "/usr/bin/python3",
        "sys_executable": "/usr/bin/python3",
        "sys_path": [&library, site],
        "site_packages": [site],
        "stdlib": library,
        "extension_suffixes": [".abi3.so", ".so"],
        "standalone": false,
        "scheme": {
            "purelib": site,
            "platlib": site,
            "include": format!("/usr/include/python{short}"),
            "scripts": "/usr/local/bin",
            "data": "/usr/local",
        },
        "virtualenv": {
            "purelib": &relative,
            "platlib": &relative,
            "include": format!("include/site/python{short}"),
            "scripts": "bin",
            "data": "",
        },
        "os": {"name": "manylinux", "major": major, "minor": minor},
        "arch": "x86_64",
        "cpu_info": {"unavailable": "the guest's processor is not known yet"},
        "manylinux_compatible": true,
        "gil_disabled": false,
        "debug_enabled": false,
        "pointer_size": "64",
    })
}

/// Returns an executable for x86-64 Linux that writes this text to standard output and exits.
pub fn printing(text: &str) -> Vec<u8> {
    let start = BASE + (HEADER + SEGMENT) as u32;
    let mut code = Vec::new();
    // mov eax, SYS_write; mov edi, 1; mov esi, text; mov edx, length; syscall
    code.extend([0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xbe]);
    let place = code.len();
    code.extend([0; 4]);
    code.push(0xba);
    code.extend((text.len() as u32).to_le_bytes());
    code.extend([0x0f, 0x05]);
    // mov eax, SYS_exit; xor edi, edi; syscall
    code.extend([0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
    let address = start + code.len() as u32;
    code[place..place + 4].copy_from_slice(&address.to_le_bytes());

    let size = (HEADER + SEGMENT + code.len() + text.len()) as u64;
    let mut file = Vec::new();
    // 64 bits, little endian, of this version of ELF; executable (2) for x86-64 (62).
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2, 62] {
        file.extend(u16::to_le_bytes(half));
    }
    file.extend(1u32.to_le_bytes());
    for word in [u64::from(start), HEADER as u64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    // The sizes of the headers, one segment, no sections.
    for half in [HEADER as u16, SEGMENT as u16, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // A segment that is loaded (1), to be read and executed (5): the whole file.
    for half in [1u32, 5] {
        file.extend(half.to_le_bytes());
    }
    for word in [0, BASE.into(), BASE.into(), size, size, 0x1000] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(code);
    file.extend(text.as_bytes());
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    fn the_stand_in_prints_its_text_whatever_it_is_asked() {
        let packages = Image::built_in().packages.as_ref().unwrap();
        let text = facts(packages).to_string();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("python3");
        fs::write(&path, printing(&text)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).unwrap();
        let output = Command::new(&path)
            .args(["-I", "-c", "x"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    }
}

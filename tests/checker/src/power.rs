//! Disks that can be cut off and filled: file systems in sparse files, mounted by loop.
//!
//! `cut` shuts a file system down without letting it write what it holds, which is what a pulled plug leaves behind;
//! `restore` mounts it again, so that its journal replays. It needs root. A disk unmounts and removes itself.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Shut the file system down; its number stands in the kernel's `FS_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// Do not even write the journal.
const NO_LOG_FLUSH: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }
}

pub struct Disk {
    file_system: FileSystem,
    image: PathBuf,
    pub mounted_at: PathBuf,
}

impl Disk {
    /// Makes a disk of this size in `directory` and mounts it.
    pub fn make(directory: &Path, file_system: FileSystem, bytes: u64) -> Result<Disk> {
        ensure!(
            is_root(),
            "power cuts and full disks need root: run as root, or leave them out with --without F2,F3,F5"
        );
        let image = directory.join(format!("{}.img", file_system.name()));
        let mounted_at = directory.join(format!("{}.mnt", file_system.name()));
        File::create(&image)?.set_len(bytes)?;
        std::fs::create_dir_all(&mounted_at)?;
        let make = format!("mkfs.{}", file_system.name());
        let quiet_and_force = match file_system {
            FileSystem::Ext4 => ["-q", "-F"],
            FileSystem::Xfs => ["-q", "-f"],
        };
        run(Command::new(make).args(quiet_and_force).arg(&image))?;
        let disk = Disk {
            file_system,
            image,
            mounted_at,
        };
        disk.mount()?;
        Ok(disk)
    }

    pub fn name(&self) -> &'static str {
        self.file_system.name()
    }

    /// Pulls the plug: nothing that was not synced survives. The file system is dead until `restore`.
    pub fn cut(&self) -> Result<()> {
        let directory = File::open(&self.mounted_at)?;
        // SAFETY: the ioctl reads one u32 through the pointer and keeps nothing.
        let outcome = unsafe { libc::ioctl(directory.as_raw_fd(), SHUTDOWN, &NO_LOG_FLUSH) };
        ensure!(
            outcome == 0,
            "shutting the file system down: {}",
            std::io::Error::last_os_error()
        );
        Ok(())
    }

    /// The power comes back. No process may hold a file of the dead mount any more.
    pub fn restore(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.mounted_at))?;
        self.mount()
    }

    /// Takes all free space but this much.
    pub fn fill(&self, left_bytes: u64) -> Result<()> {
        let free = self.free_bytes()?;
        if free > left_bytes {
            let length = (free - left_bytes).to_string();
            run(Command::new("fallocate")
                .args(["-l", &length])
                .arg(self.filler()))?;
        }
        Ok(())
    }

    /// Takes every last block, in ever smaller bites.
    pub fn fill_up(&self) -> Result<()> {
        for (number, bytes) in [1 << 20, 64 << 10, 4 << 10].into_iter().enumerate() {
            for bite in 0..1_000 {
                let path = self.mounted_at.join(format!("bite-{number}-{bite}"));
                if std::fs::write(path, vec![0_u8; bytes]).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    pub fn free_up(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.mounted_at)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with("bite-") || path == self.filler() {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    pub fn free_bytes(&self) -> Result<u64> {
        let path = std::ffi::CString::new(self.mounted_at.to_string_lossy().as_bytes())?;
        // SAFETY: statvfs fills the struct that it is given and keeps no pointer.
        let stat = unsafe {
            let mut stat: libc::statvfs = std::mem::zeroed();
            ensure!(
                libc::statvfs(path.as_ptr(), &mut stat) == 0,
                "statvfs: {}",
                std::io::Error::last_os_error()
            );
            stat
        };
        Ok(stat.f_bavail * stat.f_frsize)
    }

    fn filler(&self) -> PathBuf {
        self.mounted_at.join("filler")
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.mounted_at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A lazy unmount succeeds even where a dying server still holds a file.
        Command::new("umount")
            .arg("-l")
            .arg(&self.mounted_at)
            .output()
            .ok();
        std::fs::remove_file(&self.image).ok();
    }
}

pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}; is it installed?"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

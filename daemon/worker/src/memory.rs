//! What this process occupies, and memory that leaves it.

use mote_api::Tensor;
use mote_wire::Memfd;
use std::os::fd::OwnedFd;

/// Resident bytes of this process; 0 when /proc does not tell.
pub fn resident_bytes() -> u64 {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else {
        return 0;
    };
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    pages
        * page_bytes
            .ok()
            .flatten()
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or(4096)
}

/// Why a tensor could not be copied into memory of its own.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// No memfd.
    #[error("cannot make shared memory")]
    Create(#[source] std::io::Error),
    /// No copy.
    #[error("cannot copy a tensor out")]
    Copy(#[source] mote_api::TensorError),
}

/// Copies a tensor into a sealed memfd that holds nothing else.
pub fn pass(tensor: &Tensor) -> Result<OwnedFd, PassError> {
    let contents = tensor.read_bytes().map_err(PassError::Copy)?;
    let memfd = Memfd::holding("mote-tensor", &contents).map_err(PassError::Create)?;
    Ok(memfd.into_fd())
}

//! Landlock: which files a worker may open, and how.

use super::scope::{Access, Scope};
use landlock::{
    ABI, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope as Signals,
};
use mote_wire::types::SandboxState;

/// What is asked for: files with truncation and device requests, TCP, signals and abstract sockets.
/// Kernels from 6.12 on have it all; older ones do what they can.
const WANTED: ABI = ABI::V6;

/// How much of it holds, and a word on what does not.
pub fn restrict(scope: &Scope) -> (SandboxState, String) {
    match apply(scope) {
        Ok(status) => told(&status),
        Err(error) => (SandboxState::Inactive, crate::status::chain(&error)),
    }
}

fn apply(scope: &Scope) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(all())?
        // Without a rule that allows it, none is.
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .scope(Signals::AbstractUnixSocket | Signals::Signal)?
        .create()?;
    for (path, access) in scope.paths() {
        // What does not exist here needs no rule: most of the table is about other machines.
        let Ok(fd) = PathFd::new(path) else {
            continue;
        };
        let mut rights = rights(access);
        if !path.is_dir() {
            rights &= AccessFs::from_file(WANTED);
        }
        ruleset = ruleset.add_rule(PathBeneath::new(fd, rights))?;
    }
    ruleset.restrict_self()
}

fn all() -> BitFlags<AccessFs> {
    landlock::Access::from_all(WANTED)
}

/// Nothing is ever executed, nor made but plain files and folders.
fn rights(access: Access) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match access {
        Access::Read => read,
        Access::Device => read | AccessFs::WriteFile | AccessFs::IoctlDev,
        Access::Write => {
            let change = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::Refer;
            let make = AccessFs::MakeReg | AccessFs::MakeDir;
            read | change | make | AccessFs::RemoveFile | AccessFs::RemoveDir
        }
    }
}

fn told(status: &RestrictionStatus) -> (SandboxState, String) {
    let version = match status.landlock {
        LandlockStatus::NotImplemented => "the kernel is built without Landlock".to_owned(),
        LandlockStatus::NotEnabled => {
            "Landlock is not enabled; add it to the kernel's parameter lsm=".to_owned()
        }
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => {
            let version = kernel_abi.unwrap_or(effective_abi as i32);
            format!("Landlock {version}")
        }
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => (SandboxState::Active, version),
        RulesetStatus::PartiallyEnforced => {
            let detail = format!("{version}; all of it takes {}", WANTED as i32);
            (SandboxState::Partial, detail)
        }
        RulesetStatus::NotEnforced => (SandboxState::Inactive, version),
    }
}

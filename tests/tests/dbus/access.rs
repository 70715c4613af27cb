//! Who may change the machine: another user's callers, with polkit and without.

use crate::common::{ADD, tensor};
use crate::harness::{Bus, MANAGER, SERVICE, Stage};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// `nobody`.
const UID: &str = "65534";
const POLKITD: [&str; 2] = ["/usr/lib/polkit-1/polkitd", "/usr/libexec/polkitd"];

/// A call of the manager by another user.
fn call(bus: &Bus, method: &str, arguments: &[&str]) -> Result<Output> {
    let address = format!("--address={}", bus.address());
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", UID, "--regid", UID, "--clear-groups", "busctl"])
        .args([&address, "call", SERVICE, MANAGER])
        .args([&format!("{SERVICE}.Manager"), method])
        .args(arguments);
    bus.run(&mut command)
}

fn rescan(bus: &Bus) -> Result<Output> {
    call(bus, "Rescan", &["a{sv}", "0"])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Only root can call as somebody else.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can call as another user");
    }
    root
}

#[test]
fn without_polkit_others_read_and_change_nothing() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let stage = Stage::scripted(&[tensor("add", ADD)])?;
    crate::harness::with(async { stage.caller().await.map(drop) })?;
    let listed = call(&stage.bus, "ListModels", &["a{sv}", "0"])?;
    ensure!(listed.status.success(), "{}", said(&listed));
    let refused = rescan(&stage.bus)?;
    assert!(!refused.status.success());
    assert!(
        said(&refused).contains("not authorised"),
        "{}",
        said(&refused)
    );
    let measured = ["sa{sv}", "add", "1", "measure", "b", "true"];
    let refused = call(&stage.bus, "Explain", &measured)?;
    assert!(
        said(&refused).contains("not authorised"),
        "{}",
        said(&refused)
    );
    let explained = call(&stage.bus, "Explain", &["sa{sv}", "add", "0"])?;
    ensure!(explained.status.success(), "{}", said(&explained));
    // Nobody else has a part in a model that is idle.
    stage
        .daemon
        .client()?
        .load("add", &mote_client::WorkOptions::default())?;
    let unloaded = call(&stage.bus, "Unload", &["sa{sv}", "add", "0"])?;
    ensure!(unloaded.status.success(), "{}", said(&unloaded));
    let client = stage.daemon.client()?;
    client.pin("add")?;
    let refused = call(&stage.bus, "Unload", &["sa{sv}", "add", "0"])?;
    assert!(
        said(&refused).contains("unload-models"),
        "{}",
        said(&refused)
    );
    Ok(())
}

/// A real polkitd on the private bus, with the actions of this tree and one rule.
struct Polkit(Child);

impl Polkit {
    fn start(bus: &Bus, rule: &str) -> Result<Option<Self>> {
        let Some(program) = POLKITD.into_iter().find(|path| Path::new(path).exists()) else {
            eprintln!("skipped: polkitd is not installed");
            return Ok(None);
        };
        let mut own_mounts = Command::new("unshare");
        if !bus
            .run(own_mounts.args(["--mount", "true"]))?
            .status
            .success()
        {
            eprintln!("skipped: nothing can be mounted here, not even for one process");
            return Ok(None);
        }
        let folder = bus.folder().join("polkit");
        for part in ["actions", "rules", "none"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        let policy = "org.moted.Inference1.policy";
        let systemd = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/dbus");
        std::fs::copy(systemd.join(policy), folder.join("actions").join(policy))?;
        std::fs::write(folder.join("rules/10-test.rules"), rule)?;
        // What polkitd reads lies at fixed places: it sees others there.
        let script = format!(
            "set -e; mount --make-rprivate /; d='{}'; \
             mount --bind \"$d/actions\" /usr/share/polkit-1/actions; \
             mount --bind \"$d/rules\" /etc/polkit-1/rules.d; \
             mount --bind \"$d/none\" /usr/share/polkit-1/rules.d; \
             exec {program} --no-debug",
            folder.display()
        );
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        for part in ["", "actions", "rules", "none"] {
            std::fs::set_permissions(folder.join(part), std::fs::Permissions::clone(&open))?;
        }
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start polkitd")?;
        let mut polkit = Self(child);
        crate::common::eventually("polkitd is on the bus", || {
            if let Some(status) = polkit.0.try_wait()? {
                anyhow::bail!("polkitd ended: {status}");
            }
            let address = format!("--address={}", bus.address());
            let mut has = Command::new("busctl");
            has.args([&address, "status", "org.freedesktop.PolicyKit1"]);
            Ok(bus.run(&mut has)?.status.success())
        })?;
        Ok(Some(polkit))
    }
}

impl Drop for Polkit {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn rule(answer: &str) -> String {
    format!(
        "polkit.addRule(function(action, subject) {{\n\
           if (action.id == \"org.moted.Inference1.manage-models\" && subject.user == \"nobody\")\n\
             return polkit.Result.{answer};\n\
         }});\n"
    )
}

#[test]
fn polkit_decides_for_others() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let stage = Stage::scripted(&[tensor("add", ADD)])?;
    crate::harness::with(async { stage.caller().await.map(drop) })?;
    let Some(allowing) = Polkit::start(&stage.bus, &rule("YES"))? else {
        return Ok(());
    };
    let allowed = rescan(&stage.bus)?;
    ensure!(allowed.status.success(), "{}", said(&allowed));
    // The rule is for the one action only; without a rule it takes an administrator's password.
    stage
        .daemon
        .client()?
        .load("add", &mote_client::WorkOptions::default())?;
    let client = stage.daemon.client()?;
    client.pin("add")?;
    let refused = call(&stage.bus, "Unload", &["sa{sv}", "add", "0"])?;
    assert!(said(&refused).contains("password"), "{}", said(&refused));
    drop(allowing);

    let forbidding = Polkit::start(&stage.bus, &rule("NO"))?;
    let refused = rescan(&stage.bus)?;
    assert!(said(&refused).contains("forbid"), "{}", said(&refused));
    drop(forbidding);
    Ok(())
}

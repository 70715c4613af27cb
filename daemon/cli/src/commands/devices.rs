//! `mote devices`: what works here, and why the rest does not.

use crate::interrupt;
use crate::ui::Ui;
use anyhow::Result;
use mote_client::Client;
use mote_wire::types::Capability;
use std::sync::Arc;

/// Codes of reasons that the table treats differently.
pub const NOT_COMPILED_IN: &str = "not_compiled_in";
const HARDWARE_MISSING: &str = "hardware_missing";

/// Lists all providers of all runtimes.
pub fn devices(client: &Arc<Client>, refresh: bool, ui: &Ui) -> Result<()> {
    let found = ask(client, refresh, ui)?;
    ui.result(&found, table(&found).join("\n"))
}

/// What the daemon knows of devices, having looked anew with `refresh`.
pub fn ask(client: &Arc<Client>, refresh: bool, ui: &Ui) -> Result<Vec<Capability>> {
    let spinner = ui.spinner("probe");
    let client = Arc::clone(client);
    let found = interrupt::wait(move || {
        let found = if refresh {
            client.probe_devices()
        } else {
            client.devices()
        };
        Ok(found?)
    });
    spinner.finish_and_clear();
    found
}

/// What works, then what does not. Of providers that a runtime was built without there is a line
/// only where no other runtime has them.
pub fn table(found: &[Capability]) -> Vec<String> {
    let is_missing = |one: &&Capability| code(one) == Some(NOT_COMPILED_IN) && !one.expected;
    let (missing, mut there): (Vec<_>, Vec<_>) = found.iter().partition(is_missing);
    there.sort_by_key(|one| one.absence.is_some());
    let mut nowhere: Vec<&Capability> = Vec::new();
    for one in missing {
        let same = |other: &&Capability| other.provider == one.provider;
        if !there.iter().any(same) && !nowhere.iter().any(same) {
            nowhere.push(one);
        }
    }
    let there = there.into_iter().flat_map(|one| lines(one, &one.flavour));
    let nowhere = nowhere.into_iter().flat_map(|one| {
        let mut one = one.clone();
        if let Some(reason) = &mut one.absence {
            reason.message = "no runtime here has it".into();
        }
        lines(&one, "(no runtime)")
    });
    there.chain(nowhere).collect()
}

fn code(capability: &Capability) -> Option<&str> {
    capability
        .absence
        .as_ref()
        .map(|reason| reason.code.as_str())
}

fn lines(one: &Capability, flavour: &str) -> Vec<String> {
    let provider = if one.provider.is_empty() {
        "(all)"
    } else {
        one.provider.as_str()
    };
    let place = format!("{flavour:20}  {provider:30}");
    let Some(reason) = &one.absence else {
        let device = one.device.as_ref();
        let name = device.map_or("", |device| device.name.as_str());
        let simulated = match device.is_some_and(|device| device.simulated) {
            true => ", no device but a simulator",
            false => "",
        };
        let (backend, version) = (&one.backend, &one.library_version);
        return vec![format!(
            "yes  {place}  {name}, {backend} {version}{simulated}"
        )];
    };
    let mut lines = vec![format!("no   {place}  {}", reason.message)];
    if !reason.next_step.is_empty() {
        lines.push(format!("{:59}→ {}", "", reason.next_step));
    }
    lines
}

/// What should work and does not: what a runtime was installed for, where its hardware is.
pub fn problems(found: &[Capability]) -> Vec<String> {
    let mut problems = Vec::new();
    for one in found.iter().filter(|one| one.expected) {
        let Some(reason) = &one.absence else {
            continue;
        };
        if reason.code == HARDWARE_MISSING {
            continue;
        }
        let what = match one.provider.as_str() {
            "" => one.flavour.clone(),
            provider => format!("{provider} of {}", one.flavour),
        };
        let problem = format!(
            "{what} does not work: {}. {}",
            reason.message, reason.next_step
        );
        problems.push(problem.trim_end().to_owned());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_wire::types::{Device, Reason};

    fn capability(flavour: &str, provider: &str, code: &str, expected: bool) -> Capability {
        let reason = Reason {
            code: code.into(),
            message: format!("because of {code}"),
            next_step: "Do something.".into(),
            ..Reason::default()
        };
        Capability {
            flavour: flavour.into(),
            provider: provider.into(),
            backend: "onnxruntime".into(),
            library_version: "1".into(),
            device: code.is_empty().then(|| Device {
                name: "a device".into(),
                ..Device::default()
            }),
            absence: (!code.is_empty()).then_some(reason),
            expected,
        }
    }

    #[test]
    fn what_no_runtime_has_is_told_once() {
        let found = [
            capability("cpu", "Cuda", NOT_COMPILED_IN, false),
            capability("cpu", "Rknpu", NOT_COMPILED_IN, false),
            capability("cpu", "Cpu", "", false),
            capability("gpu", "Cuda", HARDWARE_MISSING, true),
            capability("gpu", "Rknpu", NOT_COMPILED_IN, false),
            capability("gpu", "Cpu", "", false),
        ];
        let table = table(&found);
        let starts: Vec<_> = table
            .iter()
            .map(|line| {
                line.split_whitespace()
                    .take(3)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(
            starts,
            [
                "yes cpu Cpu",
                "yes gpu Cpu",
                "no gpu Cuda",
                "→ Do something.",
                "no (no runtime)",
                "→ Do something.",
            ]
        );
        assert!(table[4].contains("Rknpu"), "{table:?}");
    }

    #[test]
    fn a_simulator_is_told_from_a_device() {
        let mut found = [
            capability("qnn", "Qnn", "", true),
            capability("cpu", "Cpu", "", false),
        ];
        if let Some(device) = &mut found[0].device {
            device.simulated = true;
        }
        let table = table(&found);
        assert!(table[0].ends_with("no device but a simulator"), "{table:?}");
        assert!(table[1].ends_with("a device, onnxruntime 1"), "{table:?}");
    }

    #[test]
    fn only_what_should_work_is_a_problem() {
        let found = [
            capability("cpu", "Cuda", NOT_COMPILED_IN, false),
            capability("gpu", "Cuda", HARDWARE_MISSING, true),
            capability("cann", "Cann", "driver_missing", true),
            capability("cann", "Cpu", "probe_failed", false),
            capability("qnn", "", "library_rejected", true),
            capability("openvino", "OpenVino", "", true),
        ];
        let problems = problems(&found);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("Cann of cann does not work: because of driver_missing"));
        assert!(problems[1].starts_with("qnn does not work"));
    }
}

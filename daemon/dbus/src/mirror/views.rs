//! Models and devices as objects.

use super::Objects;
use crate::names::element;
use crate::values::{Dict, dict, list};
use mote_wire::types::{Capability, Device, ModelInfo, Reason};
use std::collections::BTreeMap;
use zbus::Variant;

/// A model.
#[derive(Clone, Debug)]
pub struct ModelView {
    /// What the daemon says.
    pub info: ModelInfo,
    /// Holds of callers.
    pub holds: u32,
}

impl ModelView {
    /// Its properties.
    pub fn properties(&self) -> Dict {
        let info = &self.info;
        let weights = info.variants.iter().map(|variant| variant.weights_bytes);
        let problem = info.problem.as_ref().map(|problem| {
            let mut fields = dict(problem);
            fields.insert("message".into(), problem.to_string().into());
            fields
        });
        let properties: [(&str, Variant<'static>); 11] = [
            ("Name", info.name.clone().into()),
            ("Kind", info.task.clone().into()),
            ("Description", info.description.clone().into()),
            ("Licence", info.licence.clone().into()),
            ("Digest", info.digest.clone().into()),
            ("Bytes", info.bytes.into()),
            ("WeightsBytes", weights.max().unwrap_or(0).into()),
            ("Variants", list(&info.variants)),
            ("Loaded", info.loaded.into()),
            ("Holds", self.holds.into()),
            ("Problem", problem.unwrap_or_default().into()),
        ];
        named(properties)
    }
}

/// A device, and the ways to use it.
#[derive(Clone, Debug)]
pub struct DeviceView {
    id: String,
    device: Device,
    capabilities: Vec<Capability>,
}

impl DeviceView {
    /// Its properties.
    pub fn properties(&self) -> Dict {
        let absence = |one: &Capability| one.absence.clone();
        let works = self.capabilities.iter().any(|one| one.absence.is_none());
        let reason = self.capabilities.iter().find_map(absence);
        let reason: Option<Reason> = reason.filter(|_| !works);
        let properties: [(&str, Variant<'static>); 6] = [
            ("Id", self.id.clone().into()),
            ("Kind", self.device.kind.clone().into()),
            ("Name", self.device.name.clone().into()),
            ("Available", works.into()),
            ("Providers", list(&self.capabilities)),
            (
                "Reason",
                reason
                    .map(|reason| dict(&reason))
                    .unwrap_or_default()
                    .into(),
            ),
        ];
        named(properties)
    }
}

fn named<const N: usize>(properties: [(&str, Variant<'static>); N]) -> Dict {
    let properties = properties.into_iter();
    properties
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Devices of what was probed. A provider that found none stands for the one it would use.
pub fn devices(capabilities: Vec<Capability>) -> Objects<DeviceView> {
    let mut views: BTreeMap<String, DeviceView> = BTreeMap::new();
    for capability in capabilities {
        let device = capability.device.clone().unwrap_or_default();
        let id = if device.id.is_empty() {
            format!("{}:{}", capability.flavour, capability.provider)
        } else {
            device.id.clone()
        };
        let view = views.entry(element(&id)).or_insert_with(|| DeviceView {
            id,
            device,
            capabilities: Vec::new(),
        });
        view.capabilities.push(capability);
    }
    views
}

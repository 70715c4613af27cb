//! Objects, their description, and what tells of changes.

use crate::common::{ADD, FOR_EVER, tensor, text as text_model};
use crate::harness::{Caller, Dict, MANAGER, Options, SERVICE, Stage, error, number, text, with};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

async fn introspect(caller: &mut Caller, path: &str) -> Result<String> {
    let reply = caller.object((path, INTROSPECTABLE), "Introspect", &());
    Ok(reply.await??.body().deserialize()?)
}

/// The elements of interfaces, with the comment before each, by name.
fn interfaces(xml: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut lines: Vec<&str> = Vec::new();
    let mut name = None;
    for line in xml.lines() {
        if let Some(rest) = line.strip_prefix("  <interface name=\"") {
            name = rest.split('"').next().map(str::to_owned);
        }
        if line.starts_with("  ") {
            lines.push(line);
        }
        if line == "  </interface>"
            && let Some(name) = name.take()
        {
            found.insert(name, std::mem::take(&mut lines).join("\n"));
        }
    }
    found
}

#[test]
fn the_description_in_the_tree_is_what_the_service_tells() -> Result<()> {
    let stage = Stage::scripted(&[text_model("slow", FOR_EVER)])?;
    with(async {
        let mut caller = stage.caller().await?;
        let job = caller.generate("slow", "", Options::from([("prompt", "t1".into())]));
        let job = job.await??;
        let body = ("slow", "to test", Options::new());
        let hold = caller.manager("HoldModel", &body).await??;
        let hold = hold
            .body()
            .deserialize::<zbus::ObjectPath<'_>>()?
            .to_string();
        let session = caller
            .manager("OpenSession", &("slow", Options::new()))
            .await??;
        let body = session.body();
        let (session, _socket): (zbus::ObjectPath<'_>, zbus::Fd<'_>) = body.deserialize()?;
        caller.manager("ListDevices", &Options::new()).await??;

        let device = format!("{MANAGER}/device");
        let devices = introspect(&mut caller, &device).await?;
        let device_name = devices.split("<node name=\"").nth(1).context("a device")?;
        let device_name = device_name.split('"').next().context("a name")?;
        let device = format!("{device}/{device_name}");
        let model = format!("{MANAGER}/model/slow");
        let mut all = BTreeMap::new();
        for path in [MANAGER, &model, &device, &job, &hold, session.as_str()] {
            all.extend(interfaces(&introspect(&mut caller, path).await?));
        }
        let own = all
            .into_iter()
            .filter(|(name, _)| name.starts_with(SERVICE));
        let own: Vec<String> = own.map(|(_, text)| text).collect();
        assert_eq!(own.len(), 6, "manager, model, device, session, job, hold");
        let told = format!(
            "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
             \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n\
             <!-- All interfaces of {SERVICE}; which object has which, its introspection tells. -->\n\
             <node>\n{}\n</node>\n",
            own.join("\n")
        );
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../systemd/dbus/org.moted.Inference1.xml");
        if std::env::var_os("MOTE_BLESS").is_some() {
            std::fs::write(&file, &told)?;
        }
        let kept = std::fs::read_to_string(&file).context("with MOTE_BLESS=1 it is written")?;
        assert_eq!(kept, told, "MOTE_BLESS=1 writes what is told now");
        Ok(())
    })
}

#[test]
fn every_object_is_found_by_walking_and_by_asking_at_once() -> Result<()> {
    let stage = Stage::scripted(&[tensor("add", ADD), tensor("3-d", ADD)])?;
    with(async {
        let mut caller = stage.caller().await?;
        let models = caller.manager("ListModels", &Options::new()).await??;
        let models: Vec<Dict> = models.body().deserialize()?;
        let names: Vec<String> = models.iter().map(|model| text(model, "Name")).collect();
        assert_eq!(names, ["3-d", "add"]);

        let reply = caller.object((MANAGER, OBJECT_MANAGER), "GetManagedObjects", &());
        let reply = reply.await??;
        type Managed = HashMap<zbus::OwnedObjectPath, BTreeMap<String, Dict>>;
        let managed: Managed = reply.body().deserialize()?;
        let asked: BTreeSet<String> = managed.keys().map(|path| path.to_string()).collect();
        assert!(
            asked.contains("/org/moted/Inference1/model/_33_2dd"),
            "{asked:?}"
        );

        let (mut walked, mut open) = (BTreeSet::new(), vec!["/".to_owned()]);
        while let Some(path) = open.pop() {
            let xml = introspect(&mut caller, &path).await?;
            if xml.contains(&format!("<interface name=\"{SERVICE}")) {
                walked.insert(path.clone());
            }
            let children = xml.split("<node name=\"").skip(1);
            for child in children.filter_map(|rest| rest.split('"').next()) {
                let parent = path.trim_end_matches('/');
                open.push(format!("{parent}/{child}"));
            }
        }
        ensure!(walked.remove(MANAGER), "the manager is there");
        assert_eq!(walked, asked);
        for (path, interfaces) in &managed {
            for (interface, properties) in interfaces {
                let last = interface.rsplit('.').next().context("a name")?;
                assert_eq!(&caller.properties(path.as_str(), last).await?, properties);
            }
        }
        let manager = caller.properties(MANAGER, "Manager").await?;
        assert_eq!(number(&manager, "Models"), Some(2));
        assert_eq!(number(&manager, "Version"), Some(1));
        assert!(!text(&manager, "ServerVersion").is_empty());
        Ok(())
    })
}

#[test]
fn a_model_tells_when_it_is_loaded_and_held() -> Result<()> {
    let stage = Stage::scripted(&[tensor("add", ADD)])?;
    with(async {
        let (mut watcher, mut caller) = (stage.caller().await?, stage.caller().await?);
        let rule = format!("type='signal',sender='{SERVICE}'");
        let bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
        watcher.ask(bus, bus.0, "AddMatch", &rule).await??;
        let path = format!("{MANAGER}/model/add");
        assert_eq!(
            caller.properties(&path, "Model").await?["Loaded"],
            false.into()
        );

        caller.manager("Load", &("add", Options::new())).await??;
        let changed = |wanted: &'static str, message: zbus::message::Message| {
            let body = message.body();
            let (_, values, _): (String, Dict, Vec<String>) = body.deserialize()?;
            assert_eq!(values.keys().collect::<Vec<_>>(), [wanted]);
            Ok::<_, anyhow::Error>(values[wanted].clone())
        };
        let message = watcher.signal(&path, "PropertiesChanged").await?;
        assert_eq!(changed("Loaded", message)?, true.into());
        let body = ("add", "", Options::new());
        let hold = caller.manager("HoldModel", &body).await??;
        let hold = hold
            .body()
            .deserialize::<zbus::ObjectPath<'_>>()?
            .to_string();
        let message = watcher.signal(&path, "PropertiesChanged").await?;
        assert_eq!(changed("Holds", message)?, 1_u32.into());
        let pinned = |daemon: &mote_tests::daemon::Daemon| -> Result<bool> {
            Ok(daemon.client()?.models()?[0].pinned)
        };
        assert!(pinned(&stage.daemon)?);
        caller
            .object((&hold, "Hold"), "Release", &Options::new())
            .await??;
        let message = watcher.signal(&path, "PropertiesChanged").await?;
        assert_eq!(changed("Holds", message)?, 0_u32.into());
        assert!(!pinned(&stage.daemon)?);

        // One that leaves lets go.
        caller.manager("HoldModel", &body).await??;
        let message = watcher.signal(&path, "PropertiesChanged").await?;
        assert_eq!(changed("Holds", message)?, 1_u32.into());
        caller.leave().await?;
        let message = watcher.signal(&path, "PropertiesChanged").await?;
        assert_eq!(changed("Holds", message)?, 0_u32.into());
        crate::common::eventually("the pin has gone", || Ok(!pinned(&stage.daemon)?))?;

        watcher
            .manager("Unload", &("add", Options::new()))
            .await??;
        let message = watcher.signal(&path, "PropertiesChanged").await?;
        assert_eq!(changed("Loaded", message)?, false.into());
        Ok(())
    })
}

#[test]
fn what_is_not_there_is_named() -> Result<()> {
    let stage = Stage::scripted(&[tensor("add", ADD)])?;
    with(async {
        let mut caller = stage.caller().await?;
        let explain = |model: &'static str| (model, Options::new());
        let refused = error(caller.manager("Explain", &explain("ad")).await?)?;
        assert_eq!(refused.name, "org.moted.Error.ModelNotFound");
        assert_eq!(text(&refused.fields, "model"), "ad");
        assert!(format!("{:?}", refused.fields["similar"]).contains("add"));
        let refused = error(caller.manager("Explain", &explain("use:chat")).await?)?;
        assert_eq!(refused.name, "org.moted.Error.UseNotFound");
        assert_eq!(text(&refused.fields, "use"), "chat");
        let refused = error(caller.manager("Explain", &explain("use:missing")).await?)?;
        assert_eq!(text(&refused.fields, "model"), "no-such-model");

        let standard = "org.freedesktop.DBus.Error.";
        let model = format!("{MANAGER}/model/add");
        for (place, method, wanted) in [
            (("/org/moted/Nothing", "Manager"), "Status", "UnknownObject"),
            (
                (&*format!("{MANAGER}/model/ad"), "Model"),
                "Get",
                "UnknownObject",
            ),
            ((&*model, "Manager"), "Status", "UnknownInterface"),
            ((MANAGER, "Manager"), "Statu", "UnknownMethod"),
            ((MANAGER, "Manager"), "Explain", "InvalidArgs"),
        ] {
            let refused = error(caller.object(place, method, &Options::new()).await?)?;
            assert_eq!(
                refused.name,
                format!("{standard}{wanted}"),
                "{place:?}.{method}"
            );
        }
        let interface = format!("{SERVICE}.Model");
        let get = (interface.as_str(), "Nmae");
        let refused = error(caller.object((&model, PROPERTIES), "Get", &get).await?)?;
        assert_eq!(refused.name, format!("{standard}UnknownProperty"));
        let set = (interface.as_str(), "Name", zbus::Variant::from("x"));
        let refused = error(caller.object((&model, PROPERTIES), "Set", &set).await?)?;
        assert_eq!(refused.name, format!("{standard}PropertyReadOnly"));
        Ok(())
    })
}

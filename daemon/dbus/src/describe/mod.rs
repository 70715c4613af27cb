//! What the interfaces look like: one table, from which calls are checked and introspection is
//! written.

mod tables;

pub use tables::{
    DEVICE, HOLD, INTROSPECTABLE, JOB, MANAGER, MODEL, OBJECT_MANAGER, PEER, PROPERTIES, SESSION,
};

use std::fmt::Write;

/// An interface.
#[derive(Debug)]
pub struct Interface {
    /// Name.
    pub name: &'static str,
    /// What it is for; empty for the bus's own.
    pub about: &'static str,
    /// Methods.
    pub methods: &'static [Member],
    /// Signals; they have outputs only.
    pub signals: &'static [Member],
    /// Properties, all of them for reading only.
    pub properties: &'static [Property],
}

/// A method or signal. Arguments are pairs of name and type.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Member {
    pub name: &'static str,
    pub inputs: &'static [(&'static str, &'static str)],
    pub outputs: &'static [(&'static str, &'static str)],
    pub about: &'static str,
}

impl Member {
    /// The types of all inputs, as in a message's header.
    pub fn input_signature(&self) -> String {
        self.inputs.iter().map(|(_, kind)| *kind).collect()
    }
}

/// How a client learns that a property has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It never does.
    Never,
    /// By `PropertiesChanged`.
    Signalled,
    /// By asking.
    Silent,
}

/// A property.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Property {
    pub name: &'static str,
    pub kind: &'static str,
    pub change: Change,
    pub about: &'static str,
}

/// Interfaces that every object has.
pub const EVERYWHERE: [&Interface; 3] = [&INTROSPECTABLE, &PEER, &PROPERTIES];

const DOCTYPE: &str = "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
     \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n";

/// The introspection of an object with these interfaces and children.
pub fn xml<'a>(interfaces: &[&Interface], children: impl Iterator<Item = &'a str>) -> String {
    let mut xml = format!("{DOCTYPE}<node>\n");
    for interface in interfaces {
        write_interface(&mut xml, interface);
    }
    for child in children {
        line(&mut xml, 1, format_args!("<node name=\"{child}\"/>"));
    }
    xml.push_str("</node>\n");
    xml
}

fn line(xml: &mut String, depth: usize, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(xml, "{:1$}{text}", "", 2 * depth);
}

fn about(xml: &mut String, depth: usize, text: &str) {
    if !text.is_empty() {
        line(xml, depth, format_args!("<!-- {text} -->"));
    }
}

fn write_interface(xml: &mut String, interface: &Interface) {
    about(xml, 1, interface.about);
    line(
        xml,
        1,
        format_args!("<interface name=\"{}\">", interface.name),
    );
    for method in interface.methods {
        write_member(xml, "method", method);
    }
    for signal in interface.signals {
        write_member(xml, "signal", signal);
    }
    for property in interface.properties {
        about(xml, 2, property.about);
        let head = format!(
            "<property name=\"{}\" type=\"{}\" access=\"read\"",
            property.name, property.kind
        );
        let emits = match property.change {
            Change::Signalled => {
                line(xml, 2, format_args!("{head}/>"));
                continue;
            }
            Change::Never => "const",
            Change::Silent => "false",
        };
        line(xml, 2, format_args!("{head}>"));
        let name = "org.freedesktop.DBus.Property.EmitsChangedSignal";
        line(
            xml,
            3,
            format_args!("<annotation name=\"{name}\" value=\"{emits}\"/>"),
        );
        line(xml, 2, format_args!("</property>"));
    }
    line(xml, 1, format_args!("</interface>"));
}

fn write_member(xml: &mut String, tag: &str, member: &Member) {
    about(xml, 2, member.about);
    if member.inputs.is_empty() && member.outputs.is_empty() {
        return line(xml, 2, format_args!("<{tag} name=\"{}\"/>", member.name));
    }
    line(xml, 2, format_args!("<{tag} name=\"{}\">", member.name));
    let directions = [
        (" direction=\"in\"", member.inputs),
        (" direction=\"out\"", member.outputs),
    ];
    for (direction, arguments) in directions {
        let direction = if tag == "signal" { "" } else { direction };
        for (name, kind) in arguments {
            line(
                xml,
                3,
                format_args!("<arg name=\"{name}\" type=\"{kind}\"{direction}/>"),
            );
        }
    }
    line(xml, 2, format_args!("</{tag}>"));
}

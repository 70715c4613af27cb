//! The wire's plain types as values of the bus.

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use zbus::Variant;

/// A dictionary `a{sv}`.
pub type Dict = BTreeMap<String, Variant<'static>>;

/// Any plain type as a dictionary: texts are `s`, truth values `b`, whole numbers `t` (below zero
/// `x`), others `d`, lists `av`, structures `a{sv}`; what is absent is left out.
pub fn dict(value: &impl Serialize) -> Dict {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => from_fields(fields),
        // Nothing of the wire that is told this way is anything but a structure.
        _ => Dict::new(),
    }
}

/// A list of dictionaries, `av`.
pub fn list<T: Serialize>(values: &[T]) -> Variant<'static> {
    let items = values.iter().map(|value| Variant::from(dict(value)));
    Variant::from(items.collect::<Vec<_>>())
}

fn from_fields(fields: serde_json::Map<String, Value>) -> Dict {
    let values = fields.into_iter();
    values
        .filter_map(|(name, value)| Some((name, variant(value)?)))
        .collect()
}

fn variant(value: Value) -> Option<Variant<'static>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.into(),
        Value::String(text) => text.into(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64()?.into(),
        },
        Value::Array(items) => {
            let items = items.into_iter().filter_map(variant);
            items.collect::<Vec<Variant<'static>>>().into()
        }
        Value::Object(fields) => from_fields(fields).into(),
    })
}

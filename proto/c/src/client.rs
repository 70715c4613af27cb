//! `mote_client_t`: the connection, and what is asked in one question.

use crate::call::{Out, call, free, give, quiet};
use crate::door::{Filled, Given, Text, take_back};
use crate::error::MoteError;
use crate::failure::Failure;
use crate::json::{TextOut, c_text, give_json};
use crate::options::options;
use crate::structs::{Limits, Options};
use mote_client::Client;
use std::ffi::{CString, c_char};
use std::ptr::{self, NonNull};

/// A connection.
pub struct MoteClient {
    pub(crate) client: Client,
    server_version: CString,
}

/// The client that a call is about.
pub(crate) fn client(client: Option<&MoteClient>) -> Result<&Client, Failure> {
    match client {
        Some(client) => Ok(&client.client),
        None => Err(Failure::null("client")),
    }
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_abi_version() -> i32 {
    crate::codes::MOTE_ABI_VERSION
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_string_free(text: Option<NonNull<c_char>>) {
    quiet((), || {
        take_back(text);
        Some(())
    });
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_connect(
    path: Text<'_>,
    name: Text<'_>,
    client: Out<'_, MoteClient>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give(client, "client", || {
            let name = name.required("name")?;
            let client = match path.optional("path")? {
                Some(path) => Client::connect(path, name)?,
                None => Client::connect_default(name)?,
            };
            let server_version = c_text(client.server_version());
            Ok(MoteClient {
                client,
                server_version,
            })
        })
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_client_free(client: Option<Box<MoteClient>>) {
    free(client);
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_server_version(client: Option<&MoteClient>) -> *const c_char {
    client.map_or(ptr::null(), |client| client.server_version.as_ptr())
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_limits(
    given: Option<&MoteClient>,
    limits: Filled<'_, Limits>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        let told = client(given)?.limits();
        let value = Limits {
            size: size_of::<Limits>(),
            frame_bytes_max: told.frame_bytes_max,
            inline_bytes_max: told.inline_bytes_max,
            buffer_bytes_max: told.buffer_bytes_max,
            prompt_bytes_max: told.prompt_bytes_max,
            fds_per_frame_max: told.fds_per_frame_max,
            open_requests_max: told.open_requests_max,
            credit_max: told.credit_max,
            buffers_max: told.buffers_max,
        };
        limits.fill("limits", value)
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_models_json(
    given: Option<&MoteClient>,
    json: TextOut<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || give_json(json, || Ok(client(given)?.models()?)))
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_model_json(
    given: Option<&MoteClient>,
    model: Text<'_>,
    json: TextOut<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give_json(json, || {
            Ok(client(given)?.inspect(model.required("model")?)?)
        })
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_loaded_model_json(
    given: Option<&MoteClient>,
    model: Text<'_>,
    json: TextOut<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give_json(json, || {
            Ok(client(given)?.inspect_loaded(model.required("model")?)?)
        })
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_devices_json(
    given: Option<&MoteClient>,
    json: TextOut<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || give_json(json, || Ok(client(given)?.devices()?)))
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_probe_devices_json(
    given: Option<&MoteClient>,
    json: TextOut<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give_json(json, || Ok(client(given)?.probe_devices()?))
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_explain_json(
    given: Option<&MoteClient>,
    model: Text<'_>,
    wanted: Given<'_, Options<'_>>,
    json: TextOut<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give_json(json, || {
            let model = model.required("model")?;
            Ok(client(given)?.explain(model, &options(wanted)?)?)
        })
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_measure_json(
    given: Option<&MoteClient>,
    model: Text<'_>,
    wanted: Given<'_, Options<'_>>,
    json: TextOut<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give_json(json, || {
            let model = model.required("model")?;
            Ok(client(given)?.measure(model, &options(wanted)?)?)
        })
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_daemon_json(
    given: Option<&MoteClient>,
    json: TextOut<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || give_json(json, || Ok(client(given)?.status()?)))
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_load(
    given: Option<&MoteClient>,
    model: Text<'_>,
    wanted: Given<'_, Options<'_>>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        let model = model.required("model")?;
        Ok(client(given)?.load(model, &options(wanted)?)?)
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_unload(
    given: Option<&MoteClient>,
    model: Text<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        Ok(client(given)?.unload(model.required("model")?)?)
    })
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_pin(
    given: Option<&MoteClient>,
    model: Text<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || Ok(client(given)?.pin(model.required("model")?)?))
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_unpin(
    given: Option<&MoteClient>,
    model: Text<'_>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(
        error,
        || Ok(client(given)?.unpin(model.required("model")?)?),
    )
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_rescan(given: Option<&MoteClient>, error: Out<'_, MoteError>) -> i32 {
    call(error, || Ok(client(given)?.rescan()?))
}

//! The interfaces.

use super::Change::{Never, Signalled, Silent};
use super::{Change, Interface, Member, Property};

type Arguments = &'static [(&'static str, &'static str)];

const OPTIONS: (&str, &str) = ("options", "a{sv}");

const fn method(
    name: &'static str,
    inputs: Arguments,
    outputs: Arguments,
    about: &'static str,
) -> Member {
    Member {
        name,
        inputs,
        outputs,
        about,
    }
}

const fn signal(name: &'static str, outputs: Arguments, about: &'static str) -> Member {
    method(name, &[], outputs, about)
}

const fn property(
    name: &'static str,
    kind: &'static str,
    change: Change,
    about: &'static str,
) -> Property {
    Property {
        name,
        kind,
        change,
        about,
    }
}

/// The service itself.
pub const MANAGER: Interface = Interface {
    name: "org.moted.Inference1.Manager",
    about: "The service. A model is named as in the store, or by its use: use:chat",
    methods: &[
        method("ListModels", &[OPTIONS], &[("models", "aa{sv}")], ""),
        method(
            "ListDevices",
            &[OPTIONS],
            &[("devices", "aa{sv}")],
            "Options: refresh b (probe anew)",
        ),
        method("Status", &[OPTIONS], &[("status", "a{sv}")], ""),
        method(
            "Explain",
            &[("model", "s"), OPTIONS],
            &[("explanation", "a{sv}")],
            "Where a model would run, and why not elsewhere. Options of work; measure b (try all ways \
             anew first, which may take minutes: give the call a long time-out. Needs \
             org.moted.Inference1.manage-models)",
        ),
        method(
            "OpenSession",
            &[("model", "s"), OPTIONS],
            &[("session", "o"), ("socket", "h")],
            "A connection of the wire, on which nothing was said yet: begin with Hello. Options: token s",
        ),
        method(
            "Generate",
            &[("model", "s"), ("messages", "a(ss)"), OPTIONS],
            &[("job", "o")],
            "Text that answers messages (role, content). Options of work, and: token s, prompt s (instead of messages), \
             tokens_max u, temperature d, top_k u, top_p d, min_p d, repetition_penalty d, seed t, stop as, \
             reasoning b (true: ReasoningAdded tells it apart), reasoning_tokens_max u, tools s (a JSON list), message_fields as (a JSON object for each message: tool_calls, tool_call_id, …), json_schema s or regex s (what form the answer must have), logit_bias a{ud} (by token, -100 to 100), deterministic b (the same tokens whatever other answers there are; with threads_max, whatever the machine does), slide_context b (go on without the oldest part when the context is full), draft_tokens_max u (draft so many tokens and verify them in one run), logprobs u (LogprobsAdded tells how likely each token was, and so many of the likeliest), stream b \
             (false: no TokensAdded, ReasoningAdded or LogprobsAdded), text b (true: the whole text in Finished)",
        ),
        method(
            "TransformClip",
            &[("model", "s"), ("input", "h"), ("output", "h"), OPTIONS],
            &[("job", "o")],
            "A clip file, put through a model. The output is opened for reading and writing. Options of work, and: \
             token s, factor u (0 with models that restore frames), format s (mp4-av1, webm-av1, gif, webp, png-stream, \
             raw-rgb8, y4m), frames_max t, width_max u, height_max u, frame_rate u, encoder_speed u, preview_every u, \
             tile_side_max u, contact_sheet h",
        ),
        method(
            "GenerateClip",
            &[
                ("model", "s"),
                ("segments", "a(su)"),
                ("output", "h"),
                OPTIONS,
            ],
            &[("job", "o")],
            "A clip of words: a prompt and a number of frames (0: the model's own) for each shot. The output is opened \
             for reading and writing. Options of work, and: token s, negative_prompt s, guidance d, seed t, steps u, width u, \
             height u, frame_rate u, scheduler s, strength d (of source), format s (as TransformClip's), encoder_speed u, \
             preview_every u (steps), contact_sheet h, first_image h, last_image h, reference_image h (PNG), source h (a clip), \
             checkpoint h (opened for reading and writing: the same call goes on from what is in it)",
        ),
        method(
            "LabelClip",
            &[("model", "s"), ("input", "h"), OPTIONS],
            &[("job", "o")],
            "What is seen in a clip file, told by Labels. Options of work, and: token s, frames_max t, every u (look at \
             every n-th frame), frame_rate u, labels_max u, score_min d",
        ),
        method(
            "Embed",
            &[("model", "s"), ("texts", "as"), OPTIONS],
            &[("job", "o")],
            "A vector for each text, told by Embeddings. Options of work, and: token s, kind s (query, document: \
             the model's prefix goes before each text), dimensions u (keep so many of the first), truncate b (cut \
             texts that do not fit the context)",
        ),
        method(
            "HoldModel",
            &[("model", "s"), ("reason", "s"), OPTIONS],
            &[("hold", "o")],
            "Keeps a model from being evicted, until Release or until the caller leaves the bus. Options: token s",
        ),
        method(
            "Load",
            &[("model", "s"), OPTIONS],
            &[],
            "Returns when it is loaded. Options of work: priority s (interactive, normal, background), deadline_ms t, \
             require_backend s, require_flavour s, require_provider s, require_variant s, forbid_cpu b, threads_max u",
        ),
        method(
            "Unload",
            &[("model", "s"), OPTIONS],
            &[],
            "Needs org.moted.Inference1.unload-models when others hold or use it",
        ),
        method(
            "Rescan",
            &[OPTIONS],
            &[],
            "Reads stores and runtimes anew. Needs org.moted.Inference1.manage-models",
        ),
    ],
    signals: &[],
    properties: &[
        property("Version", "u", Never, "Of this interface"),
        property("ServerVersion", "s", Never, "Of the daemon"),
        property("WireVersion", "u", Never, "Spoken on sessions"),
        property("Models", "u", Signalled, ""),
        property("Devices", "u", Signalled, ""),
        property("Uses", "a{ss}", Never, "Models by their use"),
    ],
};

/// A model.
pub const MODEL: Interface = Interface {
    name: "org.moted.Inference1.Model",
    about: "A model of the stores",
    methods: &[],
    signals: &[],
    properties: &[
        property("Name", "s", Never, ""),
        property("Kind", "s", Signalled, "Its task"),
        property("Description", "s", Signalled, ""),
        property("Licence", "s", Signalled, ""),
        property("Digest", "s", Signalled, ""),
        property("Bytes", "t", Signalled, "Of all its files"),
        property("WeightsBytes", "t", Signalled, "Of its largest variant"),
        property("Variants", "av", Signalled, "Dictionaries"),
        property("Loaded", "b", Signalled, ""),
        property("Holds", "u", Signalled, "Through HoldModel"),
        property(
            "Problem",
            "a{sv}",
            Signalled,
            "Why it cannot be served; empty when it can",
        ),
    ],
};

/// A device.
pub const DEVICE: Interface = Interface {
    name: "org.moted.Inference1.Device",
    about: "A device, or one that a runtime knows of and that is not there",
    methods: &[],
    signals: &[],
    properties: &[
        property("Id", "s", Never, "Stable on this machine"),
        property(
            "Kind",
            "s",
            Signalled,
            "cpu, gpu, npu; empty when it is not there",
        ),
        property("Name", "s", Signalled, ""),
        property(
            "Available",
            "b",
            Signalled,
            "Proven to work by a provider at least",
        ),
        property(
            "Providers",
            "av",
            Signalled,
            "Dictionaries, one for each way to use it",
        ),
        property(
            "Reason",
            "a{sv}",
            Signalled,
            "Why it is not available; empty when it is",
        ),
    ],
};

/// A caller's own connection to the wire.
pub const SESSION: Interface = Interface {
    name: "org.moted.Inference1.Session",
    about: "A socket handed out by OpenSession. It lives until it is closed or its caller leaves the bus",
    methods: &[method("Close", &[OPTIONS], &[], "Ends the connection")],
    signals: &[],
    properties: &[property("Model", "s", Never, "As OpenSession was told")],
};

/// A caller's work.
pub const JOB: Interface = Interface {
    name: "org.moted.Inference1.Job",
    about: "Work. Its signals go to its caller only, and it ends when that leaves the bus",
    methods: &[
        method(
            "Cancel",
            &[OPTIONS],
            &[],
            "Finished tells when it has ended",
        ),
        method("Pause", &[OPTIONS], &[], "Halts it at its next step"),
        method("Resume", &[OPTIONS], &[], "Lets it go on"),
        method(
            "Steer",
            &[("prompt", "s"), OPTIONS],
            &[],
            "Another prompt for the shots of GenerateClip that have not begun; Steered tells what becomes of it",
        ),
        method(
            "Release",
            &[OPTIONS],
            &[],
            "Forgets a job that has ended, and says that all its signals were read",
        ),
    ],
    signals: &[
        signal(
            "TokensAdded",
            &[("text", "s"), ("tokens", "u")],
            "Whole characters; tokens counts those in this signal",
        ),
        signal(
            "ReasoningAdded",
            &[("text", "s")],
            "Of what the model writes ahead of its answer; its tokens count in TokensAdded",
        ),
        signal(
            "LogprobsAdded",
            &[("tokens", "a(uudsa(uds))")],
            "index, id, natural logarithm of its probability by the model itself, text, and of the likeliest tokens: \
             id, logarithm, text",
        ),
        signal(
            "ProgressChanged",
            &[
                ("stage", "s"),
                ("done", "t"),
                ("total", "t"),
                ("remaining_ms", "t"),
            ],
            "0 where it is not known",
        ),
        signal(
            "Preview",
            &[
                ("frame", "t"),
                ("width", "u"),
                ("height", "u"),
                ("png", "h"),
            ],
            "A picture in a sealed memfd",
        ),
        signal(
            "Steered",
            &[("taken", "b"), ("segment", "u"), ("why", "s")],
            "What became of a prompt: it is for this shot, counted from 0, and those that follow; or why it is not \
             taken. Once for each Steer, in their order, before Finished",
        ),
        signal(
            "Labels",
            &[
                ("frame", "t"),
                ("time_us", "t"),
                ("labels", "a(usd)"),
                ("boxes", "a((usd)(dddd))"),
            ],
            "Class, name and score; boxes with left, upper, right and lower edge in pixels of the frame",
        ),
        signal(
            "Embeddings",
            &[
                ("vectors", "h"),
                ("texts", "u"),
                ("dimensions", "u"),
                ("tokens", "au"),
                ("truncated", "au"),
            ],
            "f32 in the machine's byte order, text by text, in a sealed memfd; tokens of each text, and the places \
             of those that were cut",
        ),
        signal(
            "Finished",
            &[("status", "s"), ("receipt", "a{sv}")],
            "ok, or the status's name; the receipt then has message and the status's fields. With the option text: \
             text s, or text_memfd h when it is long, and text_cut b",
        ),
    ],
    properties: &[
        property("Model", "s", Never, ""),
        property(
            "State",
            "s",
            Signalled,
            "queued, running, ok, or the name of the status it failed with",
        ),
        property(
            "Progress",
            "(sttt)",
            Silent,
            "As ProgressChanged told it last",
        ),
        property("Receipt", "a{sv}", Signalled, "Empty until it has ended"),
    ],
};

/// A model kept in memory.
pub const HOLD: Interface = Interface {
    name: "org.moted.Inference1.Hold",
    about: "A model that is not evicted as long as this is there",
    methods: &[method("Release", &[OPTIONS], &[], "")],
    signals: &[],
    properties: &[
        property("Model", "s", Never, ""),
        property("Reason", "s", Never, ""),
    ],
};

/// Objects and their properties at once.
pub const OBJECT_MANAGER: Interface = Interface {
    name: "org.freedesktop.DBus.ObjectManager",
    about: "",
    methods: &[method(
        "GetManagedObjects",
        &[],
        &[("objects", "a{oa{sa{sv}}}")],
        "Models, devices, and the caller's own sessions, jobs and holds",
    )],
    signals: &[
        signal(
            "InterfacesAdded",
            &[("object", "o"), ("interfaces", "a{sa{sv}}")],
            "",
        ),
        signal(
            "InterfacesRemoved",
            &[("object", "o"), ("interfaces", "as")],
            "",
        ),
    ],
    properties: &[],
};

/// This description.
pub const INTROSPECTABLE: Interface = Interface {
    name: "org.freedesktop.DBus.Introspectable",
    about: "",
    methods: &[method("Introspect", &[], &[("xml", "s")], "")],
    signals: &[],
    properties: &[],
};

/// Signs of life.
pub const PEER: Interface = Interface {
    name: "org.freedesktop.DBus.Peer",
    about: "",
    methods: &[
        method("Ping", &[], &[], ""),
        method("GetMachineId", &[], &[("machine_id", "s")], ""),
    ],
    signals: &[],
    properties: &[],
};

/// Properties of any interface.
pub const PROPERTIES: Interface = Interface {
    name: "org.freedesktop.DBus.Properties",
    about: "",
    methods: &[
        method(
            "Get",
            &[("interface", "s"), ("property", "s")],
            &[("value", "v")],
            "",
        ),
        method(
            "GetAll",
            &[("interface", "s")],
            &[("properties", "a{sv}")],
            "",
        ),
        method(
            "Set",
            &[("interface", "s"), ("property", "s"), ("value", "v")],
            &[],
            "",
        ),
    ],
    signals: &[signal(
        "PropertiesChanged",
        &[
            ("interface", "s"),
            ("changed", "a{sv}"),
            ("invalidated", "as"),
        ],
        "",
    )],
    properties: &[],
};

#!/usr/bin/env gjs
// Streams an answer. Usage: chat.js MODEL QUESTION
const {Gio, GLib} = imports.gi;

const SERVICE = 'org.moted.Inference1';
const MANAGER = '/org/moted/Inference1';
const [model, question] = ARGV;

const loop = GLib.MainLoop.new(null, false);
const bus = Gio.bus_get_sync(Gio.BusType.SESSION, null);
let failed = false;

function call(path, name, method, parameters) {
    return bus.call_sync(SERVICE, path, `${SERVICE}.${name}`, method, parameters, null,
        Gio.DBusCallFlags.NONE, -1, null);
}

// The path is known before the call, by the caller's unique name and its token, so nothing is missed.
const token = 'chat';
const caller = bus.get_unique_name().slice(1).replace('.', '_');
const path = `${MANAGER}/job/${caller}/${token}`;

bus.signal_subscribe(SERVICE, `${SERVICE}.Job`, null, path, null, Gio.DBusSignalFlags.NONE,
    (connection, sender, object, iface, signal, parameters) => {
        if (signal === 'TokensAdded') {
            const [text] = parameters.deepUnpack();
            print(text);
        } else if (signal === 'Finished') {
            const [status, receipt] = parameters.recursiveUnpack();
            failed = status !== 'ok';
            print(failed ? `${status}: ${receipt.message}`
                : `${receipt.generated_tokens} tokens on ${receipt.backend}`);
            loop.quit();
        }
    });

const options = {
    token: new GLib.Variant('s', token),
    tokens_max: new GLib.Variant('u', 64),
};
call(MANAGER, 'Manager', 'Generate',
    new GLib.Variant('(sa(ss)a{sv})', [model, [['user', question]], options]));
loop.run();
call(path, 'Job', 'Release', new GLib.Variant('(a{sv})', [{}]));
imports.system.exit(failed ? 1 : 0);

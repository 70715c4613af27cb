#!/usr/bin/env python3
"""Makes a clip of words. Needs jeepney. Usage: clip.py MODEL OUT PROMPT...

Each prompt is a shot, which goes on from where the one before ended. Ctrl-C ends the work; begun again, it goes on
from OUT.steps.
"""

import os
import sys
from collections import deque

from jeepney import DBusAddress, HeaderFields, MatchRule, MessageType, new_method_call, new_method_return
from jeepney.io.blocking import open_dbus_connection

SERVICE = "org.moted.Inference1"
MANAGER = DBusAddress("/org/moted/Inference1", bus_name=SERVICE, interface=SERVICE + ".Manager")


def call(bus, address, method, signature, arguments):
    reply = bus.send_and_get_reply(new_method_call(address, method, signature, arguments))
    if reply.header.message_type is MessageType.error:
        message, fields = reply.body
        sys.exit(f"{reply.header.fields[HeaderFields.error_name]}: {message} {fields}")
    return reply.body


def follow(bus, inbox, job):
    """Tells how far the job is and returns its receipt. Its signals come to the caller unasked."""
    while True:
        message = bus.recv_until_filtered(inbox)
        fields = message.header.fields
        if message.header.message_type is MessageType.method_call:
            # Ping: Mote asks whether its signals are read. A library with a main loop answers by itself.
            bus.send(new_method_return(message))
        elif fields.get(HeaderFields.path) == job:
            member = fields[HeaderFields.member]
            if member == "ProgressChanged":
                stage, done, total, remaining_ms = message.body
                print(f"{stage} {done}/{total}, {remaining_ms} ms to go", file=sys.stderr)
            elif member == "Finished":
                status, receipt = message.body
                if status != "ok":
                    sys.exit(f"{status}: {receipt['message'][1]}")
                return receipt


def main(model, out, *prompts):
    segments = [(prompt, 0) for prompt in prompts]
    with open(out, "w+b") as output, open(os.open(out + ".steps", os.O_RDWR | os.O_CREAT, 0o600), "r+b") as kept:
        with open_dbus_connection(bus="SESSION", enable_fds=True) as bus, bus.filter(MatchRule(), queue=deque()) as inbox:
            options = {"seed": ("t", 7), "checkpoint": ("h", kept)}
            arguments = (model, segments, output, options)
            (job,) = call(bus, MANAGER, "GenerateClip", "sa(su)ha{sv}", arguments)
            receipt = follow(bus, inbox, job)
            address = DBusAddress(job, bus_name=SERVICE, interface=SERVICE + ".Job")
            call(bus, address, "Release", "a{sv}", ({},))
    os.unlink(out + ".steps")
    print(f"{receipt['frames_out'][1]} frames in {receipt['steps'][1]} steps on {receipt['backend'][1]}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])

#!/usr/bin/env python3
"""Streams an answer. Needs jeepney. Usage: chat.py MODEL QUESTION"""

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
    """Prints the job's text and returns its receipt. Its signals come to the caller unasked."""
    while True:
        message = bus.recv_until_filtered(inbox)
        fields = message.header.fields
        if message.header.message_type is MessageType.method_call:
            # Ping: Mote asks whether its signals are read. A library with a main loop answers by itself.
            bus.send(new_method_return(message))
        elif fields.get(HeaderFields.path) == job:
            member = fields[HeaderFields.member]
            if member == "TokensAdded":
                print(message.body[0], end="", flush=True)
            elif member == "Finished":
                status, receipt = message.body
                if status != "ok":
                    sys.exit(f"{status}: {receipt['message'][1]}")
                return receipt


def main(model, question):
    with open_dbus_connection(bus="SESSION") as bus, bus.filter(MatchRule(), queue=deque()) as inbox:
        options = {"tokens_max": ("u", 64), "temperature": ("d", 0.7), "seed": ("t", 7)}
        arguments = (model, [("user", question)], options)
        (job,) = call(bus, MANAGER, "Generate", "sa(ss)a{sv}", arguments)
        receipt = follow(bus, inbox, job)
        address = DBusAddress(job, bus_name=SERVICE, interface=SERVICE + ".Job")
        call(bus, address, "Release", "a{sv}", ({},))
    print(f"\n{receipt['generated_tokens'][1]} tokens on {receipt['backend'][1]}")


if __name__ == "__main__":
    main(*sys.argv[1:])

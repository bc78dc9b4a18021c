#!/usr/bin/env python3
"""Pushes a part of the policy to a Wardline router, or watches its events, over gRPC.

README.md beside this file says what it needs and how it is called.
"""

import argparse
import json
import pathlib
import sys

import grpc
from google.protobuf import json_format

try:
    from wardline.v1 import segmentation_pb2 as api
    from wardline.v1 import segmentation_pb2_grpc
except ModuleNotFoundError as problem:
    sys.exit(f"{problem}: make Python code of the proto file first, as README.md says")

# The exit codes of wardctl: a change was refused; or there was no answer, for instance.
REFUSED = 4
FAILED = 1

# How the router says no, as opposed to not being there. After anything else, also after a time-out,
# a change may be in force: ask for the status before you try again.
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
}


def connect(args):
    """A channel to the router: its Unix socket, or TCP with mutual TLS."""
    if args.server.startswith("unix:"):
        return grpc.insecure_channel(args.server)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=pathlib.Path(args.ca).read_bytes(),
        private_key=pathlib.Path(args.key).read_bytes(),
        certificate_chain=pathlib.Path(args.cert).read_bytes(),
    )
    return grpc.secure_channel(args.server, credentials)


def push(args):
    """Puts the objects of a file, as one change, and confirms it over a connection of its own."""
    part = json_format.Parse(pathlib.Path(args.file).read_text("utf-8"), api.Policy())
    request = api.EditRequest(
        put=part, reason=args.reason, confirm_within_s=args.confirm_within
    )
    with connect(args) as channel:
        change = segmentation_pb2_grpc.SegmentationStub(channel).Edit(request, timeout=60)
    for warning in change.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if change.HasField("confirm_by"):
        # That a new connection works proves that the change has not cut the way to the router.
        with connect(args) as channel:
            stub = segmentation_pb2_grpc.SegmentationStub(channel)
            stub.Confirm(api.ConfirmRequest(revision=change.revision), timeout=60)
    print(f"revision {change.revision}" + (", as before" if change.unchanged else ""))


def watch(args):
    """Prints events, one JSON object a line, until it is stopped or has printed enough."""
    request = api.WatchEventsRequest(since_s=args.since, follow=True)
    with connect(args) as channel:
        events = segmentation_pb2_grpc.SegmentationStub(channel).WatchEvents(request)
        for number, event in enumerate(events, start=1):
            fields = json_format.MessageToDict(event, preserving_proto_field_name=True)
            print(json.dumps(fields), flush=True)
            if number == args.count:
                return


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--server",
        default="unix:///run/wardline/api.sock",
        help="unix:///PATH, or HOST:PORT; the host has to be a name of the router's certificate",
    )
    parser.add_argument("--ca", help="certificates of who signs the router's")
    parser.add_argument("--cert", help="certificate of this client")
    parser.add_argument("--key", help="its key")
    commands = parser.add_subparsers(dest="command", required=True)

    pushes = commands.add_parser("push", help="put the objects of a JSON file")
    pushes.add_argument("file")
    pushes.add_argument("--reason", required=True, help="why, for the history")
    pushes.add_argument(
        "--confirm-within",
        type=int,
        default=60,
        metavar="SECONDS",
        help="when the change goes back by itself, if this client can't confirm it",
    )
    pushes.set_defaults(run=push)

    watches = commands.add_parser("watch", help="print events as they happen")
    watches.add_argument("--since", type=int, default=600, metavar="SECONDS")
    watches.add_argument("--count", type=int, help="stop after so many")
    watches.set_defaults(run=watch)

    args = parser.parse_args()
    if not args.server.startswith("unix:") and not (args.ca and args.cert and args.key):
        parser.error("TCP needs --ca, --cert and --key")
    try:
        args.run(args)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        sys.exit(REFUSED if error.code() in REFUSALS else FAILED)
    except (OSError, json_format.ParseError) as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

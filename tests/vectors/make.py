"""Encodes every case of `cases.json` with the Python SDK's own Protobuf codec: a line of name and hex for each."""

import base64
import json
import sys

import centrifuge.protocol.client_pb2 as protocol
from centrifuge.codecs import _ProtobufCodec, _varint_encode
from google.protobuf.json_format import ParseDict

PAYLOADS = {"data", "conn_info", "chan_info"}


def payload(value):
    """Payloads stand as JSON values in the cases, or as {"$bytes": "<hex>"}; the codec takes base64."""
    if isinstance(value, dict) and "$bytes" in value:
        data = bytes.fromhex(value["$bytes"])
    else:
        data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.b64encode(data).decode()


def message(value):
    if isinstance(value, list):
        return [message(item) for item in value]
    if isinstance(value, dict):
        return {name: payload(item) if name in PAYLOADS else message(item) for name, item in value.items()}
    return value


def encoded(name, value):
    """The bytes of one message. The SDK's codec has no encoder for replies, only their classes."""
    return ParseDict(message(value), getattr(protocol, name)()).SerializeToString(deterministic=True)


def delimited(data):
    return _varint_encode(len(data)) + data


with open(sys.argv[1], encoding="utf-8") as file:
    cases = json.load(file)
# This SDK's schema has none of the newest fields.
cases = {kind: [case for case in of if "javascript_only" not in case] for kind, of in cases.items()}
for case in cases["commands"]:
    print(f"commands/{case['name']} {_ProtobufCodec.encode_commands([message(case['json'])]).hex()}")
for case in cases["replies"]:
    print(f"replies/{case['name']} {delimited(encoded('Reply', case['json'])).hex()}")
for case in cases["replies"]:
    if "push" in case["json"]:
        print(f"pushes/{case['name']} {encoded('Push', case['json']['push']).hex()}")
for case in cases["emulations"]:
    print(f"emulations/{case['name']} {encoded('EmulationRequest', case['json']).hex()}")

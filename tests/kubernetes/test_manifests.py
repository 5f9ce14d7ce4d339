# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes manifests: what kustomize makes of them is what Kubernetes takes, what the programs take, and what belongs together.

    ./cadre test kubernetes

No cluster is needed. checks.py has the rules; MISTAKES has edits that they must notice."""
import re

import pytest
import yaml

import checks
from manifests import ROOT, TREE, VARIANTS, Broken, Manifests, Pod, build, copy_tree, render


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return copy_tree(tmp_path_factory.mktemp("tree") / "kubernetes")


@pytest.fixture(scope="session")
def base(tree):
    return render(tree, "base")


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant(variant, tree, tmp_path):
    manifests = render(tree, variant)
    assert [sentence for check in checks.CHECKS.values() for sentence in check(manifests, tmp_path)] == []


NAME = "app.kubernetes.io/name: cadre"
LABELS = "labels:\n  - pairs:\n      app.kubernetes.io/part-of: cadre\n    includeTemplates: true\n"

# A file, a text in it, what a mistake makes of that, who notices, and what it says. Those of components are looked at on top of the base.
MISTAKES = [
    ("base/kustomization.yaml", LABELS, "commonLabels:\n  app.kubernetes.io/part-of: cadre\n", "kustomize", "'commonLabels' is deprecated"),
    ("base/kustomization.yaml", "newTag: 0.2.0", "newTag: latest", "check_images", "the image is cadre:latest"),
    ("base/pods.yaml", "failureThreshold: 150", "failureTreshold: 150", "check_schemas", "'failureTreshold' was unexpected"),
    ("base/pods.yaml", "enableServiceLinks: false", "enableServiceLinks: true", "check_service_links", "enableServiceLinks is on"),
    ("base/pods.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "check_restricted", "not true that it is not root"),
    ("base/pods.yaml", "drop: [ALL]", "drop: [NET_RAW]", "check_restricted", "not true that it has no capabilities"),
    ("base/pods.yaml", "port: http", "port: https", "check_ports", "asks the port https, which"),
    ("base/pods.yaml", "path: /healthz", "path: /readyz", "check_ports", "startupProbe asks for /readyz"),
    ("base/namespace.yaml", "enforce: restricted", "enforce: baseline", "check_restricted", "does not enforce"),
    ("base/cluster.env", "\nMODEL=", "\nCADRE_MODEL=", "check_programs", "CADRE_MODEL would be an option of cadrectl"),
    ("base/cluster.env", "CADRE_HTTP_PLAINTEXT_ANYWHERE=true", "", "check_programs", "is not a loopback address"),
    ("base/placement.env", "CADRE_HTTP=0.0.0.0:7301", "CADRE_HTTP=0.0.0.0:7302", "check_ports", "port http is 7301, but the program takes 7302"),
    ("base/placement.env", "CADRE_EXPERTS_MIN=3", "CADRE_EXPERTS_MIN=4", "check_sizes", "is 4, and there are 3 expert nodes"),
    ("base/placement.yaml", "serviceAccountName: placement", "serviceAccountName: placement\n      serviceAccount: placement", "check_deprecations", "serviceAccount of placement is deprecated"),
    ("base/placement.yaml", "publishNotReadyAddresses: true", "publishNotReadyAddresses: false", "check_ports", "must publish addresses"),
    ("base/placement.yaml", f"{NAME}-expert", f"{NAME}-experts", "check_selectors", "keeps away from pods that do not exist"),
    ("base/expert.env", "CADRE_DRAIN=2m", "CADRE_DRAIN=5m", "check_grace", "is 150, but draining takes up to 310"),
    ("base/expert.env", "CADRE_EXCHANGE=:7420", "CADRE_EXCHANGE=:7430", "check_ports", "port exchange is 7420, but the program takes 7430"),
    ("base/expert.env", "placement:7300", "placement:7301", "check_ports", "CADRE_PLACEMENT is placement:7301"),
    ("base/expert.yaml", "on nodes again.\n  maxUnavailable: 1", "on nodes again.\n  maxUnavailable: 3", "check_selectors", "the disruption budget expert"),
    ("base/expert.yaml", f"selector:\n    {NAME}-expert", f"selector:\n    {NAME}-router", "check_selectors", "expert: serviceName is not its service"),
    ("base/expert.yaml", "podManagementPolicy: Parallel", "podManagementPolicy: OrderedReady", "check_updates", "pods start together"),
    ("base/router.env", "CADRE_KV_MEMORY=1G", "CADRE_KV_MEMORY=lots", "check_programs", "CADRE_KV_MEMORY is 'lots'"),
    ("base/router.env", "CADRE_KV_MEMORY=1G", "CADRE_KV_MEMORY=2G", "check_sizes", "leaves too little of 2Gi"),
    ("base/router.env", "CADRE_DRAIN_DELAY=", "CADRE_DRAINDELAY=", "check_options", "CADRE_DRAINDELAY is an option of none"),
    ("base/router.env", "CADRE_DRAIN_DELAY=10s", "CADRE_DRAIN_DELAY=5s", "check_grace", "needs 6 s to notice"),
    ("base/router.yaml", "port: 7100\n            periodSeconds", "port: 7110\n            periodSeconds", "check_ports", "asks the port 7110"),
    ("base/router.yaml", "maxUnavailable: 0", "maxUnavailable: 1", "check_updates", "ready before an old one goes"),
    ("base/network.yaml", "endPort: 7435", "endPort: 7434", "check_network", "router to expert: Ingress"),
    ("base/network.yaml", "- port: 7401\n", "- port: 7401\n        - port: 443\n", "check_network", "placement to expert: Egress"),
    ("base/network.yaml", "cadre-client", "client", "check_network", "a pod of the namespace clients to router"),
    ("base/network.yaml", "169.254.20.10/32", "0.0.0.0/0", "check_addresses", "lets through 0.0.0.0/0"),
    ("components/monitoring/metrics.yaml", "- port: http\n", "- port: metrics\n", "check_monitor", "scrapes /metrics of the port metrics"),
    ("components/monitoring/metrics.yaml", "        - port: 7401\n", "", "check_network", "a pod of the namespace monitoring to expert"),
    ("components/model/kustomization.yaml", "behavior: merge", "behavior: create", "kustomize", "can not use behavior: 'create'"),
    ("components/gpu/kustomization.yaml", "CADRE_DEVICE=cuda:0", "CADRE_DRAIN=1m", "check_gpus", "has 1 GPUs, and computes on cpu"),
    ("components/gpu/kustomization.yaml", "CADRE_NUMERICS=int8", "CADRE_NUMERICS=bf16", "check_gpus", "GPUs do not compute in profile bf16"),
    ("components/gpu/kustomization.yaml", "CADRE_DEVICE=cuda:0", "CADRE_DEVICE=cuda:first", "check_programs", "cuda:first"),
    ("components/gpu/expert.yaml", "image: cadre-cuda", "image: cadre", "check_images", "the image is cadre, not cadre-cuda:0.2.0"),
    ("components/gpu/expert.yaml", "operator: Exists", "operator: Equal", "check_gpus", "the taint of machines with GPUs"),
    ("components/gpu/expert.yaml", "present:", "count:", "check_gpus", "not only for machines with GPUs"),
    ("components/gpu/expert.yaml", "nvidia.com/gpu: 1", "nvidia.com/gpu: 2", "check_gpus", "has 2 GPUs"),
    ("overlays/gpu/kustomization.yaml", "kind: StatefulSet\n      name: expert", "kind: StatefulSet", "check_gpus", "placement: it has no GPU, and is for"),
    ("components/tls/router.yaml", "            grpc: null\n", "", "check_ports", "speaks gRPC without TLS"),
    ("components/tls/cluster.env", "/tls.key", "/key.pem", "check_identities", "CADRE_TLS_KEY names a file that no volume has"),
    ("components/tls/expert.yaml", "expert-tls", "experts-tls", "check_programs", "0 of Secret experts-tls"),
    ("overlays/tls/kustomization.yaml", "tls.key=certificates/expert.key", "tls.key=certificates/router.key", "check_identities", "tls.key is not the key of tls.crt"),
    ("overlays/tls/kustomization.yaml", "certificates/placement", "certificates/client", "check_identities", "its certificate does not say URI:cadre://node/placement"),
    ("overlays/demo/kustomization.yaml", "CADRE_KV_MEMORY=64M", "CADRE_KV_MEMORY=200M", "check_sizes", "leaves too little of 256Mi"),
]


def variant_of(file):
    folder, name = file.split("/")[:2]
    return {"overlays": name, "base": "base"}.get(folder) or ("tls" if name == "tls" else f"base, {name}")


@pytest.mark.parametrize("file,text,mistake,check,complaint", MISTAKES, ids=[f"{file} {complaint}" for file, _, _, _, complaint in MISTAKES])
def test_mistake(file, text, mistake, check, complaint, tree, tmp_path):
    broken = copy_tree(tmp_path / "kubernetes", tree / "overlays" / "tls" / "certificates")
    good = (broken / file).read_text()
    assert text in good
    (broken / file).write_text(good.replace(text, mistake, 1))
    try:
        found = list(checks.CHECKS.get(check, lambda *_: [])(render(broken, variant_of(file)), tmp_path))
    except Broken as error:
        found = [str(error)]
    assert any(complaint in sentence for sentence in found), found


def test_every_check_notices_something():
    assert {check for _, _, _, check, _ in MISTAKES} - {"kustomize"} == checks.CHECKS.keys()


# What an operator may get wrong: which pod, a variable, its value, and the sentence that kubectl describe shows when it has ended.
BAD_VALUES = [
    ("placement", "MODEL", "/opt/cadre/models/dmeo", "/opt/cadre/models/dmeo does not exist; give the directory of a model"),
    ("placement", "CADRE_EXPERTS_MIN", "", "CADRE_EXPERTS_MIN is '', which is not a whole number"),
    ("placement", "CADRE_GRPC", "0.0.0.0", "--grpc: '0.0.0.0' is not an address: give HOST:PORT"),
    ("placement", "CADRE_STATE", "/dev/null/placement.db", "state file '/dev/null/placement.db': opening it: unable to open database file"),
    ("expert", "CADRE_CLUSTER_NETWORK", "net1", "--cluster-network: 'net1': there is no such interface; the interfaces of this machine: "),
    ("expert", "CADRE_EXCHANGE", "7420", "--exchange: '7420' is not an address: give HOST:PORT"),
    ("expert", "CADRE_SECRET_FILE", "/etc/cadre/secret", "cannot open the cluster secret '/etc/cadre/secret': No such file or directory"),
    ("router", "CADRE_PLACEMENT", "placement", "--placement: 'placement' is not an address: give HOST:PORT"),
    ("router", "CADRE_KV_MEMORY", "plenty", "CADRE_KV_MEMORY is 'plenty', which is not a size"),
    ("router", "CADRE_DRAIN", "30", "CADRE_DRAIN is '30', which is not a duration"),
]


@pytest.mark.parametrize("name,variable,value,sentence", BAD_VALUES)
def test_bad_value(name, variable, value, sentence, base, tmp_path):
    """It is said at the start, with a name and a reason, and the program ends, which Kubernetes shows."""
    pod = Pod(base.workloads[name], tmp_path)
    pod.environment[variable] = value
    if variable == "MODEL":
        pod.arguments = ["--model", value]
    done = pod.run()
    assert done.returncode in (1, 2), done
    assert sentence in done.stderr.splitlines()[-1]


PAGE = (ROOT / "docs" / "KUBERNETES.md").read_text()


def test_page():
    """docs/KUBERNETES.md says what every manifest is for; tests/rules.py sees that its links lead somewhere."""
    linked = set(re.findall(r"\]\(\.\./orchestration/deploy/kubernetes/([\w./-]+)\)", PAGE))
    for path in TREE.rglob("*"):
        if path.suffix in (".yaml", ".env") and path.parent.name != "certificates":
            file = str(path.relative_to(TREE))
            assert file in linked or file[:file.rindex("/") + 1] in linked, file


def test_page_examples(tree, tmp_path):
    """Its overlay can be used as it stands there, and its policy is one."""
    overlay, policy = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tree / "overlays" / "own").mkdir()
    (tree / "overlays" / "own" / "kustomization.yaml").write_text(overlay.replace("../cadre/orchestration/deploy/kubernetes/", "../../"))
    manifests = build(tree / "overlays" / "own")
    assert {workload.container["image"] for workload in manifests.workloads.values()} == {"registry.example/cadre:0.2.0"}
    assert [sentence for name, check in checks.CHECKS.items() if name != "check_images" for sentence in check(manifests, tmp_path)] == []
    assert list(checks.check_schemas(Manifests([yaml.safe_load(policy)]), tmp_path)) == []

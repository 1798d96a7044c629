"""The KubeRay manifests, each overlay as kubectl builds it: against the schemas of KubeRay and Kubernetes, and for
what no schema can say of all of them. test_overlays.py has what each of them is for.
"""

import copy
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy import crds
from tests.deploy.rendered import (
    COMPONENTS,
    FOLDER,
    OVERLAYS,
    build,
    by_kind,
    cluster_spec,
    overlay,
    pods,
    templates,
)

PLURALS = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}
OTHERS = {"PodMonitor", "PrometheusRule", "WorkloadPriorityClass"}  # of operators whose definitions are not here
OPTIONAL = re.compile(r"^(\s*)#: ", re.MULTILINE)
needs_crds = pytest.mark.skipif(
    not crds.FOLDER.is_dir(), reason=f"needs KubeRay CRDs in {crds.FOLDER}; set GRISTMILL_CRDS to their folder"
)
each_overlay = pytest.mark.parametrize("name", OVERLAYS)


def errors_of(document: dict[str, Any]) -> list[str]:
    """What KubeRay's definition of the kind has against it, and fields that the API server would drop."""
    definition = crds.crd(PLURALS[document["kind"]])
    group, version = document["apiVersion"].split("/")
    assert group == definition["spec"]["group"] and version == "v1"
    errors = crds.validator(PLURALS[document["kind"]], version).iter_errors(document)
    schema = next(v for v in definition["spec"]["versions"] if v["name"] == version)["schema"]["openAPIV3Schema"]
    return [f"{e.json_path}: {e.message}" for e in errors] + crds.doubles(document, schema)


@needs_crds
@each_overlay
def test_kuberay_would_take_it_and_drop_nothing(name: str) -> None:
    ours = [document for document in overlay(name) if document["kind"] in PLURALS]
    assert len(ours) == 1 and errors_of(ours[0]) == []


@needs_crds
def test_optional_lines_fit_too() -> None:
    text, number = OPTIONAL.subn(r"\1", (FOLDER / "base" / "rayjob.yaml").read_text())
    assert number and errors_of(yaml.safe_load(text)) == []
    assert (FOLDER / "base" / "store.env").read_text().count("#: AWS_") == 1


@each_overlay
def test_kubernetes_would_take_the_rest_and_every_pod(name: str) -> None:
    documents = overlay(name)
    for document in documents:
        if document["kind"] not in PLURALS.keys() | OTHERS:
            assert crds.kubernetes_errors(document) == []
    for pod in pods(documents).values():
        assert crds.kubernetes_errors(pod) == []
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(names) == len(set(names))


@needs_crds
def test_the_check_sees_what_the_api_server_would_not_say() -> None:
    def errors(change: Any) -> list[str]:
        document = copy.deepcopy(by_kind(overlay("permanent"), "RayCluster")[0])
        change(document["spec"])
        return errors_of(document)

    assert errors(lambda s: None) == []
    assert len(errors(lambda s: s.update(authOption={}))) == 1  # a field that would be dropped
    assert errors(lambda s: s["authOptions"].update(mode="off"))[0].startswith("$.spec.authOptions.mode")
    assert errors(lambda s: templates(s)["gpu"]["spec"].update(terminationGracePeriodSeconds="120")) != []
    assert errors(lambda s: templates(s)["gpu"]["spec"]["containers"][0].update(enviroment=[])) != []
    assert errors(lambda s: s["workerGroupSpecs"][0].pop("maxReplicas"))[0].startswith("$.spec.workerGroupSpecs[0]")
    ports = "headGroupSpec", "template", "spec", "containers", 0, "ports"

    def double(spec: Any) -> None:
        for key in ports:
            spec = spec[key]
        spec.append(dict(spec[0]))

    assert len(errors(double)) == 1


def test_kubernetes_own_kinds_are_checked_too() -> None:
    (budget,) = by_kind(overlay("elastic"), "PodDisruptionBudget")
    assert crds.kubernetes_errors({**budget, "spec": {**budget["spec"], "maxUnavailble": 1}}) != []
    pod = pods(overlay("elastic"))["gpu"]
    assert crds.kubernetes_errors({**pod, "spec": {**pod["spec"], "tolerations": [{"operator": 3}]}}) != []


def test_every_component_is_in_an_overlay_or_built_below() -> None:
    texts = "\n".join(path.read_text() for path in FOLDER.rglob("kustomization.yaml"))
    used = set(re.findall(r"^- (?:\S*/)?([\w-]+)$", texts, re.MULTILINE))
    unused = [name for name in COMPONENTS if name.split("/")[-1] not in used]
    assert set(unused) == {"cache-host", "sidecar-mode"}  # each has a test below


def with_components(tmp_path: Path, *names: str, **more: Any) -> list[dict[str, Any]]:
    """The base with components, as a folder of somebody's own beside it would have it; `more` are further keys."""
    folder = tmp_path / "kuberay"
    if not folder.exists():
        shutil.copytree(FOLDER, folder)
    own = folder / "overlays" / "-".join(names).replace("/", "-")
    own.mkdir()
    components = [f"../../components/{name}" for name in names]
    kustomization = {"resources": ["../../base"], "components": components, **more}
    (own / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return build(own)


@needs_crds
@pytest.mark.parametrize(
    "names",
    [
        ["sidecar-mode"],
        ["cache-host"],
        ["identity-irsa", "logs", "metrics"],
        ["identity-web", "logs-web", "spot", "eight-gpus", "kueue-elastic", "permanent"],
        ["eight-gpus", "gang", "rdma", "cache-pvc", "kueue", "sidecar-mode"],
    ],
    ids="+".join,
)
def test_components_go_together(names: list[str], tmp_path: Path) -> None:
    documents = with_components(tmp_path, *names)
    (ours,) = [document for document in documents if document["kind"] in PLURALS]
    assert errors_of(ours) == []
    for pod in pods(documents).values():
        assert crds.kubernetes_errors(pod) == []
    if "sidecar-mode" in names:
        assert ours["spec"]["submissionMode"] == "SidecarMode"
        assert not {"submitterConfig", "submitterPodTemplate"} & ours["spec"].keys()  # KubeRay refuses both
    if "cache-host" in names:
        volumes = {v["name"]: v for v in pods(documents)["gpu"]["spec"]["volumes"]}
        assert volumes["models"]["hostPath"]["path"] != volumes["compiled"]["hostPath"]["path"]


@pytest.mark.parametrize("last", [[], ["permanent"]], ids=["job", "permanent"])
def test_a_second_run_of_the_namespace_has_names_and_an_image_of_its_own(last: list[str], tmp_path: Path) -> None:
    image = {"name": "registry.example.com/gristmill", "newName": "registry.example.com/team/mill", "newTag": "1"}
    names = ["kueue", "cache-pvc", "logs", *last]
    documents = with_components(tmp_path, *names, nameSuffix="-two", images=[image])
    assert all(document["metadata"]["name"].endswith("-two") for document in documents)
    for part, template in templates(cluster_spec(documents)).items():
        text = yaml.safe_dump(template)
        own = re.findall(r"(?:configMap(?:Ref)?:\n\s+name|serviceAccountName|claimName): (\S+)", text)
        assert len(own) >= 3 and all(name.endswith("-two") for name in own), part
        assert text.count("team/mill:1") == 2, part
    assert "example.com/gristmill" not in yaml.safe_dump_all(documents)  # nor the submitter
    for ray_job in by_kind(documents, "RayJob"):
        assert ray_job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "gristmill-two"


def test_the_versions_are_those_of_the_lock() -> None:
    lock = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements" / "cpu.lock").read_text(), re.MULTILINE))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in OVERLAYS:
        assert cluster_spec(overlay(name))["rayVersion"] == lock["ray"]
        images = {
            container["image"]
            for pod in pods(overlay(name)).values()
            for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
        }
        assert len(images) == 1 and images.pop().endswith(f"gristmill:{version}-cuda")


@each_overlay
@pytest.mark.parametrize("part", ["head", "cpu", "gpu"])
def test_a_pod_is_sane(name: str, part: str) -> None:
    template = templates(cluster_spec(overlay(name)))[part]
    pod, container = template["spec"], template["spec"]["containers"][0]
    assert template["metadata"]["labels"]["gristmill/part"] == part
    assert container["resources"]["requests"] == container["resources"]["limits"]  # never evicted for memory of others
    assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["requests"].keys()
    assert pod["restartPolicy"] == "Never"
    assert pod["serviceAccountName"] == ("gristmill-head" if part == "head" else "gristmill-worker")
    assert pod.get("automountServiceAccountToken", True) is (part == "head")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    shm = volumes["shm"]["emptyDir"]
    assert shm["medium"] == "Memory" and _gib(shm["sizeLimit"]) < _gib(container["resources"]["limits"]["memory"]) / 2
    port = next(p["containerPort"] for p in container["ports"] if p["name"] == "metrics")
    notes = template["metadata"]["annotations"]
    assert notes["prometheus.io/scrape"] == "true" and notes["prometheus.io/port"] == str(port)


def _gib(amount: str) -> int:
    assert amount.endswith("Gi")
    return int(amount.removesuffix("Gi"))


def test_the_token_stays_on_and_nothing_is_opened() -> None:
    for file in FOLDER.parent.rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert "AUTH_MODE=disabled" not in text and "mode: disabled" not in text, file
            assert not re.search(r"type: (LoadBalancer|NodePort)", text), file
    for name in OVERLAYS:
        spec = cluster_spec(overlay(name))
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        (policy,) = by_kind(overlay(name), "NetworkPolicy")
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        for rule in policy["spec"]["ingress"]:
            assert rule["from"] and not any("ipBlock" in peer for peer in rule["from"])
        everywhere = [rule for rule in policy["spec"]["ingress"] if "ports" not in rule]
        assert [list(peer) for rule in everywhere for peer in rule["from"]] == [["podSelector"]]
        (budget,) = by_kind(overlay(name), "PodDisruptionBudget")
        assert budget["spec"]["maxUnavailable"] == 0 and "minAvailable" not in budget["spec"]
        assert (
            budget["spec"]["selector"]["matchLabels"].items() <= templates(spec)["head"]["metadata"]["labels"].items()
        )


def test_a_lost_head_is_given_up_before_the_job_is() -> None:
    """KubeRay 1.7 gives a job up for good that it cannot reach for RAYJOB_STATUS_CHECK_TIMEOUT_SECONDS."""
    values = yaml.safe_load((FOLDER / "operator-values.yaml").read_text())
    timeout_s = int({e["name"]: e["value"] for e in values["env"]}["RAYJOB_STATUS_CHECK_TIMEOUT_SECONDS"])
    for name in OVERLAYS:
        tolerations = templates(cluster_spec(overlay(name)))["head"]["spec"]["tolerations"]
        seconds = {t["key"]: t["tolerationSeconds"] for t in tolerations}
        assert set(seconds) == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
        assert max(seconds.values()) + 600 < timeout_s


def test_the_secret_holds_placeholders_only() -> None:
    for secret in yaml.safe_load_all((FOLDER / "secret.example.yaml").read_text()):
        assert secret["metadata"]["name"] in ("gristmill-s3", "gristmill-hf") and "data" not in secret
        assert set(secret["stringData"].values()) == {"REPLACE-ME"}
        assert crds.kubernetes_errors(secret) == []

"""The KubeRay manifests: against KubeRay's own definitions, and for what no schema can say."""

import copy
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gristmill.jobs.cli import parser
from gristmill.jobs.recipes.compile import build_generator, build_stages
from gristmill.jobs.recipes.recipe import load
from tests.conftest import ROOT
from tests.deploy import crds

FOLDER = ROOT / "deploy" / "kuberay"
PLURALS = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}
OPTIONAL = re.compile(r"^(\s*)#: ", re.MULTILINE)
needs_crds = pytest.mark.skipif(
    not crds.FOLDER.is_dir(), reason=f"needs KubeRay CRDs in {crds.FOLDER}; set GRISTMILL_CRDS to their folder"
)


def documents(name: str, with_options: bool = False) -> dict[str, dict[str, Any]]:
    """The documents of a manifest by kind; `with_options` takes in the lines that begin with #:"""
    text = (FOLDER / name).read_text()
    if with_options:
        text, number = OPTIONAL.subn(r"\1", text)
        assert number, "there are no optional lines"
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def cluster_spec(with_options: bool = False) -> dict[str, Any]:
    return documents("raycluster.yaml", with_options)["RayCluster"]["spec"]


def job() -> dict[str, Any]:
    return documents("rayjob.yaml")["RayJob"]["spec"]


def pods(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod templates by part: head, cpu, gpu."""
    return {"head": spec["headGroupSpec"]["template"]} | {
        g["groupName"]: g["template"] for g in spec["workerGroupSpecs"]
    }


@needs_crds
@pytest.mark.parametrize("with_options", [False, True])
@pytest.mark.parametrize(("file", "kind"), [("raycluster.yaml", "RayCluster"), ("rayjob.yaml", "RayJob")])
def test_kuberay_would_take_it_and_drop_nothing(file: str, kind: str, with_options: bool) -> None:
    document = documents(file, with_options)[kind]
    group, version = document["apiVersion"].split("/")
    definition = crds.crd(PLURALS[kind])
    assert (group, kind) == (definition["spec"]["group"], definition["spec"]["names"]["kind"]) and version == "v1"
    errors = crds.validator(PLURALS[kind], version).iter_errors(document)
    assert [f"{e.json_path}: {e.message}" for e in errors] == []
    schema = next(v for v in definition["spec"]["versions"] if v["name"] == version)["schema"]["openAPIV3Schema"]
    assert crds.doubles(document, schema) == []


@needs_crds
def test_the_check_sees_what_the_api_server_would_not_say() -> None:
    def errors(change: Any) -> list[str]:
        document = copy.deepcopy(documents("raycluster.yaml")["RayCluster"])
        change(document["spec"])
        return [e.json_path for e in crds.validator("rayclusters", "v1").iter_errors(document)]

    assert errors(lambda s: None) == []
    assert errors(lambda s: s.update(authOption={})) == ["$.spec"]  # a field that would be dropped
    assert errors(lambda s: s["authOptions"].update(mode="off")) == ["$.spec.authOptions.mode"]
    assert errors(lambda s: pods(s)["gpu"]["spec"].update(terminationGracePeriodSeconds="120")) != []
    assert errors(lambda s: pods(s)["gpu"]["spec"]["containers"][0].update(enviroment=[])) != []
    assert errors(lambda s: s["workerGroupSpecs"][0].pop("maxReplicas")) == ["$.spec.workerGroupSpecs[0]"]
    assert errors(lambda s: pods(s)["cpu"]["spec"]["containers"][0]["resources"]["limits"].update(cpu="a lot")) != []
    document = documents("raycluster.yaml")["RayCluster"]
    ports = pods(document["spec"])["head"]["spec"]["containers"][0]["ports"]
    ports.append(dict(ports[0]))
    schema = next(v for v in crds.crd("rayclusters")["spec"]["versions"] if v["name"] == "v1")["schema"]
    assert len(crds.doubles(document, schema["openAPIV3Schema"])) == 1


def test_both_manifests_describe_the_same_cluster() -> None:
    made = job()["rayClusterSpec"]
    head = made["headGroupSpec"]["template"]["spec"]
    assert head["containers"][0]["volumeMounts"].pop()["name"] == head["volumes"].pop()["name"] == "recipe"
    assert made == cluster_spec()


def test_the_versions_are_those_of_the_lock() -> None:
    lock = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements" / "cpu.lock").read_text(), re.MULTILINE))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    spec = cluster_spec()
    assert spec["rayVersion"] == lock["ray"]
    images = {pod["spec"]["containers"][0]["image"] for pod in pods(spec).values()}
    assert len(images) == 1 and images.pop().endswith(f"gristmill:{version}-cuda")


@pytest.mark.parametrize("part", ["head", "cpu", "gpu"])
def test_a_pod_is_sane(part: str) -> None:
    template = pods(cluster_spec())[part]
    pod, container = template["spec"], template["spec"]["containers"][0]
    assert template["metadata"]["labels"]["gristmill/part"] == part
    assert container["envFrom"] == [{"secretRef": {"name": "gristmill-s3"}}]
    assert container["resources"]["requests"] == container["resources"]["limits"]  # never evicted for memory of others
    assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"]["requests"].keys()
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 1000
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
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


def test_spot_nodes_hold_engines_only() -> None:
    spec = cluster_spec()
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    operators = {}
    for part, template in pods(spec).items():
        node = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        terms = node["nodeSelectorTerms"]  # any of the terms, all of a term
        operators[part] = {(len(terms), e["operator"]) for term in terms for e in term["matchExpressions"]}
    assert operators == {"head": {(1, "NotIn")}, "cpu": {(1, "NotIn")}, "gpu": {(4, "In")}}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert groups["gpu"]["rayStartParams"]["num-cpus"] == "1"  # the engine, no stage
    gpu = groups["gpu"]["template"]["spec"]
    drain = {e["name"]: e["value"] for e in gpu["containers"][0]["env"]}["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]
    assert float(drain) < gpu["terminationGracePeriodSeconds"] <= 120  # a spot node is told two minutes before, at best
    assert spec["enableInTreeAutoscaling"] is True
    for group in groups.values():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_token_stays_on_and_nothing_is_opened() -> None:
    for file in FOLDER.parent.rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert "AUTH_MODE=disabled" not in text and "mode: disabled" not in text, file
            assert not re.search(r"type: (LoadBalancer|NodePort)", text), file
    for spec in (cluster_spec(), job()["rayClusterSpec"]):
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    policy = documents("policies.yaml")["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    for rule in policy["ingress"]:
        assert rule["from"] and not any("ipBlock" in peer for peer in rule["from"])
    everywhere = [rule for rule in policy["ingress"] if "ports" not in rule]
    assert [list(peer) for rule in everywhere for peer in rule["from"]] == [["podSelector"]]
    budget = documents("policies.yaml")["PodDisruptionBudget"]["spec"]
    assert budget["selector"]["matchLabels"].items() <= pods(cluster_spec())["head"]["metadata"]["labels"].items()


def test_the_job_is_a_command_of_ours_that_may_be_given_again(tmp_path: Path) -> None:
    spec = job()
    words = spec["entrypoint"].split()
    assert words[:3] == ["python", "-m", "gristmill"]
    arguments = parser().parse_args(words[3:])
    assert arguments.verb == "produce" and arguments.out.startswith("s3://")
    assert spec["backoffLimit"] >= 1 and spec["submitterConfig"]["backoffLimit"] >= 1
    assert spec["shutdownAfterJobFinishes"] is True

    mount = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"][-1]
    maps = documents("rayjob.yaml")["ConfigMap"]
    assert maps["metadata"]["name"] == "gristmill-recipe" and mount["mountPath"] == "/etc/gristmill"
    name = Path(arguments.recipe).relative_to(mount["mountPath"])
    (tmp_path / name).write_text(maps["data"][str(name)])
    recipe = load(str(tmp_path / name), arguments.settings)
    generator, _ = build_generator(recipe)
    assert generator.kind == "teacher" and [stage.kind for stage in build_stages(recipe)][-1] == "dedup"
    gpus = next(g for g in spec["rayClusterSpec"]["workerGroupSpecs"] if g["groupName"] == "gpu")
    assert recipe.cluster.max_replicas == gpus["maxReplicas"] and recipe.cluster.nodes_timeout_s > 600


def test_the_secret_holds_placeholders_only() -> None:
    secret = documents("secret.example.yaml")["Secret"]
    assert secret["metadata"]["name"] == "gristmill-s3" and "data" not in secret
    assert set(secret["stringData"].values()) == {"REPLACE-ME"}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kubectl_reads_the_manifests(tmp_path: Path) -> None:
    names = [file.name for file in FOLDER.glob("*.yaml")]
    for name in names:
        shutil.copy(FOLDER / name, tmp_path)
    # A RayCluster and a RayJob of one name are two objects; kustomize needs no API server.
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": names}))
    done = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
    assert found["RayCluster"]["spec"] == cluster_spec() and found["RayJob"]["spec"] == job()

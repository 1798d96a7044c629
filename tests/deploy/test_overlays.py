"""What each overlay and component is for: engines on every GPU, gangs, spot, queues, RDMA, caches, roles and logs."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gristmill.cluster.room.capacity import Capacity
from gristmill.engines.needs import Needs
from gristmill.jobs.cli import parser
from gristmill.jobs.recipes.compile import build_generator, build_stages
from gristmill.jobs.recipes.recipe import load
from tests.conftest import ROOT
from tests.deploy.rendered import OVERLAYS, by_kind, cluster_spec, overlay, pods, templates

each_overlay = pytest.mark.parametrize("name", OVERLAYS)


def job(name: str = "elastic") -> dict[str, Any]:
    return by_kind(overlay(name), "RayJob")[0]["spec"]


@each_overlay
@pytest.mark.parametrize("gpus_per_engine", [1, 8])
def test_every_gpu_of_a_node_gets_an_engine_and_no_stage(name: str, gpus_per_engine: int) -> None:
    """By gristmill's own placement. More of Ray's CPUs than engines would take stages to nodes that may be lost."""
    group = next(g for g in cluster_spec(overlay(name))["workerGroupSpecs"] if g["groupName"] == "gpu")
    num_gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    num_cpus = float(group["rayStartParams"]["num-cpus"])
    node = {"CPU": num_cpus, "GPU": float(num_gpus), "memory": 2.0**40}
    engines = Capacity({"node": node}).take_many(Needs(num_gpus=gpus_per_engine), 1000)
    assert engines == num_gpus // gpus_per_engine
    assert num_cpus == num_gpus
    assert float(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]) >= 8 * num_gpus


@each_overlay
def test_models_are_on_a_volume_that_holds_them(name: str) -> None:
    """An emptyDir counts towards the pod's ephemeral storage, and a pod over it is evicted."""
    gpu = templates(cluster_spec(overlay(name)))["gpu"]["spec"]
    volumes = {volume["name"]: volume for volume in gpu["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in gpu["containers"][0]["volumeMounts"]}
    env = {entry["name"]: entry["value"] for entry in gpu["containers"][0]["env"]}
    for variable in ("HF_HOME", "GRISTMILL_CACHE"):
        assert env[variable].startswith(mounts["models"] + "/")
    for variable in ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE"):
        assert f"{env[variable]}/".startswith(mounts["compiled"] + "/")
    models = volumes["models"]
    assert "emptyDir" not in models
    claims = by_kind(overlay(name), "PersistentVolumeClaim")
    if "ephemeral" in models:
        size = models["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"]
    else:
        (claim,) = claims
        assert models["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        size = claim["spec"]["resources"]["requests"]["storage"]
    assert {"500Gi": 500, "1Ti": 1024}[size] > 2 * 141
    for source in ({"name": "gristmill-hf", "optional": True},):
        assert {"secretRef": source} in gpu["containers"][0]["envFrom"]


def test_the_gang_is_fixed_and_its_engines_fill_it() -> None:
    for name in ("gang", "kueue", "rdma", "gke"):
        spec = cluster_spec(overlay(name))
        assert spec["enableInTreeAutoscaling"] is False and "autoscalerOptions" not in spec
        for group in spec["workerGroupSpecs"]:
            assert group["minReplicas"] == group["replicas"] == group["maxReplicas"] > 0
        gpus = next(group for group in spec["workerGroupSpecs"] if group["groupName"] == "gpu")
        per_node = int(gpus["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        recipe = tomllib.loads(recipe_text(name))
        assert recipe["cluster"]["replicas"] == gpus["replicas"] * per_node
        assert recipe["cluster"]["nodes_timeout_s"] > 600


def recipe_text(name: str) -> str:
    maps = {document["metadata"]["name"]: document for document in by_kind(overlay(name), "ConfigMap")}
    return maps["gristmill-recipe"]["data"]["recipe.toml"]


def test_spot_nodes_hold_engines_only() -> None:
    spec = cluster_spec(overlay("elastic"))
    operators = {}
    for part, template in templates(spec).items():
        node = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        terms = node["nodeSelectorTerms"]  # any of the terms, all of a term
        operators[part] = {(len(terms), e["operator"]) for term in terms for e in term["matchExpressions"]}
    assert operators == {"head": {(1, "NotIn")}, "cpu": {(1, "NotIn")}, "gpu": {(4, "In")}}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    gpu = templates(spec)["gpu"]["spec"]
    drain = {e["name"]: e["value"] for e in gpu["containers"][0]["env"]}["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]
    assert float(drain) < gpu["terminationGracePeriodSeconds"] <= 120  # a spot node is told two minutes before, at best
    assert spec["enableInTreeAutoscaling"] is True
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_kueue_has_a_queue_a_class_and_the_elastic_gate() -> None:
    for name in ("kueue", "kueue-elastic", "eks"):
        (ray_job,) = by_kind(overlay(name), "RayJob")
        (priority,) = by_kind(overlay(name), "WorkloadPriorityClass")
        labels, notes = ray_job["metadata"]["labels"], ray_job["metadata"].get("annotations", {})
        assert labels["kueue.x-k8s.io/queue-name"]
        assert labels["kueue.x-k8s.io/priority-class"] == priority["metadata"]["name"]
        assert ray_job["spec"]["shutdownAfterJobFinishes"] is True  # Kueue demands it
        is_elastic = ray_job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
        assert (notes.get("kueue.x-k8s.io/elastic-job") == "true") == is_elastic == (name != "kueue")


def test_rdma_has_the_adapter_the_capability_and_what_nccl_needs() -> None:
    gpu = templates(cluster_spec(overlay("rdma")))["gpu"]["spec"]["containers"][0]
    assert gpu["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert [name for name in gpu["resources"]["limits"] if name.startswith("rdma/")]
    assert {"NCCL_IB_HCA", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_DEBUG"} <= {e["name"] for e in gpu["env"]}
    for part in ("head", "cpu"):
        other = templates(cluster_spec(overlay("rdma")))[part]["spec"]["containers"][0]
        assert "add" not in other["securityContext"]["capabilities"]


def test_no_pod_holds_keys_where_it_has_a_role() -> None:
    for name in ("eks", "gke"):
        documents = overlay(name)
        for part, pod in pods(documents).items():
            for container in pod["spec"]["containers"]:
                sources = [s.get("secretRef", {}).get("name") for s in container.get("envFrom", [])]
                assert "gristmill-s3" not in sources, part
    for account in by_kind(overlay("eks"), "ServiceAccount"):
        assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")
    settings = next(m for m in by_kind(overlay("gke"), "ConfigMap") if m["metadata"]["name"] == "gristmill-store")
    token = Path(settings["data"]["AWS_WEB_IDENTITY_TOKEN_FILE"])
    for part, template in templates(cluster_spec(overlay("gke"))).items():
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        source = volumes["identity"]["projected"]["sources"][0]["serviceAccountToken"]
        assert source["path"] == token.name and source["audience"] == "sts.amazonaws.com"
        for container in [*template["spec"]["containers"], *template["spec"]["initContainers"]]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts["identity"] == str(token.parent), part


def test_logs_are_copied_by_a_sidecar_that_sees_the_folder_of_ray() -> None:
    for name in ("permanent", "eks", "gke"):
        documents = overlay(name)
        settings = next(m for m in by_kind(documents, "ConfigMap") if m["metadata"]["name"] == "gristmill-store")
        assert settings["data"]["GRISTMILL_LOGS_TO"].startswith("s3://")
        for template in templates(cluster_spec(documents)).values():
            sidecar = template["spec"]["initContainers"][0]
            assert sidecar["restartPolicy"] == "Always"  # it ends after the container it serves
            script = Path(sidecar["command"][-1])
            assert (ROOT / script.relative_to("/opt/gristmill")).is_file()
            for container in (sidecar, template["spec"]["containers"][0]):
                assert {"ray-logs": "/tmp/ray"}.items() <= {
                    mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]
                }.items()


def test_the_job_is_a_command_of_ours_that_may_be_given_again(tmp_path: Path) -> None:
    spec = job()
    words = spec["entrypoint"].split()
    at = words.index("--")
    assert (ROOT / Path(words[1]).relative_to("/opt/gristmill")).is_file()
    assert words[:1] + words[2:at] == ["python", "--retried-by", "kuberay"]
    assert words[at + 1 : at + 4] == ["python", "-m", "gristmill"]
    arguments = parser().parse_args(words[at + 4 :])
    assert arguments.verb == "produce" and arguments.out.startswith("s3://")
    assert spec["backoffLimit"] >= 1 and spec["submitterConfig"]["backoffLimit"] >= 1
    assert spec["shutdownAfterJobFinishes"] is True

    for name in ("elastic", "gang"):
        mounts = templates(cluster_spec(overlay(name)))["head"]["spec"]["containers"][0]["volumeMounts"]
        folder = next(mount["mountPath"] for mount in mounts if mount["name"] == "recipe")
        file = Path(arguments.recipe_path).relative_to(folder)
        (tmp_path / file).write_text(recipe_text(name))
        recipe = load(str(tmp_path / file), arguments.settings)
        generator, _ = build_generator(recipe)
        assert generator.kind == "teacher" and [stage.kind for stage in build_stages(recipe)][-1] == "dedup"
    gpus = next(g for g in spec["rayClusterSpec"]["workerGroupSpecs"] if g["groupName"] == "gpu")
    elastic = tomllib.loads(recipe_text("elastic"))["cluster"]
    assert elastic["max_replicas"] == gpus["maxReplicas"] and elastic["nodes_timeout_s"] > 600


def test_every_address_is_below_the_prefix_of_the_policy() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "deploy" / "kuberay").rglob("*.*"))
    policy = json.loads((ROOT / "deploy" / "iam" / "policy.json").read_text())
    objects = next(s["Resource"] for s in policy["Statement"] if s["Resource"].endswith("/*"))
    prefix = objects.replace("arn:aws:s3:::", "s3://").removesuffix("*")
    addresses = [a for a in re.findall(r"s3://[\w./-]+", text) if a != "s3://bucket/prefix"]
    assert len(addresses) >= 2 and all(address.startswith(prefix) for address in addresses)

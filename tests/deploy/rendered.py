"""The manifests as the API server gets them: overlays that kubectl builds, and pods as KubeRay completes them."""

import copy
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "kuberay"
OVERLAYS = sorted(path.parent.name for path in (FOLDER / "overlays").glob("*/kustomization.yaml"))
COMPONENTS = sorted(
    path.parent.relative_to(FOLDER / "components").as_posix()
    for path in (FOLDER / "components").rglob("kustomization.yaml")
)
Document = dict[str, Any]


def kubectl() -> str:
    """The kubectl of the test lock, else one of the machine."""
    own = Path(sys.executable).parent / "kubectl"
    found = str(own) if own.is_file() else shutil.which("kubectl")
    assert found, "no kubectl: run make setup-test"
    return found


@cache
def _build(folder: Path) -> list[Document]:
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return list(yaml.load_all(done.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def build(folder: Path) -> list[Document]:
    """The documents of a kustomization."""
    return copy.deepcopy(_build(folder))


def overlay(name: str) -> list[Document]:
    return build(FOLDER / "overlays" / name)


def by_kind(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def cluster_spec(documents: list[Document]) -> Document:
    """The spec of the cluster, of a RayJob or a RayCluster."""
    jobs = by_kind(documents, "RayJob")
    return jobs[0]["spec"]["rayClusterSpec"] if jobs else by_kind(documents, "RayCluster")[0]["spec"]


def templates(spec: Document) -> dict[str, Document]:
    """Pod templates by part, as they are written: head, cpu, gpu."""
    return {"head": spec["headGroupSpec"]["template"]} | {
        group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]
    }


def pods(documents: list[Document]) -> dict[str, Document]:
    """Every pod by part, with the containers that KubeRay 1.7 adds.

    It adds the autoscaler (securityContext of autoscalerOptions) and, in sidecar mode, a submitter without one to the
    head, and to workers a container that waits for the head, with the securityContext of the worker's own.
    """
    spec = cluster_spec(documents)
    found = {part: _pod(part, template) for part, template in templates(spec).items()}
    head = found["head"]["spec"]
    if spec.get("enableInTreeAutoscaling"):
        options = spec["autoscalerOptions"]
        extra = {name: options[name] for name in ("resources", "securityContext", "imagePullPolicy") if name in options}
        head["containers"].append({"name": "autoscaler", "image": head["containers"][0]["image"], **extra})
    for part, pod in found.items():
        if part != "head":
            ray = pod["spec"]["containers"][0]
            waiting = {"name": "wait-gcs-ready", "image": ray["image"], "securityContext": ray["securityContext"]}
            pod["spec"].setdefault("initContainers", []).append(waiting)
    for job in by_kind(documents, "RayJob"):
        if job["spec"]["submissionMode"] == "SidecarMode":
            head["containers"].append({"name": "ray-job-submitter", "image": head["containers"][0]["image"]})
        else:
            found["submitter"] = _pod("submitter", job["spec"]["submitterPodTemplate"])
    return found


def _pod(part: str, template: Document) -> Document:
    template = copy.deepcopy(template)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": part, **template["metadata"]},
        "spec": template["spec"],
    }

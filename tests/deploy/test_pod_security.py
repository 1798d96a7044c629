"""A namespace with the pod security standard *restricted* admits every pod of every overlay; exceptions are stated."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.pod_security import baseline, restricted
from tests.deploy.rendered import OVERLAYS, overlay, pods
from tests.deploy.test_kuberay import with_components

# overlay: part and what *restricted* refuses there; *baseline* refuses the same
EXCEPTIONS = {"rdma": {"gpu": ["ray-worker: capabilities", "wait-gcs-ready: capabilities"]}}


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_restricted_namespace_admits_every_pod(name: str) -> None:
    found = pods(overlay(name))
    assert {"head", "cpu", "gpu"} <= found.keys() and ("submitter" in found) == (name != "permanent")
    refused = {part: list(restricted(pod)) for part, pod in found.items()}
    assert {part: lines for part, lines in refused.items() if lines} == EXCEPTIONS.get(name, {})
    for part, pod in found.items():
        assert list(baseline(pod)) == refused[part]


def test_the_components_that_a_restricted_namespace_refuses(tmp_path: Path) -> None:
    host = pods(with_components(tmp_path, "cache-host"))
    assert list(restricted(host["gpu"])) == list(baseline(host["gpu"])) != []
    sidecar = pods(with_components(tmp_path, "sidecar-mode"))
    assert list(restricted(sidecar["head"])) == [
        "ray-job-submitter: allowPrivilegeEscalation",
        "ray-job-submitter: drops not all capabilities",
    ]
    assert list(baseline(sidecar["head"])) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("securityContext",), {}),
        (("securityContext", "runAsNonRoot"), False),
        (("securityContext", "runAsUser"), 0),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}),
        (("containers", 1, "securityContext"), {}),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("containers", 0, "securityContext", "privileged"), True),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        (("hostNetwork",), True),
        (("volumes", 0), {"name": "shm", "hostPath": {"path": "/dev/shm"}}),
        (("volumes", 0), {"name": "shm", "nfs": {"server": "a", "path": "/"}}),
    ],
)
def test_the_check_refuses(path: tuple[Any, ...], value: Any) -> None:
    pod = copy.deepcopy(pods(overlay("elastic"))["head"])
    assert list(restricted(pod)) == []
    at = pod["spec"]
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert list(restricted(pod)) != []

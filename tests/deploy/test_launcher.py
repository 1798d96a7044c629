"""The cluster launcher's file, through Ray's own validation."""

import copy
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

FILE = ROOT / "deploy" / "cluster-launcher.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` fills it out and checks it before it talks to AWS."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    found = prepare_config(copy.deepcopy(config))
    validate_config(found)
    return found


def test_ray_takes_it_and_adds_no_commands_of_its_own(config) -> None:
    found = prepared(config)
    for kind in ("initialization", "setup", "head_setup", "worker_setup"):
        assert found[f"{kind}_commands"] == []  # Ray's defaults for AWS would install a nightly Ray
    assert found["head_start_ray_commands"] == config["head_start_ray_commands"]
    kinds = found["available_node_types"]
    assert sum(kind["max_workers"] for kind in kinds.values()) <= found["max_workers"]


def test_ray_refuses_what_is_wrong(config) -> None:
    from jsonschema import ValidationError

    with pytest.raises(ValidationError):
        prepared({**config, "max_worker": 3})
    config["available_node_types"]["cpu"]["min_workers"] = 100
    with pytest.raises(ValueError, match="max_workers"):
        prepared(config)


def test_spot_for_engines_only_and_roles_instead_of_keys(config) -> None:
    nodes = {name: kind["node_config"] for name, kind in config["available_node_types"].items()}
    markets = {name: node.get("InstanceMarketOptions", {}).get("MarketType") for name, node in nodes.items()}
    assert markets == {"head": None, "cpu": None, "gpu": "spot"}
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert {node["IamInstanceProfile"]["Name"] for node in nodes.values()} == {"gristmill-head", "gristmill-node"}
    assert nodes["gpu"]["IamInstanceProfile"]["Name"] == "gristmill-node"  # may not start instances
    assert all(node["MetadataOptions"]["HttpTokens"] == "required" for node in nodes.values())
    assert "AWS_SECRET" not in FILE.read_text()


def test_the_token_comes_along_and_the_dashboard_stays_on_loopback(config) -> None:
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    head = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head and "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "AUTH_MODE" not in head  # the image sets token mode, and nothing here may change it

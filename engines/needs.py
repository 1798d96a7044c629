"""The resources that a replica of an engine takes from the cluster."""

from dataclasses import asdict, dataclass, field

from gristmill.records.ids import fingerprint


@dataclass(frozen=True)
class Needs:
    """Resources of a replica. All are on one node, unless `across_nodes`."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_gb: float = 0.0
    env: dict[str, str] = field(default_factory=dict)  # environment of the replica's process
    pooled: bool = True  # False: it runs in the CPU task of the lot, without a pool
    across_nodes: bool = False  # the GPUs may be on several nodes: the engine places its own workers
    variables: tuple[str, ...] = ()  # names of environment variables of the driver that the replica gets
    is_remote: bool = False  # the engine is elsewhere, and the replica sends calls to it: it holds no device

    @property
    def bundles(self) -> list[dict[str, float]]:
        """The resources as bundles of a placement group; the bundle of the replica is the first."""
        first = {"CPU": self.num_cpus, "memory": self.memory_gb * 2**30}
        if self.across_nodes:
            return [_positive(first), *({"GPU": 1.0} for _ in range(int(self.num_gpus)))]
        return [{} if self.is_remote and not self.num_cpus else _positive({**first, "GPU": self.num_gpus})]

    @property
    def num_devices(self) -> float:
        """Device-seconds per second of this replica; an engine without a GPU counts as one device."""
        return 0.0 if self.is_remote else self.num_gpus or 1.0

    def key(self, engine_key: str | None) -> str | None:
        """Names an open engine and the resources of its replica; None for an engine without a key."""
        return None if engine_key is None else fingerprint([engine_key, asdict(self)])

    def __str__(self) -> str:
        parts = [f"{self.num_cpus:g} CPU"]
        if self.num_gpus:
            parts.append(f"{self.num_gpus:g} GPU{'' if self.across_nodes or self.num_gpus <= 1 else ' on one node'}")
        if self.memory_gb:
            parts.append(f"{self.memory_gb:g} GB")
        return " + ".join(parts)


def _positive(bundle: dict[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in bundle.items() if amount > 0} or {"CPU": 0.001}

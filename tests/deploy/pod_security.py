"""Kubernetes' pod security standards as functions of a pod: what *restricted* and *baseline* would refuse.

Source: Kubernetes documentation, Pod Security Standards, version 1.37 (Linux pods).
"""

from collections.abc import Iterator
from typing import Any

RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
BASELINE_CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
SECCOMP = {"RuntimeDefault", "Localhost"}
SAFE_SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
Pod = dict[str, Any]


def containers(pod: Pod) -> list[dict[str, Any]]:
    spec = pod["spec"]
    return [*spec["containers"], *spec.get("initContainers", []), *spec.get("ephemeralContainers", [])]


def baseline(pod: Pod) -> Iterator[str]:
    """What the standard *baseline* refuses, a line each."""
    spec = pod["spec"]
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']}: hostPath"
    for sysctl in spec.get("securityContext", {}).get("sysctls", []):
        if sysctl["name"] not in SAFE_SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    if spec.get("securityContext", {}).get("seccompProfile", {}).get("type") == "Unconfined":
        yield "seccomp of the pod"
    for container in containers(pod):
        context, name = container.get("securityContext", {}), container["name"]
        if context.get("privileged"):
            yield f"{name}: privileged"
        if set(context.get("capabilities", {}).get("add", [])) - BASELINE_CAPABILITIES:
            yield f"{name}: capabilities"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{name}: hostPort"
        if context.get("seccompProfile", {}).get("type") == "Unconfined":
            yield f"{name}: seccomp"
        if context.get("procMount", "Default") != "Default":
            yield f"{name}: procMount"


def restricted(pod: Pod) -> Iterator[str]:
    """What the standard *restricted* refuses, a line each; it includes *baseline*."""
    yield from baseline(pod)
    spec = pod["spec"]
    whole = spec.get("securityContext", {})
    for volume in spec.get("volumes", []):
        kinds = volume.keys() - {"name"}
        if kinds - RESTRICTED_VOLUMES - {"hostPath"}:
            yield f"volume {volume['name']}: {', '.join(kinds)}"
    if whole.get("runAsUser") == 0:
        yield "the pod runs as root"
    for container in containers(pod):
        context, name = container.get("securityContext", {}), container["name"]
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        if "ALL" not in context.get("capabilities", {}).get("drop", []):
            yield f"{name}: drops not all capabilities"
        added = set(context.get("capabilities", {}).get("add", []))
        if added - {"NET_BIND_SERVICE"} and not added - BASELINE_CAPABILITIES:
            yield f"{name}: capabilities"
        if context.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
            yield f"{name}: may run as root"
        if context.get("runAsUser", whole.get("runAsUser")) == 0:
            yield f"{name}: runs as root"
        if context.get("seccompProfile", whole.get("seccompProfile", {})).get("type") not in SECCOMP:
            yield f"{name}: seccomp"

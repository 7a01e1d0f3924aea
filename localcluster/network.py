"""The network bridge of the pods, and its complete removal.

Host and pods both reach the host's address on the bridge. The API server, the node and the S3
server listen only there: the address exists without a network card, stays the same when a laptop
moves, and cannot be reached from outside.
"""

import ipaddress
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.steps import FatalError

BRIDGE = "flashrun0"
CANDIDATES = tuple(f"10.{second}.0.0/24" for second in range(244, 250))
SYSCTLS = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")
FORWARD = tuple(
    ["FORWARD", way, BRIDGE, "-m", "comment", "--comment", BRIDGE, "-j", "ACCEPT"]
    for way in ("-i", "-o")
)


@dataclass(frozen=True)
class Network:
    """The pod network of this machine; `folder` holds the kernel settings from before."""

    folder: Path

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """The addresses of the pods; chosen once, where this machine has no route."""
        file = self.folder / "subnet"
        if not file.exists():
            routes = _ip("-4", "route", "show", "table", "all")
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_text(free_subnet(route.get("dst", "") for route in routes))
        return ipaddress.IPv4Network(file.read_text())

    @property
    def address(self) -> str:
        """The address of the host on the bridge."""
        return str(self.subnet[1])

    @property
    def up(self) -> bool:
        """Whether the bridge exists and has its address."""
        links = _ip("-4", "address", "show")
        return any(
            link["ifname"] == BRIDGE and self.address in {a["local"] for a in link["addr_info"]}
            for link in links
        )

    def start(self) -> None:
        """Create the bridge, allow forwarding, and write the CNI configuration of both."""
        self._kernel_settings()
        if not self.up:
            _delete_bridge()
            mtu = str(self._mtu())
            _run("ip", "link", "add", BRIDGE, "mtu", mtu, "type", "bridge")
            _run("ip", "address", "add", f"{self.address}/{self.subnet.prefixlen}", "dev", BRIDGE)
            _run("ip", "link", "set", BRIDGE, "up")
        for rule in FORWARD:  # Docker, for example, closes the chain FORWARD
            if not _succeeds("iptables", "-w", "-C", *rule):
                _run("iptables", "-w", "-I", *rule)
        self._write_cni()

    def remove(self) -> None:
        """Remove the bridge and our chains; restore the kernel settings."""
        _delete_bridge()
        for family in ("iptables", "ip6tables"):
            if shutil.which(f"{family}-save"):
                _remove_rules(family)
        before = self.folder / "sysctl.json"
        if before.exists():
            for name, value in json.loads(before.read_text()).items():
                Path("/proc/sys", name).write_text(value)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def cni(self) -> Path:
        """The folder with the CNI configuration."""
        return self.folder / "cni"

    def _write_cni(self) -> None:
        bridge = {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "mtu": self._mtu(),
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": str(self.subnet)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": str(self.folder / "addresses"),
            },
        }
        network = {"cniVersion": "0.4.0", "name": BRIDGE, "plugins": [bridge]}
        self.cni.mkdir(parents=True, exist_ok=True)
        (self.cni / "10-bridge.conflist").write_text(json.dumps(network, indent=1))

    def _mtu(self) -> int:
        """Return the smallest MTU of the links of default routes."""
        devices = {route.get("dev") for route in _ip("-4", "route", "show", "default")}
        return min((m["mtu"] for m in _ip("link", "show") if m["ifname"] in devices), default=1500)

    def _kernel_settings(self) -> None:
        for module in ("br_netfilter", "overlay"):
            _succeeds("modprobe", module)  # it may be built in, or missing; see below
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = [Path("/proc/sys", name) for name in SYSCTLS]
        before = self.folder / "sysctl.json"
        if not before.exists():
            present = {str(p.relative_to("/proc/sys")): p for p in settings if p.exists()}
            before.write_text(json.dumps({name: p.read_text() for name, p in present.items()}))
        for setting in settings:
            if setting.exists() and setting.read_text().strip() != "1":
                setting.write_text("1")


def free_subnet(routes: Iterable[str]) -> str:
    """Return the first candidate that does not overlap a route of this machine."""
    taken = [ipaddress.ip_network(route, strict=False) for route in routes if _is_network(route)]
    for candidate in CANDIDATES:
        if not any(ipaddress.ip_network(candidate).overlaps(network) for network in taken):
            return candidate
    raise FatalError(
        f"this machine has routes to all of {', '.join(CANDIDATES)}, but pods need one of them; "
        "leave the VPN that adds these routes, or use CLUSTER=current"
    )


def removal_rules(dump: str) -> str:
    """Return the input of `iptables-restore --noflush` that removes our chains and rules.

    `dump` is the output of `iptables-save`. Ours are the rules that contain the name of the bridge,
    the chains that they jump to, and all chains of kube-proxy: two kube-proxies cannot share a
    machine. The result is empty when nothing is ours.
    """
    tables = re.split(r"(?m)^(?=\*)", dump)
    return "".join(_table_removal(table.splitlines()) for table in tables if table.startswith("*"))


def _table_removal(lines: list[str]) -> str:
    all_chains = {line[1:].split()[0] for line in lines if line.startswith(":")}
    rules = [line for line in lines if line.startswith("-A ")]
    targets = {_target(rule) for rule in rules if BRIDGE in rule}
    ours = {chain for chain in all_chains if chain.startswith("KUBE-") or chain in targets}
    ours -= {chain for chain in all_chains if chain.isupper() and "-" not in chain}
    delete = [
        f"-D {rule[3:]}"
        for rule in rules
        if _chain(rule) not in ours and (BRIDGE in rule or _target(rule) in ours)
    ]
    flush = [f"-F {chain}" for chain in sorted(ours)]
    drop = [f"-X {chain}" for chain in sorted(ours)]
    changes = [*delete, *flush, *drop]
    return "\n".join([lines[0], *changes, "COMMIT", ""]) if changes else ""


def _chain(rule: str) -> str:
    return rule.split()[1]


def _target(rule: str) -> str:
    jump = re.search(r" -[jg] (\S+)", rule)
    return jump[1] if jump else ""


def _remove_rules(family: str) -> None:
    dump = subprocess.run([f"{family}-save"], capture_output=True, text=True).stdout
    changes = removal_rules(dump)
    if changes:
        subprocess.run([f"{family}-restore", "--noflush"], input=changes, text=True, check=True)


def _delete_bridge() -> None:
    if Path("/sys/class/net", BRIDGE).exists():
        _run("ip", "link", "delete", BRIDGE)


def _is_network(route: str) -> bool:
    try:
        return ipaddress.ip_network(route, strict=False).prefixlen > 0
    except ValueError:
        return False  # "default", or nothing


def _ip(*arguments: str) -> list[dict[str, Any]]:
    output = _run("ip", "-j", *arguments)
    loaded: list[dict[str, Any]] = json.loads(output or "[]")
    return [entry for entry in loaded if entry]


def _run(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        raise FatalError(
            f"`{' '.join(argv)}` failed: {lines[-1] if lines else 'no reason given'}"
        ) from None


def _succeeds(*argv: str) -> bool:
    if not shutil.which(argv[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
        return False
    return subprocess.run(argv, capture_output=True).returncode == 0

"""What `mpagents doctor` checks: versions, known holes in them, storage, the compiler, and Ray with its ports.

Ports are read from Linux's /proc; elsewhere that check says that it can't be made.
"""

from __future__ import annotations

import importlib.metadata
import ipaddress
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpagents.processes import family
from mpagents.specification import versions

# Of what we use: below which version what is known. Sources: https://nvd.nist.gov/vuln/detail/<CVE>, and for each project
# its advisories, https://github.com/<owner>/<project>/security/advisories.
VULNERABLE = {
    "torch": ("2.6.0", "CVE-2025-32434: torch.load runs code even with weights_only=True"),
    "ray": ("2.54.0", "CVE-2025-62593, CVE-2026-27482: a web page reaches its dashboard"),
    "pillow": ("11.3.0", "CVE-2025-48379 (from 11.2), CVE-2024-28219 (before 10.3): a picture overflows a buffer"),
    "jinja2": ("3.1.6", "CVE-2025-27516: a template leaves its sandbox"),
    "pyyaml": ("5.4", "CVE-2020-14343: full_load runs code"),
    "filelock": ("3.20.1", "CVE-2025-68146: a lock is written through a link"),
    "scikit-learn": ("1.5.0", "CVE-2024-5206: TfidfVectorizer keeps the words that it left out"),
    "werkzeug": ("3.0.6", "CVE-2024-34069, CVE-2024-49767: of TensorBoard's web server"),
}
RAY_PORTS = {6379: "cluster", 8265: "dashboard", 10001: "client server", 52365: "dashboard agent"}  # Ray's usual ones
ENOUGH = 1.0  # GiB free


@dataclass(frozen=True)
class Finding:
    what: str
    found: str
    ok: bool


def examine() -> list[Finding]:
    """Every check; one that raises is a finding with the reason."""
    checks: list[tuple[str, Callable[[], tuple[str, bool]]]] = [
        *((name, lambda version=version: (version, version != "not installed")) for name, version in versions().items()),
        ("known vulnerabilities", _vulnerable),
        ("cores, memory", _machine),
        ("this folder", lambda: _writable(Path.cwd())),
        ("temporary files", lambda: _writable(Path(tempfile.gettempdir()))),
        ("shared memory", _shared_memory),
        ("kernel cache", _kernel_cache),
        ("compiled kernels", _kernels),
        ("Ray clusters here", _clusters),
        ("Ray's authentication", _authentication),  # before Ray sets the variables of its own
        ("Ray", _ray),
    ]
    return [_checked(what, check) for what, check in checks]


def _checked(what: str, check: Callable[[], tuple[str, bool]]) -> Finding:
    try:
        return Finding(what, *check())
    except Exception as error:  # noqa: BLE001 - a diagnosis tells whatever is wrong
        return Finding(what, f"{type(error).__name__}: {error}", False)


def _vulnerable() -> tuple[str, bool]:
    found = [
        f"{package} {version}: {hole}; upgrade to {fixed}"
        for package, (fixed, hole) in VULNERABLE.items()
        if (version := _version(package)) and _numbers(version) < _numbers(fixed)
    ]
    return "; ".join(found) or f"none known in {', '.join(VULNERABLE)}", not found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 6, 0) of '2.6.0+cpu'."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _machine() -> tuple[str, bool]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{os.cpu_count()} cores, {pages / 2**30:.1f} GiB", True


def _writable(folder: Path) -> tuple[str, bool]:
    with tempfile.NamedTemporaryFile(dir=folder):
        free = shutil.disk_usage(folder).free / 2**30
    return f"{folder} is writable, {free:.1f} GiB free", free > ENOUGH


def _shared_memory() -> tuple[str, bool]:
    folder = Path("/dev/shm")  # Ray keeps its objects there: 0.1 GiB in a study of ours
    if not folder.is_dir():
        return "there is no /dev/shm; Ray uses temporary files", True
    free = shutil.disk_usage(folder).free / 2**30
    return f"{free:.1f} GiB free in {folder}", free > 0.2


def _kernel_cache() -> tuple[str, bool]:
    from mpagents.tabular.compiled import cache_folder

    folder = Path(cache_folder())
    folder.mkdir(parents=True, exist_ok=True)
    return _writable(folder)


def _kernels() -> tuple[str, bool]:
    from mpagents.tabular.mdp import FiniteMDP

    mdp = FiniteMDP.from_arrays([[[0.0, 1.0]], [[0.0, 1.0]]], [[1.0], [2.0]], discount=0.5, initial=[1.0, 0.0])
    return "run", bool(mdp.reachable().all())


def _ray() -> tuple[str, bool]:
    from mpagents.ray_session import ray_session

    with ray_session(1, None) as slots:
        outside = [f"{address}:{port}" for address, port in listening(family(os.getpid())) if not address.is_loopback]
        heard = f"its processes listen on {', '.join(outside)}" if outside else "reachable from this machine alone"
        return f"started and stopped with {slots} worker, {heard}", slots == 1 and not outside


def _clusters() -> tuple[str, bool]:
    """Whether a Ray that somebody has started on this machine can be reached from elsewhere."""
    if not Path("/proc/net/tcp").is_file():
        return "can't tell which ports are open on this system", True
    open_to_all = {port: str(address) for address, port in listening() if port in RAY_PORTS and not address.is_loopback}
    told = [f"{RAY_PORTS[port]} on {address}, port {port}" for port, address in sorted(open_to_all.items())]
    fix = "; bind it to 127.0.0.1 (--dashboard-host, --node-ip-address) or keep it in a network of your own"
    return ("reachable from elsewhere: " + ", ".join(told) + fix if told else "none that is reachable from elsewhere"), not told


def _authentication() -> tuple[str, bool]:
    address = os.environ.get("RAY_ADDRESS", "")
    asked = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    if asked or not address:
        return "by token" if asked else "studies run on a Ray of their own (RAY_ADDRESS isn't set)", True
    return f"RAY_ADDRESS is {address!r} and RAY_AUTH_MODE isn't token: whoever reaches it runs code on its machines", False


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def listening(processes: set[int] | None = None) -> list[tuple[Address, int]]:
    """(address, port) of the TCP sockets that wait for connections; only those of these processes, where given."""
    inodes = None if processes is None else {inode for process in processes for inode in _sockets(process)}
    found = []
    for file in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in file.read_text().splitlines()[1:] if file.is_file() else ():
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and (inodes is None or inode in inodes):
                address, port = local.split(":")
                found.append((_address(bytes.fromhex(address)), int(port, 16)))
    return found


def _address(raw: bytes) -> Address:
    """As /proc has it: words of four bytes, the last first."""
    turned = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    address = ipaddress.ip_address(turned)
    return getattr(address, "ipv4_mapped", None) or address


def _sockets(process: int) -> set[str]:
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}

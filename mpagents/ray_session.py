"""Ray, started on this machine or joined by its address, and ended: the only place where that happens."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpagents.interrupting import CTRL_C_OR_STOPPING, STOPPING, Interrupted, check_stopped, handling, in_main_thread, interrupt
from mpagents.processes import dying_with_this
from mpagents.shipping import runtime_env
from mpagents.worker import ONE_THREAD

QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
# 0: all processes of an embedded Ray listen on 127.0.0.1 alone; else on all interfaces, whatever `_node_ip_address` says.
NETWORKED = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class ForPeople(io.TextIOBase):
    """Standard error, for what Ray prints on standard output; of a node's death one line, without the end of its log."""

    def write(self, text: str) -> int:
        sys.stderr.write(text.partition("\n")[0] if "(raylet)" in text else text)
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()


@contextmanager
def exporting(variables: Mapping[str, str]) -> Iterator[None]:
    """Within it, this process's environment variables, which processes begun in it inherit, are these; then as before."""
    saved = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def ray_session(workers: int | None, address: str | None, results: Path | None = None) -> Iterator[int]:
    """Ray, started for this study or joined; gives the number of trials to run at once.

    `results`: the folder that they are written into, which isn't sent to a cluster's nodes with the modules in this folder.
    Raises ValueError where no cluster answers at the address, Interrupted where a signal has come meanwhile.
    """
    told = dict.fromkeys(ONE_THREAD, "1") | QUIET | {NETWORKED: str(int(address is not None))}
    with dying_with_this() as mark, exporting(told | mark):
        import ray

        # As NETWORKED says, where Ray was imported before
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = address is not None
        logging.getLogger("ray").setLevel(logging.ERROR)
        started = not ray.is_initialized()
        try:
            check_stopped()
            _check_address(address)
            if started:
                _start(workers, address, results)
            slots = int(ray.cluster_resources().get("CPU", 1))
            with handling(interrupt, STOPPING):  # again: ray.init handles SIGTERM itself
                yield min(slots, workers or slots)
        finally:
            if started:
                _shut_down()


def _shut_down() -> None:
    """End Ray, deaf to signals: a second Ctrl-C must not leave processes behind."""
    import ray

    def ignore_again(*arguments: Any, **keywords: Any) -> Any:
        if in_main_thread():  # disconnecting, Ray has let SIGTERM end the process; what follows takes a second
            for number in CTRL_C_OR_STOPPING:
                signal.signal(number, signal.SIG_IGN)
        return kill(*arguments, **keywords)

    with handling(signal.SIG_IGN, CTRL_C_OR_STOPPING):
        node = ray._private.worker._global_node
        if node is not None:
            kill, node.kill_all_processes = node.kill_all_processes, ignore_again
        ray.shutdown()


def _start(workers: int | None, address: str | None, results: Path | None) -> None:
    import ray

    own: dict[str, Any] = {"num_cpus": workers or os.cpu_count(), "object_store_memory": 100_000_000}
    own["_node_ip_address"] = "127.0.0.1"  # reachable from this machine alone
    try:
        ray.init(
            address=address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
            configure_logging=False, **({"runtime_env": runtime_env(results)} if address else own),
        )  # fmt: skip
    except SystemExit as error:  # Ray's own answer to SIGTERM while it starts
        raise Interrupted from error
    except ConnectionError as error:
        fix = "start one (`ray start --head`), or leave --address out to use this machine"
        raise ValueError(f"no Ray cluster found at {address!r}; {fix}") from error
    check_stopped()
    warn_of_strangers(ray.get_runtime_context().gcs_address)


def warn_of_strangers(address: str) -> None:
    """Say so where the Ray at host:port can be reached from elsewhere, and asks nobody who they are."""
    near = address.startswith(("localhost:", "127.", "[::1]"))
    if not near and os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        print(
            f"warning: the Ray at {address} has no authentication, so whoever reaches it runs code on its machines; "
            "keep it in a network of your own, or start it with RAY_AUTH_MODE=token",
            file=sys.stderr,
        )


def _check_address(address: str | None) -> None:
    """Refuse host:port where nothing listens: Ray itself would wait for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Ray cluster answers at {address} ({error}); expected host:port of a head node, or auto"
        ) from error

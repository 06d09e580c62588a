"""Signals that end a study as Ctrl-C does: heard wherever they come, told as `Interrupted`."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGHUP)  # end a study as Ctrl-C does
CTRL_C_OR_STOPPING = (signal.SIGINT, *STOPPING)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; what was finished is kept, and the same command continues."""


def interrupt(signum: int, frame: Any) -> None:
    """A signal's handler. Raises Interrupted."""
    raise Interrupted


def in_main_thread() -> bool:
    """Whether signals can be handled here at all."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def handling(handler: Any, signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Handle signals so, where they can be handled at all: in the main thread. What was ignored stays so (nohup)."""
    if not in_main_thread():
        yield
        return
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


_signals: socket.socket | None = None  # gives the number of every signal that has come


@contextmanager
def listening() -> Iterator[None]:
    """Let `check_stopped` hear signals: what a handler raises is lost where it runs within a callback of Ray's."""
    global _signals
    if not in_main_thread():
        yield
        return
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        before, _signals = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False), ours
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            _signals = None


def check_stopped() -> None:
    """Raise Interrupted where a signal has asked for it."""
    with contextlib.suppress(BlockingIOError):
        if _signals is not None and set(_signals.recv(4096)) & set(CTRL_C_OR_STOPPING):
            raise Interrupted


def stop_as_by_ctrl_c() -> None:
    """SIGTERM and SIGHUP interrupt, also in the moments when no runner handles them; what was ignored stays so (nohup)."""
    if in_main_thread():
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)


def ignore_further() -> None:
    """The process is about to end: another signal must not change how."""
    if in_main_thread():
        for number in CTRL_C_OR_STOPPING:
            signal.signal(number, signal.SIG_IGN)

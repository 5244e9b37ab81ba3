"""SIGINT and SIGTERM as requests to stop, which nothing can swallow.

Python delivers a signal as an exception at a random place. There it can get lost: DuckDB reports it as a failed query, and in a callback
of the garbage collector it is printed and forgotten. `StopSignals` therefore hears of each signal through the interpreter's wake-up
descriptor, which no handler can bypass, and repeats the signal until the work has stopped.
"""

import atexit
import contextlib
import functools
import os
import select
import signal
import socket
import sys
import threading
import time
from types import TracebackType
from typing import Literal

import dagster as dg

SIGNALS = (signal.SIGINT, signal.SIGTERM)

REPEAT_S = 1.0
"""Seconds between two repetitions of a signal that has not stopped the work yet."""

SAME_REQUEST_S = 0.5
"""Seconds within which a second signal counts as the first: a terminal and a parent process often both send one."""

QUERY_INTERRUPTED = "Query interrupted"
"""The text with which DuckDB reports a signal, in a plain `RuntimeError`."""


class StopSignals:
    """A context in which the first SIGINT or SIGTERM asks the work to stop, and the second ends the process at once.

    It takes effect in the main thread alone, and only the outermost context of a process does anything: inner ones share its state.

    Attributes
    ----------
    received
        Number of the signal that asked to stop; None as long as none has.
    """

    _outermost: "StopSignals | None" = None

    def __init__(self) -> None:
        self.received: int | None = None
        self._received_at = 0.0
        self._is_open = self._is_settled = self._is_repeating = False
        self._lock = threading.Lock()

    def __enter__(self) -> "StopSignals":
        if StopSignals._outermost is not None:
            return StopSignals._outermost
        if threading.current_thread() is not threading.main_thread():
            return self
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self._former_descriptor = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._former_handler = signal.getsignal(signal.SIGTERM)
        if self._former_handler == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        self._is_open = True
        StopSignals._outermost = self
        _forget_in_children()
        threading.Thread(target=self._listen, name="finrisk-stop-signals", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> Literal[False]:
        if self._is_open:
            self._is_open = False
            StopSignals._outermost = None
            signal.set_wakeup_fd(self._former_descriptor)
            if self._former_handler == signal.SIG_DFL:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._mouth.close()
        return False

    def raise_if_received(self) -> None:
        """Raise where a signal has asked to stop.

        Raises
        ------
        dagster.DagsterExecutionInterruptedError
            If a signal was received.
        """
        if self._is_open:
            # The listening thread may not have had its turn since the signal.
            with contextlib.suppress(BlockingIOError):
                self._hear(self._ear.recv(64))
        if self.received:
            raise dg.DagsterExecutionInterruptedError(f"stopped by {signal.Signals(self.received).name}")

    def settle(self) -> None:
        """Stop repeating a signal that was received: the work has stopped, and what it still does must not be disturbed."""
        self._is_settled = self.received is not None

    @property
    def exit_status(self) -> int:
        """The exit status of a process that a signal ended: 130 after SIGINT, 143 after SIGTERM; 0 without a signal."""
        return 128 + self.received if self.received else 0

    def repeat(self) -> None:
        """Deliver the received signal to this process once more, unless the work has stopped."""
        with self._lock:
            # One at a time: of two that wait to be delivered the system makes one.
            if self._is_settled or self._is_repeating:
                return
            self._is_repeating = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _listen(self) -> None:
        while True:
            if not select.select([self._ear], [], [], REPEAT_S)[0]:
                if self.received and self._is_open:
                    self.repeat()
                continue
            try:
                numbers = self._ear.recv(64)
            except BlockingIOError:  # the main thread has read them
                continue
            if not numbers:  # the context has ended
                self._ear.close()
                return
            self._hear(numbers)

    def _hear(self, numbers: bytes) -> None:
        with self._lock:
            for number in numbers:
                if number not in SIGNALS:
                    continue
                if self._is_repeating and number == signal.SIGINT:
                    self._is_repeating = False
                elif self.received is None:
                    self.received, self._received_at = number, time.monotonic()
                    # Programs give other statuses to a run that failed.
                    atexit.register(_exit_with, 128 + number)
                elif time.monotonic() - self._received_at > SAME_REQUEST_S:
                    _end_at_once(128 + number)


def raise_if_stopped() -> None:
    """Raise where a signal has asked this process to stop: for use right before a step that must not happen after it.

    Raises
    ------
    dagster.DagsterExecutionInterruptedError
        If a signal was received.
    """
    if StopSignals._outermost is not None:
        StopSignals._outermost.raise_if_received()


def is_interrupted_query(error: BaseException) -> bool:
    """Return whether an error is DuckDB's report of a signal."""
    return isinstance(error, RuntimeError) and QUERY_INTERRUPTED in str(error)


def _exit_with(status: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _end_at_once(status: int) -> None:
    """End this process and those that it started."""
    import psutil  # type: ignore[import-untyped]

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(status)


@functools.cache
def _forget_in_children() -> None:
    """Keep the signals of forked processes from their parent's ear."""

    def forget() -> None:
        if StopSignals._outermost is not None:
            signal.set_wakeup_fd(-1)
            StopSignals._outermost = None

    os.register_at_fork(after_in_child=forget)

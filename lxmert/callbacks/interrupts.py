"""Signals that ask a run to end: SIGTERM, SIGINT, and under SLURM the one before a job's time is up."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import torch.distributed as dist

log = logging.getLogger(__name__)

KEY = "lxmert/stop"
# Processes are at most one batch apart: all of them come to read of the stop before they are there.
LEAD = 2


class Interrupted(SystemExit):
    """The run ends because of a signal; the exit status is the shell's, 128 and the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


class Interrupts:
    """Takes the signals: noted while a fit can be stopped after a step, an `Interrupted` at any other time.

    A second SIGINT ends the process at once. SIGUSR1, or what SLURM was asked to send, is taken in a job alone.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self.deferred = False  # whether somebody asks `agreed`
        self._count, self._stop = 0, -1
        self._lock = threading.Lock()

    @property
    def signals(self) -> list[int]:
        """The signals that are taken on this machine."""
        requeue = ["SIGUSR1"] if "SLURM_JOB_ID" in os.environ else []
        names = ["SIGTERM", "SIGINT", *requeue]
        return [getattr(signal, name) for name in names if hasattr(signal, name)]

    def install(self) -> None:
        """Take the signals, also from handlers that were installed since the last time."""
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            for signum in self.signals:
                signal.signal(signum, self._handle)

    def remove(self) -> None:
        """Give the signals back to Python."""
        if threading.current_thread() is threading.main_thread():
            for signum in self.signals:
                default = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
                if signal.getsignal(signum) == self._handle:
                    signal.signal(signum, default)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again = self.noted == signum == signal.SIGINT
        self.noted = signum
        if again or not self.deferred:
            raise Interrupted(signum)

    def agreed(self, world_size: int) -> bool:
        """Whether to stop now, asked once a batch by every process; all stop after the same one.

        A signal often reaches one process alone, and the others would wait for it for ever.
        """
        if world_size == 1:
            return self.noted is not None
        self._count += 1
        store: Any = dist.distributed_c10d._get_default_store()
        if self._stop < 0:
            if self.noted is not None:
                store.compare_set(KEY, "", f"{self._count + LEAD} {self.noted}")
            if store.check([KEY]):
                self._stop, signum = map(int, store.get(KEY).split())
                self.noted = self.noted or signum
        return 0 <= self._stop <= self._count

    def requeue(self) -> bool:
        """Ask SLURM to start this job again, if the signal was its warning; whether it will."""
        if self.noted is None or self.noted in (signal.SIGTERM, signal.SIGINT):
            return False
        job = os.environ["SLURM_JOB_ID"]
        if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
            job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        if not re.fullmatch(r"[0-9_]+", job):
            log.warning("SLURM_JOB_ID=%s is no job's number; the job is not requeued", job)
            return False
        try:
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        except OSError as error:
            log.warning("scontrol could not be run (%s); requeue the job by hand: scontrol requeue %s", error, job)
            return False
        if done.returncode:
            log.warning("scontrol requeue %s failed: %s", job, done.stderr.strip())
        return done.returncode == 0

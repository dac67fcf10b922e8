"""Keeping local senders as their state files want them: what a kubelet does for pods.

Every method is called under the sender's lock, in a thread.  Only here are processes started, and only from a
state file that says that the sender may run.
"""

import signal
from collections.abc import Callable, Mapping, Sequence

import structlog
from msgspec.structs import replace

from k8s import children
from k8s.children import Process
from k8s.cluster import ClusterError, Permanent, SenderSpec, Temporary
from k8s.sender_files import Child, Remembered, SenderFiles

log = structlog.get_logger()

BACK_OFF_MS, LONGEST_BACK_OFF_MS = 1_000, 60_000
STEADY_MS = 60_000
"""A process that ran so long did not fail at its start: the next wait is the shortest again."""

MOST_CODES = 1_000

Command = Callable[[SenderSpec, int], Sequence[str]]
Environment = Callable[[SenderSpec, int], Mapping[str, str]]


class Keeper:
    """Starts, ends and restarts the processes of one folder of state files."""

    def __init__(
        self, files: SenderFiles, *, command: Command, environment: Environment, now: Callable[[], int]
    ) -> None:
        self._files = files
        self._command, self._environment, self._now = command, environment, now
        self._spawned: set[int] = set()  # children of this very process, which it has to reap
        self._codes: dict[int, int] = {}  # exit codes of those that were reaped

    def keep(self, name: str) -> None:
        """Make what runs what is wanted, as far as it can be done now."""
        sender = self._files.load(name)
        if sender is None:
            return
        allowed = sender.wanted if sender.may_run else 0
        after = {child.ordinal: child for child in sender.children}
        try:
            for ordinal in sorted(after.keys() | set(range(allowed))):
                before = after.pop(ordinal, Child(ordinal=ordinal))
                try:
                    kept = self._keep_one(sender, before, may_run=ordinal < allowed)
                except ClusterError:
                    after[ordinal] = before
                    raise
                if kept is not None:
                    after[ordinal] = kept
        finally:
            known = tuple(after[ordinal] for ordinal in sorted(after))
            if known != sender.children:
                self._files.save(replace(sender, children=known))

    def running(self, sender: Remembered) -> int:
        """How many of its processes have not ended."""
        return sum(self.runs(sender.name, child) for child in sender.children)

    def runs(self, name: str, child: Child) -> bool:
        """Has this replica's process not ended?"""
        return children.is_running(self._files.run_file(name, child.ordinal))

    def reap(self) -> None:
        """Collect our own children that have ended, also those whose end another controller has seen first."""
        for pid in list(self._spawned):
            code = children.reap(pid)
            if code is not None:
                self._codes[pid] = code
                self._spawned.discard(pid)
        while len(self._codes) > MOST_CODES:
            self._codes.pop(next(iter(self._codes)))

    def _keep_one(self, sender: Remembered, child: Child, *, may_run: bool) -> Child | None:
        """One replica: what is remembered of it afterwards, None when nothing is."""
        now = self._now()
        if self.runs(sender.name, child):
            child = self._identified(sender.name, child, now)
            current = not child.shape or child.shape == sender.shape
            if may_run and current and child.kill_at is None:
                return replace(child, failures=0) if child.failures and now - child.at >= STEADY_MS else child
            return self._end(sender, child, now)
        if child.pid:
            child = self._ended(sender, child, now)
        if not may_run:
            return None
        if now < child.not_before <= now + LONGEST_BACK_OFF_MS:  # later than that: somebody has set the clock back
            return child
        return self._start(sender, child, now)

    def _start(self, sender: Remembered, child: Child, now: int) -> Child:
        spec = spec_of(sender)
        try:
            process = children.start(
                self._command(spec, child.ordinal),
                self._environment(spec, child.ordinal),
                run_file=self._files.run_file(sender.name, child.ordinal),
                log=self._files.log(sender.name, child.ordinal),
            )
        except (FileNotFoundError, PermissionError, ValueError) as wrong:
            raise Permanent(f"{sender.name}: its command cannot be started: {wrong}") from wrong
        except OSError as failed:
            raise Temporary(f"{sender.name}: the machine cannot start its process: {failed}") from failed
        if process is None:
            return child  # it came to life since we looked: the next tick identifies it
        self._spawned.add(process.pid)
        log.info("sender process started", sender=sender.name, replica=child.ordinal, pid=process.pid)
        return Child(
            ordinal=child.ordinal,
            pid=process.pid,
            started=process.started,
            at=now,
            shape=sender.shape,
            failures=child.failures,
        )

    def _end(self, sender: Remembered, child: Child, now: int) -> Child:
        """Ask a process to end, or kill it when its time is over."""
        process, longest = Process(child.pid, child.started), now + sender.grace_s * 1000
        if child.kill_at is None:
            children.send(process, signal.SIGTERM)
            return replace(child, kill_at=longest)
        if now < child.kill_at:
            return replace(child, kill_at=min(child.kill_at, longest))
        log.warning("sender process killed", sender=sender.name, replica=child.ordinal, pid=child.pid)
        children.send(process, signal.SIGKILL)
        return child

    def _ended(self, sender: Remembered, child: Child, now: int) -> Child:
        """A process is gone: remember when the next one may start."""
        self.reap()
        who = {"sender": sender.name, "replica": child.ordinal, "pid": child.pid}
        code = self._codes.pop(child.pid, None)  # None: it was the child of an earlier controller
        if child.kill_at is not None:
            log.info("sender process ended", exit_code=code, **who)
            return Child(ordinal=child.ordinal)
        failures = 1 if now - child.at >= STEADY_MS else child.failures + 1
        wait_ms = min(LONGEST_BACK_OFF_MS, BACK_OFF_MS * 2 ** min(failures - 1, 10))
        log.warning("sender process ended by itself", exit_code=code, again_in_ms=wait_ms, **who)
        return Child(ordinal=child.ordinal, failures=failures, not_before=now + wait_ms)

    def _identified(self, name: str, child: Child, now: int) -> Child:
        """A process runs; make sure that we know which: its starter may have died before writing it down."""
        if child.pid and children.started_at(child.pid) == child.started:
            return child
        found = children.find(self._files.run_file(name, child.ordinal))
        if found is None and child.pid and child.kill_at is not None:
            return child  # its first thread has ended as asked, and the others have not quite
        if found is None:
            raise Temporary(f"{name}: replica {child.ordinal} runs, but its process cannot be found")
        log.info("sender process adopted", sender=name, replica=child.ordinal, pid=found.pid)
        return Child(ordinal=child.ordinal, pid=found.pid, started=found.started, at=now)


def spec_of(sender: Remembered) -> SenderSpec:
    """The spec that a state file was written from."""
    return SenderSpec(
        campaign=sender.campaign,
        name=sender.name,
        replicas=sender.replicas,
        grace_s=sender.grace_s,
        tenant=sender.tenant,
        labels=sender.labels,
    )

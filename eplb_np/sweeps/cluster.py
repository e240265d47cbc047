"""Cases on the workers of a Dask cluster that somebody runs."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from eplb_np._arguments import one_line, said_by
from eplb_np.sweeps.cases import Case
from eplb_np.sweeps.measure import Judging, SweptCase, SweptLoads, measure, version

CONNECT_SECONDS = 10.0
"""How long a cluster may take to answer, and then to have a worker."""

MOST_DEATHS = 3
"""How often a case is given to the cluster again, after the four workers that it may lose."""


def measure_on_cluster(
    cases: Sequence[Case], loads: SweptLoads, judging: Judging, address: str
) -> Generator[SweptCase]:
    """Measure the cases on a cluster, and yield each result as it comes.

    The loads go to the cluster once. They are the result of a task, so that they are there again
    when the only worker that held them is gone; data that is scattered would be lost. Raises
    ``ModuleNotFoundError`` without `distributed`, and ``ConnectionError`` if the cluster cannot be reached
    or cannot work.
    """
    client = _connect(address)
    try:
        from distributed import as_completed

        cluster = _Cluster(client, loads, judging)
        running = {cluster.start(case): case for case in cases}
        deaths = dict.fromkeys(cases, 0)
        completed: Any = as_completed(running, loop=client.loop)  # type: ignore[no-untyped-call,unused-ignore]
        for future in completed:
            case = running.pop(future)
            try:
                swept: SweptCase = future.result()
            except Exception as error:  # noqa: BLE001 - whatever the cluster lost or raised
                deaths[case] += 1
                cluster.check(case, error, deaths[case])
                again = cluster.start(case)
                running[again] = case
                completed.add(again)
                continue
            yield swept
    finally:
        _leave(client)


class _Cluster:
    """A client, and the loads that its cluster holds."""

    def __init__(self, client: Any, loads: SweptLoads, judging: Judging) -> None:
        self._client = client
        self._loads = loads
        self._judging = judging
        self._held = self._hold()

    def start(self, case: Case) -> Any:
        """Let the cluster plan for a case, and return its future."""
        if self._held.status in ("error", "lost", "cancelled"):
            self._held = self._hold()
        return self._client.submit(
            measure_there, case, self._held, self._judging, version(), pure=False, retries=2
        )

    def check(self, case: Case, error: Exception, deaths: int) -> None:
        """Raise the error of a case, unless a worker was lost and the case can be done again."""
        from distributed import KilledWorker

        if isinstance(error, (ValueError, MemoryError)):
            raise type(error)(f"{case}: {said_by(error)}") from None
        if isinstance(error, KilledWorker) and deaths <= MOST_DEATHS:
            return
        if isinstance(error, ModuleNotFoundError):
            raise ConnectionError(
                f"the workers of the Dask cluster cannot run eplb_np ({said_by(error)}): install "
                f"eplb-np {version()} there"
            ) from None
        raise ConnectionError(
            f"the Dask cluster failed at {case}: {type(error).__name__}: {said_by(error)}"
        ) from None

    def _hold(self) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            return self._client.submit(_as_given, self._loads, pure=False, retries=2)


def measure_there(case: Case, loads: SweptLoads, judging: Judging, wanted: str) -> SweptCase:
    """Measure a case on a worker, if it has the version of the one who asks."""
    if wanted != version():
        raise ValueError(
            f"eplb-np {wanted} asks, but a worker of the Dask cluster has {version()}: install "
            "the same version there"
        )
    return measure(case, loads, judging)


def _as_given(loads: SweptLoads) -> SweptLoads:
    return loads


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: run pip install 'eplb-np[dask]'", name=error.name
        ) from None
    client = _answered(
        lambda: Client(address, timeout=CONNECT_SECONDS, set_as_default=False),  # type: ignore[no-untyped-call,unused-ignore]
        address,
    )
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except BaseException as error:
        _leave(client)
        if not isinstance(error, TimeoutError):
            raise
        raise ConnectionError(
            f"the Dask cluster at {one_line(address)} has no worker: start one with dask worker "
            f"{address}"
        ) from None
    return client


def _answered(connect: Callable[[], Any], address: str) -> Any:
    """Connect within a bounded time; Dask waits for ever for who accepts and says nothing."""
    answers: SimpleQueue[Any] = SimpleQueue()

    def wait() -> None:
        try:
            answers.put(connect())
        except Exception as error:  # noqa: BLE001 - an address can be wrong in many ways
            answers.put(error)

    threading.Thread(target=wait, daemon=True).start()
    try:
        answer = answers.get(timeout=2 * CONNECT_SECONDS)
    except Empty:
        answer = TimeoutError(f"nothing came in {2 * CONNECT_SECONDS:.0f} s")
    if isinstance(answer, Exception):
        raise ConnectionError(
            f"no Dask scheduler answers at {one_line(address)} ({said_by(answer)}): give the "
            "address that dask scheduler prints, such as tcp://HOST:8786"
        )
    return answer


def _leave(client: Any) -> None:
    """Close a client; what it asked for and is not done is cancelled."""
    with contextlib.suppress(Exception):  # the cluster may be gone
        client.close(timeout=CONNECT_SECONDS)

"""Where candidates are computed: child processes of this machine, or the workers of a Dask cluster.

Both give futures of the same kind. On a cluster a worker keeps children too, so that a structure that hangs or
crashes never costs a worker.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sciconsist.domains.crystals.screening import Candidate, Settings
from sciconsist.errors import UserError
from sciconsist.extras import need
from sciconsist.workflows.sandbox import Sandboxes

Submit = Callable[[Candidate], "Future[dict[str, Any]]"]


@contextmanager
def local(settings: Settings, deadline: float, workers: int) -> Iterator[Submit]:
    """So many child processes of this one. Raises UserError when the relaxer cannot be started."""
    sandboxes = Sandboxes(settings, deadline)
    pool = ThreadPoolExecutor(workers)  # threads that wait for the children
    try:
        sandboxes.start()
        yield lambda candidate: pool.submit(sandboxes.screen, candidate)
    finally:
        sandboxes.close()  # first, so that no thread waits for a child any longer
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def cluster(settings: Settings, deadline: float, address: str) -> Iterator[Submit]:
    """The workers of the Dask scheduler at an address, one candidate a worker thread; they need sciconsist too.

    Raises UserError when nobody answers there.
    """
    distributed = need("distributed", "cluster", "screening on a cluster")
    try:
        client = distributed.Client(address, timeout=20)
    except (OSError, ValueError) as error:
        raise UserError(f"scheduler {address!r}: no Dask scheduler answers there ({error})") from error
    name = f"sciconsist-screen-{uuid.uuid4().hex[:12]}"
    with client:
        client.register_plugin(_plugin(name, settings, deadline))
        executor = client.get_executor(pure=False)
        try:
            yield lambda candidate: executor.submit(_on_worker, name, candidate)
        finally:
            executor.shutdown(wait=False)
            client.unregister_worker_plugin(name)


def _plugin(name: str, settings: Settings, deadline: float) -> Any:
    """A Dask worker plugin that holds a worker's child processes."""
    from distributed import WorkerPlugin

    class ScreenPlugin(WorkerPlugin):
        sandboxes: Sandboxes

        def __init__(self) -> None:
            self.name = name
            self.sandboxes = Sandboxes(settings, deadline)

        def teardown(self, worker: Any) -> None:
            self.sandboxes.close()

    return ScreenPlugin()


def _on_worker(name: str, candidate: Candidate) -> dict[str, Any]:
    from distributed import get_worker

    plugin: Any = get_worker().plugins[name]
    return plugin.sandboxes.screen(candidate)

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ccdcseg.nnunet import train


def test_trainings_side_by_side_prepare_one_after_the_other(tiny_run, monkeypatch: pytest.MonkeyPatch):
    """Two that preprocessed the same scans at once would read each other's half-written files."""
    inside, overlaps, met = threading.Lock(), [], threading.Event()

    def count(*_: Any) -> dict[str, Any]:
        overlaps.append(not inside.acquire(blocking=False))
        met.wait(0.2)
        inside.release()
        return {}

    monkeypatch.setattr(train, "_prepare", count)
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(train.prepare, tiny_run(), 1, lambda *_: None) for _ in range(2)]:
            job.result()
    assert overlaps == [False, False]

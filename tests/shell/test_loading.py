"""A load that fails leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from loopnb import extension
from loopnb.errors import UnsupportedKernelError
from loopnb.patching import Patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shells import Shell


class FailingPatches:
    """Makes the installing of one patch fail, and knows which are installed.

    Attributes:
        installed: The patches that are installed.
        count: How many have been installed, or have failed, since `fail_at` was set.
        fail_at: Which of these is to fail. The first is 1; 0 lets all succeed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.installed: set[Patch] = set()
        self.count = self.fail_at = 0
        self._install, self._restore = Patch.install, Patch.restore
        # What derives from `Patch` calls these, too.
        monkeypatch.setattr(Patch, "install", lambda patch: self._on_install(patch))
        monkeypatch.setattr(Patch, "restore", lambda patch: self._on_restore(patch))

    def _on_install(self, patch: Patch) -> None:
        self.count += 1
        if self.count == self.fail_at:
            raise ZeroDivisionError(patch)
        self._install(patch)
        if patch.installed:
            self.installed.add(patch)

    def _on_restore(self, patch: Patch) -> bool:
        self.installed.discard(patch)
        return self._restore(patch)


@pytest.fixture
def patches(monkeypatch: pytest.MonkeyPatch) -> FailingPatches:
    return FailingPatches(monkeypatch)


@pytest.fixture
def in_loop() -> Iterator[Callable[[Callable[[], object]], None]]:
    with asyncio.Runner() as runner:

        async def call(fn: Callable[[], object]) -> None:
            fn()

        yield lambda fn: runner.run(call(fn))


def hooks_of(shell: Any) -> list[Any]:
    """Return what the shell calls, and the tables in which it looks things up."""
    return [
        {name: list(callbacks) for name, callbacks in shell.events.callbacks.items()},
        list(shell.ast_transformers),
        list(shell.input_transformers_cleanup),
        list(shell.configurables),
        dict(shell.magics_manager.magics["line"]),
        dict(shell.magics_manager.magics["cell"]),
        asyncio.get_running_loop().get_task_factory(),
    ]


def test_a_load_that_fails_at_any_patch_leaves_nothing_patched(
    shell: Shell, patches: FailingPatches, in_loop: Callable[[Callable[[], object]], None]
) -> None:
    def try_each() -> None:
        before = hooks_of(shell)
        for fail_at in itertools.count(1):
            patches.count, patches.fail_at = 0, fail_at
            failed = ""
            try:
                extension.load(shell)
            except ZeroDivisionError as error:
                failed = str(error)
            else:
                patches.fail_at = 0
                extension.unload(shell)
            assert patches.installed == set(), failed
            assert hooks_of(shell) == before, failed
            if not failed:
                assert fail_at > 20
                return

    in_loop(try_each)


def test_a_kernel_that_is_not_ipykernels_is_refused_by_name(
    shell: Shell,
    patches: FailingPatches,
    in_loop: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shell, "kernel", SimpleNamespace(), raising=False)

    with pytest.raises(UnsupportedKernelError) as caught:
        in_loop(lambda: extension.load(shell))

    assert caught.value.reason.endswith("its class is types.SimpleNamespace")
    assert patches.count == 0

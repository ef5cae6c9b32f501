"""A storage that may be away for a while: what it is asked for is asked again until it is back."""

from __future__ import annotations

import functools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from optuna.storages import BaseStorage

from optselect.study.backend import backend_of, together
from optselect.study.trouble import trouble_of, will_pass

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""For so long a storage is waited for: a server that is started anew, a network that is mended."""

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 5.0
# Its own: nothing here moves the random numbers of a training. Workers must not all come back at one moment.
_draw = random.Random()

_log = logging.getLogger("optselect")


def _asked(name: str, *, behind: bool = False) -> Any:
    """Make the method `name`, which asks the storage, or what is behind its cache, until it answers."""

    @functools.wraps(getattr(BaseStorage, name), updated=())
    def method(self: PatientStorage, *args: Any, **options: Any) -> Any:
        asked = self._backend if behind else self.storage
        return self.patiently(functools.partial(getattr(asked, name), *args, **options))

    return method


def _told(name: str) -> Any:
    """Make the method `name`, which writes, at once or together with others."""
    alone = _asked(name)

    @functools.wraps(getattr(BaseStorage, name), updated=())
    def method(self: PatientStorage, *args: Any, **options: Any) -> Any:
        held = self.held()
        if held is None:
            return alone(self, *args, **options)
        held.append(functools.partial(getattr(self.storage, name), *args, **options))
        return None

    return method


class PatientStorage(BaseStorage):
    """The same as `storage`, but that each call waits while it is away, up to `seconds`.

    What was asked may have been done, and only the answer be lost. So it is asked again only for what may be done
    twice: a value or an attribute is written as it was; of a trial that is begun twice one counts; and who has set a
    trial running, and did not hear of it, goes by the answer that another has it.
    """

    def __init__(self, storage: BaseStorage, seconds: float = PATIENCE_SECONDS) -> None:
        self.storage = storage
        self._seconds = seconds
        # What each thread writes together.
        self._held: dict[int, list[Callable[[], Any]]] = {}

    create_new_study = _asked("create_new_study")
    delete_study = _asked("delete_study")
    set_study_user_attr = _told("set_study_user_attr")
    set_study_system_attr = _told("set_study_system_attr")
    get_study_id_from_name = _asked("get_study_id_from_name")
    get_study_name_from_id = _asked("get_study_name_from_id")
    get_study_directions = _asked("get_study_directions")
    get_study_user_attrs = _asked("get_study_user_attrs")
    get_study_system_attrs = _asked("get_study_system_attrs")
    get_all_studies = _asked("get_all_studies")
    create_new_trial = _asked("create_new_trial")
    set_trial_param = _told("set_trial_param")
    set_trial_state_values = _told("set_trial_state_values")
    set_trial_intermediate_value = _told("set_trial_intermediate_value")
    set_trial_user_attr = _told("set_trial_user_attr")
    set_trial_system_attr = _told("set_trial_system_attr")
    get_trial_id_from_study_id_trial_number = _asked("get_trial_id_from_study_id_trial_number")
    get_trial = _asked("get_trial")
    get_trial_number_from_id = _asked("get_trial_number_from_id", behind=True)
    get_all_trials = _asked("get_all_trials")
    get_best_trial = _asked("get_best_trial")

    @property
    def _backend(self) -> Any:
        return backend_of(self.storage)

    def held(self) -> list[Callable[[], Any]] | None:
        """Return what this thread is writing together; None: it is not."""
        return self._held.get(threading.get_ident())

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what this thread writes inside as one, at the end, and as one again where the storage was away."""
        writes: list[Callable[[], Any]] = []
        self._held[threading.get_ident()] = writes
        try:
            yield
        finally:
            del self._held[threading.get_ident()]

        def write() -> None:
            with together(self.storage):
                for each in writes:
                    each()

        self.patiently(write)

    def patiently(self, work: Callable[[], T]) -> T:
        """Return what `work` gives, once the storage is there. Raises what it raises for any other reason."""
        begun = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = work()
            except Exception as error:
                left = begun + self._seconds - time.monotonic()
                if left <= 0 or not will_pass(error):
                    raise
                if pause == _FIRST_PAUSE_SECONDS:
                    known = trouble_of(error)
                    what = known.what if known is not None else type(error).__name__
                    _log.warning("the study's storage is away (%s); it is waited for, %.0f s at most", what, left)
                time.sleep(min(pause * _draw.uniform(0.5, 1.0), left))
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                if pause > _FIRST_PAUSE_SECONDS:
                    _log.warning("the study's storage is back after %.1f s", time.monotonic() - begun)
                return answer

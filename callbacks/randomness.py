"""Random numbers of a training, kept in its checkpoints and put back at the moment where they count."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from optselect.callbacks.frames import active_frames
from optselect.callbacks.lightning_names import lightning_of
from optselect.workload.loaders import is_one_shot, loader_generators
from optselect.workload.rng import Generator, RngState, generator_state, rng_state, set_generator_state, set_rng_state

_log = logging.getLogger("optselect")


class InexactResumeWarning(UserWarning):
    """The run goes on from the middle of an epoch, and cannot be bit for bit the one that was not interrupted."""


def random_states(trainer: Any) -> dict[str, Any]:
    """Return where the generators of the training and of its loaders stand, in every process: builtins only.

    `others`: where those of the second process and of all later ones stand elsewhere than the first one's.
    """
    own = {**rng_state().to_dict(), "loaders": [generator_state(each) for each in _generators(trainer)]}
    if trainer.world_size == 1 or not torch.distributed.is_initialized() or _written_in_an_emergency():
        return own
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, own)
    first, *others = gathered
    differences = [{what: other[what] for what in first if first[what] != other[what]} for other in others]
    return {**first, "others": differences}


class RandomNumbersToRestore:
    """What the fit that goes on from a checkpoint still has to put back of `random_states`.

    Lightning restores no random numbers, and opening a loader draws some: its workers' seeds, the sampler's. Where an
    epoch begins they are put back before the loader is opened, and in the middle of one after that.
    """

    def __init__(self) -> None:
        self._saved: Mapping[str, Any] | None = None
        self._opened_early = False

    def take(self, saved: Mapping[str, Any] | None, trainer: Any) -> None:
        """Go on from where the generators of this process stood; None: the checkpoint does not say."""
        self._saved = saved
        if saved is None:
            return
        processes = 1 + len(saved.get("others", ()))
        if processes != trainer.world_size and trainer.is_global_zero:
            _log.info(
                "the checkpoint holds the random numbers of %d of %d processes; the first one's are taken in all",
                min(processes, trainer.world_size),
                trainer.world_size,
            )
        if processes == trainer.world_size and trainer.global_rank > 0:
            self._saved = {**saved, **saved["others"][trainer.global_rank - 1]}
        self._put_back(trainer)

    @property
    def pending(self) -> bool:
        """Whether something is still to be put back."""
        return self._saved is not None

    def on_fit_start(self, trainer: Any) -> None:
        """Put the random numbers back before Lightning opens the loaders."""
        self._opened_early = trainer.fit_loop._combined_loader is not None
        self._put_back(trainer)

    def on_train_start(self, trainer: Any, path: Any) -> None:
        """Put back what an epoch's middle or end needs, once the loaders are open; its beginning has its own hook."""
        fit_loop = trainer.fit_loop
        # Before 2.6 Lightning begins a resumed epoch anew.
        if self._saved is None or not getattr(fit_loop, "is_resuming", False) or not fit_loop.restarting:
            return
        if fit_loop.restarted_on_epoch_start:
            return
        if not fit_loop.epoch_loop.batch_progress.is_last_batch:
            _warn_unless_exact(trainer, path)
            self._put_back(trainer)
        elif not fit_loop.epoch_loop.restarted_on_train_batch_end:
            self._put_back(trainer)
        elif self._opening_again_helps(trainer):
            # Lightning goes straight on with the next epoch, on the loader that is open.
            self._open_again(trainer)
        self._saved = None

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Put back what was changed by opening the loaders too early, or what opening them once more needs."""
        fit_loop = trainer.fit_loop
        if self._saved is not None:
            # Before 2.6 Lightning opens the loaders again at the start of a resumed epoch.
            opens_again = not hasattr(fit_loop, "is_resuming") and not fit_loop.epoch_loop.restarting
            if opens_again and trainer.current_epoch > 0:
                self._put_back(trainer)
            elif self._opening_again_helps(trainer):
                self._open_again(trainer)
        self._saved = None

    def _opening_again_helps(self, trainer: Any) -> bool:
        """Tell whether the loaders were opened before these random numbers, or those that they hold, were back.

        A loader of a class of its own is opened twice, to see whether it can be. What can be read only once is left.
        """
        loaders = trainer.fit_loop._combined_loader.flattened
        if self._opened_early:
            return True
        stateful = lightning_of(trainer)._Stateful
        own = any(isinstance(each, stateful) for each in loaders) or any(True for _ in _generators(trainer))
        return own and not any(map(is_one_shot, loaders))

    def _open_again(self, trainer: Any) -> None:
        """Open the loaders for a new epoch.

        A stateful loader ends the old one first, which Lightning leaves out between epochs.
        """
        fit_loop = trainer.fit_loop
        states = getattr(fit_loop, "_combined_loader_states_to_load", [])
        if states:
            fit_loop._combined_loader._load_state_dicts(states)
            fit_loop._combined_loader_states_to_load = []
            iter(fit_loop._data_fetcher)
        self._put_back(trainer)
        iter(fit_loop._data_fetcher)

    def _put_back(self, trainer: Any) -> None:
        if self._saved is None:
            return
        set_rng_state(RngState.from_dict(dict(self._saved)))
        for generator, state in zip(_generators(trainer), self._saved.get("loaders", ()), strict=False):
            set_generator_state(generator, state)


def _generators(trainer: Any) -> Iterator[Generator]:
    """Yield each of the generators that the training's loaders hold, once."""
    combined = trainer.fit_loop._combined_loader
    held = [
        each for loader in (combined.flattened if combined is not None else ()) for each in loader_generators(loader)
    ]
    yield from {id(generator): generator for generator in held}.values()


def _warn_unless_exact(trainer: Any, path: Any) -> None:
    loaders = trainer.fit_loop._combined_loader.flattened
    stateful = lightning_of(trainer)._Stateful
    stateless = sorted({type(loader).__name__ for loader in loaders if not isinstance(loader, stateful)})
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    why = []
    if stateless:
        why.append(
            f"{' and '.join(stateless)} cannot go back there (no state_dict and load_state_dict), so the rest of this "
            "epoch has other batches"
        )
    if batches % trainer.accumulate_grad_batches:
        why.append("gradients that had been accumulated since the last optimizer step are not in it")
    if why:
        warnings.warn(
            f"the checkpoint {path} was written in the middle of an epoch, after {batches} batches: {'; '.join(why)}. "
            "Checkpoints at the ends of epochs are exact; so are those in the middle, at an optimizer step, with a "
            "stateful loader",
            InexactResumeWarning,
            stacklevel=2,
        )


def _written_in_an_emergency() -> bool:
    """Tell whether the checkpoint is written in a signal handler or for an exception: other processes may be elsewhere.

    They would not all join a collective call, and the checkpoint would never be written.
    """
    return any(call.f_code.co_name in ("on_exception", "_slurm_sigusr_handler_fn") for call in active_frames())

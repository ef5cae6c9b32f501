"""Plans of version 1, written up to optselect 0.1, in the words of the present version.

They are read as long as the package lives. Here alone sentences are read back: version 1 kept no other reasons.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from optselect.configuration.trial import State
from optselect.profile.values import DataProfile, GradientProfile, ModelProfile

_log = logging.getLogger("optselect")

_COST = "the choice cost "
_CITED = re.compile(r"(.*?)(?: \[(.*)\])?", flags=re.DOTALL)
_SHARE = re.compile(r"([\d.]+) of the training")
_PROFILES = {"data": DataProfile, "model": ModelProfile, "gradient": GradientProfile}


def upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite `data`, a plan's dict of version 1, as the present version would have written it.

    What version 1 measured and the present version does not know is left out, and the log names it.
    """
    # Those written before leads, policies and modes were kept lack them.
    missing = {"baseline": None, "lead": None, "fine_tuning": None, "mode": "min"}
    return {
        **missing,
        **data,
        "reasons": [_reason(sentence) for sentence in data["reasons"]],
        "trials": list(map(_trial, data["trials"])),
        "profile": _profile(data["profile"]) if data["profile"] else None,
    }


def _reason(sentence: str) -> dict[str, Any]:
    if sentence.startswith(_COST):
        share = _SHARE.search(sentence)
        return {"kind": "cost", "text": sentence, "value": float(share[1]) if share else None}
    said, cited = _CITED.fullmatch(sentence).groups()  # type: ignore[union-attr]  # it matches anything
    return {"kind": "vote" if cited else "trial", "text": said, "cites": cited or ""}


def _trial(trial: Mapping[str, Any]) -> dict[str, Any]:
    # Caps were not kept, and the reason for which one failed stood in place of its state.
    last = [] if trial["value"] is None else [[trial["micro_batches"], trial["value"]]]
    ending = trial["state"]
    known = ending in get_args(State)
    return {
        "configuration": trial["configuration"],
        "seed": trial["seed"],
        "values": [*trial.get("earlier", ()), *last],
        "reached": trial["micro_batches"],
        "state": ending if known else "failed",
        "note": "" if known else ending,
    }


def _profile(profile: Mapping[str, Any]) -> dict[str, Any]:
    parts = dict(profile)
    for name, kind in _PROFILES.items():
        known = {field.name for field in fields(kind)}
        if unknown := sorted(profile[name].keys() - known):
            _log.info("the plan is of version 1; %s of its profile are no longer known", ", ".join(unknown))
        parts[name] = {key: value for key, value in profile[name].items() if key in known}
    return parts

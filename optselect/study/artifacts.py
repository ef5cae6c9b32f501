"""Where files that belong to a study are kept, if not beside it: a folder, a bucket, or a store of Optuna's."""

from __future__ import annotations

import os
from typing import BinaryIO, Protocol, runtime_checkable
from urllib.parse import urlsplit

from optselect.errors import ConfigurationError, MissingExtraError

_BUCKET = "s3://"


@runtime_checkable
class ArtifactStore(Protocol):
    """What Optuna's artifact stores can do."""

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open what was written under that name. Raises an error of Optuna's where there is nothing."""
        ...

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write it, in place of what was there."""
        ...

    def remove(self, artifact_id: str) -> None:
        """Remove it."""
        ...


Artifacts = str | os.PathLike[str] | ArtifactStore | None
"""A folder, `s3://bucket/prefix`, an artifact store of Optuna's, or None: beside the study, where that is a file."""


def checked(artifacts: Artifacts) -> Artifacts:
    """Return `artifacts`. Raises `ConfigurationError` for what cannot be meant, `MissingExtraError` without boto3."""
    if artifacts is None or isinstance(artifacts, os.PathLike | ArtifactStore):
        return artifacts
    if not isinstance(artifacts, str):
        raise ConfigurationError(
            f"artifacts is a folder, s3://bucket/prefix or an artifact store of Optuna's, but got {artifacts!r}"
        )
    if "://" in artifacts and (not artifacts.startswith(_BUCKET) or not urlsplit(artifacts).netloc):
        raise ConfigurationError(
            f"artifacts is a folder or s3://bucket/prefix, but got {artifacts!r}; for another store pass one of "
            "optuna.artifacts in Python"
        )
    bucket_of(artifacts)
    return artifacts


def bucket_of(artifacts: Artifacts) -> tuple[ArtifactStore, str] | None:
    """Return the store behind `artifacts`, and what names in it begin with; None for a folder, and for None.

    The address, the region and the keys of a bucket are those of boto3's own settings, as in AWS_ENDPOINT_URL.
    """
    if artifacts is None or isinstance(artifacts, os.PathLike):
        return None
    if not isinstance(artifacts, str):
        return artifacts, ""
    if not artifacts.startswith(_BUCKET):
        return None
    from optuna.artifacts import Boto3ArtifactStore  # noqa: PLC0415  # only where a bucket is asked for

    where = urlsplit(artifacts)
    try:
        store = Boto3ArtifactStore(where.netloc, avoid_buf_copy=True)
    except ImportError as error:
        raise MissingExtraError(
            f"artifacts={artifacts!r} needs boto3, which is not installed; pip install 'optselect[s3]'"
        ) from error
    prefix = where.path.strip("/")
    return store, f"{prefix}/" if prefix else ""

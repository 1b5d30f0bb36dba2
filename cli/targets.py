"""The targets that the configuration names."""

from pathlib import Path

from ..storage.folder_target import FolderTarget
from ..storage.targets import Target
from .settings import Settings


def configured_targets(settings: Settings) -> list[Target]:
    """Return all places that get a copy of every recording. None of them is touched by that."""
    if not settings.deliver.folder:
        return []
    return [FolderTarget(Path(settings.deliver.folder).absolute(), Path(settings.storage.recordings))]

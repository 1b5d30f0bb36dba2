"""Commands that are given a recording by the name of any of its files."""

from pathlib import Path

ENDINGS = ("_info.txt", "_hash.txt", "_hash.SHA256withRSA.sig", "_packets.pcapng", ".wav", ".pcapng")


def stem_of(recording: Path) -> Path:
    """Return the path of a recording's files without ending."""
    for ending in ENDINGS:
        if recording.name.endswith(ending):
            return recording.with_name(recording.name.removesuffix(ending))
    return recording


def beside(stem: Path, ending: str) -> Path:
    """Return the path of one of a recording's files."""
    return stem.with_name(stem.name + ending)

"""Verification: are recordings as they were sealed, and are they all there? It needs the recordings and a certificate.

The recordings are checked one by one in as many processes as there are processors (verify_files.py), then compared
with each other (chain_check.py), with the checkpoints of the days (checkpoints.py), and with the recorder's log, if
that is given (ledger_check.py). Nothing is written where they lie.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from .chain_check import Finding, Findings
from .checkpoints import Checkpoint, check_checkpoints, is_checkpoint, is_lone_signature
from .ledger_check import check_ledger, last_entry, signers
from .trust import CERTIFICATE, BadCertificate, Certificate, read_certificates, together, trusted
from .verify_files import Checked, Job, Verdict, check, stems

Progress = Callable[[int, int, int], None]
"""Told bytes checked, bytes in all, recordings checked."""

BATCH = 16
"""Recordings that a process gets at a time."""
ALONE = 64 << 20
"""Bytes up to which starting processes takes longer than checking."""
_WORST: tuple[Verdict, ...] = ("altered", "missing", "cannot be checked")


class NothingThere(ValueError):
    """A path names no recording; the message says which."""


@dataclass(slots=True)
class Report:
    """The outcome: `findings` yields what is said of each recording; close it when done."""

    findings: Findings
    certificates: dict[str, Certificate]
    keys: dict[str, int]
    days: list[Checkpoint]

    @property
    def counts(self) -> dict[str, int]:
        """How many recordings are intact, altered, missing, and cannot be checked."""
        return self.findings.counts()

    @property
    def worst(self) -> Verdict:
        """What counts for the whole: altered or missing before what cannot be checked."""
        counts = self.counts
        for _, verdict in self.findings.notes():
            counts[verdict] += 1
        bad = next((verdict for verdict in _WORST if counts[verdict]), None)
        return bad or ("intact" if counts["intact"] else "cannot be checked")

    def each(self, intact: bool = False) -> Iterator[Finding]:
        """Yield the findings; what is `intact` only if asked for."""
        return self.findings.findings(intact)


@dataclass(slots=True)
class Survey:
    """What lies at the given paths: folders with the stems that are wanted (None: all), and how much there is."""

    folders: dict[str, set[str] | None] = field(default_factory=dict)
    checkpoints: list[Path] = field(default_factory=list)
    lone_signatures: list[Path] = field(default_factory=list)
    certificates: list[Path] = field(default_factory=list)
    bytes: int = 0
    whole: bool = False
    unread: list[str] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)


def verify(
    paths: Sequence[Path],
    certificates: Sequence[Path] = (),
    ledger: Path | None = None,
    progress: Progress = lambda done, total, recordings: None,
) -> Report:
    """Verify the recordings at these paths: files, stems of names, folders with all that is below them.

    With `certificates` (PEM files) only they are trusted, and what they certify; without, those that lie beside the
    recordings. Raises OSError, BadCertificate for the files named here, NothingThere.
    """
    pinned = [one for path in certificates for one in read_certificates(path)]
    end = last_entry(ledger) if ledger is not None else 0
    survey = survey_of(paths)
    findings = Findings("cannot be checked" if survey.unread else "missing")
    try:
        found = list(_certificates_in(survey, findings, pinned))
        known = {one.fingerprint: one for one in (*pinned, *found)}
        keys = {one.key: one.public for one in known.values()}
        done = 0
        for count, one in enumerate(_checked(survey, keys), 1):
            findings.add(one)
            done += one.bytes
            progress(done, survey.bytes, count)
        signers = findings.keys()
        believed = trusted(pinned, found) if pinned else together(list(known.values()), signers)
        keys = {name: keys[name] for name in believed}
        findings.distrust(keys)
        days = check_checkpoints(survey.checkpoints, survey.lone_signatures, keys, findings)
        if ledger is not None:
            check_ledger(ledger, keys, findings, days, (path.name for path in survey.checkpoints), end)
        findings.judge(gaps=survey.whole)
        for text in survey.unread:
            findings.say("folder", "cannot be checked", "", text)
    except BaseException:
        findings.close()
        raise
    return Report(findings, known, signers, days)


def verify_log(ledger: Path, root: Path | None, certificates: Sequence[Path] = ()) -> tuple[Findings, Verdict]:
    """Verify the recorder's log by itself, and by the checkpoints below `root`; return the findings, to be closed, and
    the verdict. Certificates as for `verify`. Raises OSError, BadCertificate for the files named here.
    """
    pinned = [one for path in certificates for one in read_certificates(path)]
    survey = survey_of([root] if root is not None else [])
    findings = Findings()
    try:
        found = list(_certificates_in(survey, findings, pinned))
        everybody = {one.key: one.public for one in found}
        keys = trusted(pinned, found)
        if not pinned:
            keys = {name: everybody[name] for name in together(found, signers(ledger, everybody))}
        days = check_checkpoints(survey.checkpoints, survey.lone_signatures, keys, findings)
        given = None if root is None else [path.name for path in survey.checkpoints]
        check_ledger(ledger, keys, findings, days, given)
    except BaseException:
        findings.close()
        raise
    verdicts = {verdict for _, verdict in findings.notes()}
    return findings, next((one for one in _WORST if one in verdicts), "intact")


def survey_of(paths: Iterable[Path]) -> Survey:
    """Look at what there is, without reading it. Raises NothingThere."""
    survey = Survey()
    for path in paths:
        if path.is_dir():
            survey.whole = True
            _survey_tree(path, survey)
        else:
            _survey_file(path, survey)
    return survey


def _survey_tree(root: Path, survey: Survey) -> None:
    def failed(error: OSError) -> None:
        survey.unread.append(f"{error.filename} cannot be read: {error.strerror}")

    for folder, below, names in os.walk(root, onerror=failed, followlinks=True):
        if not _is_new(folder, survey.seen):
            below[:] = []  # a link leads here a second time, perhaps round in a circle
            continue
        below[:] = sorted(name for name in below if not name.startswith("."))
        survey.folders[folder] = None
        survey.lone_signatures += [Path(folder, name) for name in names if is_lone_signature(name, names)]
        for name in names:
            path = Path(folder, name)
            if name == CERTIFICATE:
                survey.certificates.append(path)
            elif is_checkpoint(name):
                survey.checkpoints.append(path)
            else:
                survey.bytes += _size(path)


def _is_new(folder: str, seen: set[tuple[int, int]]) -> bool:
    """Return whether a folder has not been looked at yet, by whatever name."""
    try:
        found = os.stat(folder)
    except OSError:
        return True  # listing it says why
    place = found.st_dev, found.st_ino
    if place in seen:
        return False
    seen.add(place)
    return True


def _survey_file(path: Path, survey: Survey) -> None:
    folder = path.parent
    if is_checkpoint(path.name):
        survey.checkpoints.append(path)
    else:
        every = stems(_names(folder))
        stem = next((stem for stem, names in every.items() if path.name in (stem, *names)), None)
        if stem is None:
            raise NothingThere(f"{path} is no file of a recording, nor what the names of its files begin with")
        wanted = survey.folders.setdefault(str(folder), set())
        if wanted is not None:
            wanted.add(stem)
            survey.bytes += sum(_size(folder / name) for name in every[stem])
    if (folder / CERTIFICATE).is_file() and folder / CERTIFICATE not in survey.certificates:
        survey.certificates.append(folder / CERTIFICATE)


def _certificates_in(survey: Survey, findings: Findings, pinned: Sequence[Certificate]) -> Iterator[Certificate]:
    """Yield the certificates that lie beside the recordings, each once. One that cannot be read, or that nobody's key
    here has signed, is a finding.
    """
    found: dict[str, tuple[Certificate, Path]] = {}
    for path in survey.certificates:
        try:
            certificates = read_certificates(path)
        except OSError as error:
            findings.say("certificate", "cannot be checked", str(path), f"it cannot be read: {error.strerror}")
        except BadCertificate as error:
            findings.say("certificate", "cannot be checked", "", str(error))
        else:
            found = {one.fingerprint: (one, path) for one in certificates} | found
    keys = {one.public for one in (*pinned, *(one for one, _ in found.values()))}
    for one, path in found.values():
        if any(one.vouched_by(public) for public in (one.public, *keys)):
            yield one
        else:
            reason = f"the certificate {one.fingerprint} in it was changed: its signature is by no key that is here"
            findings.say("certificate", "altered", str(path), reason)


def _jobs(survey: Survey, keys: dict[str, bytes]) -> Iterator[Job]:
    for folder, wanted in survey.folders.items():
        try:
            names = _names(Path(folder))
        except OSError:
            continue  # the survey has said so
        for stem, files in stems(names).items():
            if wanted is None or stem in wanted:
                yield Job(folder, stem, tuple(files), keys)


def _checked(survey: Survey, keys: dict[str, bytes]) -> Iterator[Checked]:
    jobs = _jobs(survey, keys)
    processors = len(os.sched_getaffinity(0))
    if survey.bytes <= ALONE or processors == 1:
        yield from map(check, jobs)
        return
    # Spawned, not forked: the progress bar has a thread.
    pool = ProcessPoolExecutor(processors, multiprocessing.get_context("spawn"))
    try:
        running: set[Future[list[Checked]]] = set()
        while batch := list(islice(jobs, BATCH)):
            running.add(pool.submit(_check_all, batch))
            if len(running) >= 4 * processors:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        for future in running:
            yield from future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _check_all(jobs: list[Job]) -> list[Checked]:
    return [check(job) for job in jobs]


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not entry.is_dir() and _leads_somewhere(entry)]


def _leads_somewhere(entry: os.DirEntry[str]) -> bool:
    """Return whether it is a file or the link to one: what a link to nothing stands for is not there."""
    return not entry.is_symlink() or os.path.exists(entry.path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

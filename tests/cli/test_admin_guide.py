"""The guides and the program agree: commands, alarms, events, metrics, and what takes effect when."""

import ast
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tapdeck.cli.box import Reports
from tapdeck.cli.capture_stage import FIXED
from tapdeck.cli.doctor_report import TITLES
from tapdeck.cli.main import cli
from tapdeck.cli.metric_families import families
from tapdeck.cli.settings import all_settings

ROOT = Path(__file__).parents[2]
ADMIN, INSTALLER = (ROOT / "docs" / name for name in ("admin.md", "installer.md"))
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = [path for room in ("cli", "storage", "sniffer") for path in sorted((ROOT / room).rglob("*.py"))]
PLACEHOLDER = re.compile(r"[A-Z]+(\.\.\.)?")


def section(path: Path, title: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = lines.index(title) + 1
    level = len(title.split()[0])
    ends = [at for at in range(start, len(lines)) if re.match(rf"#{{1,{level}}} ", lines[at])]
    return "\n".join(lines[start : ends[0] if ends else None])


def first_cells(text: str) -> list[str]:
    """What stands in the first column of a section's tables, heads left out."""
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    heads = {row - 1 for row, cell in enumerate(rows) if re.fullmatch(r"[-:]+", cell)}
    return [cell for row, cell in enumerate(rows) if row not in heads and not re.fullmatch(r"[-:]+", cell)]


def spans(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


# -- commands ----------------------------------------------------------------------------------------------------------


def commands(path: Path) -> Iterator[str]:
    """Every `tapdeck ...` that a text tells its reader to type, in running text and in blocks."""
    prose = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            found = re.search(r"(?:^\s*(?:sudo )?|[=/])tapdeck +([a-z-].*)", line)
            if found:
                yield found[1].partition(" #")[0].strip()
        else:
            prose.append(line)
    for span in spans("\n".join(prose)):
        words = " ".join(span.split())
        if words.startswith("tapdeck "):
            yield words.removeprefix("tapdeck ")


def test_the_guides_show_commands() -> None:
    assert len(set(commands(ADMIN))) >= 12
    assert len(set(commands(INSTALLER))) >= 10
    assert len(set(commands(ROOT / "README.md"))) >= 8


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_command_is_one(guide: Path) -> None:
    for command in sorted(set(commands(guide))):
        check(command)


def check(line: str) -> None:
    """Fail unless click takes it; where a placeholder stands for a value, its options at least are there."""
    words = shlex.split(line)
    found: click.Command = cli
    context = click.Context(cli, info_name="tapdeck")
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        below = found.get_command(context, name)
        assert below is not None, f"tapdeck {line}: {name} is no command"
        found, context = below, click.Context(below, parent=context, info_name=name)
    if any(PLACEHOLDER.fullmatch(word) for word in words) or not words:
        known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
        options = {word.partition("=")[0] for word in words if word.startswith("-")} - {"--help", "-h"}
        assert options <= known, f"tapdeck {line}: {options - known} are no options"
        return
    try:
        found.make_context(found.name, words, parent=context.parent).close()
    except click.exceptions.Exit:
        return  # --help
    except click.MissingParameter:
        return  # running text names options alone
    except click.UsageError as error:
        pytest.fail(f"tapdeck {line}: {error.format_message()}")


# -- alarms, events ----------------------------------------------------------------------------------------------------


def calls_in_the_code() -> Iterator[ast.Call]:
    for path in CODE:
        yield from (
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        )


def called(call: ast.Call) -> str:
    """The name that is called, without what it belongs to."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def owner(call: ast.Call) -> str:
    """The last name of what it belongs to."""
    value = call.func.value if isinstance(call.func, ast.Attribute) else None
    return value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")


def literals(call: ast.Call, position: int) -> list[str]:
    """The text at a place of a call's arguments, if it is written there."""
    arguments = call.args[position : position + 1]
    return [one.value for one in arguments if isinstance(one, ast.Constant) and isinstance(one.value, str)]


def alarms_in_the_code() -> set[str]:
    """Codes that are named where an alarm is raised, cleared, or made up for that, in modules that have to do with
    alarms.
    """
    found = set()
    for path in CODE:
        text = path.read_text(encoding="utf-8")
        if re.search(r"\bAlarms\b|\bDiskAlarm\(|\bcode of the alarm\b", text):
            nodes = list(ast.walk(ast.parse(text)))
            parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
            constants = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in parts]
            found |= {
                one
                for one in constants
                if isinstance(one, str) and re.fullmatch(r"[A-Z]{4,}(_[A-Z]+)*|[A-Z]+(_[A-Z]+)+", one)
            }
    return found


def test_every_alarm_is_explained_and_no_other() -> None:
    rows = first_cells(section(ADMIN, "## Alarms"))
    explained = [code for cell in rows for code in spans(cell)]
    assert len(explained) == len(set(explained)) >= 16
    assert set(explained) == alarms_in_the_code()
    for call in calls_in_the_code():
        if called(call) == "raise_":
            assert set(literals(call, 0)) <= set(explained)


def test_every_alarm_says_what_is_safe_and_what_to_do() -> None:
    for line in section(ADMIN, "## Alarms").splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 4, line
            assert all(cells), line


def test_every_event_is_explained_and_no_other() -> None:
    explained = {name for cell in first_cells(section(ADMIN, "## The event log")) for name in spans(cell)}
    written = set()
    for call in calls_in_the_code():
        if owner(call) in ("", "state") and called(call) == "append":
            written |= set(literals(call, 1))
        if owner(call) in ("self", "health") and called(call) == "note":
            written |= set(literals(call, 0))
    assert written == explained


# -- figures, settings, checks -----------------------------------------------------------------------------------------


def test_every_metric_is_explained_and_no_other() -> None:
    rows = first_cells(section(ADMIN, "### Prometheus"))
    explained = [name.partition("{")[0] for cell in rows for name in spans(cell)]
    served = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in families(Reports({}, frozenset(), time.time()))
    }
    assert {f"tapdeck_{name}" for name in explained} == served
    assert len(explained) == len(set(explained))


def test_what_takes_effect_when() -> None:
    """Each setting of a box stands in one row; the ones that capture looks at once are not in that of a reload."""
    rows = first_cells(section(ADMIN, "## Changing the configuration"))
    found = [[name for name in spans(cell) if "." in name] for cell in rows]
    names = [name for row in found for name in row]
    for setting in all_settings():
        alone, with_all = setting.name in names, f"{setting.section}.*" in names
        assert alone or with_all, f"{setting.name} is in no row"
        assert names.count(setting.name) <= 1
    reload = found[0]
    assert not [name for name in FIXED if name in reload]
    assert set(names) >= FIXED


def test_every_check_of_the_doctor_is_explained() -> None:
    cells = first_cells(section(INSTALLER, "## What the doctor checks"))
    explained = {name.strip() for cell in cells for name in cell.split(",")}
    assert explained == {title for check, title in TITLES.items() if check != "capture"}

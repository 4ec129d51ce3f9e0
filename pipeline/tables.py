"""What people see of how a job stands, of its dead letters, and of what `verify` found."""

import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.anomaly import MEANING, Anomaly
from pipeline.offsets import Reset
from pipeline.replay import Letters
from pipeline.status import ArchiveStatus, Status
from pipeline.verification import ANOMALIES, OK, Verification
from pipeline.view import View


def _table(title: str, *columns: str, words: int = 1) -> Table:
    """A table whose first `words` columns hold words and whose others hold numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < words else "right")
    return table


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def of_view(view: View) -> RenderableType:
    """How a job stands."""
    parts: list[RenderableType] = [_summary(view), _partitions(view)]
    if view.run is not None:
        parts += _run(view.run)
    if view.note:
        parts.append(Text(view.note))
    return Group(*parts)


def _summary(view: View) -> Table:
    table = Table.grid(padding=(0, 2))
    run = view.run
    rows = [("job", view.job)]
    if run is not None:
        dead = ", ".join(
            f"{reason} {count:,}" for reason, count in sorted(run.dead_letters.items())
        )
        committed = [slot.committed_at for slot in run.slots if slot.committed_at is not None]
        rows += [
            ("state", f"{run.state}, {run.delivery}, placement {run.placement.setting}"),
            ("model", f"{run.model_name} version {run.model_version}"),
            ("started", _clock(run.started_at)),
            ("as of", _clock(run.at)),
            ("records", f"{run.records_in:,} in, {run.records_out:,} out"),
            ("rate", f"{run.records_per_second:,.0f} records/s"),
            ("time lag", f"{run.time_lag:.1f} s"),
            ("last commit", _clock(max(committed, default=None))),
            ("dead letters", dead or "none"),
            ("archive", _archive(run.archive)),
        ]
    lag = "not committed to all partitions yet" if view.lag is None else f"{view.lag:,} records"
    rows.append(("lag", lag))
    for name, text in rows:
        table.add_row(Text(name, style="bold"), Text(text))
    return table


def _archive(archive: ArchiveStatus) -> str:
    return (
        f"{archive.state}: {archive.rows:,} rows in {archive.files:,} files, "
        f"{archive.pending_rows:,} pending, {archive.oldest_seconds:.0f} s behind"
    )


def _partitions(view: View) -> Table:
    table = _table(view.topic, "partition", "committed", "end", "lag", "time lag", words=0)
    ages = {one.partition: one.time_lag for one in view.run.partitions} if view.run else {}
    for one in view.partitions:
        age = f"{ages[one.partition]:.1f} s" if one.partition in ages else "-"
        cells = (_number(one.committed), _number(one.end), _number(one.lag), age)
        table.add_row(str(one.partition), *cells)
    return table


def _run(run: Status) -> list[RenderableType]:
    slots = _table(
        "slots", "state", "waiting on", "slot", "epoch", "uncommitted", "commits", words=2
    )
    for slot in run.slots:
        numbers = (slot.slot, slot.epoch, slot.uncommitted_rows, slot.commits)
        slots.add_row(slot.state, slot.waiting_on, *(f"{number:,}" for number in numbers))
    parts: list[RenderableType] = [slots]
    if run.replicas:
        replicas = _table("replicas", "state", "replica", "for", "in flight")
        for one in run.replicas:
            cells = (f"{one.seconds:,.0f} s", f"{one.in_flight:,}")
            replicas.add_row(one.state, str(one.replica), *cells)
        parts.append(replicas)
    if run.placement.reason is not None:
        chosen = f"placement ({run.placement.setting}): {run.placement.chosen}"
        parts.append(Text(f"{chosen}, as {run.placement.reason}"))
    if run.scaling.reason is not None:
        parts.append(Text(f"scaling ({run.scaling.mode}): {run.scaling.reason}"))
    return parts


def of_reset(reset: Reset) -> RenderableType:
    """Where each partition goes on, and what that means for its records."""
    counts = ("skipped, at most", "scored again, at most")
    table = _table("offsets", "partition", "from", "to", *counts)
    for move in reset.moves:
        places, made = (move.before, move.after), (move.skipped or None, move.again or None)
        table.add_row(str(move.partition), *map(_number, (*places, *made)))
    lost = [
        f"{partition}: the archive stands at {at:,}, and the log begins at {low:,}: what was "
        "removed before it was archived is not in Parquet"
        for partition, (at, low) in sorted(reset.unarchived.items())
    ]
    return Group(table, *map(Text, lost))


def of_letters(letters: Letters) -> str:
    """Dead letters by reason, a paragraph each: their messages are too long for a table."""
    parts = []
    for group in letters.groups:
        reason = " ".join(filter(None, (group.reason.stage, group.reason.exception)))
        lines = [f"{group.waiting:,} waiting, {group.replayed:,} replayed: {reason}"]
        if group.reason.message:
            lines.append(f"  {group.reason.message}")
        if group.example:
            lines.append(f"  first record: {group.example}")
        lines += [f"  its letter:   {group.letter}", f"  its value:    {group.preview}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


_STYLES = {OK: "bold green", ANOMALIES: "bold red"}


def of_verification(found: Verification) -> RenderableType:
    """What was looked at, and what is wrong with it."""
    ranges = _table(found.job, "partition", "from", "to", "records", "since the start", words=0)
    for one in found.partitions:
        whole = "yes" if one.whole else "no"
        cells = (_number(one.first), _number(one.next), _number(one.records), whole)
        ranges.add_row(str(one.partition), *cells)
    parts: list[RenderableType] = [ranges]
    if found.generation:
        parts.append(Text(f"since offsets were set anew, with layout {found.generation}"))
    repeats = f", {found.repeated:,} of them repeated" if found.repeated else ""
    parts.append(
        Text(
            f"{found.delivery}: {found.predictions:,} predictions and {found.dead_letters:,} dead "
            f"letters{repeats}; {found.files:,} Parquet files"
        )
    )
    for anomaly in found.anomalies:
        parts.append(
            Text(f"{anomaly.anomaly} in {anomaly.where}: {anomaly.count:,}", style="bold red")
        )
        parts.append(Text(f"  {anomaly.anomaly}: {MEANING[Anomaly(anomaly.anomaly)]}"))
        parts += [Text(f"  {example}") for example in anomaly.examples]
    parts += [Text(f"not checkable: {reason}") for reason in found.not_checkable]
    parts.append(Text(found.result, style=_STYLES.get(found.result, "bold yellow")))
    return Group(*parts)

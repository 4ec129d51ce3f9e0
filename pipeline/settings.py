"""From YAML to a `Config`, or to every mistake in it at once.

What each setting may hold stands in the metadata of its field (`pipeline.config`); here it is
applied. Texts may hold `${NAME}` or `${NAME:-default}`, which the environment fills in; messages
show what is written and never what the environment held.
"""

import dataclasses
import difflib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from pipeline import document, kafka_keys, schema, shapes
from pipeline.config import Config
from pipeline.errors import ConfigInvalid, Mistake
from pipeline.shapes import WrongError

# The folder that a relative output.parquet starts from; `headrace submit` sets it.
DIRECTORY = "HEADRACE_DIRECTORY"
# What Ray sets for the process that a submitted job begins with.
RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Read a job's config; relative paths in it start from the current directory.

    A relative output.parquet starts from `HEADRACE_DIRECTORY` where that is set, and a submitted
    Ray job must set it: its current directory is a copy that is deleted after it.
    Raises `ConfigInvalid` with every mistake, also where the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problem = error.strerror or type(error).__name__
        raise ConfigInvalid(
            [Mistake("config", str(path), problem, "Name the job's YAML file")]
        ) from None
    except ValueError:
        raise ConfigInvalid(
            [Mistake("config", str(path), "it is not UTF-8", "Save it as UTF-8")]
        ) from None
    content, mistakes = document.read(text, str(path))
    if content is None and mistakes:
        raise ConfigInvalid(mistakes)
    here = Path.cwd()
    output = here / environ[DIRECTORY] if environ.get(DIRECTORY) else here
    config = _parse(content, here, environ, mistakes, output)
    lost = RAY_JOB in environ and not environ.get(DIRECTORY)
    if lost and config.output.parquet.is_relative_to(here):
        problem = "lies in Ray's copy of the working directory, which is deleted after the job"
        way_out = "Start the job by `headrace submit`, or write an absolute path"
        mistake = Mistake("output.parquet", str(config.output.parquet), problem, way_out)
        raise ConfigInvalid([mistake])
    return config


def parse(content: object, base: Path, environ: Mapping[str, str]) -> Config:
    """Check a mapping such as YAML gives; relative paths in it start from `base`.

    Raises `ConfigInvalid` with every mistake.
    """
    return _parse(content, base, environ, [], base)


def _parse(
    content: object,
    base: Path,
    environ: Mapping[str, str],
    mistakes: list[Mistake],
    output: Path,
) -> Config:
    if not isinstance(content, Mapping):
        way_out = "Write at least job, model and kafka"
        mistakes.append(Mistake("config", kafka_keys.shown("", content), "is no mapping", way_out))
        raise ConfigInvalid(mistakes)
    reading = _Reading(base, output, environ, mistakes, {})
    reading.section(Config, content, "")
    mistakes.extend(_relations(reading.values))
    if mistakes:
        raise ConfigInvalid(mistakes)
    config: Config = _built(Config, reading.values, "")
    return config


def _built(section: Any, values: Mapping[str, Any], prefix: str) -> Any:
    return section(
        **{
            field.name: _built(hint, values, f"{prefix}{field.name}.")
            if is_section(hint)
            else values[prefix + field.name]
            for field, hint in settings_of(section)
        }
    )


@functools.cache
def settings_of(section: Any) -> tuple[tuple[dataclasses.Field[Any], Any], ...]:
    """Pair the fields of a section with their types, which are sections themselves for some."""
    hints = get_type_hints(section)
    return tuple((field, hints[field.name]) for field in dataclasses.fields(section))


def is_section(hint: object) -> bool:
    """Tell a section's type from the type of a setting."""
    return dataclasses.is_dataclass(hint)


def kind_of_hint(hint: Any) -> tuple[type, bool]:
    """Split a field's type into the type of its value and whether null is one too."""
    if get_origin(hint) is dict:
        return dict, False
    kinds = get_args(hint) or (hint,)
    return next(kind for kind in kinds if kind is not NoneType), NoneType in kinds


@functools.cache
def _dotted_names() -> Mapping[str, tuple[str, ...]]:
    """Where each name stands: `max_rows` at `commit.max_rows`."""
    found: dict[str, tuple[str, ...]] = {}
    for outer, section in settings_of(Config):
        if is_section(section):
            for inner, _ in settings_of(section):
                dotted = f"{outer.name}.{inner.name}"
                found[inner.name] = (*found.get(inner.name, ()), dotted)
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """One pass over a config: what is right goes to `values` by dotted name, else a mistake."""

    base: Path
    output: Path
    environ: Mapping[str, str]
    mistakes: list[Mistake]
    values: dict[str, Any]

    def wrong(self, setting: str, value: object, problem: str, way_out: str) -> None:
        self.mistakes.append(Mistake(setting, value, problem, way_out))

    def section(self, section: Any, content: Mapping[Any, Any], prefix: str) -> None:
        settings = settings_of(section)
        names = [field.name for field, _ in settings]
        for key, raw in content.items():
            if key not in names:
                value, way_out = kafka_keys.shown(key, raw), _did_you_mean(str(key), names, prefix)
                self.wrong(f"{prefix}{_printable(key)}", value, "there is no such setting", way_out)
        # The job's name comes first in `Config`, as the defaults of others follow from it.
        for field, hint in settings:
            setting = prefix + field.name
            try:
                if setting == "kafka":
                    self.kafka(content.get("kafka", {}))
                elif is_section(hint):
                    inner = self.inner(content.get(field.name, {}), field)
                    self.section(hint, inner, f"{setting}.")
                elif field.name in content:
                    raw = content[field.name]
                    self.values[setting] = self.value(raw, hint, field.metadata, setting)
                else:
                    self.default(field, hint, setting)
            except WrongError as wrong:
                raw = kafka_keys.shown(setting, content.get(field.name))
                self.wrong(setting, raw, wrong.problem, wrong.way_out)

    def inner(self, raw: object, field: dataclasses.Field[Any]) -> Mapping[Any, Any]:
        shorthand = field.metadata.get("shorthand")
        if isinstance(raw, Mapping):
            return raw
        if shorthand and isinstance(raw, int | float | str):
            return {shorthand: raw}
        raise WrongError(
            f"is {shapes.kind_of(raw)}, where settings are expected",
            f"Write {field.name}: {{name: value}}, or leave it out for the defaults",
        )

    def default(self, field: dataclasses.Field[Any], hint: Any, setting: str) -> None:
        derived = field.metadata.get("derived")
        if derived is not None:
            # Without a legal job name nothing is derived: its own mistake is enough.
            if "job" in self.values:
                text = derived.format(job=self.values["job"])
                self.values[setting] = self.start_of(setting) / text if hint is Path else text
        elif field.default is not dataclasses.MISSING:
            self.values[setting] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            self.values[setting] = field.default_factory()
        else:
            raise WrongError("is missing", f"Add {field.name}: {field.metadata['help']}")

    def value(self, raw: Any, hint: Any, facts: Mapping[str, Any], setting: str) -> Any:
        kind, optional = kind_of_hint(hint)
        if isinstance(raw, str) and "${" in raw:
            raw = document.expand(raw, self.environ)
            if kind not in (str, Path):
                raw = document.scalar(raw)
        if raw is None and optional:
            return None
        value = shapes.typed(raw, kind)
        shapes.check_range(value, facts)
        if "shape" in facts:
            shapes.CHECKS[facts["shape"]](value)
        return self.start_of(setting) / value if kind is Path else value

    def start_of(self, setting: str) -> Path:
        """Where a relative path begins."""
        return self.output if setting == "output.parquet" else self.base

    def kafka(self, content: object) -> None:
        if not isinstance(content, Mapping):
            raise WrongError(
                f"is {shapes.kind_of(content)}, where settings are expected",
                "Write librdkafka's dotted keys under it, bootstrap.servers at least",
            )
        found: dict[str, str] = {}
        for key, raw in content.items():
            try:
                found[str(key)] = kafka_keys.value(key, raw, self.environ)
            except WrongError as wrong:
                value = kafka_keys.shown(key, raw)
                self.wrong(f"kafka.{_printable(key)}", value, wrong.problem, wrong.way_out)
        if "bootstrap.servers" not in content:
            way_out = "Name a broker as host:port, or write ${KAFKA_BOOTSTRAP_SERVERS}"
            self.wrong("kafka.bootstrap.servers", None, "is missing", way_out)
        self.values["kafka"] = found


def _printable(key: object) -> str:
    text = str(key)
    return text if text.isprintable() else ascii(text)


def _did_you_mean(key: str, names: list[str], prefix: str) -> str:
    if "." in key:
        return "librdkafka's dotted keys stand under kafka"
    elsewhere = _dotted_names()
    if key in elsewhere:
        return f"Did you mean {' or '.join(elsewhere[key])}?"
    if near := difflib.get_close_matches(key, names, 1):
        return f"Did you mean {prefix}{near[0]}?"
    if near := difflib.get_close_matches(key, elsewhere, 1):
        return f"Did you mean {' or '.join(elsewhere[near[0]])}?"
    return f"Remove it; there are {', '.join(names)}"


def _relations(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Check what holds between settings, leaving out those with a mistake of their own."""
    topics: dict[str, str] = {}
    for name in ("input.topic", "output.topic", "dead_letters.topic", "journal.topic"):
        if name in values:
            # Kafka lets no two topics differ in . and _ alone, as their metrics would clash.
            first = topics.setdefault(values[name].replace(".", "_"), name)
            if first != name:
                problem = f"is the topic of {first} too, or differs from it in . and _ alone"
                yield Mistake(name, values[name], problem, "Give each its own topic")
    for low, high in (
        ("batching.max_batch_size", "commit.max_rows"),
        ("batching.max_batch_bytes", "commit.max_bytes"),
    ):
        if low in values and high in values and values[low] > values[high]:
            problem = f"is more than {high} = {values[high]}, so that no batch could be committed"
            yield Mistake(low, values[low], problem, f"Lower it, or raise {high}")
    gpu = values.get("replicas.gpu", 0.0)
    if gpu > 1 and gpu != int(gpu):
        problem = "is more than one GPU and no whole number, which Ray does not give"
        yield Mistake("replicas.gpu", gpu, problem, "Write 0.5, 1 or 2")
    if gpu and values.get("placement") == "local":
        way_out = "Write placement: remote, so that replicas are actors that Ray gives GPUs to"
        problem = "is for replicas of their own, and placement is local"
        yield Mistake("replicas.gpu", gpu, problem, way_out)
    yield from _bounds(values)
    if "group" in values and values["group"] == f"{values.get('job')}.archive":
        yield Mistake("group", values["group"], "is the archiver's own group", "Choose another")
    try:
        schema.pass_through_fields(values.get("input.pass_through", {}))
    except ConfigInvalid as invalid:
        yield from invalid.mistakes


def _bounds(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Check what the number of replicas may be where it follows the lag."""
    highest = "replicas.max_replicas"
    if values.get("placement") == "auto" and values.get(highest, 0) is None:
        highest = "replicas.count"
    least, most = values.get("replicas.min_replicas"), values.get(highest)
    if least is not None and most is None and highest in values:
        problem = "stands without replicas.max_replicas, so that the number is fixed"
        yield Mistake("replicas.min_replicas", least, problem, "Set both, or replicas: a number")
    if least is not None and most is not None and least > most:
        problem = f"is more than {highest} = {most}"
        yield Mistake("replicas.min_replicas", least, problem, f"Lower it, or raise {highest}")
    if beside := values.get("replicas.cpu_replicas"):
        if values.get("replicas.gpu") == 0:
            problem = "stands beside no replicas with a GPU, as replicas.gpu is 0"
            way_out = "Set replicas.gpu, or add these to replicas.count"
            yield Mistake("replicas.cpu_replicas", beside, problem, way_out)
        if most is not None:
            follows = "placement: auto" if highest == "replicas.count" else highest
            problem = f"does not go with {follows}: what lag needs is told of one kind"
            way_out = "Let replicas.count say how many there are, with placement: remote"
            yield Mistake("replicas.cpu_replicas", beside, problem, way_out)
    if values.get("scaling") == "observe" and most is None:
        problem = "has nothing to observe while replicas.max_replicas is null"
        yield Mistake("scaling", "observe", problem, "Set replicas.max_replicas")

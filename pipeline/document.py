"""Strict YAML, and what the environment fills in.

Plain scalars are resolved as YAML 1.2 does (https://yaml.org/spec/1.2.2/#103-core-schema), so that
`no` and `10:30` stay texts and `1e3` is a number; a time stays the text that it is. A key that
stands twice is an error; tags and aliases are refused, as a config of ten lines needs neither.
"""

import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode

from pipeline.errors import Mistake
from pipeline.shapes import WrongError

_REFERENCE = re.compile(r"\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_WAY_OUT = "Mend that line"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema of YAML 1.2; keeps the keys that stood twice."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own registry, one for each class

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[tuple[str, int]] = []

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        refused = "aliases" if isinstance(event, yaml.AliasEvent) else "tags" if event.tag else None
        if refused:
            raise ComposerError(None, None, f"{refused} are not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                if key.value in seen:
                    self.duplicates.append((key.value, key.start_mark.line + 1))
                seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first
    )


def read(text: str, name: str) -> tuple[Any, list[Mistake]]:
    """Return the document in `text` and what is wrong with it as YAML; `name` is the file's.

    No message holds a part of the text longer than a character, as it may be a secret.
    """
    try:
        loader = _Loader(text)
        document = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = 0 if mark is None else mark.line + 1
        problem = re.sub(r"'[^'<][^']+'|\"[^\"]{2,}\"", "'…'", error.problem or "it is not YAML")
        return None, [Mistake(name, f"line {line}", problem, _WAY_OUT)]
    except yaml.reader.ReaderError as error:
        position = f"character {error.position}"
        return None, [Mistake(name, position, "it is no printable text", "Save it as UTF-8")]
    except RecursionError:
        return None, [Mistake(name, "…", "it is nested too deep", "Flatten it")]
    except ValueError:
        return None, [Mistake(name, "…", "a number in it cannot be read", "Shorten it")]
    return document, [
        Mistake(name, f"line {line}", f"{key} stands there twice", "Remove one of the two")
        for key, line in loader.duplicates
    ]


def scalar(text: str) -> Any:
    """Resolve a text as the plain scalar it would be: a number, a truth value, null, or itself."""
    value, mistakes = read(text, "")
    return text if mistakes or isinstance(value, dict | list) else value


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Fill in `${NAME}` and `${NAME:-default}`; the default also counts where NAME is empty.

    Raises `WrongError` that names each variable which is not set.
    """
    unset = []

    def filled(match: re.Match[str]) -> str:
        name = _NAME.fullmatch(match[1])
        if name is None or not match[2]:
            raise WrongError("holds ${ without a name and a }", "Write ${NAME} or ${NAME:-default}")
        if name[2] is not None:
            return environ.get(name[1]) or name[2]
        if name[1] not in environ:
            unset.append(name[1])
        return environ.get(name[1], "")

    expanded = _REFERENCE.sub(filled, text)
    if unset:
        names = ", ".join(dict.fromkeys(unset))
        raise WrongError(f"the environment does not hold {names}", f"Set {names} and start again")
    return expanded

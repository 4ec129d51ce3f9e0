"""What the repository's files say about each other holds."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipeline.settings import load

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
# Written in parts, or this file would hold what it looks for.
REGISTRIES = [
    r"pypi\." + "org",
    r"python" + r"hosted\.org",
    r"repo1?\." + r"maven\.(?:org|apache\.org)",
    r"registry\." + r"npmjs\.org",
    r"crates\." + "io",
    r"proxy\." + r"golang\.org",
]
MACHINE_PATHS = ["/" + "work/", "/" + "root/", "/" + "home/", "/" + "Users/"]
# A path inside a container, which is the same on every machine.
IN_A_CONTAINER = (
    "jobs/local_broker.py",
    '_settings("0.0.0.0", port, controller_port, "/tmp/kafka")',
)


def tracked() -> list[Path]:
    """The files of the repository; without git, as in an archive of it, there are none to name."""
    asked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs a git checkout: {done.stderr.strip()}")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def lines() -> Iterator[tuple[str, str]]:
    """Each line of each text file, with its place as path:number."""
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # models and data
        for number, line in enumerate(text.splitlines(), start=1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def requirements() -> list[Requirement]:
    """The direct dependencies with those of the extras, but for `gpu`, which excludes another."""
    written = list(PROJECT["dependencies"])
    for extra, names in PROJECT["optional-dependencies"].items():
        written += names if extra != "gpu" else []
    return [one for one in map(Requirement, written) if one.name != PROJECT["name"]]


def test_services_build_and_run_what_is_there() -> None:
    """Each service has an image or a Dockerfile that exists, and names configs that load."""
    services = COMPOSE["services"]
    assert set(services) >= {"kafka", "head", "worker", "job"}
    for name, service in services.items():
        build = service.get("build")
        assert ("image" in service) != (build is not None), name
        if build is not None:
            assert (ROOT / build["context"] / build["dockerfile"]).is_file(), name
        environment = {key: str(value) for key, value in service.get("environment", {}).items()}
        for config in re.findall(r"\S+\.yaml", str(service.get("command", ""))):
            assert load(ROOT / config, environment).job, name
        for other in service.get("depends_on", ()):
            assert other in services, name


def test_the_job_of_the_services_writes_where_all_nodes_look() -> None:
    """Every Ray node mounts the folder that the job writes to, and the job is told so."""
    services = COMPOSE["services"]
    nodes = [services[name] for name in ("head", "worker", "job")]
    assert all(node["volumes"] == nodes[0]["volumes"] for node in nodes)
    environment = {key: str(value) for key, value in services["job"]["environment"].items()}
    assert load(ROOT / "configs/fraud.yaml", environment).output.shared


def test_the_image_copies_what_is_there() -> None:
    """Each source of a COPY in the Dockerfile exists."""
    text = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    assert copies
    for source in " ".join(copies).split():
        assert (ROOT / source).exists(), source


def test_each_direct_dependency_is_pinned() -> None:
    """constraints.txt pins it, to a version that pyproject.toml allows."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    pinned = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    for one in requirements():
        name = canonicalize_name(one.name)
        assert name in pinned, f"constraints.txt has no {one.name}"
        assert pinned[name] in one.specifier, f"{one} does not allow {pinned[name]}"


def test_no_file_names_a_registry() -> None:
    """Packages come from where pip and Maven are configured to look, not from a host named here."""
    wanted = re.compile("|".join(REGISTRIES))
    assert [place for place, line in lines() if wanted.search(line)] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    """No path of a developer's machine stands anywhere, nor /tmp outside of the tests."""
    wanted = re.compile(rf"(?<![\w.}}/-])({'|'.join(map(re.escape, MACHINE_PATHS))})")
    temporary = re.compile(r"(?<![\w.}/-])/tmp\b")
    found = [
        place
        for place, line in lines()
        if wanted.search(line)
        or (
            temporary.search(line)
            and not place.startswith("tests/")
            and not (place.startswith(IN_A_CONTAINER[0]) and IN_A_CONTAINER[1] in line)
        )
    ]
    assert found == []


def test_the_changelog_begins_with_this_version() -> None:
    """The newest entry of CHANGELOG.md is the version of pyproject.toml."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\S+?),? ", text, re.MULTILINE)
    assert versions[0] == PROJECT["version"]

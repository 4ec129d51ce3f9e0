"""Apache Kafka's jars from Maven Central, fetched once into the user's cache."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

POM = Path(__file__).resolve().parents[1] / "deploy" / "kafka" / "pom.xml"
OLDEST_JAVA = 17  # Kafka 4 brokers run on no older one
FETCH_SECONDS = 600.0

ELSEWHERE = "or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs already"


class BrokerUnavailable(RuntimeError):
    """No broker could be started here; the message says what is missing and the way out."""


def kafka_version() -> str:
    """Return the version that `deploy/kafka/pom.xml` names, such as "4.3.1".

    Raises:
        BrokerUnavailable: there is no such file, as in an installed wheel.
    """
    if not POM.is_file():
        raise BrokerUnavailable(
            f"{POM} is missing, which names Kafka's jars: run from a checkout, {ELSEWHERE}"
        )
    version = ElementTree.parse(POM).findtext(".//{*}kafka.version")
    if version is None:
        raise BrokerUnavailable(f"{POM} has no property kafka.version: restore it, {ELSEWHERE}")
    return version


def java() -> str:
    """Return the path of a Java runtime that Kafka accepts: `$JAVA_HOME/bin/java`, else PATH's.

    Raises:
        BrokerUnavailable: there is none, or it is older than 17.
    """
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if found is None or not Path(found).is_file():
        raise BrokerUnavailable(
            f"no Java at {found or 'PATH'}: install Java {OLDEST_JAVA} or newer, {ELSEWHERE}"
        )
    banner = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', banner)
    if version is None or int(version[1]) < OLDEST_JAVA:
        said = banner.strip().partition("\n")[0]
        raise BrokerUnavailable(
            f"{found} is {said!r}: install Java {OLDEST_JAVA} or newer, {ELSEWHERE}"
        )
    return found


def kafka_jars() -> Path:
    """Return the folder with Kafka's jars (54 MB), fetching them with Maven the first time.

    The folder appears whole or not at all, so two processes at once, or one that is interrupted,
    do no harm.

    Raises:
        BrokerUnavailable: Maven is missing or could not fetch.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"
    jars = cache / f"kafka-{kafka_version()}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailable(
            f"no mvn in PATH, and no Kafka jars in {jars} yet: install Maven once, {ELSEWHERE}"
        )
    cache.mkdir(parents=True, exist_ok=True)
    # Beside its final place, because a rename is atomic within one file system only.
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{jars.name}-") as attempt:
        fetched = Path(attempt) / "jars"
        _fetch(maven, fetched)
        try:
            fetched.rename(jars)
        except OSError:
            if not jars.is_dir():  # else another process was faster: its copy is as good
                raise
    return jars


def _fetch(maven: str, folder: Path) -> None:
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
    command += [f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=FETCH_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        last = "\n".join(error.stdout.splitlines()[-10:])
        raise BrokerUnavailable(
            f"Maven could not fetch Kafka's jars (exit {error.returncode}); mend its settings or "
            f"the network, {ELSEWHERE}. It said:\n{last}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise BrokerUnavailable(
            f"Maven did not fetch Kafka's jars within {FETCH_SECONDS:.0f} s: try again, {ELSEWHERE}"
        ) from error

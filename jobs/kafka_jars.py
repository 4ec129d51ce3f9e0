"""Apache Kafka's jars from Maven Central, fetched once into the user's cache."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

from jobs.maven import MavenFailed, copy_jars
from jobs.user_cache import made_once

POM = Path(__file__).resolve().parents[1] / "deploy" / "kafka" / "pom.xml"
OLDEST_JAVA = 17  # Kafka 4 brokers run on no older one

ELSEWHERE = "or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs already"


class BrokerUnavailable(RuntimeError):
    """No broker could be started here; the message says what is missing and the way out."""


def kafka_version() -> str:
    """Return the version that `deploy/kafka/pom.xml` names, such as "4.2.1".

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

    Raises:
        BrokerUnavailable: Maven is missing or could not fetch.
    """
    try:
        return made_once(f"kafka-{kafka_version()}", lambda folder: copy_jars(POM, folder))
    except MavenFailed as error:
        raise BrokerUnavailable(f"{error}, {ELSEWHERE}") from error

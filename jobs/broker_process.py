"""One broker's process: start, kill, stop, start again, and when it is ready."""

import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from jobs.kafka_jars import BrokerUnavailable

READY_SECONDS = 150.0  # Kafka starts in 5 to 9 s on two cores; a busy machine needs far longer
STOP_SECONDS = 30.0
# Long enough for a busy broker to answer, short enough to see soon that its process has ended.
ANSWER_SECONDS = 2.0


class BrokerProcess:
    """One broker's operating system process, which fault tests kill and start again.

    Ports, settings and data folder are part of `command`, so a restart finds the same data where
    the broker keeps any (Tansu keeps it in memory). It has one owner; no method is thread-safe.
    """

    def __init__(self, command: list[str], bootstrap: str, folder: Path) -> None:
        self.command = command
        self.bootstrap = bootstrap
        self.folder = folder
        self.log = folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, None while it is not running."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    def start(self) -> None:
        """Start, and return once the broker answers a metadata request.

        Raises:
            BrokerUnavailable: it ended early or did not answer in time.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_dies_with_parent(), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C goes to the owner, which stops the broker last
            )
        try:
            wait_ready(self.bootstrap, self)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill at once (SIGKILL), as a machine that fails would; data folder and port stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait; after 30 s it is killed."""
        self._end(signal.SIGTERM)

    def check_alive(self) -> None:
        """Raise BrokerUnavailable with the last lines of its log when the process has ended."""
        if self._process is not None and (code := self._process.poll()) is not None:
            lines = self.log.read_text(errors="replace").splitlines()
            # Kafka's jars come without a logging backend: SLF4J complains, Kafka stays silent.
            said = "\n".join([line for line in lines if not line.startswith("SLF4J:")][-15:])
            said = said or f"nothing; see whether its port is taken and {self.folder} has room"
            raise BrokerUnavailable(
                f"the broker at {self.bootstrap} ended with exit code {code}; it said: {said}"
            )

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_ready(bootstrap: str, process: BrokerProcess | None = None) -> None:
    """Wait until the broker at `bootstrap` answers a metadata request.

    Raises:
        BrokerUnavailable: `process` ended, or no answer came within `READY_SECONDS`.
    """
    admin = admin_client(bootstrap)
    deadline = time.monotonic() + READY_SECONDS
    while True:
        if process is not None:
            process.check_alive()
        try:
            if admin.list_topics(timeout=ANSWER_SECONDS).brokers:
                return
        except KafkaException as error:
            reason = error.args[0].str()
        else:
            reason = "it knows no broker yet"
        if time.monotonic() > deadline:
            way_out = "start it, or unset KAFKA_BOOTSTRAP_SERVERS to have one started"
            if process is not None:
                way_out = f"is the machine busy? Its log was {process.log}"
            raise BrokerUnavailable(
                f"no broker answered at {bootstrap} within {READY_SECONDS:.0f} s ({reason}): "
                + way_out
            )


def admin_client(bootstrap: str) -> AdminClient:
    """Return a client that keeps quiet about refused connections and tries again soon."""
    return AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 0,  # refused connections are expected here; errors arrive as exceptions
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 200,
        }
    )


def free_ports(count: int) -> list[int]:
    """Find free ports below the range that systems give to clients.

    Else a client that reconnects to a killed broker could be given the broker's port for its own
    end, and keep it from starting again.

    Raises:
        BrokerUnavailable: there are not as many.
    """
    ports: list[int] = []
    for port in random.sample(range(20_000, 30_000), 1000):
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise BrokerUnavailable(f"no {count} free ports between 20000 and 29999 on 127.0.0.1")


def _dies_with_parent() -> list[str]:
    """Have Linux end the broker when the thread that started it ends, even by SIGKILL.

    prctl(2), PR_SET_PDEATHSIG, looks at the thread; so only the main thread asks for it.
    """
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return []
    return [setpriv, "--pdeathsig", "TERM"]

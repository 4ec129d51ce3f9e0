"""Ray's job service: hands a run to a cluster, follows its log, asks how it ended."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.errors import ClusterUnfit


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended: succeeded, failed or stopped, and its exit code where it had one."""

    state: str
    exit_code: int | None


class RayJobs:
    """The job service at `address`, the dashboard of a head such as http://host:8265.

    Raises ClusterUnfit where none answers there.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            self._client = JobSubmissionClient(address)
        except AuthenticationError as problem:
            raise ClusterUnfit(
                f"--address = {address!r}: the cluster asks for a token "
                f"({str(problem).splitlines()[0]}). Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to the token that its operator gives"
            ) from problem
        except (ConnectionError, RuntimeError, ValueError) as problem:
            raise ClusterUnfit(self._refused(problem)) from problem

    def _refused(self, problem: Exception) -> str:
        return (
            f"--address = {self._address!r}: the job was not taken ({problem}). It should be the "
            "dashboard of a Ray head, as http://host:8265"
        )

    def submit(
        self,
        *,
        entrypoint: str,
        name: str,
        folder: str,
        excludes: Sequence[str],
        environment: Mapping[str, str],
    ) -> str:
        """Send `folder` without `excludes`, and have `entrypoint` run in its copy; returns the id.

        Raises ClusterUnfit where the cluster does not take it.
        """
        try:
            return str(
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=name,
                    runtime_env={
                        "working_dir": folder,
                        "excludes": list(excludes),
                        "env_vars": dict(environment),
                    },
                )
            )
        except (ConnectionError, RuntimeError, ValueError) as problem:
            raise ClusterUnfit(self._refused(problem)) from problem

    def follow(self, job_id: str, show: Callable[[str], object]) -> Ended:
        """Give the log to `show` as it grows; returns once the job has ended.

        Raises ClusterUnfit where the head is gone.
        """

        async def tail() -> None:
            async for lines in self._client.tail_job_logs(job_id):
                show(lines)

        try:
            asyncio.run(tail())
            info = self._client.get_job_info(job_id)
        except (ConnectionError, RuntimeError) as problem:
            raise ClusterUnfit(
                f"--address = {self._address!r}: the head does not answer any more ({problem}); "
                f"job {job_id} may still run"
            ) from problem
        succeeded = info.status == JobStatus.SUCCEEDED
        return Ended(str(info.status.value).lower(), 0 if succeeded else info.driver_exit_code)

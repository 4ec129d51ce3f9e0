"""A Ray of its own until its standard input ends; prints its address. Run as a script."""

import sys

import ray

CPUS = 4
OBJECT_STORE_BYTES = 256 << 20

if __name__ == "__main__":
    found = ray.init(
        num_cpus=CPUS,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
        # As a local Ray of a run's own has it.
        _system_config={"worker_niceness": 0},
    )
    print(found.address_info["gcs_address"], flush=True)
    sys.stdin.read()

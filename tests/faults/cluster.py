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
    )
    print(found.address_info["gcs_address"], flush=True)
    sys.stdin.read()

"""Throughput and latency of Headrace beside a loop without guarantees, on one real broker."""

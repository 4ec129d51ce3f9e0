"""The tasks that can be compared, by name."""

from benchmarks.crayfish import CRAYFISH
from benchmarks.recommending import RECOMMENDING
from benchmarks.workload import CARDS

TASKS = {one.name: one for one in (CARDS, RECOMMENDING, CRAYFISH)}
